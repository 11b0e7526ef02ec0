from collections import Counter

import pytest
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.clean import duplicates, silver
from sparkrec.config import Clean
from sparkrec.persistence import persisted

pytestmark = pytest.mark.spark


def _distinct(events, day="2024-05-06"):
    """Merged, after they were judged; ingested on that day."""
    came = {c.HEADER: F.lit(None).cast("string"), c.INGEST_TIME: F.lit(day).cast("timestamp")}
    return duplicates.merge_exact(_typed(events, came))


def _typed(events, came):
    return silver.typed(silver.checked(events.withColumns(came), None, Clean()))


def test_exact_repeats_are_one_row_whatever_their_file(canonical_events):
    same = {"user_id": "u", "item_id": "a", "event_type": "view", "event_time": "2020-01-01 00:00:00"}
    rows = [
        same | {"source_file": "b.csv", "line": 1},
        same | {"source_file": "a.csv", "line": 12},
        same | {"source_file": "a.csv", "line": 9},
        same | {"source_file": "a.csv", "line": 10, "price": "1"},
        # nulls and blanks in neighbouring columns must not look alike
        same | {"source_file": "c.csv", "line": 1, "value": "", "price": None},
        same | {"source_file": "c.csv", "line": 2, "value": None, "price": ""},
        {"source_file": "d.csv", "line": 1, "malformed": "no columns", "raw": "xx"},
        {"source_file": "d.csv", "line": 2, "malformed": "another sentence", "raw": "xx"},
        {"source_file": "d.csv", "line": 3, "malformed": "no columns", "raw": "yy"},
    ]
    found = _distinct(canonical_events(rows)).collect()
    merged = sorted((row[c.SOURCE_FILE], row[c.LINE], row[c.COPIES]) for row in found)
    assert merged == [
        ("a.csv", 9, 3), ("a.csv", 10, 1), ("c.csv", 1, 1), ("c.csv", 2, 1), ("d.csv", 1, 2), ("d.csv", 3, 1),
    ]  # fmt: skip
    assert len({row[c.EVENT_ID] for row in found}) == len(found)


def test_the_id_does_not_depend_on_the_order_of_files(canonical_events):
    rows = [{"user_id": f"u{i % 3}", "item_id": "a", "event_type": "view", "event_time": f"t{i % 2}"} for i in range(9)]
    one = {r[c.EVENT_ID] for r in _distinct(canonical_events(rows)).collect()}
    other = {r[c.EVENT_ID] for r in _distinct(canonical_events(rows[::-1], source_file="z")).collect()}
    assert one == other
    assert len(one) == 6


def test_of_copies_the_first_stays_and_the_newest_ingest_decides(canonical_events):
    event = {"user_id": "u", "item_id": "a", "event_type": "view", "event_time": "2024-05-08 12:00:00", "raw": "r"}
    first = canonical_events([event | {"source_file": "a", "line": 1}])
    again = canonical_events([event | {"source_file": "b", "line": 1}])

    def on(day):
        return {c.HEADER: F.lit(None).cast("string"), c.INGEST_TIME: F.lit(day).cast("timestamp")}

    before = _typed(first, on("2024-05-06")), _typed(again, on("2024-05-07"))
    row = duplicates.merge_exact(before[0].unionByName(before[1])).collect()[0]
    assert (row[c.SOURCE_FILE], row[c.COPIES], row[c.RULE], row[c.RULES]) == (
        "a", 2, "impossible_time", ["impossible_time"],
    )  # fmt: skip
    assert str(row[c.INGEST_TIME])[:10] == "2024-05-07"
    row = duplicates.merge_exact(before[0].unionByName(_typed(again, on("2024-05-08")))).collect()[0]
    assert (row[c.SOURCE_FILE], row[c.COPIES], row[c.RULE], row[c.RULES], row[c.REASON]) == ("a", 2, None, [], None)


def test_rows_without_a_user_merge_and_do_not_meet_in_one_task(canonical_events):
    rows = [{"user_id": None if i % 2 else " ", "item_id": f"i{i % 10}"} for i in range(40)]
    rows += [{"user_id": "u", "malformed": "cut off", "raw": raw} for raw in "xyx"]
    found = _distinct(canonical_events(rows)).collect()
    copies = Counter(row[c.COPIES] for row in found)
    assert copies == {4: 10, 2: 1, 1: 1}, "null and blank are two contents, each with five items; x came twice"
    assert len({row[c.USER_ID] for row in found}) == len(found)


def test_a_day_of_long_ago_is_a_folder_only_where_it_is_not_refused(canonical_events):
    event = {"user_id": "u", "item_id": "a", "event_type": "view", "event_time": "1990-01-01 00:00:00", "raw": "r"}
    came = {c.HEADER: F.lit(None).cast("string"), c.INGEST_TIME: F.lit("2024-05-06").cast("timestamp")}
    found = {}
    for severity in ("quarantine", "warn"):
        settings = Clean.model_validate({"rules": {"impossible_time": {"severity": severity}}})
        row = silver.checked(canonical_events([event]).withColumns(came), None, settings).collect()[0]
        found[severity] = row[c.RULE], row[c.EVENT_DATE] and str(row[c.EVENT_DATE])
    assert found == {"quarantine": ("impossible_time", None), "warn": (None, "1990-01-01")}


def test_a_log_is_not_shuffled_to_look_up_its_items(spark, canonical_events):
    """Also of a catalogue that Spark takes for too large; a row goes through one shuffle, to be merged."""
    events = canonical_events([{"user_id": "u", "item_id": item, "event_type": "view"} for item in ("a", "b")])
    events = events.withColumns(
        {c.HEADER: F.lit(None).cast("string"), c.INGEST_TIME: F.lit("2024-05-06").cast("timestamp")}
    )
    items = spark.createDataFrame([("a",), ("a",)], "item_id string")
    threshold = "spark.sql.autoBroadcastJoinThreshold"
    before = spark.conf.get(threshold)
    spark.conf.set(threshold, "-1")
    try:
        found = {}
        for few in (True, False):
            rows = silver.Judge(lambda bronze: bronze, items, Clean(), few).typed(events)
            found[few] = rows._jdf.queryExecution().executedPlan().toString()
            assert {row[c.ITEM_ID]: "unknown_item" in row[c.RULES] for row in rows.collect()} == {"a": False, "b": True}
    finally:
        spark.conf.set(threshold, before)
    assert "BroadcastHashJoin" in found[True]
    assert "SortMergeJoin" in found[False]


def test_merged_rows_are_linked_without_another_shuffle(canonical_events):
    rows = persisted(_distinct(canonical_events([{"user_id": "u", "item_id": "a", "event_type": "view"}])))
    plan = silver.linked(silver.accepted(rows), None, Clean())._jdf.queryExecution().executedPlan().toString()
    assert "Window" in plan
    assert "Exchange" not in plan


def _events(spark, seconds, **columns):
    rows = [(f"e{i}", "u", "a", "view", None, second) for i, second in enumerate(seconds)]
    frame = spark.createDataFrame(rows, "event_id string, user_id string, item_id string, event_type string, "
                                        "query string, at long")  # fmt: skip
    return frame.selectExpr(
        "*", "timestamp_seconds(at) AS event_time", "false AS _before", "CAST(NULL AS STRING) AS merged_into"
    )


def _merged(events, seconds):
    """time → time of the event that it repeats, or None"""
    rows = duplicates.mark_near(events, seconds).collect()
    times = {row[c.EVENT_ID]: row["at"] for row in rows}
    return {row["at"]: times.get(row[c.MERGED_INTO]) for row in rows}


def test_near_repeats_are_chains(spark):
    events = _events(spark, [0, 2, 4, 7, 10, 100])
    assert _merged(events, 2) == {0: None, 2: 0, 4: 0, 7: None, 10: None, 100: None}
    assert _merged(events, 3) == {0: None, 2: 0, 4: 0, 7: 0, 10: 0, 100: None}


def test_near_repeats_of_other_users_items_or_types_stay_apart(spark):
    events = _events(spark, [0, 0, 0]).withColumn(
        "user_id", F.when(F.col("event_id") == "e1", "v").otherwise(F.col("user_id"))
    )
    events = events.withColumn("item_id", F.when(F.col("event_id") == "e2", None).otherwise(F.col("item_id")))
    for seconds in (5, 0):
        assert [r[c.MERGED_INTO] for r in duplicates.mark_near(events, seconds).collect()] == [None] * 3
