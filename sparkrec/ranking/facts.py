"""What the ranker knows of items, from events before a moment, as columns on every executor."""

from __future__ import annotations

import datetime as dt
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.features.neighbors import SEEN
from sparkrec.models import popularity
from sparkrec.retrieval.item_columns import ItemColumns

_EXACT = "decimal(38,6)"  # sums of decimals are the same in any order
_NEIGHBORS, _COSINES = "_neighbors", "_cosines"
_COUNTS = ("events", "recent", "purchases")


class ItemFacts(ItemColumns):
    """:class:`features.Facts`, and the neighbours of each item: ``[m, w]``, nearest first, -1 beyond the last."""

    @cached_property
    def events(self) -> NDArray[np.float32]:
        return self.column("events")

    @cached_property
    def recent(self) -> NDArray[np.float32]:
        return self.column("recent")

    @cached_property
    def purchases(self) -> NDArray[np.float32]:
        return self.column("purchases")

    @cached_property
    def age_days(self) -> NDArray[np.float32]:
        return self.column("age_days")

    @cached_property
    def price(self) -> NDArray[np.float32]:
        return self.column("price")

    @cached_property
    def leaf(self) -> NDArray[np.int32]:
        return self.column("leaf")

    @cached_property
    def root(self) -> NDArray[np.int32]:
        return self.column("root")

    @cached_property
    def brand(self) -> NDArray[np.int32]:
        return self.column("brand")

    @cached_property
    def neighbors(self) -> NDArray[np.int32]:
        return self.matrix(_NEIGHBORS, np.int32)

    @cached_property
    def cosines(self) -> NDArray[np.float32]:
        return self.matrix(_COSINES, np.float32)


def facts(
    items: DataFrame,
    sequences: DataFrame,
    days: DataFrame,
    neighbors: DataFrame | None,
    moment: float,
    half_life_days: float,
    width: int,
) -> DataFrame:
    """The frame that :func:`traits.spread` takes for :class:`ItemFacts`.

    Parameters
    ----------
    items, days
        gold.items, of which only what does not change with time is read, and gold.item_days.
    sequences
        Rows of gold.sequences with the events before ``moment`` (unix seconds).
    neighbors
        Rows of gold.item_neighbors from those events; None: no item has any. ``width`` : at most so many an item.
    """
    counted = _counted(sequences, moment, half_life_days)
    price = _prices(days, moment)
    empty = F.array().cast("array<int>"), F.array().cast("array<float>")
    lasting = items.select(c.ITEM_INDEX, c.ITEM_ID, c.CATEGORY_CODES, c.BRAND_CODE)
    frame = lasting.join(counted, c.ITEM_INDEX, "left").join(price, c.ITEM_ID, "left")
    near, cosines = empty
    if neighbors is not None:
        frame = frame.join(_nearest(neighbors), c.ITEM_INDEX, "left")
        fill = F.array_repeat(F.lit(-1), width), F.array_repeat(F.lit(0.0).cast("float"), width)
        near = F.slice(F.concat(F.coalesce(_NEIGHBORS, empty[0]), fill[0]), 1, width)
        cosines = F.slice(F.concat(F.coalesce(_COSINES, empty[1]), fill[1]), 1, width)
    return frame.select(
        c.ITEM_INDEX,
        *[F.coalesce(F.col(name), F.lit(0.0)).cast("float").alias(name) for name in _COUNTS],
        *[F.coalesce(F.col(name), F.lit(float("nan"))).cast("float").alias(name) for name in ("age_days", "price")],
        F.coalesce(F.try_element_at(c.CATEGORY_CODES, F.lit(-1)).cast("int"), F.lit(-1)).alias("leaf"),
        F.coalesce(F.try_element_at(c.CATEGORY_CODES, F.lit(1)).cast("int"), F.lit(-1)).alias("root"),
        F.coalesce(F.col(c.BRAND_CODE).cast("int"), F.lit(-1)).alias("brand"),
        near.alias(_NEIGHBORS),
        cosines.alias(_COSINES),
    )


def _counted(sequences: DataFrame, moment: float, half_life_days: float) -> DataFrame:
    event = F.explode(F.arrays_zip(c.ITEM_INDEX, c.EVENT_TYPE, c.EVENT_TIME)).alias("event")
    events = sequences.select(event).select("event.*")
    age = (F.lit(moment) - F.col(c.EVENT_TIME)) / F.lit(86_400.0)
    bought = F.col(c.EVENT_TYPE) == c.EVENT_TYPES.index(c.PURCHASE)
    return events.groupBy(c.ITEM_INDEX).agg(
        F.count("*").alias("events"),
        popularity.decayed(age, half_life_days).alias("recent"),
        F.count_if(bought).alias("purchases"),
        F.max(age).alias("age_days"),
    )


def _prices(days: DataFrame, moment: float) -> DataFrame:
    """Mean price of the events on whole days before the moment; null unless positive."""
    day = dt.datetime.fromtimestamp(moment, dt.UTC).date()
    priced = days.where((F.col(c.EVENT_DATE) < F.lit(day)) & (F.col(c.PRICE) > 0))
    paid = F.sum((F.col(c.PRICE) * F.col(c.COUNT)).cast(_EXACT)).cast("double")
    return priced.groupBy(c.ITEM_ID).agg((paid / F.sum(c.COUNT)).alias("price"))


def _nearest(neighbors: DataFrame) -> DataFrame:
    ranked = F.struct(c.RANK, c.NEIGHBOR_INDEX, F.col(c.COSINE).cast("float").alias(c.COSINE))
    lists = neighbors.where(F.col(c.RELATION) == SEEN).groupBy(c.ITEM_INDEX)
    near = lists.agg(F.sort_array(F.collect_list(ranked)).alias("near"))
    return near.select(
        c.ITEM_INDEX,
        F.col(f"near.{c.NEIGHBOR_INDEX}").alias(_NEIGHBORS),
        F.col(f"near.{c.COSINE}").alias(_COSINES),
    )
