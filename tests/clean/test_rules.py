import datetime as dt
import re
from pathlib import Path

import pytest

from sparkrec import columns as c
from sparkrec.clean import funnels, outliers, rules
from sparkrec.config import Clean

pytestmark = pytest.mark.spark

GOOD = {
    "user_id": "u", "item_id": "a", "event_type": "purchase", "event_time": "2011-12-09 12:00:00", "value": "2",
    "price": "1.5", "known_item": True,
}  # fmt: skip

EMPTY = ("currency", "query", "text", "session_id", "order_id", "country", "split", "item_name", "item_brand",
         "item_category")  # fmt: skip

# what is changed in a good purchase → the rules it breaks, in order
EVENTS = [
    ({}, []),
    ({"price": None}, []),
    ({"value": None}, []),
    ({"event_type": "view", "value": None, "price": None}, []),
    ({"event_type": "view", "price": "0"}, []),
    ({"event_type": "search", "item_id": None, "value": None}, []),
    ({"event_type": "cancel", "value": "-2"}, []),
    ({"event_type": "review", "value": None, "price": None}, []),
    ({"event_type": "rating", "value": "5"}, []),
    ({"event_time": "2011-12-31 23:59:59"}, []),
    ({"malformed": "3 columns, expected 8", "user_id": None, "item_id": None}, ["malformed"]),
    ({"event_type": "adjustment"}, ["unknown_event_type"]),
    ({"event_type": None}, ["unknown_event_type"]),
    ({"user_id": " "}, ["missing_user"]),
    ({"user_id": None, "price": "0"}, ["missing_user", "bad_price"]),
    ({"item_id": None}, ["missing_item"]),
    ({"event_time": "soon"}, ["unreadable_time"]),
    ({"event_time": None}, ["unreadable_time"]),
    ({"event_time": "1994-12-31 23:59:59"}, ["impossible_time"]),
    ({"event_time": "2012-01-01 00:00:00"}, ["impossible_time"]),
    ({"value": "two"}, ["value_not_a_number"]),
    ({"price": "free"}, ["price_not_a_number"]),
    ({"event_type": "rating", "value": "5.5"}, ["bad_rating"]),
    ({"event_type": "rating", "value": "0"}, ["bad_rating"]),
    ({"event_type": "rating", "value": None}, ["bad_rating"]),
    ({"event_type": "rating", "value": " "}, ["bad_rating"]),
    ({"value": "0"}, ["bad_quantity"]),
    ({"value": "-1"}, ["bad_quantity"]),
    ({"value": "1000001"}, ["bad_quantity"]),
    ({"event_type": "cancel", "value": "0"}, ["bad_quantity"]),
    ({"event_type": "cancel", "value": "-1000001"}, ["bad_quantity"]),
    ({"price": "0"}, ["bad_price"]),
    ({"price": "-1"}, ["bad_price"]),
    ({"event_type": "view", "price": "-1"}, ["bad_price"]),
    ({"price": "1000001"}, ["bad_price"]),
    ({"known_item": False}, ["unknown_item"]),
    ({"known_item": False, "item_id": None, "event_type": "search"}, []),
]


@pytest.fixture(scope="module")
def checked(spark):
    names = [*GOOD, "malformed", *EMPTY]
    rows = [[i, *[(GOOD | change).get(name) for name in names]] for i, (change, _) in enumerate(EVENTS)]
    types = ", ".join(f"{name} {'boolean' if name == 'known_item' else 'string'}" for name in names)
    frame = rules.parse_events(spark.createDataFrame(rows, f"i int, {types}"))
    result = rules.check(frame, rules.event_rules(Clean(), latest=dt.date(2011, 12, 31)))
    return {row["i"]: row for row in result.collect()}


@pytest.mark.parametrize("number", range(len(EVENTS)), ids=[str(change) for change, _ in EVENTS])
def test_an_event_breaks_exactly_these_rules(checked, number):
    expected = EVENTS[number][1]
    row = checked[number]
    assert row[c.RULES] == expected
    assert row[c.RULE] == (expected[0] if expected else None)
    assert (row[c.REASON] is not None) == bool(expected)


def test_the_reason_names_what_was_found_and_what_was_expected(checked):
    by_change = {str(change): checked[i] for i, (change, _) in enumerate(EVENTS)}
    assert by_change["{'price': '-1'}"][c.REASON] == (
        "price is '-1'; expected a price of at most 1,000,000, and above 0 for a purchase"
    )
    assert by_change["{'user_id': ' '}"][c.REASON] == "user_id is missing; expected a user id"
    assert by_change["{'event_time': '2012-01-01 00:00:00'}"][c.REASON] == (
        "event_time is '2012-01-01 00:00:00'; expected a day from 1995-01-01 to 2011-12-31"
    )
    malformed = checked[next(i for i, (change, _) in enumerate(EVENTS) if "malformed" in change)]
    assert malformed[c.REASON] == "3 columns, expected 8; expected a line in the source's format"


def test_catalogue_rows(spark, canonical_items):
    cases = [
        ({"item_id": "a", "price": None}, None),
        ({"item_id": "a", "price": "0", "stock": "3", "promotion": "0.25", "valid_from": "2020-01-01"}, None),
        ({"item_id": ""}, "missing_item"),
        ({"item_id": "a", "valid_from": "long ago"}, "unreadable_time"),
        ({"item_id": "a", "price": "1,234"}, "price_not_a_number"),
        ({"item_id": "a", "stock": "many"}, "stock_not_a_number"),
        ({"item_id": "a", "stock": "-1"}, "bad_stock"),
        ({"item_id": "a", "promotion": "20"}, "bad_promotion"),
        ({"item_id": "a", "price": "-2"}, "bad_price"),
        ({"malformed": "cut short"}, "malformed"),
    ]
    frame = canonical_items([case for case, _ in cases])
    checked = rules.check(rules.parse_items(frame), rules.item_rules(Clean())).orderBy(c.LINE).collect()
    assert [row[c.RULE] for row in checked] == [rule for _, rule in cases]


def test_the_data_contract_has_a_row_for_every_rule(spark):
    text = (Path(__file__).parents[2] / "docs" / "data_contract.md").read_text()
    cells = re.findall(r"^\| ([a-z_, !]+) \|", text, re.MULTILINE)
    named = {name for cell in cells for name in cell.replace(" !", "").split(", ")}
    declared = rules.event_rules(Clean(), dt.date(2020, 1, 1)) + rules.item_rules(Clean())
    declared += outliers.declared() + funnels.declared()
    assert [rule.name for rule in declared if rule.name not in named] == []
