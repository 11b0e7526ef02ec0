"""Items as of the split: what the catalogue said then, what had been done with them, and their features."""

from __future__ import annotations

import datetime as dt

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.evaluation.splits import utc
from sparkrec.features.activity import days_before

_DECILES = tuple(i / 10 for i in range(1, 10))
_STATE = (c.NAME, c.BRAND, c.CATEGORY, c.PRICE, c.STOCK, c.TEXT, c.FOR_SALE, c.ATTRIBUTES)


def as_of(items: DataFrame, moment: dt.datetime) -> DataFrame:
    """Each item's row of silver.items that holds at ``moment``; items that begin later are not there."""
    known = items.where(F.col(c.VALID_FROM) <= utc(moment))
    latest = known.groupBy(c.ITEM_ID).agg(F.max_by(F.struct(*_STATE), c.VALID_FROM).alias("_state"))
    return latest.select(c.ITEM_ID, "_state.*")


def members(activity: DataFrame, state: DataFrame) -> DataFrame:
    """The items that models know: with training events, or for sale without any (new items).

    One row an item: numbers, catalogue columns, ``count``, and ``price``, which is the catalogue's or else the median
    of the item's training events.
    """
    joined = activity.join(state, c.ITEM_ID, "full").where(F.col(c.N_EVENTS).isNotNull() | F.col(c.FOR_SALE))
    numbers = (c.N_EVENTS, c.N_VIEWS, c.N_CARTS, c.N_PURCHASES, c.N_RATINGS, c.N_USERS)
    return joined.withColumns(
        {
            **{name: F.coalesce(name, F.lit(0)) for name in numbers},
            c.PRICE: F.coalesce(c.PRICE, "median_price"),
            # The log knows an item that the catalogue does not: it was sold, so it may be recommended.
            c.FOR_SALE: F.coalesce(c.FOR_SALE, F.lit(True)),
            c.COUNT: F.coalesce(c.N_EVENTS, F.lit(0)),
        }
    ).drop("median_price")


def with_price_bucket(items: DataFrame) -> DataFrame:
    """Adds ``price_bucket``: how many deciles of the priced items' prices lie below the item's (0 to 9)."""
    row = items.agg(F.percentile(c.PRICE, list(_DECILES))).first()
    borders = (row[0] if row is not None else None) or []
    above: Column = F.lit(0)
    for border in borders:
        above = above + (F.col(c.PRICE) > border).cast("int")
    return items.withColumn(c.PRICE_BUCKET, F.when(F.col(c.PRICE).isNotNull(), above))


def rows(items: DataFrame, features: DataFrame, vocabulary: DataFrame, moment: dt.datetime) -> DataFrame:
    """Rows of gold.items: every item of the vocabulary.

    ``features`` has item_id and features. Items that left keep their row, with nothing in it, and are not for sale.
    """
    counts = (c.N_EVENTS, c.N_VIEWS, c.N_CARTS, c.N_PURCHASES, c.N_RATINGS, c.N_USERS)
    known = items.drop(c.COUNT, c.FIRST_SEEN, c.LAST_SEEN)
    joined = vocabulary.join(known, c.ITEM_ID, "left").join(features, c.ITEM_ID, "left")
    complete = joined.withColumns(
        {
            **{name: F.coalesce(name, F.lit(0)) for name in counts},
            c.AS_OF: utc(moment),
            c.FOR_SALE: F.coalesce(c.FOR_SALE, F.lit(False)),
            c.FEATURES: F.coalesce(c.FEATURES, F.array().cast("array<int>")),
            c.AGE_DAYS: days_before(moment, F.col(c.FIRST_SEEN)),
        }
    )
    return complete.select(*schemas.GOLD_ITEMS.column_names)
