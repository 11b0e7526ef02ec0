"""The second stage at work: what was known at a moment, on every executor, and today's lists."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparkrec.errors import ConfigError
from sparkrec.ranking import known, model, second_stage
from sparkrec.ranking.known import Known
from sparkrec.ranking.second_stage import SecondStage
from sparkrec.retrieval import catalogue

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkrec.pipeline import Run
    from sparkrec.retrieval.catalogue import ItemMatrix
    from sparkrec.retrieval.reranking import Policy


def lists(
    run: Run, shelf: DataFrame, people: DataFrame, policy: Policy, segments: ItemMatrix | None = None
) -> DataFrame:
    """The ranker's list of every user of the join, as :func:`join.similarity_join` gives those of a model."""
    what = known.now(run)
    frame = second_stage.users(what, people, run.settings.ranker)
    trained = model.load(folder(run))
    stage = stage_of(run, what, shelf, policy)
    return second_stage.lists(frame, stage, trained, run.settings.recommend.k, segments)


def folder(run: Run) -> Path:
    """Where the ranker of a run lies.

    Raises
    ------
    ConfigError
        The lake is not a mounted folder.
    """
    place = run.path("models", model.NAME, run.run_id).removeprefix("file://")
    if "://" in place:
        raise ConfigError(
            f"lake.path is {run.settings.lake.path}, and the ranker is kept in a folder. Mount the store, for instance "
            "as /mnt/lake, and name that."
        )
    return Path(place).absolute()


def stage_of(run: Run, what: Known, shelf: DataFrame, policy: Policy) -> SecondStage:
    """The second stage at a moment, its matrices and facts on every executor."""
    settings = run.settings.recommend
    matrices = {
        model: catalogue.publish(shelf, vectors, model, settings.memory_mb) for model, vectors in what.items.items()
    }
    return SecondStage(run.settings.ranker, matrices, what.facts(run), policy)
