"""Items that are alike by what the same users did: who met both, or how those who rated both rated them.

The similarities of neighbourhood models, from gold.pairs. A user's items are paired with each other, of which the
newest count; the sums over users of a pair of items are one shuffle, and the similarity is a kernel over them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.features import exact
from sparkrec.features.neighbors import BASKET, paired
from sparkrec.persistence import persisted
from sparkrec.retrieval.similarity import Together, adjusted_cosine, jaccard, pearson

JACCARD, PEARSON, ADJUSTED_COSINE = "jaccard", "pearson", "adjusted_cosine"
F64 = NDArray[np.float64]
_X, _POSITION = "_x", "_position"
_SUMS = ("_sx", "_sy", "_sxx", "_syy", "_sxy", "_left", "_right")
_DDL = f"{c.ITEM_INDEX} int, {c.NEIGHBOR_INDEX} int, {c.COUNT} bigint, {c.SCORE} double"
# A score is the same on every run although a sum of doubles is not: equal ones go to the lower index.
_DIGITS = 9


def alike(pairs: DataFrame, items: DataFrame, measure: str, most: int, min_users: int, shrinkage: float) -> DataFrame:
    """``item_index``, ``neighbor_index``, ``count`` (users of both) and ``score`` above 0, both ways round.

    The users' baskets, which are read three times, are kept until ``spark.catalog.clearCache``.

    Parameters
    ----------
    pairs, items
        gold.pairs, and gold.items for the indices. A rating is the mean of a user's stars of an item.
    measure
        ``jaccard`` of the users who met the items; ``pearson`` or ``adjusted_cosine`` of the ratings of those who rated
        both (:mod:`sparkrec.retrieval.similarity`), the latter less the mean of all that the user rated.
    most
        A user's newest items that count: n² / 2 pairs a user.
    min_users
        Pairs with fewer users are no evidence.
    shrinkage
        Of ratings: the score times n / (n + shrinkage), n users rated both (Koren, Factorization meets the
        neighborhood, KDD 2008, equation 2): a correlation of three users is not sure.
    """
    known = pairs.join(items.select(c.ITEM_ID, c.ITEM_INDEX), c.ITEM_ID)
    baskets = persisted(_baskets(known if measure == JACCARD else _rated(known, measure == ADJUSTED_COSINE), most))
    both = paired(baskets)
    x, y = F.col(f"_a.{_X}"), F.col(f"_b.{_X}")
    sums = {"_sx": x, "_sy": y, "_sxx": x * x, "_syy": y * y, "_sxy": x * y}
    shared = both.groupBy(
        F.col(f"_a.{c.ITEM_INDEX}").alias(c.ITEM_INDEX), F.col(f"_b.{c.ITEM_INDEX}").alias(c.NEIGHBOR_INDEX)
    ).agg(F.count("*").alias(c.COUNT), *[F.sum(column).alias(name) for name, column in sums.items()])
    shared = shared.where(F.col(c.COUNT) >= min_users)
    own = baskets.select(F.explode(BASKET).alias("_a")).groupBy(F.col(f"_a.{c.ITEM_INDEX}").alias(c.ITEM_INDEX))
    left = own.agg(F.count("*").cast("double").alias("_left"))
    right = left.select(F.col(c.ITEM_INDEX).alias(c.NEIGHBOR_INDEX), F.col("_left").alias("_right"))
    joined = shared.join(left, c.ITEM_INDEX).join(right, c.NEIGHBOR_INDEX)
    scored = joined.select(c.ITEM_INDEX, c.NEIGHBOR_INDEX, c.COUNT, *_SUMS).mapInArrow(
        _kernel(measure, shrinkage), _DDL
    )
    a, b = F.col(c.ITEM_INDEX), F.col(c.NEIGHBOR_INDEX)
    ways = [F.struct(x.alias(c.ITEM_INDEX), y.alias(c.NEIGHBOR_INDEX)) for x, y in ((a, b), (b, a))]
    return scored.where(F.col(c.SCORE) > 0).select(F.inline(F.array(*ways)), c.COUNT, c.SCORE)


def _rated(pairs: DataFrame, centred: bool) -> DataFrame:
    """The pairs with stars, and ``_x``: their mean, less the user's mean over all items where ``centred``."""
    rated = pairs.where(F.col(c.N_STARS) > 0).withColumn(_X, exact.total(c.STARS) / F.col(c.N_STARS))
    if not centred:
        return rated
    return rated.withColumn(_X, F.col(_X) - F.avg(_X).over(Window.partitionBy(c.USER_INDEX)))


def _baskets(met: DataFrame, most: int) -> DataFrame:
    """``_basket`` : of each user the newest ``most`` items and what they have of ``_x``, by index."""
    newest_first = Window.partitionBy(c.USER_INDEX).orderBy(F.desc(c.LAST_SEEN), c.ITEM_INDEX)
    kept = met.withColumn(_POSITION, F.row_number().over(newest_first)).where(F.col(_POSITION) <= most)
    x = F.col(_X) if _X in met.columns else F.lit(0.0)
    members = F.collect_list(F.struct(c.ITEM_INDEX, x.alias(_X)))
    return kept.groupBy(c.USER_INDEX).agg(F.sort_array(members).alias(BASKET))


def _kernel(measure: str, shrinkage: float) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    """The score of each row of sums."""

    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            n = batch.column(c.COUNT).to_numpy().astype(np.float64)
            x, y, xx, yy, xy, left, right = (batch.column(name).to_numpy() for name in _SUMS)
            scores = _scores(measure, Together(n, x, y, xx, yy, xy), left, right, shrinkage)
            columns = [batch.column(name) for name in (c.ITEM_INDEX, c.NEIGHBOR_INDEX, c.COUNT)]
            names = [c.ITEM_INDEX, c.NEIGHBOR_INDEX, c.COUNT, c.SCORE]
            yield pa.RecordBatch.from_arrays([*columns, pa.array(np.round(scores, _DIGITS))], names=names)

    return kernel


def _scores(measure: str, sums: Together, left: F64, right: F64, shrinkage: float) -> F64:
    if measure == JACCARD:
        return jaccard(sums.n, left, right)
    raw = {PEARSON: pearson, ADJUSTED_COSINE: adjusted_cosine}[measure](sums)
    return raw * sums.n / (sums.n + shrinkage)
