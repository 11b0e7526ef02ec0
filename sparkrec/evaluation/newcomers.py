"""What new users get, measured on test users without a training event: from nothing, and from their first few items.

Of a person's different items in the test part, in the order of their first times (at the same time: of the item ids),
the first n are the history and the later ones are asked for, n in :data:`GIVEN`. Nobody is trained. Who has no later
item is not measured at that n, so the numbers of one n are of the same people, and those of two n are not. The country
is the one that came with the person's first event: the context of a first visit.
"""

from __future__ import annotations

from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import TwoTower
from sparkrec.evaluation import outcomes
from sparkrec.evaluation.comparison import Comparison
from sparkrec.models import popularity, segments, two_tower
from sparkrec.models.two_tower import exported
from sparkrec.persistence import persisted
from sparkrec.pipeline import Run
from sparkrec.retrieval import newcomers
from sparkrec.retrieval.shop import Shop
from sparkrec.training.driver import model_folder

#: How many items of a person are known.
GIVEN = (0, 1, 3, 5)
NAMES = tuple(f"new_users_{n}" for n in GIVEN)
_MET, _ASKED, _HISTORY = "_met", "_asked", "_history"


def measured(run: Run, shop: Shop, holdout: DataFrame) -> Comparison | None:
    """The models on new users, a segment of :data:`NAMES` for each n; None where there is no new user.

    ``evaluate.newcomers`` people with the smallest hashes take part. A model that knows nothing of a person falls back,
    as it is served: the tower at n = 0 gives the list of the segment, or everyone's.

    Raises
    ------
    DataError
        The two-tower model was trained again since ``embed``.
    """
    settings = run.settings.evaluate
    found = persisted(cases(holdout, settings.newcomers, settings.seed))
    if found.isEmpty():
        return None
    folder, tower = "", None
    if two_tower.NAME in run.settings.recommend.models:
        folder = str(model_folder(run) / "model")
        model = exported.load(folder)
        if model.settings.history != "none":
            newcomers.check_model(run, model)
            tower = model.settings
    lists = _lists(run, shop, found, tower, folder)
    models = [popularity.NAME]
    models += [name for name, there in ((segments.NAME, shop.segments is not None), (two_tower.NAME, tower)) if there]
    wanted = found.select(c.USER_ID, F.lit(0).alias(c.USER_INDEX), F.explode(_ASKED).alias(c.ITEM_ID))
    hits = outcomes.hits(wanted, reduce(DataFrame.unionByName, [lists[x] for x in models]), models, max(settings.ks))
    sums = outcomes.totals(found, hits, len(models), settings.ks, settings.bootstrap, len(GIVEN))
    found.unpersist()
    return Comparison(sums, tuple(models), settings.ks, NAMES)


def cases(holdout: DataFrame, most: int, seed: int) -> DataFrame:
    """A row for each person and n: a name of its own, the history, the items asked for, and what ``outcomes`` takes."""
    # Not the strongest type of an item: it may be of a time after the items that are asked for.
    entry = F.struct(c.EVENT_TIME, c.ITEM_ID, F.col(c.FIRST_TYPE).alias(c.EVENT_TYPE), c.COUNTRY)
    people = (
        holdout.where(F.col(c.USER_INDEX).isNull())
        .groupBy(c.USER_ID)
        .agg(F.sort_array(F.collect_list(entry)).alias(_MET))
        .withColumn(outcomes.KEY, F.xxhash64(F.lit(seed), c.USER_ID))
        .orderBy(outcomes.KEY, c.USER_ID)
        .limit(most)
    )
    given = F.posexplode(F.array(*map(F.lit, GIVEN))).alias(c.SEGMENT, "_n")
    each = people.select("*", given).where(F.col("_n") < F.size(_MET))
    return each.select(
        F.concat_ws(":", F.col("_n").cast("string"), c.USER_ID).alias(c.USER_ID),
        outcomes.KEY,
        c.SEGMENT,
        (F.size(_MET) - F.col("_n")).alias(outcomes.N_RELEVANT),
        F.slice(F.col(_MET), F.lit(1), F.col("_n")).alias(_HISTORY),
        F.slice(F.col(f"{_MET}.{c.ITEM_ID}"), F.col("_n") + 1, F.size(_MET)).alias(_ASKED),
        F.col(_MET)[0].alias("_first"),
    )


def _lists(run: Run, shop: Shop, found: DataFrame, tower: TwoTower | None, folder: str) -> dict[str, DataFrame]:
    """Lists by model. Nobody has a vector of the segments' model: its list is the fallback."""
    told = found.select(c.USER_ID, "_first", F.explode_outer(_HISTORY).alias("_event"))
    events = told.select(
        c.USER_ID,
        F.col("_event")[c.ITEM_ID].alias(c.ITEM_ID),
        F.col("_event")[c.EVENT_TYPE].alias(c.EVENT_TYPE),
        F.coalesce(F.col("_event")[c.EVENT_TIME], F.col("_first")[c.EVENT_TIME]).alias(c.EVENT_TIME),
        F.col("_first")[c.COUNTRY].alias(c.COUNTRY),
    )
    people = newcomers.histories(events, shop.items, run.settings.recommend, tower)
    users = persisted(newcomers.as_users(run, people, shop.segments, shop.named))
    one, none = (x.cast("array<float>") for x in (F.array(F.lit(1.0)), F.lit(None)))
    lists = {
        popularity.NAME: shop.lists(users.withColumn(c.VECTOR, one), popularity.NAME),
        segments.NAME: shop.lists(users.withColumn(c.VECTOR, none), popularity.NAME),
    }
    if tower is not None:
        known = run.read(schemas.VECTORS_USERS, {c.RUN_ID: run.run_id, c.MODEL: two_tower.NAME})
        mean, prior = newcomers.mean_user(known, tower.width), run.settings.recommend.newcomer_prior
        lists[two_tower.NAME] = shop.lists(newcomers.with_vectors(users, folder, mean, prior), two_tower.NAME)
    return {
        model: blocks.rows().select(c.USER_ID, c.RANK, c.ITEM_ID, F.lit(model).alias(c.MODEL))
        for model, blocks in lists.items()
    }
