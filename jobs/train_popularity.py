"""train_popularity: gold → vectors of the models that count: those that everyone falls back to, and tastes."""

from __future__ import annotations

from pyspark.sql import DataFrame

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.cli import run_job
from sparkrec.models import popularity, segments, tastes
from sparkrec.persistence import persisted
from sparkrec.pipeline import Run


def train_popularity(run: Run) -> None:
    """Gold sequences → a popularity score for every item, and where asked one for each segment, and tastes."""
    settings, sequences = run.settings.popularity, run.read(schemas.GOLD_SEQUENCES)
    scores = popularity.item_scores(sequences, settings.half_life_days)
    items = popularity.item_vectors(run.read(schemas.VOCABULARY_ITEMS), scores)
    users = popularity.user_vectors(run.read(schemas.VOCABULARY_USERS))
    n_items, n_users = _write(run, popularity.NAME, items, users)
    run.count(items=n_items, users=n_users)
    if settings.segments:
        counted = persisted(segments.counted(sequences, run.read(schemas.GOLD_USERS), settings))
        if found := segments.largest(counted, settings.max_segments):
            shares = segments.item_vectors(items, counted, found, settings.segment_prior)
            _write(run, segments.NAME, shares, segments.user_vectors(items, found))
        run.count(segments=len(found))
        counted.unpersist()
    if run.settings.uses(tastes.NAME):
        _tastes(run, sequences)


def _tastes(run: Run, sequences: DataFrame) -> None:
    settings, items = run.settings.tastes, run.read(schemas.GOLD_ITEMS)
    met = persisted(tastes.met(sequences, run.settings.popularity.half_life_days))
    kinds = tastes.kinds(met, items, settings)
    liked = persisted(tastes.of_users(met, items, kinds, settings))
    of_items = tastes.item_vectors(items, met, liked, kinds, settings)
    _, known = _write(run, tastes.NAME, of_items, tastes.user_vectors(run.read(schemas.VOCABULARY_USERS), liked, kinds))
    run.count(tastes=known, taste_kinds=len(kinds.shares))
    met.unpersist()
    liked.unpersist()


def _write(run: Run, model: str, items: DataFrame, users: DataFrame) -> list[int]:
    place = {c.RUN_ID: run.run_id, c.MODEL: model}
    return [
        run.write(table, rows, place)
        for table, rows in ((schemas.VECTORS_ITEMS, items), (schemas.VECTORS_USERS, users))
    ]


if __name__ == "__main__":
    run_job(train_popularity)
