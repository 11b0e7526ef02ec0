"""newcomers: events of users whom no model was trained on → lists for them, without training."""

from __future__ import annotations

from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.cli import run_job
from sparkrec.models.two_tower import exported
from sparkrec.pipeline import Run
from sparkrec.retrieval import newcomers as strangers
from sparkrec.retrieval.shop import Shop
from sparkrec.training.driver import model_folder

MODEL = "two_tower"


def newcomers(run: Run) -> None:
    """A few events of new users → vectors by the history tower → lists under the rules of recommend."""
    folder = str(model_folder(run) / "model")
    tower, shop = exported.load(folder).settings, Shop(run)
    strangers.require_history(tower)
    events = strangers.unknown(run, strangers.read(run, run.arguments["events"]))
    people = strangers.histories(events, shop.items, run.settings.recommend, tower)
    mean = strangers.mean_user(run.read(schemas.VECTORS_USERS, {c.RUN_ID: run.run_id, c.MODEL: MODEL}), tower.width)
    known = strangers.with_vectors(people, folder, mean, run.settings.recommend.newcomer_prior)
    users = strangers.as_users(run, known, shop.segments, shop.named)
    place = {c.RUN_ID: run.run_id, c.MODEL: strangers.NAME}
    labels = {column: F.lit(value) for column, value in place.items()}
    rows = run.write(schemas.RECOMMENDATIONS, shop.lists(users, MODEL).withColumns(labels), place)
    run.count(rows=rows)


if __name__ == "__main__":
    run_job(newcomers)
