"""embed: the two-tower model → a vector for each user with events and each item."""

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.cli import run_job
from sparkrec.models import two_tower
from sparkrec.models.two_tower import exported
from sparkrec.pipeline import Run
from sparkrec.retrieval import embed as towers
from sparkrec.training.driver import model_folder


def embed(run: Run) -> None:
    """The two-tower model → vectors of users and items, computed on the executors by the towers that trained.

    Nothing is done where no list is made with them.
    """
    if not run.settings.uses(two_tower.NAME):
        run.say("no list asks for two_tower: there is nothing to embed")
        return
    folder, place = str(model_folder(run) / "model"), {c.RUN_ID: run.run_id, c.MODEL: two_tower.NAME}
    model = exported.load(folder)
    towers.check_tables(model, {table.name: run.pin(table) for table in (schemas.GOLD_SEQUENCES, schemas.GOLD_ITEMS)})
    users = towers.users(
        run.read(schemas.GOLD_SEQUENCES),
        run.read(schemas.VOCABULARY_USERS),
        folder,
        run.settings.features.max_length,
    )
    items = towers.items(run.read(schemas.GOLD_ITEMS), folder)
    run.count(
        users=run.write(schemas.VECTORS_USERS, users, place),
        items=run.write(schemas.VECTORS_ITEMS, items, place),
    )
    run.detail(model=model.hash)


if __name__ == "__main__":
    run_job(embed)
