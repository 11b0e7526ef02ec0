"""Most popular as a model of one dimension: every user is [1], an item is how often it was met.

So popularity is trained, stored, joined, filtered and measured exactly like any other model, and is also what
everyone falls back to.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c

NAME = "popularity"

# Sums of whole numbers are the same in any order.
_UNIT = 1 << 20
#: What an event counts, in whole numbers of 2⁻²⁰.
WEIGHT = "weight"


def item_scores(sequences: DataFrame, half_life_days: float | None = None) -> DataFrame:
    """Item index and score (double) of every item in gold.sequences: the sum of the :func:`weights` of its events."""
    return weights(sequences, half_life_days).groupBy(c.ITEM_INDEX).agg(total().alias(c.SCORE))


def weights(sequences: DataFrame, half_life_days: float | None = None) -> DataFrame:
    """Each event of gold.sequences: user index, item index, time, and :data:`WEIGHT`.

    Without a half-life an event counts 1. With one, an event that is t days older than the newest counts
    2^(−t / half-life).
    """
    event = F.explode(F.arrays_zip(c.ITEM_INDEX, c.EVENT_TIME)).alias("event")
    events = sequences.select(c.USER_INDEX, event).select(c.USER_INDEX, "event.*")
    if half_life_days is None:
        return events.withColumn(WEIGHT, F.lit(_UNIT).cast("bigint"))
    newest = sequences.select(F.max(F.array_max(c.EVENT_TIME)).alias("newest"))
    age = (F.col("newest") - F.col(c.EVENT_TIME)) / F.lit(86_400.0)
    weighed = events.crossJoin(F.broadcast(newest)).withColumn(WEIGHT, _decay(age, half_life_days))
    return weighed.drop("newest")


def total() -> Column:
    """The sum of :data:`WEIGHT` in events."""
    return F.sum(WEIGHT) / F.lit(float(_UNIT))


def decayed(age_days: Column, half_life_days: float) -> Column:
    """The sum over events of 2^(−age / half-life)."""
    return F.sum(_decay(age_days, half_life_days)) / F.lit(float(_UNIT))


def user_vectors(vocabulary: DataFrame) -> DataFrame:
    """Every user of the vocabulary, with the vector [1]."""
    return vocabulary.select(c.USER_INDEX, c.USER_ID, F.array(F.lit(1.0).cast("float")).alias(c.VECTOR))


def item_vectors(vocabulary: DataFrame, scores: DataFrame) -> DataFrame:
    """Every item of the vocabulary, with the vector [score]; an item that nobody met has [0].

    float32 holds whole numbers exactly up to 2²⁴: among items with more events than that, counts closer than one
    part in 16 million tie, and ties go to the lower index.
    """
    score = F.coalesce(F.col(c.SCORE), F.lit(0.0)).cast("float")
    return vocabulary.join(scores, c.ITEM_INDEX, "left").select(c.ITEM_INDEX, c.ITEM_ID, F.array(score).alias(c.VECTOR))


def _decay(age_days: Column, half_life_days: float) -> Column:
    weight = F.pow(F.lit(2.0), -age_days / F.lit(half_life_days))
    return F.round(weight * _UNIT).cast("bigint")
