"""Any text in any column: no exception out of Spark, each row kept or refused with a reason, and none lost."""

import datetime as dt

import fuzz
import pytest
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.clean import bots, cancellations, catalogue, funnels, outliers, silver
from sparkrec.clean.duplicates import EVENT_CONTENT
from sparkrec.config import Clean

pytestmark = pytest.mark.spark

SETTINGS = Clean(
    latest=dt.date(2030, 1, 1), time_zone="Europe/Amsterdam", currency="EUR",
    currencies={"GBP": 1.2}, near_duplicate_seconds=1,
    rules={"mine": {"on": "events", "when": "length(text) > price / value", "expects": "a short text"}},
)  # fmt: skip


@pytest.fixture(scope="module")
def events(spark, canonical_events):
    """Nasty texts in every column, 300 invented rows and three good ones, judged."""
    made = [*fuzz.rows(EVENT_CONTENT, 300), *[fuzz.GOOD | {"valid_from": None, "user_id": f"u{n}"} for n in range(3)]]
    rows = [{name: value for name, value in row.items() if name in EVENT_CONTENT} for row in made]
    came = {c.HEADER: F.lit(None).cast("string"), c.INGEST_TIME: F.lit("2030-01-01").cast("timestamp")}
    checked = silver.checked(canonical_events(rows).withColumns(came), None, SETTINGS).persist()
    yield len(rows), checked
    checked.unpersist()


def test_every_event_is_kept_or_refused_with_a_reason(events):
    count, checked = events
    # Python knows no year before 1, and a refused row may name one.
    good = F.when(F.col(c.RULE).isNull(), F.col("parsed")).alias("parsed")
    found = checked.select(c.COPIES, c.RULE, c.RULES, c.REASON, c.NOTES, c.RAW, good, c.EVENT_TYPE).collect()
    assert sum(row[c.COPIES] for row in found) == count
    refused = [row for row in found if row[c.RULE]]
    assert 50 < len(refused) < len(found) - 20
    for row in refused:
        assert row[c.RULES][0] == row[c.RULE]
        assert row[c.REASON]
        assert row[c.RAW]
    for row in found:
        if row[c.RULE] is None:
            parsed = row["parsed"]
            assert parsed[c.USER_ID]
            assert parsed[c.ITEM_ID] or row[c.EVENT_TYPE] == c.SEARCH
            assert dt.datetime(1995, 1, 1) <= parsed[c.EVENT_TIME].replace(tzinfo=None) < dt.datetime(2030, 1, 2)
            assert parsed[c.PRICE] is None or 0 <= parsed[c.PRICE] <= 1e6
    assert len({row[c.RULE] for row in refused}) > 5
    assert {note for row in found for note in row[c.NOTES]} > {"text_normalised", "decimal_comma"}


def test_what_follows_the_rules_takes_what_they_let_through(events):
    _, checked = events
    linked = silver.linked(silver.accepted(silver.typed(checked)), None, SETTINGS).persist()
    merged = silver.standing(linked)
    rows = silver.finished(cancellations.mark(merged, cancellations.match(merged))).collect()
    assert sum(row[c.COPIES] for row in rows + silver.repeats(linked).collect()) == sum(
        row[c.COPIES] for row in checked.where(f"{c.RULE} IS NULL").select(c.COPIES).collect()
    )
    assert bots.suspects(merged, SETTINGS.bots).count() == 0
    assert [rule.name for rule, _, _ in outliers.notice(merged, None, SETTINGS)] == [
        "outlier_price",
        "outlier_quantity",
    ]
    assert len(funnels.notice(merged, SETTINGS)) == 2


def test_every_catalogue_row_is_kept_or_refused(spark, canonical_items):
    names = (c.ITEM_ID, c.VALID_FROM, c.NAME, c.BRAND, c.CATEGORY, c.PRICE, c.CURRENCY, c.STOCK, c.PROMOTION, c.TEXT,
             c.FOR_SALE)  # fmt: skip
    made = fuzz.rows(names, 150)
    checked = catalogue.checked(canonical_items(made), SETTINGS).persist()
    kept = catalogue.history(checked, SETTINGS)
    refused = checked.where(f"{c.RULE} IS NOT NULL").select(c.REASON).collect()
    assert sum(row[c.COPIES] for row in kept.select(c.COPIES).collect()) + len(refused) == len(made)
    assert all(row[c.REASON] for row in refused)
    assert len(refused) > 20
    checked.unpersist()
