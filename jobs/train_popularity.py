"""train_popularity: gold → vectors of the model that everyone falls back to."""

from __future__ import annotations

from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.cli import run_job
from sparkrec.models import popularity
from sparkrec.pipeline import Run


def train_popularity(run: Run) -> None:
    """Gold sequences → a popularity score for every item, written as vectors of width one."""
    place = {c.RUN_ID: run.run_id, c.MODEL: popularity.NAME}
    labels = {column: F.lit(value) for column, value in place.items()}
    scores = popularity.item_scores(run.read(schemas.GOLD_SEQUENCES), run.settings.popularity.half_life_days)
    items = popularity.item_vectors(run.read(schemas.VOCABULARY_ITEMS), scores)
    users = popularity.user_vectors(run.read(schemas.VOCABULARY_USERS))
    run.count(
        items=run.write(schemas.VECTORS_ITEMS, items.withColumns(labels), place),
        users=run.write(schemas.VECTORS_USERS, users.withColumns(labels), place),
    )


if __name__ == "__main__":
    run_job(train_popularity)
