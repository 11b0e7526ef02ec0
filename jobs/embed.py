"""embed: the two-tower model → a vector for each user with events and each item."""

from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.cli import run_job
from sparkrec.pipeline import Run
from sparkrec.retrieval import embed as towers
from sparkrec.training.driver import model_folder

MODEL = "two_tower"


def embed(run: Run) -> None:
    """The two-tower model → vectors of users and items, computed on the executors by the towers that trained."""
    folder = str(model_folder(run) / "model")
    mine = {c.RUN_ID: run.run_id, c.MODEL: MODEL}
    key = [F.lit(value).alias(name) for name, value in mine.items()]

    users = towers.users(
        run.read(schemas.GOLD_SEQUENCES),
        run.read(schemas.VOCABULARY_USERS),
        folder,
        run.settings.features.max_length,
    )
    items = towers.items(run.read(schemas.GOLD_ITEMS), folder)
    run.count(
        users=run.write(schemas.VECTORS_USERS, users.select("*", *key), mine),
        items=run.write(schemas.VECTORS_ITEMS, items.select("*", *key), mine),
    )


if __name__ == "__main__":
    run_job(embed)
