"""Trains the ranker on the past, and says how good it is for users whom it has not seen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import StorageLevel
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.config.ranker import Ranker
from sparkrec.errors import DataError
from sparkrec.evaluation import metrics
from sparkrec.persistence import persisted
from sparkrec.ranking import calibration, known, neural, second_stage, trees
from sparkrec.ranking.examples import FIT, HELD, STOP, Examples, lists, parted
from sparkrec.ranking.model import NAME, RankingModel
from sparkrec.ranking.neural import NeuMF
from sparkrec.ranking.past import Past, of_today
from sparkrec.ranking.second_stage import SecondStage
from sparkrec.ranking.serving import stage_of
from sparkrec.ranking.trees import Trees
from sparkrec.retrieval import rules
from sparkrec.retrieval.item_columns import record_batches
from sparkrec.retrieval.shop import Shop
from sparkrec.training import order

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkrec.pipeline import Run

_K = 20
_LOT, _SIDE = 7, 8  # the tickets that put a user into a part, and into a half of it


def past(run: Run) -> tuple[Examples, SecondStage]:
    """Candidates before the validation events, of users who came back, and what these chose.

    What of today stands for the past goes to the run record.
    """
    goals, settings = known.goals(run), run.settings.ranker
    drawn = F.xxhash64(F.lit(settings.seed), c.USER_INDEX)
    some = persisted(goals.orderBy(drawn, c.USER_INDEX).limit(settings.train_users), StorageLevel.DISK_ONLY)
    then, today = Past(run, some), of_today(run.settings)
    run.detail(past={"moment": then.moment, "of_today": today})
    if today:
        run.say(f"of the past this is not known, and today's stands for it: {', '.join(today)}")
    with known.checkpoints(run):
        what = known.before_validation(run, some, then)
        shop = Shop(run, then.shelf)
        stage = stage_of(run, what, shop, {})
        before = rules.Then(what.sequences, then.profiles, what.moment)
        everyone = rules.users(run, shop.named, before, some)
        own = what.sequences.join(F.broadcast(some.select(c.USER_INDEX)), c.USER_INDEX, "left_semi")
        people = everyone.join(F.broadcast(some), c.USER_INDEX)
        frame = second_stage.users(replace(what, sequences=own), people, settings)
        return collected(second_stage.examples(frame, stage), len(stage.names)), stage


def collected(rows: DataFrame, width: int) -> Examples:
    """On this machine: ``ranker.train_users`` bounds them. In order of users, whatever the partitions were."""
    table = pa.Table.from_batches(list(record_batches(rows)))
    if not len(table):
        raise DataError(
            "No user has a history and comes back in the validation part, so that there is nothing to learn an order "
            "from. Give split.validation_days (or validation_fraction) a larger value, or take 'ranker' out of "
            "recommend.models."
        )
    table = table.sort_by(c.USER_INDEX).combine_chunks()
    flat = {name: table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False) for name in _FLAT}
    lengths = table[c.ITEM_INDEX].combine_chunks().value_lengths().to_numpy(zero_copy_only=False)
    return Examples(
        np.repeat(np.arange(len(table)), lengths),
        flat[c.ITEM_INDEX].astype(np.int64),
        flat[c.FEATURES].reshape(-1, width),
        flat["chosen"].astype(bool),
        table["asked"].to_numpy().astype(np.int64),
        flat[c.VECTOR].reshape(len(table), -1 if len(flat[c.VECTOR]) else 0),
        table[c.USER_INDEX].to_numpy().astype(np.int64),
    )


_FLAT = (c.ITEM_INDEX, c.FEATURES, "chosen", c.VECTOR)


def train(examples: Examples, stage: SecondStage) -> tuple[RankingModel, dict[str, Any]]:
    """The model, and what is to be said of it; measured on users of the part :data:`HELD`.

    Raises
    ------
    DataError
        No candidate was chosen.
    """
    settings = stage.settings
    parts = parted(examples, order.uniform(settings.seed, examples.index, _LOT))
    for name in (FIT, STOP, HELD):
        if not parts[name].chosen.any():
            raise DataError(
                f"Of {len(examples):,} candidates of {len(examples.asked):,} users {int(examples.chosen.sum()):,} were "
                f"chosen, and none in the part '{name}': too few to learn an order from. Raise ranker.train_users or "
                "ranker.per_source, widen ranker.goal, or make the validation part longer."
            )
    scorer: Trees | NeuMF
    if settings.model == "trees":
        scorer, rounds = trees.fit(parts, stage.names, settings)
    else:
        scorer, rounds = neural.fit(parts, stage.item_vectors(), settings)
    held = parts[HELD]
    scores = _scores(scorer, held, stage)
    model = RankingModel(stage.names, scorer, calibration.fit(scores, held.chosen))
    side = order.uniform(settings.seed, examples.index, _SIDE)[held.users] < 0.5
    said = calibration.crossed(scores, held.chosen, side)
    return model, {
        "model": settings.model,
        "rounds": rounds,
        "candidates": len(examples),
        "chosen": int(examples.chosen.sum()),
        "users": {name: len(np.unique(part.users)) for name, part in parts.items()},
        "ndcg": _compared(held, scores, stage.names, settings),
        "reach": _reach(held),
        "calibration": [row._asdict() for row in calibration.reliability(said, held.chosen)],
        "importance": scorer.importance() if isinstance(scorer, Trees) else None,
    }


def _scores(scorer: Any, examples: Examples, stage: SecondStage) -> NDArray:
    vectors = examples.vectors[examples.users], stage.item_vectors()[examples.items]
    return np.asarray(scorer.scores(examples.features, *vectors))


def _compared(held: Examples, scores: NDArray, names: tuple[str, ...], settings: Ranker) -> dict[str, float]:
    """NDCG@20 of the ranker's order of the candidates, and of each source's own."""
    orders = {NAME: scores}
    orders |= {source: -held.features[:, names.index(f"{source}_place")] for source in settings.sources}
    return {name: round(_ndcg(held, values), 6) for name, values in orders.items()}


def _ndcg(examples: Examples, scores: NDArray) -> float:
    found, asked = lists(examples, scores, _K)
    some = asked > 0
    if not some.any():
        return 0.0
    return float(metrics.per_user(found[some], asked[some], _K)[:, metrics.NAMES.index("ndcg")].mean())


def _reach(examples: Examples) -> float:
    """The share of what users chose that is among their candidates: no order can find more."""
    users = np.unique(examples.users)
    return round(float(examples.chosen.sum() / max(1, examples.asked[users].sum())), 6)
