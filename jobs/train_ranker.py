"""train_ranker: the past, and what users went on to do → an order of candidates."""

from __future__ import annotations

from sparkrec.cli import run_job
from sparkrec.pipeline import Run
from sparkrec.ranking import model, serving, training


def train_ranker(run: Run) -> None:
    """Candidates as they were before the validation events → a model of which of them users chose.

    Nothing is done where recommend.models has no 'ranker'.
    """
    if model.NAME not in run.settings.recommend.models:
        run.say("recommend.models has no 'ranker': there is nothing to train")
        return
    examples, stage = training.past(run)
    run.say(f"{len(examples):,} candidates of {len(examples.asked):,} users, {int(examples.chosen.sum()):,} chosen")
    ranker, about = training.train(examples, stage)
    held = ", ".join(f"{name} {value:.4f}" for name, value in about["ndcg"].items())
    run.say(f"on users set aside, NDCG@20 of their candidates in the order of: {held}")
    place = serving.folder(run)
    model.save(place, ranker, {**about, "settings": run.settings.ranker.model_dump(mode="json")})
    run.count(users=len(examples.asked), candidates=len(examples), chosen=about["chosen"], rounds=about["rounds"])
    run.detail(ranker=about)
    run.tracker.metrics({f"validation.ndcg.{name}": value for name, value in about["ndcg"].items()})
    run.tracker.artifact(place, "ranker")
    run.spark.catalog.clearCache()  # the past is not needed again


if __name__ == "__main__":
    run_job(train_ranker)
