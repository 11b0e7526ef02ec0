"""What the test part asks for: not what no model may answer with."""

from __future__ import annotations

import datetime as dt

import pytest

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.evaluation import holdout

pytestmark = pytest.mark.spark

SPLIT = dt.datetime(2026, 3, 1)
#: (item, days before the split, how): all met by one user, who comes back to each of them.
MET = [
    ("coffee", 40, c.PURCHASE),
    ("coffee", 31, c.VIEW),
    ("tea", 29, c.VIEW),
    ("mug", 400, c.VIEW),
    ("pot", 3, c.CART),
]


@pytest.mark.parametrize(
    ("recommend", "kind", "asked"),
    [
        ({}, "time", {"new"}),
        ({"exclude_seen": ["view", "purchase"]}, "time", {"new", "pot"}),
        ({"seen_days": 300}, "time", {"new", "mug"}),
        ({"rules": [{"name": "x", "items": "brand = 'drink'", "again_after_days": 30}]}, "time", {"new", "coffee"}),
        ({}, "leave_one_out", {"new", "coffee", "tea", "mug", "pot"}),
    ],
)
def test_what_is_forgotten_is_asked_for_again(spark, make_settings, recommend, kind, asked):
    settings = make_settings(recommend=recommend, split={"kind": kind})
    brands = {"coffee": "drink", "tea": "drink", "mug": "ware", "pot": "ware", "new": "ware"}
    pairs = spark.createDataFrame([("u", item) for item in brands], "user_id string, item_id string")
    train = spark.createDataFrame(
        [("u", item, kind, (SPLIT - dt.timedelta(days=days)).replace(tzinfo=dt.UTC)) for item, days, kind in MET],
        "user_id string, item_id string, event_type string, event_time timestamp",
    )
    empty = dict.fromkeys(schemas.GOLD_ITEMS.column_names)
    rows = [empty | {c.ITEM_ID: item, c.BRAND: brand} for item, brand in brands.items()]
    items = spark.createDataFrame(rows, schemas.GOLD_ITEMS.struct())
    found = holdout.answerable(pairs, train, settings, items, SPLIT).collect()
    assert {row[c.ITEM_ID] for row in found} == asked
