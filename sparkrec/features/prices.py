"""Prices as of the split: where they come from, what stands in for a missing one, and how dear an item is."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Row, Window
from pyspark.sql import functions as F

from sparkrec import columns as c

_DECILES = tuple(i / 10 for i in range(1, 10))
_MEDIAN, _BORDERS, _PRICED = "_median_price", "_price_borders", "_priced"
# Items without a category are no category: they are spread, for nothing is computed of them together.
_PARTS = 256


@dataclass(frozen=True)
class Borders:
    """The priced items' nine deciles and their median; nothing where no item has a price."""

    priced: int
    deciles: tuple[float, ...]
    median: float | None

    @staticmethod
    def of(row: Row) -> Borders:
        """From a row with the columns of :func:`borders`."""
        return Borders(row[_PRICED], tuple(row[_BORDERS] or ()), row[_MEDIAN])


def known(items: DataFrame) -> DataFrame:
    """``price`` and ``price_source`` from the catalogue's price and ``median_price``, which goes."""
    source = F.when(F.col(c.PRICE).isNotNull(), "catalogue").when(F.col("median_price").isNotNull(), "events")
    return items.withColumns({c.PRICE_SOURCE: source, c.PRICE: F.coalesce(c.PRICE, "median_price")}).drop(
        "median_price"
    )


def borders() -> list[Column]:
    """What :class:`Borders` needs, of all items in one aggregation."""
    return [
        F.count(c.PRICE).alias(_PRICED),
        F.percentile(c.PRICE, list(_DECILES)).alias(_BORDERS),
        F.percentile(c.PRICE, 0.5).alias(_MEDIAN),
    ]


def with_bucket(items: DataFrame, of_all: Borders) -> DataFrame:
    """Adds ``price_bucket``: how many deciles of the priced items' prices lie below the item's (0 to 9)."""
    above: Column = F.lit(0)
    for border in of_all.deciles:
        above = above + (F.col(c.PRICE) > border).cast("int")
    return items.withColumn(c.PRICE_BUCKET, F.when(F.col(c.PRICE).isNotNull(), above))


def filled(items: DataFrame, of_all: Borders) -> DataFrame:
    """Adds ``price_percentile``; then a missing price becomes its category's median, or else that of all.

    The percentile of a price among the n known prices of its category (its whole path) is (cheaper + equal / 2) / n:
    the mid-distribution function, between 0 and 1, one half for an only item. A filled price says nothing about the
    item, so it has no percentile and no bucket. ``price_source`` says category or all.
    """
    no_category = F.when(F.col(c.CATEGORY).isNull(), F.pmod(F.xxhash64(c.ITEM_ID), F.lit(_PARTS)))
    category = Window.partitionBy(c.CATEGORY, no_category)
    by_price = category.orderBy(F.asc_nulls_last(c.PRICE))
    equal = F.count(c.PRICE).over(by_price.rangeBetween(Window.currentRow, Window.currentRow))
    percentile = (F.rank().over(by_price) - 1 + equal / 2) / F.count(c.PRICE).over(category)
    median = F.percentile(c.PRICE, 0.5).over(category)
    categorised = F.col(c.CATEGORY).isNotNull()
    with_window = items.withColumns(
        {
            c.PRICE_PERCENTILE: F.when(F.col(c.PRICE).isNotNull() & categorised, percentile),
            _MEDIAN: F.when(categorised, median),
        }
    )
    of_anything = F.lit(of_all.median).cast("double")
    source = F.when(F.col(_MEDIAN).isNotNull(), "category").when(of_anything.isNotNull(), "all")
    return with_window.withColumns(
        {
            c.PRICE_SOURCE: F.coalesce(c.PRICE_SOURCE, source),
            c.PRICE: F.coalesce(c.PRICE, _MEDIAN, of_anything),
        }
    ).drop(_MEDIAN)
