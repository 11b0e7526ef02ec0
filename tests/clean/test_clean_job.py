"""The whole stage on a few log files written here, and on UCI Online Retail."""

from __future__ import annotations

from collections import Counter

import pytest
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.clean import bots, state
from sparkrec.config import Settings
from sparkrec.errors import DataError
from sparkrec.ingest import sources
from sparkrec.jobs.clean import clean
from sparkrec.jobs.ingest import ingest
from sparkrec.pipeline import Run, execute

pytestmark = pytest.mark.spark

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
FILES = {
    "2010-12-01": [
        "536365,85123A,LANTERN,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom",
        "536365,85123A,LANTERN,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom",  # an exact repeat
        "536366,22633,,6,2010-12-01 08:28:00,1.85,17850.0,United Kingdom",
        "536367,22633,WARMER,2,2010-12-01 09:00:00,1.85,,France",  # no customer
        "536367,22633,WARMER,2,2010-12-01 09:00:00,1.85,,France",  # and an exact repeat of it
        "536368,POST,POSTAGE,1,2010-12-01 09:01:00,18.0,12583.0,France",  # no goods
        "A563185,B,Adjust bad debt,1,2010-12-01 14:50:00,11062.06,,United Kingdom",
    ],
    "2010-12-02": [
        "536365,85123A,LANTERN,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom",  # again, in another file
        "C536400,85123A,LANTERN,-6,2010-12-02 10:00:00,2.55,17850.0,United Kingdom",  # takes it back
        "C536401,22633,WARMER,-1,2010-12-02 10:00:00,1.85,14000.0,United Kingdom",  # finds nothing
        "536402,22633,WARMER,0,2010-12-02 10:10:00,1.85,14000.0,United Kingdom",  # no quantity
        "536403,22633,WARMER,1,2010-12-02 10:20:00,0.0,14000.0,United Kingdom",  # no price
        "536404,22633,WARMER,1,2010-12-02 10:30:00,1.85,14000.0,United Kingdom",
    ],
}  # fmt: skip


def _settings(root, logs, **sections):
    base = {
        "name": "retail",
        "lake": {"path": str(root / "lake")},
        "source": {"name": "online_retail", "path": str(logs)},
        "tracking": {"enabled": False},
    }
    return Settings.model_validate(base | sections)


def _run(settings, job):
    run = Run(settings, job.__name__)
    execute(job, run)
    return run


@pytest.fixture(scope="module")
def shop(spark, tmp_path_factory):
    root = tmp_path_factory.mktemp("retail")
    (root / "logs").mkdir()
    for day, lines in FILES.items():
        (root / "logs" / f"{day}.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    settings = _settings(root, root / "logs")
    _run(settings, ingest)
    return settings, _run(settings, clean)


def test_nobody_is_a_bot_by_times_that_are_made_from_an_order(spark, tmp_path):
    """A line of 300 items is 300 views, a second after each other: of a real log, a scraper."""
    (tmp_path / "train.txt").write_text("".join(f"{user} {' '.join(map(str, range(300)))}\n" for user in range(3)))
    source = {"name": "sequences", "path": str(tmp_path)}
    settings = _settings(tmp_path, tmp_path, source=source)
    _run(settings, ingest)
    run = _run(settings, clean)
    assert run.read(schemas.SILVER_EVENTS).count() == 900
    assert run.read(schemas.SILVER_SUSPECTS).isEmpty()
    assert bots.suspects(run.read(schemas.SILVER_EVENTS), settings.clean.bots).count() == 3
    known = sources.get(settings.source)
    before = state.shape(settings, known)
    known.has_times = True
    assert state.shape(settings, known) != before, "silver of a time when they were judged must be computed anew"


def test_every_row_is_accounted_for(shop):
    counts = shop[1].counts
    assert counts["rows_in"] == 13
    # LANTERN three times, WARMER without a customer twice
    assert counts["duplicates"] == 3
    assert counts["quarantined"] == 4
    assert counts["kept"] == 6
    assert (counts["cancellations"], counts["cancellations_matched"], counts["suspects"]) == (2, 1, 0)


def test_silver_events(shop):
    rows = {(row[c.ORDER_ID], row[c.ITEM_ID]): row for row in shop[1].read(schemas.SILVER_EVENTS).collect()}
    assert set(rows) == {
        ("536365", "85123A"), ("536366", "22633"), ("536368", "POST"), ("C536400", "85123A"), ("C536401", "22633"),
        ("536404", "22633"),
    }  # fmt: skip
    lantern, cancel = rows["536365", "85123A"], rows["C536400", "85123A"]
    assert (lantern[c.COPIES], lantern[c.SOURCE_FILE], lantern[c.LINE]) == (3, "2010-12-01.csv", 2)
    assert (lantern[c.USER_ID], lantern[c.VALUE], lantern[c.PRICE]) == ("17850", 6.0, 2.55)
    assert str(lantern[c.EVENT_DATE]) == "2010-12-01"
    assert lantern[c.CANCELLED]
    assert lantern[c.CANCELLED_AT] == cancel[c.EVENT_TIME]
    assert (cancel[c.EVENT_TYPE], cancel[c.VALUE], cancel[c.CANCELLED]) == (c.CANCEL, 6.0, False)
    assert Counter(row[c.CANCELLED] for row in rows.values()) == {True: 1, False: 5}


def test_quarantine_holds_the_raw_rows_with_reasons(shop):
    rows = shop[1].read(schemas.QUARANTINE).collect()
    found = sorted((row[c.RULE], row[c.RULES], row[c.COPIES], row[c.LINE], row[c.SOURCE_FILE]) for row in rows)
    assert found == [
        ("bad_price", ["bad_price"], 1, 6, "2010-12-02.csv"),
        ("bad_quantity", ["bad_quantity"], 1, 5, "2010-12-02.csv"),
        ("missing_user", ["missing_user"], 2, 5, "2010-12-01.csv"),
        ("unknown_event_type", ["unknown_event_type", "missing_user"], 1, 8, "2010-12-01.csv"),
    ]
    assert {row[c.RAW] for row in rows} == {FILES["2010-12-01"][i] for i in (3, 6)} | set(FILES["2010-12-02"][3:5])
    assert {(row[c.TABLE], row[c.STAGE]) for row in rows} == {("bronze.events", "clean")}


def test_items_come_from_the_log(shop):
    rows = sorted(shop[1].read(schemas.SILVER_ITEMS).collect(), key=lambda row: (row[c.ITEM_ID], row[c.VALID_FROM]))
    assert [(r[c.ITEM_ID], f"{r[c.VALID_FROM]:%m-%d}", r[c.NAME], r[c.FOR_SALE]) for r in rows] == [
        ("22633", "12-02", None, True),  # on the first day nobody had named it
        ("22633", "12-03", "WARMER", True),
        ("85123A", "12-02", "LANTERN", True),
        ("POST", "12-02", "POSTAGE", False),
    ]


def test_facts_for_the_report(shop):
    details = shop[1].details
    assert details["facts"] == {
        "rows": 13, "files": 2, "exact_repeats": 3, "near_repeats": 0, "cancel_rows": 2, "rows_without_user": 3,
        "negative_values": 2, "zero_prices": 1, "negative_prices": 0, "rows_without_item_name": 1,
        "clean_purchases": 4, "clean_purchase_users": 3, "clean_purchase_items": 3, "countries": 2,
    }  # fmt: skip
    numbers = {rule["rule"]: (rule["first"], rule["all"]) for rule in details["rules"] if rule["first"]}
    assert numbers == {
        "unknown_event_type": (1, 1), "missing_user": (1, 2), "bad_quantity": (1, 1), "bad_price": (1, 1),
    }  # fmt: skip


def test_a_rerun_changes_nothing(shop):
    settings, first = shop
    again = _run(settings, clean)
    assert again.outputs == first.outputs, "nothing is written"
    assert again.counts == first.counts | {"rows_new": 0}
    assert {name: again.details[name] for name in ("facts", "rules", "suspects")} == {
        name: first.details[name] for name in ("facts", "rules", "suspects")
    }


def test_everything_anew_gives_the_same_tables(shop):
    settings, first = shop
    tables = (schemas.SILVER_EVENTS, schemas.SILVER_ITEMS, schemas.QUARANTINE)
    before = {table.name: sorted(map(str, first.read(table).collect())) for table in tables}
    again = _run(settings.model_copy(update={"clean": settings.clean.model_copy(update={"full": True})}), clean)
    assert again.outputs != first.outputs
    assert again.details["increment"]["why_full"] == "clean.full is set"
    assert {table.name: sorted(map(str, again.read(table).collect())) for table in tables} == before


def test_too_many_refusals_stop_before_anything_is_written(shop):
    settings = shop[0].model_copy(update={"clean": shop[0].clean.model_copy(update={"max_refused": 0.3, "full": True})})
    run = Run(settings, "clean")
    version = run.lake.version(schemas.SILVER_EVENTS)
    with pytest.raises(DataError, match=r"4 of 10 distinct rows .* clean.max_refused allows \(30%\)"):
        execute(clean, run)
    assert run.lake.version(schemas.SILVER_EVENTS) == version


@pytest.mark.slow
def test_online_retail_gives_the_published_numbers(compiled, data, tmp_path):
    """Counts that were made without sparkrec: of the raw lines as the source reads them, and of what clean makes."""
    settings = _settings(tmp_path, data / "online-retail" / "by-day")
    ingested = _run(settings, ingest)
    assert ingested.counts == {"files": 305, "files_new": 305, "rows": 541_909}
    events = sources.get(settings.source).events(ingested.read(schemas.BRONZE_EVENTS))
    value, price = F.col(c.VALUE).cast("double"), F.col(c.PRICE).cast("double")
    read = events.agg(
        F.count("*").alias("rows"),
        F.count_if(F.col(c.EVENT_TYPE) == c.CANCEL).alias("cancelled"),
        F.count_if(F.col(c.EVENT_TYPE) == "adjustment").alias("adjusted"),
        F.count_if(F.col(c.USER_ID).isNull()).alias("without_customer"),
        F.count_if(value < 0).alias("negative_quantities"),
        F.count_if(price == 0).alias("zero_prices"),
        F.count_if(price < 0).alias("negative_prices"),
        F.count_if(F.col(c.ITEM_NAME).isNull()).alias("blank_descriptions"),
        F.count_distinct(c.COUNTRY).alias("countries"),
        F.count_distinct(c.RAW).alias("distinct_lines"),
        F.count(c.MALFORMED).alias("malformed"),
    ).first()
    assert read.asDict() == {
        "rows": 541_909, "cancelled": 9_288, "adjusted": 3, "without_customer": 135_080, "negative_quantities": 10_624,
        "zero_prices": 2_515, "negative_prices": 2, "blank_descriptions": 1_454, "countries": 38,
        "distinct_lines": 541_909 - 5_268, "malformed": 0,
    }  # fmt: skip

    run = _run(settings, clean)
    assert run.details["facts"] == {
        "rows": 541_909, "files": 305, "exact_repeats": 5_268, "near_repeats": 0, "cancel_rows": 9_288,
        "rows_without_user": 135_080, "negative_values": 10_624, "zero_prices": 2_515, "negative_prices": 2,
        "rows_without_item_name": 1_454, "clean_purchases": 392_692, "clean_purchase_users": 4_338,
        "clean_purchase_items": 3_665, "countries": 38,
    }  # fmt: skip
    assert run.counts["duplicates"] == 5_268
    refused = {rule["rule"]: rule["first"] for rule in run.details["rules"]}
    assert refused["unknown_event_type"] == 3
    # most of the 8,872 distinct cancel lines with a customer find their purchase
    assert run.counts["cancellations"] == 8_872
    assert run.counts["cancellations_matched"] > 7_000
    no_goods = run.read(schemas.SILVER_ITEMS).where("NOT for_sale").select(c.ITEM_ID).distinct().collect()
    assert {row[0] for row in no_goods} == {"POST", "D", "M", "BANK CHARGES", "C2", "DOT", "CRUK", "PADS"}
