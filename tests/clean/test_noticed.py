"""Rules over many rows, on a log worked by hand: outliers of a category, visits that contradict themselves."""

import pytest
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.clean import funnels, outliers, silver
from sparkrec.config import Clean

pytestmark = pytest.mark.spark


def event(user, item, kind, time, price=None, category="Lamps", value="1"):
    return {
        "user_id": user, "item_id": item, "event_type": kind, "event_time": f"2024-05-05 {time}", "price": price,
        "value": value if kind == "purchase" else None, "item_category": category,
    }  # fmt: skip


@pytest.fixture(scope="module")
def checked(spark, canonical_events):
    rows = [
        # Prices 8, 9, 10, 11, 12: quartiles 9 and 11, so the scale is at least 0.5: 500 is ln 50 / 0.5 = 7.8 from the
        # median of 10; 150 is 5.4 from it.
        *[event("u1", f"i{n}", "view", f"10:0{n}:00", str(8 + n)) for n in range(5)],
        event("u1", "dear", "view", "10:10:00", "500"),
        event("u1", "dearer than most", "view", "10:11:00", "150"),
        # A category of its own is its own measure.
        event("u1", "villa", "view", "10:12:00", "500000", "Houses"),
        # Bought two hours before it was looked at; bought and looked at ten minutes later.
        event("u2", "i1", "purchase", "08:00:00", "9"),
        event("u2", "i1", "view", "10:00:00", "9"),
        event("u3", "i1", "purchase", "08:00:00", "9"),
        event("u3", "i1", "view", "08:10:00", "9"),
        # Removed without having been put in; after; before it was put in.
        event("u4", "i2", "remove", "09:00:00"),
        event("u5", "i2", "cart", "09:00:00", "10"),
        event("u5", "i2", "remove", "09:01:00"),
        event("u6", "i2", "remove", "09:00:00"),
        event("u6", "i2", "cart", "09:01:00", "10"),
    ]
    came = {c.HEADER: F.lit(None).cast("string"), c.INGEST_TIME: F.lit("2024-05-06").cast("timestamp")}
    frame = silver.checked(canonical_events(rows).withColumns(came), None, Clean()).persist()
    assert frame.where(f"{c.RULE} IS NOT NULL").count() == 0
    yield frame
    frame.unpersist()


def _outliers(checked, settings):
    return outliers.notice(silver.accepted(silver.typed(checked)), None, settings)


def test_outliers(checked):
    found = {rule.name: (n, example) for rule, n, example in _outliers(checked, Clean())}
    assert found == {"outlier_price": (1, "item dear: 500"), "outlier_quantity": (0, None)}
    tuned = Clean.model_validate({"rules": {"outlier_price": {"z": 5}, "outlier_quantity": {"enabled": False}}})
    assert [(rule.name, n) for rule, n, _ in _outliers(checked, tuned)] == [("outlier_price", 2)]
    assert _outliers(checked, Clean.model_validate(
        {"rules": {name: {"enabled": False} for name in ("outlier_price", "outlier_quantity")}}
    )) == []  # fmt: skip


def test_an_outlier_may_be_refused(checked):
    strict = Clean.model_validate({"rules": {"outlier_price": {"severity": "quarantine"}}})
    refused = outliers.refuse(silver.typed(checked), None, strict).where(f"{c.RULE} IS NOT NULL").collect()
    assert [(row[c.ITEM_ID], row[c.RULE], row[c.RULES]) for row in refused] == [
        ("dear", "outlier_price", ["outlier_price"])
    ]
    assert refused[0][c.REASON].startswith("price is 500.0; expected a price usual in its category")


def test_a_refused_outlier_keeps_its_raw_text_and_a_good_row_has_none(canonical_events):
    rows = [event("u1", f"i{n}", "view", f"10:0{n}:00", price) for n, price in enumerate(["8", "9", "10", "11", "500"])]
    came = {c.HEADER: F.lit(None).cast("string"), c.INGEST_TIME: F.lit("2024-05-06").cast("timestamp")}
    events = canonical_events([row | {"raw": row["item_id"]} for row in rows]).withColumns(came)
    strict = Clean.model_validate({"rules": {"outlier_price": {"severity": "quarantine"}}})
    found = silver.Judge(lambda bronze: bronze, None, strict).typed(events).collect()
    assert {row[c.ITEM_ID]: (row[c.RULE], row[c.RAW]) for row in found} == {
        **{f"i{n}": (None, None) for n in range(4)}, "i4": ("outlier_price", "i4"),
    }  # fmt: skip


def test_visits_that_contradict_themselves(checked):
    events = silver.accepted(silver.typed(checked))
    found = {rule.name: (n, example) for rule, n, example in funnels.notice(events, Clean())}
    assert found == {
        "purchase_before_view": (1, "item i1 at 2024-05-05 08:00"),
        "remove_without_cart": (2, "item i2 at 2024-05-05 09:00"),
    }
