"""What the test part asks for: not what no model may answer with."""

from __future__ import annotations

import datetime as dt

import pytest

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.evaluation import holdout
from sparkrec.evaluation.splits import Borders
from sparkrec.features import activity

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
    number, split = list(brands).index, SPLIT.replace(tzinfo=dt.UTC)

    def frame(table, rows):
        return spark.createDataFrame([dict.fromkeys(table.column_names) | row for row in rows], table.struct())

    one, other = {c.USER_INDEX: 0}, {c.USER_INDEX: 1}  # the other one comes back to tea, and to nothing else
    asked_for = frame(
        schemas.GOLD_HOLDOUT,
        [one | {c.USER_ID: "u", c.ITEM_ID: item, c.ITEM_INDEX: number(item)} for item in brands]
        + [other | {c.USER_ID: "v", c.ITEM_ID: "tea", c.ITEM_INDEX: number("tea")}],
    )
    done = {item: {how for name, _, how in MET if name == item} for item in brands}
    pairs = frame(
        schemas.GOLD_PAIRS,
        [one | {c.ITEM_ID: item, c.TYPES: sum(map(activity.bit, how))} for item, how in done.items() if how]
        + [other | {c.ITEM_ID: "tea", c.TYPES: activity.bit(c.VIEW)}],
    )
    events = {
        c.ITEM_INDEX: [number(item) for item, _, _ in MET],
        c.EVENT_TYPE: [c.EVENT_TYPES.index(how) for _, _, how in MET],
        c.EVENT_TIME: [int((split - dt.timedelta(days=days)).timestamp()) for _, days, _ in MET],
    }
    (tea,) = [n for n, (item, _, _) in enumerate(MET) if item == "tea"]
    sequences = frame(
        schemas.GOLD_SEQUENCES, [one | events, other | {name: values[tea : tea + 1] for name, values in events.items()}]
    )
    items = frame(
        schemas.GOLD_ITEMS,
        [{c.ITEM_ID: x, c.ITEM_INDEX: number(x), c.BRAND: brand, c.AS_OF: split} for x, brand in brands.items()],
    )
    found = holdout.answerable(asked_for, pairs, sequences, items, settings)
    assert {row[c.ITEM_ID] for row in found.where(f"{c.USER_ID} = 'u'").collect()} == asked
    counted = holdout.counts(found, asked_for)
    assert counted["test_users"] + counted["test_users_only_seen"] == 2
    assert counted["test_users_only_seen"] == (kind == "time"), "who is asked for nothing is no test user"


def test_a_new_kind_of_postage_is_not_asked_for(spark):
    """Of what was unknown at the split the catalogue decides, of what was known nothing later."""
    before, after, end = (SPLIT + dt.timedelta(days=days) for days in (-9, 3, 10))
    told = [
        ("postage", after, False), ("postage", end, False), ("announced", after, False), ("announced", end, True),
        ("hat", after, True), ("hat", end, False), ("known", before, True), ("known", after, False),
        ("of the log", after, False), ("of the last day", end, False),
        ("told too late", end + dt.timedelta(days=1), False), ("once no goods", before, False),
        ("once no goods", SPLIT, True),
    ]  # fmt: skip
    catalogue = spark.createDataFrame(
        [(item, since.replace(tzinfo=dt.UTC), for_sale) for item, since, for_sale in told],
        f"{c.ITEM_ID} string, {c.VALID_FROM} timestamp, {c.FOR_SALE} boolean",
    )
    index = {"known": 0, "of the log": 1}
    asked = [{c.USER_ID: "u", c.ITEM_ID: item, c.ITEM_INDEX: index.get(item)} for item in {item for item, *_ in told}]
    frame = spark.createDataFrame(
        [dict.fromkeys(schemas.GOLD_HOLDOUT.column_names) | row for row in asked], schemas.GOLD_HOLDOUT.struct()
    )
    found = holdout.of_goods(frame, catalogue, Borders(before, SPLIT, SPLIT, end))
    assert {row[c.ITEM_ID] for row in found.collect()} == {
        "announced", "hat", "known", "of the log", "told too late", "once no goods",
    }  # fmt: skip
