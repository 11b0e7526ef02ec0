"""Where new items go: test users' lists of nothing but items without a training event, which content alone can place.

Such an item stands seldom in a list of the whole catalogue, so the question is put about new items alone: among them,
how high stand those that a user went on to choose? The numbers say nothing about lists of all items. Against the tower
stand chance (every user's list by lot) and what is known of a new item without a model: how many training events items
of its kind (category, brand, words, …) have on average.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import reduce

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.evaluation import outcomes
from sparkrec.evaluation.comparison import Comparison
from sparkrec.models import two_tower
from sparkrec.persistence import persisted
from sparkrec.pipeline import Run
from sparkrec.retrieval import catalogue, join
from sparkrec.retrieval.catalogue import ALLOWED, ItemMatrix
from sparkrec.retrieval.exploration import uniform
from sparkrec.retrieval.shop import Shop

NAME = "new_items"
CHANCE, KIND = "chance", "kind_popularity"
_LOT = "_lot"


def measured(run: Run, shop: Shop, holdout: DataFrame) -> tuple[Comparison, int] | None:
    """The models on the new items, and how many of those may be recommended; None where no test user chose one.

    ``evaluate.newcomers`` known users with the smallest hashes take part.
    """
    settings, place = run.settings.evaluate, {c.RUN_ID: run.run_id, c.MODEL: two_tower.NAME}
    new = shop.items.where(F.coalesce(c.N_EVENTS, F.lit(0)) == 0).select(c.ITEM_INDEX, F.lit(True).alias("_new"))
    shelf = shop.shelf.join(new, c.ITEM_INDEX, "left").select(
        c.ITEM_INDEX, c.ITEM_ID, (F.col(ALLOWED) & F.coalesce("_new", F.lit(False))).alias(ALLOWED)
    )
    wanted = holdout.join(shelf.where(ALLOWED).select(c.ITEM_INDEX), c.ITEM_INDEX, "left_semi")
    users = persisted(_users(wanted, settings.newcomers, settings.seed))
    if users.isEmpty():
        return None
    vectors = {KIND: (users.select(c.USER_INDEX, _floats(F.lit(1.0))), of_kinds(shop.items))}
    if two_tower.NAME in run.settings.recommend.models:
        vectors[two_tower.NAME] = run.read(schemas.VECTORS_USERS, place), shop.vectors(two_tower.NAME)
    lists, stocked = [], catalogue.stocked(shelf)
    for model, (of_users, of_items) in vectors.items():
        matrix = catalogue.publish(stocked, of_items, model, shop.settings.memory_mb)
        if model == KIND:
            lists.append(_by_lot(users, matrix, max(settings.ks), settings.seed))
        unseen = users.withColumn(join.SEEN, F.lit(None).cast("array<int>"))
        frame = join.with_vectors(unseen, of_users).where(F.col(c.VECTOR).isNotNull())
        found = join.similarity_join(frame, matrix, matrix, max(settings.ks), shop.settings.block_users)
        lists.append(found.rows().select(c.USER_ID, c.RANK, c.ITEM_ID, F.lit(model).alias(c.MODEL)))
    models = [CHANCE, *vectors]
    hits = outcomes.hits(wanted, reduce(DataFrame.unionByName, lists), models, max(settings.ks))
    sums = outcomes.totals(users, hits, len(models), settings.ks, settings.bootstrap, 1)
    users.unpersist()
    return Comparison(sums, tuple(models), settings.ks, (NAME,), KIND), shelf.where(ALLOWED).count()


def of_kinds(items: DataFrame) -> DataFrame:
    """Item index and vector of width one: over the item's features, the mean of the mean events of items that have it.

    Features are category, brand, price, words and attributes. Only items with training events count in a mean; an item
    whose features no such item has gets 0.
    """
    met = F.when(F.col(c.N_EVENTS) > 0, F.col(c.N_EVENTS)).alias(c.N_EVENTS)
    told = items.select(c.ITEM_INDEX, met, F.explode(c.FEATURES).alias(c.FEATURE_INDEX))
    means = told.groupBy(c.FEATURE_INDEX).agg(F.avg(c.N_EVENTS).alias("_mean"))
    scores = told.join(means, c.FEATURE_INDEX).groupBy(c.ITEM_INDEX).agg(F.avg("_mean").alias("_score"))
    found = items.select(c.ITEM_INDEX).join(scores, c.ITEM_INDEX, "left")
    return found.select(c.ITEM_INDEX, _floats(F.coalesce("_score", F.lit(0.0))))


def _users(wanted: DataFrame, most: int, seed: int) -> DataFrame:
    relevant = wanted.where(F.col(c.USER_INDEX).isNotNull()).groupBy(c.USER_ID, c.USER_INDEX)
    return (
        relevant.agg(F.count("*").alias(outcomes.N_RELEVANT))
        .withColumns({outcomes.KEY: F.xxhash64(F.lit(seed), c.USER_ID), c.SEGMENT: F.lit(0)})
        .orderBy(outcomes.KEY, c.USER_ID)
        .limit(most)
    )


def _by_lot(users: DataFrame, items: ItemMatrix, k: int, seed: int) -> DataFrame:
    """user_id, rank, item_id and model of :data:`CHANCE`: for each user ``k`` of the allowed items."""
    lots = users.select(c.USER_ID, F.xxhash64(F.lit(seed), F.lit(CHANCE), c.USER_ID).alias(_LOT))

    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        index = np.flatnonzero(items.allowed)
        for batch in batches:
            drawn = index[by_lot(batch.column(_LOT).to_numpy().view(np.uint64), len(index), k)]
            owner, place = (x.ravel() for x in np.indices(drawn.shape))
            ids = items.ids.take(pa.array(drawn.ravel())).combine_chunks().cast(pa.string())
            columns = [batch.column(c.USER_ID).take(pa.array(owner)), pa.array((place + 1).astype(np.int32)), ids]
            yield pa.RecordBatch.from_arrays(columns, [c.USER_ID, c.RANK, c.ITEM_ID])

    found = lots.mapInArrow(kernel, f"{c.USER_ID} string, {c.RANK} int, {c.ITEM_ID} string")
    return found.withColumn(c.MODEL, F.lit(CHANCE))


def by_lot(lots: NDArray[np.uint64], m: int, k: int) -> NDArray[np.int64]:
    """``[n, min(k, m)]``: of ``m`` items ``k`` different ones for each user, every such list equally likely."""
    found = np.zeros((len(lots), min(k, m)), np.int64)
    for place in range(found.shape[1]):
        number = (uniform(lots, place) * (m - place)).astype(np.int64)  # among those that are left
        for taken in np.sort(found[:, :place], axis=1).T:
            number += number >= taken
        found[:, place] = number
    return found


def _floats(*numbers: Column) -> Column:
    return F.array(*numbers).cast("array<float>").alias(c.VECTOR)
