"""What was known at a moment: now, and before the events that are held out for validation, from which a ranker learns.

The past is made by the code that makes the present: the same vectors, facts and neighbours, from the events that are
not held out. What rules and segments ask of the tables of gold is in :mod:`sparkrec.ranking.past`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import Settings
from sparkrec.errors import DataError
from sparkrec.features import neighbors, sequences
from sparkrec.models import als, popularity, segments, two_tower
from sparkrec.persistence import persisted
from sparkrec.ranking import facts, past
from sparkrec.ranking.facts import ItemFacts
from sparkrec.ranking.past import Past
from sparkrec.retrieval import embed, item_columns
from sparkrec.training.driver import chosen_folder

if TYPE_CHECKING:
    from sparkrec.pipeline import Run

#: Sources that are models with vectors.
MODELS = (two_tower.NAME, als.NAME, popularity.NAME, segments.NAME)


@dataclass(frozen=True)
class Known:
    """``moment`` : unix seconds. ``users``, ``items`` : vectors by model. ``sequences`` : the events before it.

    ``chunks`` : in so many of a user's newest chunks lie the events that features look at; None: in any.
    """

    moment: float
    sequences: DataFrame
    users: dict[str, DataFrame]
    items: dict[str, DataFrame]
    neighbors: DataFrame | None
    chunks: int | None

    def facts(self, run: Run) -> ItemFacts:
        """Of items, on every executor."""
        frame = facts.facts(
            run.read(schemas.GOLD_ITEMS),
            self.sequences,
            run.read(schemas.GOLD_ITEM_DAYS),
            self.neighbors,
            self.moment,
            run.settings.ranker.half_life_days,
            run.settings.features.neighbors,
        )
        return ItemFacts(item_columns.spread(frame))


def models(run: Run) -> tuple[str, ...]:
    """Those of the sources that have vectors, and popularity, which everyone falls back to."""
    sources = run.settings.ranker.sources
    return tuple(dict.fromkeys([*(name for name in sources if name in MODELS), popularity.NAME]))


def now(run: Run) -> Known:
    """What the stages before have left.

    A neural ranker has learned what the vectors of the model that validation chose mean: so it is given those.
    """
    users, items = {}, {}
    events = run.read(schemas.GOLD_SEQUENCES)
    for model in models(run):
        place = {c.RUN_ID: run.run_id, c.MODEL: model}
        if model == two_tower.NAME and run.settings.ranker.model == "neural":
            users[model], items[model] = _by_chosen_towers(run, events, 0)
        else:
            users[model], items[model] = run.read(schemas.VECTORS_USERS, place), run.read(schemas.VECTORS_ITEMS, place)
        if model == segments.NAME:
            users[model] = _of_country(users[model], run.read(schemas.GOLD_USERS))
    near = run.read(schemas.GOLD_NEIGHBORS) if run.settings.features.neighbors else None
    chunks = -(-run.settings.ranker.history // run.settings.features.max_length)
    return Known(past.as_of(run), events, users, items, near, chunks)


def checkpoints(run: Run) -> AbstractContextManager[None]:
    """The time in which what :func:`before_validation` gives may be read: ALS's vectors are made from checkpoints."""
    if als.NAME not in models(run):
        return nullcontext()
    return als.checkpoints(run.spark, run.settings.als.checkpoint_dir or run.path("checkpoints", "als"))


def before_validation(run: Run, some: DataFrame, then: Past) -> Known:
    """The past: first-stage models without the validation events, and what else was known before them.

    The two-tower model is the one that chose the epochs, and only users in ``some`` (user_index) have its vectors; ALS
    is trained once more, within :func:`checkpoints`.
    """
    events = persisted(sequences.without_validation(run.read(schemas.GOLD_SEQUENCES)))
    scores = popularity.item_scores(events, run.settings.popularity.half_life_days)
    popular = popularity.item_vectors(run.read(schemas.VOCABULARY_ITEMS), scores)
    users, items = {}, {}
    for model in models(run):
        if model == two_tower.NAME:
            own = events.join(F.broadcast(some.select(c.USER_INDEX)), c.USER_INDEX, "left_semi")
            users[model], items[model] = _by_chosen_towers(run, own, None)
        elif model == als.NAME:
            users[model], items[model] = _als(run, events)
        elif model == segments.NAME:
            users[model], items[model] = _segments(run, events, popular, then.countries)
        else:
            users[model], items[model] = popularity.user_vectors(run.read(schemas.VOCABULARY_USERS)), popular
    near = _neighbors(run, events) if run.settings.features.neighbors else None
    # Chunks are not full any more, so that nobody knows in which of them the newest events lie.
    return Known(then.moment, events, users, items, near, None)


def goal(settings: Settings) -> tuple[str, ...]:
    """The events that make a candidate right: where none is named, those that the test part asks for."""
    return settings.ranker.goal or settings.features.target_types


def goals(run: Run) -> DataFrame:
    """user_index and ``goals``: the items of each user's validation events that the ranker should find; only users who
    have any validation event."""
    wanted = [c.EVENT_TYPES.index(name) for name in goal(run.settings)]
    event = F.explode(F.arrays_zip(c.ITEM_INDEX, c.EVENT_TYPE, c.VALIDATION)).alias("event")
    events = run.read(schemas.GOLD_SEQUENCES).select(c.USER_INDEX, event).where(F.col(f"event.{c.VALIDATION}"))
    right = F.when(F.col(f"event.{c.EVENT_TYPE}").isin(wanted), F.col(f"event.{c.ITEM_INDEX}"))
    return events.groupBy(c.USER_INDEX).agg(F.sort_array(F.collect_set(right)).alias("goals"))


def _by_chosen_towers(run: Run, events: DataFrame, spare_chunks: int | None) -> tuple[DataFrame, DataFrame]:
    folder: Path = chosen_folder(run)
    if not folder.is_dir():
        raise DataError(
            f"The ranker learns from the past, for which it needs the two-tower model without the validation events, "
            f"and {folder} is not there. It is kept by train_two_tower where recommend.models has 'ranker', "
            "two_tower.select_on_validation is true, some events are held out for validation, and the training did not "
            "start warm. Run train_two_tower so, or take two_tower out of ranker.sources."
        )
    length = run.settings.features.max_length
    users = embed.users(events, run.read(schemas.VOCABULARY_USERS), str(folder), length, spare_chunks)
    return users, embed.items(run.read(schemas.GOLD_ITEMS), str(folder))


def _als(run: Run, events: DataFrame) -> tuple[DataFrame, DataFrame]:
    settings = run.settings.als
    model = als.train(als.ratings(events, settings), settings)
    users = als.with_ids(model.userFactors, run.read(schemas.VOCABULARY_USERS), c.USER_INDEX, c.USER_ID)
    items = als.with_ids(model.itemFactors, run.read(schemas.VOCABULARY_ITEMS), c.ITEM_INDEX, c.ITEM_ID)
    return users.persist(StorageLevel.DISK_ONLY), items.persist(StorageLevel.DISK_ONLY)


def _segments(run: Run, events: DataFrame, popular: DataFrame, countries: DataFrame) -> tuple[DataFrame, DataFrame]:
    settings = run.settings.popularity
    counted = persisted(segments.counted(events, countries, settings))
    found = segments.largest(counted, settings.max_segments)
    shares = segments.item_vectors(popular, counted, found, settings.segment_prior)
    return _of_country(segments.user_vectors(popular, found), countries), shares


def _of_country(segment: DataFrame, countries: DataFrame) -> DataFrame:
    """user_index and the vector of the segment of the user's country."""
    country = segments.name_of(segments.COUNTRY, F.col(c.COUNTRY)).alias("_segment")
    mine = countries.select(c.USER_INDEX, country)
    named = segment.select(F.col(c.USER_ID).alias("_segment"), c.VECTOR)
    return mine.join(F.broadcast(named), "_segment").select(c.USER_INDEX, c.VECTOR)


def _neighbors(run: Run, events: DataFrame) -> DataFrame:
    event = F.explode(F.arrays_zip(c.ITEM_INDEX, c.EVENT_TYPE, c.EVENT_TIME)).alias("event")
    time = F.col(f"event.{c.EVENT_TIME}")
    bought = F.when(F.col(f"event.{c.EVENT_TYPE}") == c.EVENT_TYPES.index(c.PURCHASE), time)
    met = (
        events.select(c.USER_INDEX, event)
        .groupBy(c.USER_INDEX, F.col(f"event.{c.ITEM_INDEX}").alias(c.ITEM_INDEX))
        .agg(F.max(time).alias(c.LAST_SEEN), F.max(bought).alias(c.LAST_BOUGHT))
    )
    settings = run.settings.features
    baskets = neighbors.newest(met, settings.neighbor_items).where(F.col(c.RELATION) == neighbors.SEEN)
    return neighbors.neighbors(persisted(baskets), settings)
