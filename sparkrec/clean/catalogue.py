"""silver.items: the catalogue with its history; for shops without one, what the log says about its items."""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.clean import parsing, rules
from sparkrec.config import Clean

_DESCRIPTION = (c.ITEM_NAME, c.ITEM_BRAND, c.ITEM_CATEGORY)
_STATE = "_state"


def checked(items: DataFrame, settings: Clean) -> DataFrame:
    """Canonical catalogue rows with typed values and the rules they break. Equal snapshots are merged later."""
    parsed = rules.parse_items(items, settings, _has_brands(items))
    return rules.check(parsed, rules.item_rules(settings)).withColumn(c.COPIES, F.lit(1))


def history(checked_items: DataFrame, settings: Clean) -> DataFrame:
    """Good catalogue rows → a row for each item and each time that something changed; silver.items' columns.

    Of two rows for the same item and time the later by (source file, line) holds. A row without a time holds from
    ``clean.earliest``. ``copies`` counts the rows merged, so their sum is the number of good rows.
    """
    typed = (c.NAME, c.BRAND, c.CURRENCY, c.TEXT, c.PRICE, c.STOCK, c.PROMOTION, c.CATEGORY)
    for_sale = F.lower(F.trim(c.FOR_SALE)).isin("false", "0", "no", "n")
    state = F.struct(
        *[F.col(f"{rules.PARSED}.{name}").alias(name) for name in typed],
        (~F.coalesce(for_sale, F.lit(False))).alias(c.FOR_SALE),
        F.col(c.ATTRIBUTES),
    )
    earliest = F.lit(str(settings.earliest)).cast("timestamp")
    states = (
        checked_items.where(F.col(c.RULE).isNull())
        .select(
            parsing.present(F.col(c.ITEM_ID)).alias(c.ITEM_ID),
            F.coalesce(F.col(f"{rules.PARSED}.{c.VALID_FROM}"), earliest).alias(c.VALID_FROM),
            state.alias(_STATE),
            F.struct(c.SOURCE_FILE, c.LINE).alias("_origin"),
        )
        .groupBy(c.ITEM_ID, c.VALID_FROM)
        .agg(F.max_by(_STATE, "_origin").alias(_STATE), F.count("*").alias(c.COPIES))
    )
    in_time = Window.partitionBy(c.ITEM_ID).orderBy(c.VALID_FROM)
    same_state = Window.partitionBy(c.ITEM_ID, "_run")
    return (
        states.withColumn("_text", F.to_json(_STATE))
        .withColumn("_changed", ~F.col("_text").eqNullSafe(F.lag("_text").over(in_time)))
        .withColumn("_run", F.sum(F.col("_changed").cast("int")).over(in_time))
        .withColumn(c.COPIES, F.sum(c.COPIES).over(same_state))
        .where("_changed")
        .select(c.ITEM_ID, c.VALID_FROM, f"{_STATE}.*", c.COPIES)
        .select(*schemas.SILVER_ITEMS.column_names)
    )


def from_log(events: DataFrame, settings: Clean) -> DataFrame:
    """What the log says about its items: the most frequent description (name, brand, category) so far.

    Ties go to the lexicographically first. A day's events count from the following midnight on, so that a later
    event never changes what was known at an earlier time; before its first such row an item is not known. An item
    that the log never describes gets a row without a name. There is no price: gold takes the median of the events
    before its split. ``copies`` is 0, for no catalogue row stands behind it.
    """
    described = F.coalesce(*_DESCRIPTION).isNotNull()
    daily = (
        events.where(F.col(c.ITEM_ID).isNotNull())
        .groupBy(c.ITEM_ID, c.EVENT_DATE, *_DESCRIPTION)
        .agg(F.sum(F.when(described, 1).otherwise(0)).alias("_n"))
    )
    so_far = Window.partitionBy(c.ITEM_ID, *_DESCRIPTION).orderBy(c.EVENT_DATE)
    in_time = Window.partitionBy(c.ITEM_ID).orderBy(c.EVENT_DATE)
    days = (
        daily.withColumn("_total", F.sum("_n").over(so_far))
        # A running minimum of (−total, description): totals only grow, so the smallest is today's most frequent.
        .withColumn("_best", F.min(F.struct(-F.col("_total"), *_DESCRIPTION)).over(in_time))
        .groupBy(c.ITEM_ID, c.EVENT_DATE)
        .agg(F.min("_best").alias("_best"))
    )
    best = {name: F.col(f"_best.{name}") for name in _DESCRIPTION}
    text = F.to_json(F.struct(*[column.alias(name) for name, column in best.items()]))
    return (
        days.withColumn("_text", text)
        .withColumn("_changed", ~F.col("_text").eqNullSafe(F.lag("_text").over(in_time)))
        .where("_changed")
        .select(
            c.ITEM_ID,
            F.date_add(c.EVENT_DATE, 1).cast("timestamp").alias(c.VALID_FROM),
            best[c.ITEM_NAME].alias(c.NAME),
            best[c.ITEM_BRAND].alias(c.BRAND),
            parsing.path(best[c.ITEM_CATEGORY]).alias(c.CATEGORY),
            *_nothing(c.PRICE, c.CURRENCY, c.STOCK, c.PROMOTION, c.TEXT, c.ATTRIBUTES),
            F.lit(True).alias(c.FOR_SALE),
            F.lit(0).alias(c.COPIES),
        )
        .select(*schemas.SILVER_ITEMS.column_names)
    )


def finished(catalogue: DataFrame, log_items: DataFrame | None, is_goods: Callable[[Column], Column]) -> DataFrame:
    """The catalogue and, where it lacks items of the log, those; what is not goods is not for sale."""
    items = catalogue
    if log_items is not None:
        items = catalogue.unionByName(log_items.join(catalogue.select(c.ITEM_ID).distinct(), c.ITEM_ID, "left_anti"))
    return items.withColumn(c.FOR_SALE, F.col(c.FOR_SALE) & F.coalesce(is_goods(F.col(c.ITEM_ID)), F.lit(True)))


def _has_brands(items: DataFrame) -> bool:
    """Whether the catalogue names a brand at all: without any, a missing brand says nothing."""
    return not items.where(parsing.present(F.col(c.BRAND)).isNotNull()).limit(1).isEmpty()


def _nothing(*names: str) -> list[Column]:
    types = {column.name: column.type for column in schemas.SILVER_ITEMS.columns}
    return [F.lit(None).cast(types[name]).alias(name) for name in names]
