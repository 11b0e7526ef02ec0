"""Most popular as a model of one dimension: every user is [1], an item is how often it was met.

So popularity is trained, stored, joined, filtered and measured exactly like any other model, and is also what
everyone falls back to.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c

NAME = "popularity"

# A decayed weight is counted in whole numbers of 2⁻²⁰: such sums are the same in any order.
_UNIT = 1 << 20


def item_scores(sequences: DataFrame, half_life_days: float | None = None) -> DataFrame:
    """Item index and score (double) of every item in gold.sequences.

    Without a half-life the score is the number of events. With one, an event that is t days older than the newest
    counts 2^(−t / half-life).
    """
    events = sequences.select(F.explode(F.arrays_zip(c.ITEM_INDEX, c.EVENT_TIME)).alias("event")).select("event.*")
    if half_life_days is None:
        return events.groupBy(c.ITEM_INDEX).agg(F.count("*").cast("double").alias(c.SCORE))
    newest = sequences.select(F.max(F.array_max(c.EVENT_TIME)).alias("newest"))
    total = decayed((F.col("newest") - F.col(c.EVENT_TIME)) / F.lit(86_400.0), half_life_days)
    return events.crossJoin(F.broadcast(newest)).groupBy(c.ITEM_INDEX).agg(total.alias(c.SCORE))


def decayed(age_days: Column, half_life_days: float) -> Column:
    """The sum over events of 2^(−age / half-life)."""
    weight = F.pow(F.lit(2.0), -age_days / F.lit(half_life_days))
    return F.sum(F.round(weight * _UNIT).cast("bigint")) / F.lit(float(_UNIT))


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
