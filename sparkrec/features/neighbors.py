"""gold.item_neighbors: which items the same users met, and bought."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import Features

SEEN, BOUGHT = "seen", "bought"
#: The array of what a user met.
BASKET = "_basket"
_POSITION = "_position"
_OWN, _OTHER = "_own", "_other"
_Z = 1.645  # one-sided 95 %
#: Of what was bought together so many times more is kept: some of it will be out of stock when it is to be shown.
_SPARE = 4


def sure_lift() -> Column:
    """The lower 95 % bound of the lift: that of two rare items that met by accident says little.

    Of a count n that chance expects e times, lift = n / e, and n − 1.645 √n is about the least that n stands for
    (Poisson, normal approximation), so the bound is lift · (1 − 1.645 / √n).
    """
    return F.col(c.LIFT) * (1 - _Z / F.sqrt(c.COUNT))


def baskets(pairs: DataFrame, items: DataFrame, most: int) -> DataFrame:
    """user_index, relation, ``_basket``: of each user and relation the indices of the newest ``most`` items, ascending.

    The cap is what keeps a user of a million items from making 10¹² pairs; such a user still counts, with the newest.
    """
    return newest(pairs.join(items.select(c.ITEM_ID, c.ITEM_INDEX), c.ITEM_ID), most)


def newest(met: DataFrame, most: int) -> DataFrame:
    """:func:`baskets` of pairs by item index: with the last time that the user met, and bought, the item."""
    last = {SEEN: F.col(c.LAST_SEEN), BOUGHT: F.col(c.LAST_BOUGHT)}
    kinds = F.array(*[F.struct(F.lit(name).alias(c.RELATION), time.alias("_last")) for name, time in last.items()])
    times = met.select(c.USER_INDEX, c.ITEM_INDEX, F.inline(kinds)).where(F.col("_last").isNotNull())
    newest_first = Window.partitionBy(c.USER_INDEX, c.RELATION).orderBy(F.desc("_last"), c.ITEM_INDEX)
    kept = times.withColumn(_POSITION, F.row_number().over(newest_first)).where(F.col(_POSITION) <= most)
    return kept.groupBy(c.USER_INDEX, c.RELATION).agg(F.sort_array(F.collect_list(c.ITEM_INDEX)).alias(BASKET))


def paired(baskets: DataFrame, *keys: str) -> DataFrame:
    """``keys``, ``_a``, ``_b``: each two of what a row's ``_basket`` holds, in its order."""
    first = baskets.select(*keys, F.posexplode(BASKET).alias(_POSITION, "_a"), BASKET)
    rest = F.slice(BASKET, F.col(_POSITION) + 2, F.size(BASKET))
    return first.select(*keys, "_a", F.explode(rest).alias("_b"))


def neighbors(baskets: DataFrame, settings: Features) -> DataFrame:
    """Rows of gold.item_neighbors from :func:`baskets`, which are read three times: persist them.

    Of n baskets, with n_a that hold a, n_b that hold b, and n_ab both: lift = n · n_ab / (n_a · n_b) and
    cosine = n_ab / √(n_a · n_b) (Tan, Kumar and Srivastava, Selecting the right interestingness measure for association
    patterns, KDD 2002). Pairs are counted once, the smaller index first, and turned round when few are left.

    Kept are those of the largest cosine; of what was bought those of the largest :func:`sure_lift`, by which they are
    shown: a best-seller has the largest cosines with other best-sellers, whatever goes with it.
    """
    together = paired(baskets, c.RELATION).groupBy(c.RELATION, "_a", "_b").count()
    both = F.array(
        F.struct(F.col("_a").alias(c.ITEM_INDEX), F.col("_b").alias(c.NEIGHBOR_INDEX)),
        F.struct(F.col("_b").alias(c.ITEM_INDEX), F.col("_a").alias(c.NEIGHBOR_INDEX)),
    )
    shared = together.where(F.col("count") >= settings.neighbor_users).select(c.RELATION, F.inline(both), c.COUNT)
    alone = baskets.select(c.RELATION, F.explode(BASKET).alias(c.ITEM_INDEX)).groupBy(c.RELATION, c.ITEM_INDEX)
    own = alone.agg(F.count("*").alias(_OWN))
    other = own.select(c.RELATION, F.col(c.ITEM_INDEX).alias(c.NEIGHBOR_INDEX), F.col(_OWN).alias(_OTHER))
    all_baskets = F.broadcast(baskets.groupBy(c.RELATION).agg(F.count("*").alias("_n")))
    joined = (
        shared.join(own, [c.RELATION, c.ITEM_INDEX])
        .join(other, [c.RELATION, c.NEIGHBOR_INDEX])
        .join(all_baskets, c.RELATION)
    )
    product = F.col(_OWN).cast("double") * F.col(_OTHER)
    measured = joined.withColumns(
        {c.LIFT: F.col(c.COUNT) * F.col("_n") / product, c.COSINE: F.col(c.COUNT) / F.sqrt(product)}
    )
    bought = F.col(c.RELATION) == BOUGHT
    strength = F.when(bought, sure_lift()).otherwise(F.col(c.COSINE))
    best = Window.partitionBy(c.RELATION, c.ITEM_INDEX).orderBy(F.desc(strength), F.desc(c.COUNT), c.NEIGHBOR_INDEX)
    most = F.when(bought, _SPARE * settings.neighbors).otherwise(settings.neighbors)
    ranked = measured.withColumn(c.RANK, F.row_number().over(best)).where(F.col(c.RANK) <= most)
    return ranked.select(*schemas.GOLD_NEIGHBORS.column_names)
