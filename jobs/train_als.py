"""train_als: gold → user and item vectors by alternating least squares."""

from __future__ import annotations

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.cli import run_job
from sparkrec.models import als
from sparkrec.pipeline import Run


def train_als(run: Run) -> None:
    """Gold sequences → ALS vectors of users and items, from confidence weights or from stars.

    Nothing is done where no list is made with them.
    """
    if not run.settings.uses(als.NAME):
        run.say("no list asks for als: there is nothing to train")
        return
    settings, place = run.settings.als, {c.RUN_ID: run.run_id, c.MODEL: als.NAME}
    sequences = run.read(schemas.GOLD_SEQUENCES)
    with als.checkpoints(run.spark, settings.checkpoint_dir or run.path("checkpoints", "als")):
        run.say(f"rank {settings.rank}, {settings.iterations} iterations")
        model = als.train(als.ratings(sequences, settings), settings)
        users = als.with_ids(model.userFactors, run.read(schemas.VOCABULARY_USERS), c.USER_INDEX, c.USER_ID)
        items = als.with_ids(model.itemFactors, run.read(schemas.VOCABULARY_ITEMS), c.ITEM_INDEX, c.ITEM_ID)
        run.count(
            items=run.write(schemas.VECTORS_ITEMS, items, place),
            users=run.write(schemas.VECTORS_USERS, users, place),
        )


if __name__ == "__main__":
    run_job(train_als)
