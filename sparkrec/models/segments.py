"""Popularity within segments as a model: an item's vector is its share of each segment's events, a segment a one-hot.

So a segment's list goes through the same join, filters and kernel as every other. A segment is a value of a dimension
(``popularity.segments``): of the user's country, or of the weekday or part of the day (UTC) of the events. It is served
under a user id of its own, such as ``*country=Germany``.

The share of item i in segment s is drawn towards that of all events where the segment has few:

    share_s(i) = (n_s(i) + μ · n(i) / n) / (n_s + μ),    μ = ``popularity.segment_prior`` events

with n(i), n the events of item i and of all, n_s(i), n_s those within the segment. It is the posterior mean under a
Dirichlet prior with mean n(i) / n and weight μ: Zhai and Lafferty, *A study of smoothing methods for language models
applied to information retrieval*, ACM TOIS 22(2), 2004, equation 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.config.popularity import Popularity
from sparkrec.models import popularity

NAME = "segment_popularity"
COUNTRY, WEEKDAY, PART_OF_DAY = "country", "weekday", "part_of_day"
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_PARTS = ("night", "morning", "afternoon", "evening")  # from 0, 6, 12 and 18 o'clock
_NOBODY = rf"^\*($|({COUNTRY}|{WEEKDAY}|{PART_OF_DAY})=)"


@dataclass(frozen=True)
class Segment:
    """``name`` is its user id, ``events`` the sum of their weights."""

    name: str
    events: float


def person(user_id: Column) -> Column:
    """Whether a list is that of a person, and not of a segment or of :data:`columns.ANYONE`."""
    return ~user_id.rlike(_NOBODY)


def name_of(dimension: str, value: Column) -> Column:
    """``*country=Germany``; null where the value is."""
    return F.concat(F.lit(f"{c.ANYONE}{dimension}="), value)


def at(moment: Column) -> dict[str, Column]:
    """The dimensions that a moment (unix seconds, UTC) tells, with its values."""
    day, hour = F.pmod(F.floor(moment / 86_400) + 3, F.lit(7)), F.floor(F.pmod(moment, F.lit(86_400)) / 21_600)
    names = {WEEKDAY: (_DAYS, day), PART_OF_DAY: (_PARTS, hour)}  # 1 January 1970 was a Thursday
    return {
        dimension: F.element_at(F.array(*map(F.lit, words)), (number + 1).cast("int"))
        for dimension, (words, number) in names.items()
    }


def counted(sequences: DataFrame, users: DataFrame, settings: Popularity) -> DataFrame:
    """Segment name, item index and score: the weights of the events by segment and item. ``users`` is gold.users."""
    events = popularity.weights(sequences, settings.half_life_days)
    values = at(F.col(c.EVENT_TIME)) | {COUNTRY: F.col(c.COUNTRY)}
    if COUNTRY in settings.segments:
        events = events.join(users.select(c.USER_INDEX, c.COUNTRY), c.USER_INDEX)
    names = F.array_compact(F.array(*[name_of(dimension, values[dimension]) for dimension in settings.segments]))
    told = events.select(F.explode(names).alias(c.SEGMENT), c.ITEM_INDEX, popularity.WEIGHT)
    return told.groupBy(c.SEGMENT, c.ITEM_INDEX).agg(popularity.total().alias(c.SCORE))


def largest(counted: DataFrame, most: int) -> list[Segment]:
    """The ``most`` segments of each dimension that have the most events, by name. No more than those are collected."""
    sizes = counted.groupBy(c.SEGMENT).agg(F.sum(c.SCORE).alias(c.SCORE))
    dimension = Window.partitionBy(F.substring_index(c.SEGMENT, "=", 1)).orderBy(F.desc(c.SCORE), c.SEGMENT)
    kept = sizes.withColumn(c.RANK, F.row_number().over(dimension)).where(F.col(c.RANK) <= most)
    return [Segment(row[c.SEGMENT], row[c.SCORE]) for row in kept.orderBy(c.SEGMENT).collect()]


def item_vectors(items: DataFrame, counted: DataFrame, found: Sequence[Segment], prior: float) -> DataFrame:
    """Every item of ``items`` (popularity's item_vectors) with its share of each segment's events: [segments].

    float32: shares that differ by less than one part in 16 million tie, and ties go to the lower index.
    """
    names = F.array(*[F.lit(segment.name) for segment in found])
    sizes = F.array(*[F.lit(segment.events) for segment in found])
    entry = F.struct(c.SEGMENT, c.SCORE)
    inside = counted.where(F.array_contains(names, F.col(c.SEGMENT))).groupBy(c.ITEM_INDEX)
    by_item = inside.agg(F.map_from_entries(F.collect_list(entry)).alias("_by_segment"))
    everyone = items.agg(F.sum(F.col(c.VECTOR)[0].cast("double")).alias("_all"))
    joined = items.join(by_item, c.ITEM_INDEX, "left").crossJoin(F.broadcast(everyone))
    of_all = F.col(c.VECTOR)[0] / F.col("_all")

    def share(name: Column, size: Column) -> Column:
        own = F.coalesce(F.try_element_at("_by_segment", name), F.lit(0.0))
        return ((own + prior * of_all) / (size + prior)).cast("float")

    return joined.select(c.ITEM_INDEX, c.ITEM_ID, F.zip_with(names, sizes, share).alias(c.VECTOR))


def user_vectors(items: DataFrame, found: Sequence[Segment]) -> DataFrame:
    """Each segment as a user: its name, one-hot, and the index −1 − n, which is nobody's."""
    rows = [
        (-1 - number, segment.name, [float(number == other) for other in range(len(found))])
        for number, segment in enumerate(found)
    ]
    schema = f"{c.USER_INDEX} int, {c.USER_ID} string, {c.VECTOR} array<float>"
    return items.sparkSession.createDataFrame(rows, schema)
