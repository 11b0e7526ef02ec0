import pytest

from sparkrec import columns as c
from sparkrec.clean import catalogue
from sparkrec.config import Clean

pytestmark = pytest.mark.spark


def _history(frame):
    rows = catalogue.history(catalogue.checked(frame, Clean()), Clean()).collect()
    return sorted(rows, key=lambda row: (row[c.ITEM_ID], row[c.VALID_FROM]))


def test_equal_snapshots_are_merged_and_changes_kept(canonical_items):
    rows = [
        {"item_id": "a", "valid_from": "2020-01-01", "price": "5", "attributes": {"colour": "red"}},
        {"item_id": "a", "valid_from": "2020-01-02", "price": "5", "attributes": {"colour": "red"}},
        {"item_id": "a", "valid_from": "2020-01-03", "price": "6", "attributes": {"colour": "red"}},
        {"item_id": "a", "valid_from": "2020-01-04", "price": "5", "attributes": {"colour": "red"}},
        {"item_id": "a", "valid_from": "2020-01-05", "price": "oops"},
        # two rows for one time: the later line holds
        {"item_id": "b", "valid_from": "2020-01-01", "name": "Old"},
        {"item_id": "b", "valid_from": "2020-01-01", "name": "New", "category": "Home > Mugs", "for_sale": "False"},
        {"item_id": "c", "name": "Timeless", "stock": "2"},
    ]
    found = _history(canonical_items(rows))
    assert [(r[c.ITEM_ID], f"{r[c.VALID_FROM]:%Y-%m-%d}", r[c.PRICE], r[c.NAME], r[c.COPIES]) for r in found] == [
        ("a", "2020-01-01", 5.0, None, 2),
        ("a", "2020-01-03", 6.0, None, 1),
        ("a", "2020-01-04", 5.0, None, 1),
        ("b", "2020-01-01", None, "New", 2),
        ("c", "1995-01-01", None, "Timeless", 1),
    ]
    assert [r[c.FOR_SALE] for r in found] == [True, True, True, False, True]
    assert found[3][c.CATEGORY] == ["Home", "Mugs"]
    assert found[0][c.ATTRIBUTES] == {"colour": "red"}


LOG = [
    # item, day, name
    ("a", 1, "lantern"), ("a", 1, "LANTERN"),  # a tie: the lexicographically first, 'LANTERN'
    ("a", 2, "lantern"),  # 2 to 1
    ("a", 3, "Lamp"), ("a", 3, "Lamp"), ("a", 3, "Lamp"),  # 3 to 2
    ("a", 4, "Lamp"),  # nothing new
    ("b", 1, None), ("b", 2, None),  # never described
    ("c", 1, None), ("c", 3, "Mug"),  # described late
]  # fmt: skip


def _from_log(spark, log):
    rows = [(item, f"2020-01-0{day}", name) for item, day, name in log]
    events = spark.createDataFrame(rows, "item_id string, day string, item_name string").selectExpr(
        "*", "CAST(day AS DATE) AS event_date", "CAST(NULL AS STRING) AS item_brand",
        "IF(item_name = 'Mug', 'Home > Mugs', NULL) AS item_category",
    )  # fmt: skip
    rows = catalogue.from_log(catalogue.item_days(events)).collect()
    return sorted((r[c.ITEM_ID], r[c.VALID_FROM].day, r[c.NAME]) for r in rows), rows


def test_the_log_describes_its_items_as_of_each_day(spark):
    found, rows = _from_log(spark, LOG)
    assert found == [
        ("a", 2, "LANTERN"), ("a", 3, "lantern"), ("a", 4, "Lamp"), ("b", 2, None), ("c", 2, None), ("c", 4, "Mug"),
    ]  # fmt: skip
    assert [r[c.CATEGORY] for r in rows if r[c.NAME] == "Mug"] == [["Home", "Mugs"]]
    assert all(r[c.FOR_SALE] and r[c.COPIES] == 0 for r in rows)


def test_later_events_do_not_change_what_was_known(spark):
    before, _ = _from_log(spark, [row for row in LOG if row[1] <= 2])
    after, _ = _from_log(spark, LOG)
    assert before == [row for row in after if row[1] <= 3]


def test_the_catalogue_wins_and_what_is_no_goods_is_not_for_sale(spark, canonical_items):
    known = catalogue.history(
        catalogue.checked(canonical_items([{"item_id": "a", "name": "Listed"}, {"item_id": "POST"}]), Clean()), Clean()
    )
    rows = [("a", "2020-01-01", "Logged"), ("x", "2020-01-01", "Logged")]
    events = spark.createDataFrame(rows, "item_id string, day string, item_name string").selectExpr(
        "*", "CAST(day AS DATE) AS event_date", "CAST(NULL AS STRING) AS item_brand",
        "CAST(NULL AS STRING) AS item_category",
    )  # fmt: skip
    log_items = catalogue.from_log(catalogue.item_days(events))
    found = catalogue.finished(known, log_items, lambda item: item != "POST").collect()
    assert {(r[c.ITEM_ID], r[c.NAME], r[c.FOR_SALE]) for r in found} == {
        ("a", "Listed", True), ("POST", None, False), ("x", "Logged", True),
    }  # fmt: skip
    assert catalogue.finished(known, None, lambda item: item != "POST").count() == 2


def test_a_later_catalogue_row_says_nothing_of_the_past(spark, canonical_items):
    """Until the catalogue begins to speak of an item, what the log said of it holds."""
    listed = [{"item_id": "a", "name": "Listed", "valid_from": "2020-01-03"},
              {"item_id": "a", "name": "Listed again", "valid_from": "2020-01-09"}]  # fmt: skip
    known = catalogue.history(catalogue.checked(canonical_items(listed), Clean()), Clean())
    log = [("a", "2020-01-01", "one"), ("a", "2020-01-02", "two"), ("a", "2020-01-02", "two"), ("a", "2020-01-05", "x"),
           ("b", "2020-01-05", "other")]  # fmt: skip
    events = spark.createDataFrame(log, "item_id string, day string, item_name string").selectExpr(
        "*", "CAST(day AS DATE) AS event_date", "CAST(NULL AS STRING) AS item_brand",
        "CAST(NULL AS STRING) AS item_category",
    )  # fmt: skip
    log_items = catalogue.from_log(catalogue.item_days(events))
    found = catalogue.finished(known, log_items, lambda item: item != "POST").collect()
    # "two" and the first row of the catalogue begin at the same midnight.
    assert sorted((r[c.ITEM_ID], r[c.VALID_FROM].day, r[c.NAME]) for r in found) == [
        ("a", 2, "one"), ("a", 3, "Listed"), ("a", 9, "Listed again"), ("b", 6, "other"),
    ]  # fmt: skip
