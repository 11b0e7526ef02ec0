"""What is mended and to what, worked by hand; switched off, the value stays as the log has it."""

import random

import pytest
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.clean import parsing, rules
from sparkrec.config import Clean

pytestmark = pytest.mark.spark

# the column, its text, what becomes of it, the rules that say so
EVENTS = [
    ("price", "12.5", 12.5, []),
    ("price", "12,5", 12.5, ["decimal_comma"]),
    ("price", "1.234,50", 1234.5, ["decimal_comma"]),
    ("price", "1,234.50", 1234.5, ["decimal_comma"]),
    ("price", "1 234,50", 1234.5, ["decimal_comma"]),
    ("price", "1.234.567", 1234567.0, ["decimal_comma"]),
    ("price", "1,234", None, []),  # one thousand or one and a bit: nobody can say
    ("price", "1,23,4", None, []),
    ("price", "€ 12,50", 12.5, ["price_with_currency"]),
    ("price", "12.50 eur", 12.5, ["price_with_currency"]),
    ("price", "free", None, []),
    ("price", "-3 GBP", -3.0, ["price_with_currency"]),
    ("price", "3 apples", None, []),
    ("value", "3 pcs", 3.0, ["quantity_unit"]),
    ("value", "2 Dozen", 24.0, ["quantity_unit"]),
    ("value", "1,5", 1.5, ["decimal_comma"]),
    ("value", "three", None, []),
    ("value", "3 hands", None, []),
    ("query", "red mug", "red mug", []),
    ("query", " red mug ", "red mug", []),
    ("query", "red \t  mug\x07", "red mug", ["text_normalised"]),
    ("query", "Tom &amp; Jerry", "Tom & Jerry", ["text_normalised"]),
    ("query", "cafe\u0301", "caf\u00e9", ["text_normalised"]),
    ("query", "caf\u00e9 \u65e5\u672c", "caf\u00e9 \u65e5\u672c", []),
    ("query", "\uff21\uff22 \ufb01ne", "AB fine", ["text_normalised"]),
    ("query", "&#99999999; & more", "&#99999999; & more", []),
    ("query", "\u200b \x00", None, []),
    ("user_id", "\ufeff u\u00a0", "u", []),
    ("currency", "gbp", "GBP", []),
    ("currency", "£", "GBP", []),
]
NAMES = ("user_id", "item_id", "event_type", "event_time", "value", "price", "currency", "query", "text", "session_id",
         "order_id", "country", "split", "item_name", "item_brand", "item_category")  # fmt: skip


def parsed(spark, cases, settings=None):
    """[(column, text)] → the rows, parsed, in order."""
    made = [[n, *[text if name == column else None for name in NAMES]] for n, (column, text) in enumerate(cases)]
    frame = spark.createDataFrame(made, "i int, " + ", ".join(f"{name} string" for name in NAMES))
    return rules.parse_events(frame, settings or Clean()).orderBy("i").collect()


@pytest.fixture(scope="module")
def mended(spark):
    return parsed(spark, [case[:2] for case in EVENTS])


@pytest.mark.parametrize("number", range(len(EVENTS)), ids=[f"{column} {text!r}" for column, text, _, _ in EVENTS])
def test_an_event_is_mended_to_this_by_these(mended, number):
    column, _, expected, names = EVENTS[number]
    row = mended[number]
    assert row["parsed"][column] == expected
    assert [name for name, applies in row["mended"].asDict().items() if applies] == names


def test_blanks_around_ids_are_taken_off_in_whatever_row_they_are(spark):
    """Against Python's strip, on rows of several ids; most have no blank, as in a log."""
    chance = random.Random(3)
    ids, blanks = ("user_id", "item_id", "session_id", "order_id", "split"), ["", *parsing.BLANKS, "  "]

    def blank():
        return chance.choice(blanks) if chance.random() < 0.1 else ""

    made = [
        [n, *[chance.choice([None, blank() + chance.choice(["", "a", "a b"]) + blank()]) for _ in ids]]
        for n in range(500)
    ]
    frame = spark.createDataFrame(made, "i int, " + ", ".join(f"{name} string" for name in ids))
    others = {name: F.lit(None).cast("string") for name in NAMES if name not in ids}
    found = rules.parse_events(frame.withColumns(others), Clean()).orderBy("i").collect()
    for row, (_, *texts) in zip(found, made, strict=True):
        expected = [(text or "").strip(parsing.BLANKS) or None for text in texts]
        assert [row["parsed"][name] for name in ids] == expected, texts


def test_a_price_says_its_currency_where_the_row_does_not(mended):
    by_text = {case[1]: row["parsed"][c.CURRENCY] for case, row in zip(EVENTS, mended, strict=True)}
    assert (by_text["€ 12,50"], by_text["12.50 eur"], by_text["12.5"]) == ("EUR", "EUR", None)


def test_all_prices_in_one_currency_and_commas_by_configuration(spark):
    settings = Clean(currency="EUR", currencies={"GBP": 1.2, "usd": 0.9}, decimal="comma")
    cases = [("price", text) for text in ("10 GBP", "$ 10", "10 EUR", "10 CHF", "10", "1,234", "1.234", "1.234,5")]
    found = [(row["parsed"][c.PRICE], row["parsed"][c.CURRENCY]) for row in parsed(spark, cases, settings)]
    assert found == [
        (12.0, "EUR"), (9.0, "EUR"), (10.0, "EUR"), (None, "CHF"), (10.0, None), (1.234, None), (1234.0, None),
        (1234.5, None),
    ]  # fmt: skip


def test_times_of_a_zone_where_clocks_jump(spark):
    """Amsterdam: UTC+1, +2 from 2024-03-31 02:00 (there is no 02:30) to 2024-10-27 03:00 (02:30 is there twice)."""
    texts = {
        "2024-01-15 12:00:00": ("2024-01-15 11:00:00", False),
        "2024-07-15 12:00:00": ("2024-07-15 10:00:00", False),
        "2024-07-15T12:00:00Z": ("2024-07-15 12:00:00", False),
        "2024-07-15T12:00:00+05:00": ("2024-07-15 07:00:00", False),
        "2024-03-31 02:30:00": ("2024-03-31 01:30:00", True),  # as 03:30
        "2024-10-27 02:30:00": ("2024-10-27 00:30:00", False),  # the first of the two
    }
    settings = Clean(time_zone="Europe/Amsterdam")
    rows = parsed(spark, [("event_time", text) for text in texts], settings)
    found = [(f"{row['parsed'][c.EVENT_TIME]:%Y-%m-%d %H:%M:%S}", row["mended"]["time_in_gap"]) for row in rows]
    assert found == list(texts.values())
    off = Clean(time_zone="Europe/Amsterdam", rules={"time_in_gap": {"enabled": False}})
    assert parsed(spark, [("event_time", "2024-03-31 02:30:00")], off)[0]["parsed"][c.EVENT_TIME] is None


def test_what_is_switched_off_is_not_mended(spark):
    settings = Clean(rules={"decimal_comma": {"enabled": False}, "text_normalised": {"severity": "warn"}})
    price, query = parsed(spark, [("price", "1,5"), ("query", "a  b")], settings)
    assert price["parsed"][c.PRICE] is None
    assert query["parsed"][c.QUERY] == "a  b"
    assert query["mended"]["text_normalised"]
