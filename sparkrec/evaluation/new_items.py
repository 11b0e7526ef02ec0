"""Where new items go: test users' lists of nothing but items without a training event, which content alone can place.

Such an item stands seldom in a list of the whole catalogue, so the question is put about new items alone: among them,
how high stand those that a user went on to choose? The numbers say nothing about lists of all items. Against the tower
stand chance (both sides drawn by lot) and what is known of a new item without a model: how many training events items
of its kind (category, brand, words, …) have on average.
"""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.evaluation import outcomes
from sparkrec.evaluation.comparison import Comparison
from sparkrec.persistence import persisted
from sparkrec.pipeline import Run
from sparkrec.retrieval import catalogue, join
from sparkrec.retrieval.catalogue import ALLOWED
from sparkrec.retrieval.shop import Shop

NAME = "new_items"
CHANCE, KIND, TOWER = "chance", "kind_popularity", "two_tower"
_WIDTH = 8  # of vectors drawn by lot
_RESOLUTION = 1 << 20


def measured(run: Run, shop: Shop, holdout: DataFrame) -> tuple[Comparison, int] | None:
    """The models on the new items, and how many of those may be recommended; None where no test user chose one.

    ``evaluate.newcomers`` known users with the smallest hashes take part.
    """
    settings, place = run.settings.evaluate, {c.RUN_ID: run.run_id, c.MODEL: TOWER}
    new = shop.items.where(F.coalesce(c.N_EVENTS, F.lit(0)) == 0).select(c.ITEM_INDEX, F.lit(True).alias("_new"))
    shelf = shop.shelf.join(new, c.ITEM_INDEX, "left").select(
        c.ITEM_INDEX, c.ITEM_ID, (F.col(ALLOWED) & F.coalesce("_new", F.lit(False))).alias(ALLOWED)
    )
    wanted = holdout.join(shelf.where(ALLOWED).select(c.ITEM_INDEX), c.ITEM_INDEX, "left_semi")
    users = persisted(_users(wanted, settings.newcomers, settings.seed))
    if users.isEmpty():
        return None
    vectors = {
        CHANCE: (_drawn(users, c.USER_INDEX, settings.seed), _drawn(shop.items, c.ITEM_INDEX, settings.seed)),
        KIND: (users.select(c.USER_INDEX, _floats(F.lit(1.0))), of_kinds(shop.items)),
    }
    if TOWER in run.settings.recommend.models:
        vectors[TOWER] = run.read(schemas.VECTORS_USERS, place), shop.vectors(TOWER)
    lists = []
    for model, (of_users, of_items) in vectors.items():
        matrix = catalogue.publish(shelf, of_items, model, shop.settings.memory_mb)
        unseen = users.withColumn(join.SEEN, F.lit(None).cast("array<int>"))
        frame = join.with_vectors(unseen, of_users).where(F.col(c.VECTOR).isNotNull())
        found = join.similarity_join(frame, matrix, matrix, max(settings.ks), shop.settings.block_users)
        lists.append(found.withColumn(c.MODEL, F.lit(model)))
    models = list(vectors)
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


def _drawn(rows: DataFrame, index: str, seed: int) -> DataFrame:
    """Vectors of numbers in [-1, 1), by lot: so every order of the items is equally likely for a user."""
    hashes = [F.pmod(F.xxhash64(F.lit(seed), F.lit(index), F.lit(n), index), F.lit(_RESOLUTION)) for n in range(_WIDTH)]
    return rows.select(index, _floats(*[number / (_RESOLUTION / 2) - 1 for number in hashes]))


def _floats(*numbers: Column) -> Column:
    return F.array(*numbers).cast("array<float>").alias(c.VECTOR)
