"""Checked rows in the shape of silver.events and quarantine."""

from __future__ import annotations

import datetime as dt

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.clean import cancellations, duplicates, outliers, parsing, rules
from sparkrec.config import Clean
from sparkrec.schemas import Table


def checked(events: DataFrame, known_items: DataFrame | None, settings: Clean, latest: dt.date) -> DataFrame:
    """Canonical events → one row a distinct content, with its copies, typed values, and the rules it breaks.

    ``known_items`` holds the catalogue's item ids; None where every item is welcome. The raw text is kept for
    refused rows only.
    """
    distinct = duplicates.merge_exact(events)
    if known_items is None:
        distinct = distinct.withColumn(rules.KNOWN_ITEM, F.lit(True))
    else:
        ids = known_items.select(c.ITEM_ID).distinct().withColumn(rules.KNOWN_ITEM, F.lit(True))
        distinct = distinct.withColumn(c.ITEM_ID, parsing.present(F.col(c.ITEM_ID))).join(ids, c.ITEM_ID, "left")
        distinct = distinct.withColumn(rules.KNOWN_ITEM, F.coalesce(rules.KNOWN_ITEM, F.lit(False)))
    result = rules.check(rules.parse_events(distinct, settings), rules.event_rules(settings, latest))
    result = outliers.refuse(result, known_items, settings)
    return result.withColumn(c.RAW, F.when(F.col(c.RULE).isNotNull(), F.col(c.RAW)))


def accepted(checked_events: DataFrame) -> DataFrame:
    """The good rows, typed: silver's columns but for what other events decide, and the log's item columns.

    A cancel's quantity loses its sign. A price of zero, where it is allowed, is no price.
    """
    value, price, time = (F.col(f"{rules.PARSED}.{name}") for name in (c.VALUE, c.PRICE, c.EVENT_TIME))
    typed: dict[str, Column] = {
        c.EVENT_TIME: time,
        c.EVENT_DATE: time.cast("date"),
        c.VALUE: F.when(F.col(c.EVENT_TYPE) == c.CANCEL, F.abs(value)).otherwise(value),
        c.PRICE: F.when(price > 0, price),
    }
    texts = (c.USER_ID, c.ITEM_ID, c.CURRENCY, c.QUERY, c.TEXT, c.SESSION_ID, c.ORDER_ID, c.COUNTRY, c.SPLIT,
             c.ITEM_NAME, c.ITEM_BRAND, c.ITEM_CATEGORY)  # fmt: skip
    return checked_events.where(F.col(c.RULE).isNull()).select(
        c.EVENT_ID,
        c.EVENT_TYPE,
        *[F.col(f"{rules.PARSED}.{name}").alias(name) for name in texts],
        *[column.alias(name) for name, column in typed.items()],
        c.NOTES,
        c.COPIES,
        c.SOURCE_FILE,
        c.LINE,
    )


def finished(events: DataFrame, any_cancels: bool) -> DataFrame:
    """Accepted, merged events → silver.events: cancellations marked, a day's rows together, by user."""
    rows = cancellations.mark(events, any_cancels).select(*schemas.SILVER_EVENTS.column_names)
    return rows.hint("rebalance", c.EVENT_DATE).sortWithinPartitions(c.EVENT_DATE, c.USER_ID, c.EVENT_TIME, c.EVENT_ID)


def quarantined(checked_rows: DataFrame, table: Table, stage: str) -> DataFrame:
    """The refused rows of a bronze table, as rows of quarantine."""
    refused = checked_rows.where(F.col(c.RULE).isNotNull())
    origin = {c.TABLE: F.lit(table.name), c.STAGE: F.lit(stage)}
    return refused.withColumns(origin).select(*schemas.QUARANTINE.column_names)
