"""newcomers: events of users whom no model was trained on → lists for them, without training."""

from __future__ import annotations

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.cli import run_job
from sparkrec.models import two_tower
from sparkrec.models.two_tower import exported
from sparkrec.pipeline import Run
from sparkrec.retrieval import newcomers as strangers
from sparkrec.retrieval import recall, reranking
from sparkrec.retrieval.shop import Shop
from sparkrec.training.driver import model_folder


def newcomers(run: Run) -> None:
    """A few events of new users → vectors by the history tower → lists under the rules of recommend."""
    folder = str(model_folder(run) / "model")
    model, shop = exported.load(folder), Shop(run, few=True)
    tower = model.settings
    strangers.require_history(tower)
    strangers.check_model(run, model)
    events = strangers.unknown(run, strangers.read(run, run.arguments["events"]))
    people = strangers.histories(events, shop.items, run.settings.recommend, tower)
    of_known = run.read(schemas.VECTORS_USERS, {c.RUN_ID: run.run_id, c.MODEL: two_tower.NAME})
    mean = strangers.mean_user(of_known, tower.width)
    known = strangers.with_vectors(people, folder, mean, run.settings.recommend.newcomer_prior)
    users = strangers.as_users(run, known, shop.segments, shop.named)
    size = reranking.pool_size(shop.settings.k, shop.settings)
    recall.say_how(run, two_tower.NAME, shop.matrix(two_tower.NAME), users, size, shop.policy)
    place = {c.RUN_ID: run.run_id, c.MODEL: strangers.NAME}
    run.count(rows=run.write_blocks(schemas.RECOMMENDATIONS, shop.lists(users, two_tower.NAME), place))


if __name__ == "__main__":
    run_job(newcomers)
