"""Delta at the edge: versions, atomic replacement, idempotent appends, refused schema versions."""

from __future__ import annotations

import datetime as dt
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.errors import ConfigError, DataError, RetryableError
from sparkrec.lake import continued, migrations
from sparkrec.lake.records import finished
from sparkrec.lake.tables import ABSENT, Lake

pytestmark = pytest.mark.spark


@pytest.fixture
def lake(spark: Any, tmp_path: Any) -> Lake:
    return Lake(str(tmp_path), spark)


def vectors(lake: Lake, run: str, model: str, *values: float) -> Any:
    rows = [(run, model, i, f"u{i}", [v]) for i, v in enumerate(values)]
    return lake.spark.createDataFrame(rows, schemas.VECTORS_USERS.struct())


def content(lake: Lake, version: int | None = None) -> list[tuple[str, str, float]]:
    rows = lake.read(schemas.VECTORS_USERS, version).collect()
    return sorted((row[c.RUN_ID], row[c.MODEL], row[c.VECTOR][0]) for row in rows)


def test_overwrite_replaces_only_the_named_partitions_and_keeps_old_versions(lake: Lake) -> None:
    table = schemas.VECTORS_USERS
    first, rows = lake.overwrite(table, vectors(lake, "r1", "als", 1.0, 2.0), {c.RUN_ID: "r1", c.MODEL: "als"})
    assert rows == 2
    lake.overwrite(table, vectors(lake, "r2", "als", 3.0), {c.RUN_ID: "r2", c.MODEL: "als"})
    again, _ = lake.overwrite(table, vectors(lake, "r1", "als", 5.0), {c.RUN_ID: "r1", c.MODEL: "als"})
    assert content(lake) == [("r1", "als", 5.0), ("r2", "als", 3.0)]
    assert content(lake, first) == [("r1", "als", 1.0), ("r1", "als", 2.0)]
    assert lake.version(table) == again


def test_version_and_rows_are_those_of_deltas_own_history(lake: Lake) -> None:
    from delta.tables import DeltaTable

    table = schemas.VECTORS_USERS
    found = [lake.append(table, vectors(lake, "r1", "als", *[1.0] * n)) for n in (3, 1)]
    found.append(lake.overwrite(table, vectors(lake, "r1", "als", 1.0, 2.0), {c.RUN_ID: "r1", c.MODEL: "als"}))
    history = DeltaTable.forPath(lake.spark, lake.path(table)).history(3).orderBy("version").collect()
    assert found == [(row["version"], int(row["operationMetrics"]["numOutputRows"])) for row in history]


def test_delta_notes_of_a_file_only_what_it_may_be_skipped_by(lake: Lake) -> None:
    lake.overwrite(schemas.VECTORS_USERS, vectors(lake, "r1", "als", 1.0, 2.0))
    event = dict.fromkeys(schemas.SILVER_EVENTS.column_names) | {
        c.USER_ID: "u", c.ITEM_ID: "i", c.EVENT_TIME: dt.datetime(2024, 5, 6, 7), c.EVENT_DATE: dt.date(2024, 5, 6),
    }  # fmt: skip
    lake.overwrite(schemas.SILVER_EVENTS, lake.spark.createDataFrame([event], schemas.SILVER_EVENTS.struct()))
    found = {}
    for table in (schemas.VECTORS_USERS, schemas.SILVER_EVENTS):
        log = Path(lake.path(table), "_delta_log", f"{0:020}.json").read_text().splitlines()
        found[table.name] = [json.loads(a["add"]["stats"]) for a in map(json.loads, log) if "add" in a]
    assert sum(stats["numRecords"] for stats in found["vectors.users"]) == 2
    assert all(not stats.get("minValues") for stats in found["vectors.users"])
    (stats,) = found["silver.events"]
    assert stats["minValues"] == {c.USER_ID: "u", c.EVENT_TIME: "2024-05-06T07:00:00.000Z"}


def test_an_old_version_whose_files_are_there_is_read_and_restored(lake: Lake) -> None:
    """A weekly job goes on from a version that was committed, and replaced, more than Delta's week ago."""
    table = schemas.VECTORS_USERS
    for value in (1.0, 2.0, 3.0):
        lake.overwrite(table, vectors(lake, "r1", "als", value))
    long_ago = time.time() - 30 * 86_400
    for number in range(2):
        log = Path(lake.path(table), "_delta_log", f"{number:020}.json")
        log.with_name(f".{log.name}.crc").unlink(missing_ok=True)
        os.utime(log, (long_ago + number, long_ago + number))
    lake.spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    again = Lake(lake.root, lake.spark)
    assert content(again, 0) == [("r1", "als", 1.0)]
    again.restore(table, 1)
    assert content(again) == [("r1", "als", 2.0)]


def test_rows_outside_the_named_partition_are_refused(lake: Lake) -> None:
    with pytest.raises(Exception, match=r"replaceWhere|DELTA_REPLACE_WHERE"):
        lake.overwrite(schemas.VECTORS_USERS, vectors(lake, "r1", "als", 1.0), {c.RUN_ID: "r2", c.MODEL: "als"})


@pytest.mark.parametrize("table", [schemas.VECTORS_USERS, schemas.BRONZE_EVENTS, schemas.RUNS], ids=lambda x: x.name)
def test_a_table_comes_with_its_first_rows_in_one_commit(lake: Lake, table: schemas.Table) -> None:
    from deltalake import DeltaTable
    from pyspark.sql.types import StructType

    assert lake.prepare(table) == ABSENT
    empty = lake.spark.createDataFrame([], table.struct())
    assert lake.append(table, empty, ABSENT, {"sparkrec.more": "yes"}) == (0, 0)
    found = DeltaTable(lake.path(table))
    columns = StructType.fromJson(json.loads(found.schema().to_json()))
    for column, declared in zip(columns, table.columns, strict=True):
        assert column.metadata.pop("comment") == declared.doc
        assert column.metadata.pop("sparkrec.dataClass") == table.data_class(declared)
    assert columns[0].metadata == {migrations.SCHEMA_PROPERTY: str(schemas.SCHEMA_VERSION), "sparkrec.more": "yes"}
    columns[0].metadata = {}
    assert columns == table.struct()
    about = found.metadata()
    held = about.configuration
    assert tuple(about.partition_columns) == table.partition_by
    assert lake.append(table, empty, 0) == (1, 0)
    assert lake.append(table, lake.read(table), 1) == (2, 0)
    for name, value in (("sparkrec.more", "yes"), (migrations.SCHEMA_PROPERTY, str(schemas.SCHEMA_VERSION))):
        assert migrations.read(lake.spark, lake.path(table), name) == value, "still"
    assert (held.get("delta.enableChangeDataFeed") == "true") == table.change_feed
    assert (held.get("delta.appendOnly") == "true") == table.append_only


def test_a_table_says_what_its_columns_are(lake: Lake) -> None:
    table = schemas.SILVER_EVENTS
    lake.overwrite(table, lake.spark.createDataFrame([], table.struct()))
    rows = lake.spark.sql(f"DESCRIBE delta.`{lake.path(table)}`").collect()
    assert {row["col_name"]: row["comment"] for row in rows}["event_time"] == "when, UTC"
    classes = {field.name: field.metadata["sparkrec.dataClass"] for field in lake.read(table).schema if field.metadata}
    assert (classes["user_id"], classes["text"], classes["copies"]) == ("identifier", "personal", "public")


def test_who_comes_second_to_make_a_table(lake: Lake, monkeypatch: Any) -> None:
    table = schemas.VECTORS_USERS
    lake.append(table, vectors(lake, "r1", "als", 1.0))
    late = Lake(lake.root, lake.spark)
    monkeypatch.setattr(Lake, "_is_there", lambda self, table: False)
    with pytest.raises(RetryableError, match=r"vectors\.users .* was not there when this run read it"):
        late.append(table, vectors(lake, "r1", "als", 2.0), ABSENT)
    assert late.append(table, vectors(lake, "r2", "als", 3.0)) == (1, 1), "who needs no base goes on"
    assert content(lake) == [("r1", "als", 1.0), ("r2", "als", 3.0)]


def test_two_writers_on_one_version_are_not_both_let_through(lake: Lake) -> None:
    table = schemas.VECTORS_USERS
    lake.append(table, vectors(lake, "r0", "als", 0.0))
    base = lake.prepare(table)
    first, _ = lake.append(table, vectors(lake, "r1", "als", 1.0), base=base)
    assert first == base + 1
    for write in (lake.append, lake.overwrite):
        with pytest.raises(RetryableError, match=rf"vectors\.users .* at version {base} .* run this stage again"):
            write(table, vectors(lake, "r1", "als", 2.0), base=base)
    assert content(lake) == [("r0", "als", 0.0), ("r1", "als", 1.0)], "the second has changed nothing"
    second, _ = lake.overwrite(table, vectors(lake, "r1", "als", 3.0), base=first)
    assert second == first + 1


def test_what_another_run_took_back_is_not_recorded(lake: Lake) -> None:
    """Compacting and vacuuming since are nothing; a table that stands as it was written is kept."""
    table = schemas.VECTORS_USERS
    first, _ = lake.append(table, vectors(lake, "r1", "als", 1.0))
    mine, _ = lake.append(table, vectors(lake, "r1", "als", 2.0), base=first)
    run: Any = SimpleNamespace(lake=lake, stage="featurize", outputs={table.name: mine})
    continued.require_kept(run, [table])
    lake.spark.sql(f"OPTIMIZE delta.`{lake.path(table)}`")
    continued.require_kept(run, [table])
    lake.restore(table, first)
    with pytest.raises(RetryableError, match=r"Another run of 'featurize' .* has written vectors.users anew"):
        continued.require_kept(run, [table])


def test_run_records_are_in_order_in_the_hour_that_the_clock_shows_twice(monkeypatch: Any) -> None:
    """As Spark gives times: 01:20 UTC of that night is Berlin's second 02:20, and 00:50 the first 02:50."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        begun = [dt.datetime(2026, 10, 25, 0, 50, tzinfo=dt.UTC), dt.datetime(2026, 10, 25, 1, 20, tzinfo=dt.UTC)]
        rows = [{c.STARTED: dt.datetime.fromtimestamp(x.timestamp()), c.SECONDS: 60.0} for x in begun]
        assert [finished(row) for row in rows] == [x + dt.timedelta(seconds=60) for x in begun]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_what_was_appended_since_is_told_from_files_that_moved(lake: Lake) -> None:
    table = schemas.BRONZE_ITEMS

    def rows(*raw: str) -> Any:
        found = [("f", i, None, text, 0, None, "r") for i, text in enumerate(raw)]
        return lake.spark.createDataFrame(found, table.struct())

    first, _ = lake.append(table, rows("a", "b"))
    lake.append(table, rows("c"))
    lake.spark.sql(f"OPTIMIZE delta.`{lake.path(table)}`")
    last, _ = lake.append(table, rows("d"))
    assert sorted(row[c.RAW] for row in lake.appended(table, first + 1, last).collect()) == ["c", "d"]
    assert lake.appended(table, last + 1, last).count() == 0
    commits = lake.commits(table, first)
    assert [(commit.appends, commit.keeps_content) for commit in commits] == [
        (True, False),
        (False, True),
        (True, False),
    ]
    assert lake.restore(table, first) == last + 1
    assert sorted(row[c.RAW] for row in lake.read(table).collect()) == ["a", "b"]
    assert lake.restore(table, last + 1) == last + 1, "nothing to take back"


@pytest.mark.parametrize("left", [None, "_delta_log/.00000000000000000000.json.2f1c.tmp", "run_id=r1/part-0.parquet"])
def test_a_first_write_that_was_killed_before_its_commit_is_done_again(lake: Lake, left: str | None) -> None:
    folder = Path(lake.path(schemas.VECTORS_USERS))
    (folder / "_delta_log").mkdir(parents=True)
    if left:
        (folder / left).parent.mkdir(exist_ok=True)
        (folder / left).write_text("{")
    assert lake.prepare(schemas.VECTORS_USERS) == ABSENT
    lake.append(schemas.VECTORS_USERS, vectors(lake, "r1", "als", 1.0))
    assert content(lake) == [("r1", "als", 1.0)]


def test_missing_table_says_what_to_run(lake: Lake) -> None:
    with pytest.raises(DataError, match=r"silver\.events is not in the lake .* Run the stage"):
        lake.read(schemas.SILVER_EVENTS)


def test_table_of_a_newer_schema_version_is_refused_and_left_alone(lake: Lake, monkeypatch: Any) -> None:
    table = schemas.VECTORS_USERS
    version, _ = lake.overwrite(table, vectors(lake, "r1", "als", 1.0))
    wrote = schemas.SCHEMA_VERSION
    monkeypatch.setattr(schemas, "SCHEMA_VERSION", 1)
    other = Lake(lake.root, lake.spark)
    with pytest.raises(ConfigError, match=rf"written with schema version {wrote}, and .* version 1\."):
        other.read(table)
    with pytest.raises(ConfigError, match="Nothing was changed"):
        other.overwrite(table, vectors(lake, "r1", "als", 2.0))
    assert lake.version(table) == version


def test_columns_must_match_the_schema(lake: Lake) -> None:
    frame = vectors(lake, "r1", "als", 1.0).drop(c.VECTOR).withColumnRenamed(c.MODEL, "modle")
    with pytest.raises(ValueError, match=r"missing \['model', 'vector'\], surplus \['modle'\]"):
        lake.overwrite(schemas.VECTORS_USERS, frame)


def test_tables_are_readable_without_spark(lake: Lake) -> None:
    from deltalake import DeltaTable

    lake.overwrite(schemas.VECTORS_USERS, vectors(lake, "r1", "als", 1.0, 2.0))
    table = DeltaTable(lake.path(schemas.VECTORS_USERS))
    assert table.to_pyarrow_table().num_rows == 2
