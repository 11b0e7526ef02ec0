"""train_popularity: gold → vectors of the models that everyone falls back to."""

from __future__ import annotations

from pyspark.sql import DataFrame

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.cli import run_job
from sparkrec.models import popularity, segments
from sparkrec.persistence import persisted
from sparkrec.pipeline import Run


def train_popularity(run: Run) -> None:
    """Gold sequences → a popularity score for every item, and where asked one for each segment, written as vectors."""
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


def _write(run: Run, model: str, items: DataFrame, users: DataFrame) -> list[int]:
    place = {c.RUN_ID: run.run_id, c.MODEL: model}
    return [
        run.write(table, rows, place)
        for table, rows in ((schemas.VECTORS_ITEMS, items), (schemas.VECTORS_USERS, users))
    ]


if __name__ == "__main__":
    run_job(train_popularity)
