"""The second stage at work: what was known at a moment, on every executor, and today's lists."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sparkrec import columns as c
from sparkrec.errors import DataError
from sparkrec.lake.blocks import Blocks
from sparkrec.models import als, two_tower
from sparkrec.ranking import known, model, second_stage
from sparkrec.ranking.known import Known
from sparkrec.ranking.second_stage import SecondStage
from sparkrec.retrieval import catalogue, join, recall

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkrec.pipeline import Run
    from sparkrec.retrieval.catalogue import ItemMatrix
    from sparkrec.retrieval.shop import Shop

_STAGE = "train_ranker"
#: Popularity is no matter: it counts, and the same events give the same.
_TRAINED_BY = {als.NAME: "train_als", two_tower.NAME: "train_two_tower"}


def lists(run: Run, shop: Shop, people: DataFrame) -> Blocks:
    """The ranker's list of every user of the join, as :meth:`Shop.lists` gives those of a model."""
    check_sources(run)
    what = known.now(run)
    frame = second_stage.users(what, people, run.settings.ranker)
    trained = model.load(folder(run))
    # The shop's items serve here too, unless they are of another two-tower model than the one that was learned from.
    own = {two_tower.NAME} if run.settings.ranker.model == "neural" else set()
    stage = stage_of(run, what, shop, {name: shop.matrix(name) for name in what.items if name not in own})
    for name, matrix in stage.matrices.items():
        if not matrix.plan.exact:
            known_users = join.with_vectors(people, what.users[name])
            size = run.settings.ranker.per_source
            recall.say_how(run, f"{name} for {model.NAME}", matrix, known_users, size, shop.policy)
    return second_stage.lists(frame, stage, trained, shop.settings.k, shop.told)


def check_sources(run: Run) -> None:
    """The ranker was trained after the models whose scores it weighs.

    By the order of the records: an erasure gives the versions of tables other numbers.

    Raises
    ------
    DataError
        One of them was trained again since: its scores may be of another size.
    """
    last: dict[str, int] = {}
    for place, row in enumerate(run.known_records()):
        if row[c.STAGE] != _STAGE or "ranker" in json.loads(row[c.DETAILS] or "{}"):  # else there was nothing to train
            last[row[c.STAGE]] = place
    if _STAGE not in last:
        return  # none was trained: model.load says so
    newer = [name for name in known.models(run) if last.get(_TRAINED_BY.get(name, ""), -1) > last[_STAGE]]
    if newer:
        raise DataError(
            f"The ranker of the run '{run.run_id}' has learned what scores of {' and '.join(newer)} mean, and of these "
            f"models another was trained since. Run {_STAGE} again, then recommend."
        )


def folder(run: Run) -> Path:
    """Where the ranker of a run lies."""
    return run.folder("models", model.NAME, run.run_id)


def stage_of(run: Run, what: Known, shop: Shop, there: Mapping[str, ItemMatrix]) -> SecondStage:
    """The second stage at a moment, its facts and matrices (but those that are ``there``) brought to every executor."""
    matrices = {
        name: there.get(name) or catalogue.publish(shop.stocked, vectors, name, shop.settings.memory_mb)
        for name, vectors in what.items.items()
    }
    return SecondStage(run.settings.ranker, matrices, what.facts(run), shop.policy)
