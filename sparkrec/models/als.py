"""Matrix factorisation by alternating least squares: Spark MLlib on gold.sequences.

Implicit feedback (Hu, Koren and Volinsky, ICDM 2008): preference 1 with confidence 1 + alpha · Σ weights of the
user's events on the item. Explicit: the mean stars.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pyspark.ml.recommendation import ALS, ALSModel
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.config import Als
from sparkrec.errors import DataError
from sparkrec.persistence import persisted

NAME = "als"

_EXACT = "decimal(20,6)"  # sums of decimals are the same in any order


def confidences(sequences: DataFrame, weights: Mapping[str, float]) -> DataFrame:
    """One row a user and item, its value = Σ weight of the events; types without a weight are left out."""
    code = F.col(f"event.{c.EVENT_TYPE}")
    return _pairs(sequences, F.sum(_weight(code, weights).cast(_EXACT)))


def mean_stars(sequences: DataFrame) -> DataFrame:
    """One row a user and item, its value = the mean stars of the ratings and reviews that have any."""
    code = F.col(f"event.{c.EVENT_TYPE}")
    stars = F.when(code.isin(*map(c.EVENT_TYPES.index, (c.RATING, c.REVIEW))), F.col(f"event.{c.VALUE}"))
    return _pairs(sequences, F.avg(F.when(~F.isnan(stars), stars).cast(_EXACT)))


def ratings(sequences: DataFrame, settings: Als) -> DataFrame:
    """What :func:`train` takes, from rows of gold.sequences."""
    if settings.implicit:
        return confidences(sequences, {str(name): weight for name, weight in settings.weights.items()})
    return mean_stars(sequences)


def train(ratings: DataFrame, settings: Als) -> ALSModel:
    """Fits the model. On one machine the same ratings and seed give the same factors, on the same number of blocks.

    Rows are put in order first, because the solver adds them up in the order in which they come; on several machines
    blocks come from the network in any order, and the factors are the same to rounding.

    Raises
    ------
    DataError
        There is nothing to learn from.
    """
    ordered = ratings.repartition(settings.blocks, c.USER_INDEX).sortWithinPartitions(c.USER_INDEX, c.ITEM_INDEX)
    kept = persisted(ordered)  # MLlib would compute it twice, to count its partitions and to read it
    try:
        if kept.isEmpty():
            raise DataError(
                "ALS has no ratings to learn from: gold.sequences holds no event with a positive als.weights entry "
                "(or, with als.implicit: false, no rating with stars). Look at features.event_types and als.weights."
            )
        return ALS(
            userCol=c.USER_INDEX,
            itemCol=c.ITEM_INDEX,
            ratingCol=c.VALUE,
            implicitPrefs=settings.implicit,
            rank=settings.rank,
            maxIter=settings.iterations,
            alpha=settings.alpha,
            regParam=settings.regularization,
            numUserBlocks=settings.blocks,
            numItemBlocks=settings.blocks,
            checkpointInterval=settings.checkpoint_interval,
            seed=settings.seed,
        ).fit(kept)
    finally:
        kept.unpersist()


def with_ids(factors: DataFrame, vocabulary: DataFrame, index: str, identifier: str) -> DataFrame:
    """The factors as a vectors table: index, id and vector."""
    named = factors.select(F.col("id").alias(index), F.col("features").alias(c.VECTOR))
    return vocabulary.select(index, identifier).join(named, index)


@contextmanager
def checkpoints(spark: SparkSession, folder: str) -> Iterator[None]:
    """A checkpoint folder for the time of a training, removed afterwards.

    Without one MLlib ignores the checkpoint interval in silence: the lineage grows until the stack overflows.
    """
    context = spark.sparkContext
    context.setCheckpointDir(folder)
    own = context._jsc.sc().getCheckpointDir().get()
    try:
        yield
    finally:
        path = context._jvm.org.apache.hadoop.fs.Path(own)  # type: ignore[union-attr]
        path.getFileSystem(context._jsc.hadoopConfiguration()).delete(path, True)


def _pairs(sequences: DataFrame, value: Column) -> DataFrame:
    events = sequences.select(c.USER_INDEX, F.explode(F.arrays_zip(c.ITEM_INDEX, c.EVENT_TYPE, c.VALUE)).alias("event"))
    pairs = events.groupBy(c.USER_INDEX, F.col(f"event.{c.ITEM_INDEX}").alias(c.ITEM_INDEX)).agg(value.alias(c.VALUE))
    # A null value: nothing that counts. MLlib wants float, and reads an implicit 0 as no interaction.
    return pairs.where(F.col(c.VALUE).isNotNull()).withColumn(c.VALUE, F.col(c.VALUE).cast("float"))


def _weight(code: Column, weights: Mapping[str, float]) -> Column:
    """The weight of an event type's code; null for a type without one."""
    table = F.array(*[F.lit(weights.get(name) or None).cast("double") for name in c.EVENT_TYPES])
    return F.element_at(table, code.cast("int") + 1)
