"""A trainer on a few users in memory, on ranks that are threads: nothing is read and nothing written."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
from ranks import on_ranks

from sparkrec import columns as c
from sparkrec.config import TwoTower
from sparkrec.models.two_tower.towers import ItemFeatures, Sizes
from sparkrec.training.collective import Collective
from sparkrec.training.events import Events
from sparkrec.training.loader import Loader
from sparkrec.training.loop import Trainer

SIZES = Sizes(users=24, items=30, features=5)
FEATURES = ItemFeatures(
    np.cumsum([i % 3 for i in range(SIZES.items)]),
    np.asarray([(i + 2 * k) % SIZES.features for i in range(SIZES.items) for k in range(i % 3)], np.int32),
)
TABLES = ("item_id", "item_feature", "history_item", "user_id")


def events(rank: int = 0, size: int = 1) -> Events:
    """1 to 9 ratings of 1 to 5 stars for each user of a rank; items are skewed, so some are never met."""
    rng = np.random.default_rng(3)
    every = [(SIZES.items * rng.random(rng.integers(1, 10)) ** 2).astype(np.int32) for _ in range(SIZES.users)]
    stars = [1 + items % 5 for items in every]
    own = range(rank, SIZES.users, size)
    items = np.concatenate([every[user] for user in own])
    return Events(
        np.asarray(own, np.int32), np.cumsum([len(every[user]) for user in own]), items,
        np.full(len(items), c.EVENT_TYPES.index(c.RATING), np.int8), np.zeros(len(items), bool),
        np.concatenate([stars[user] for user in own]).astype(np.float32),
    )  # fmt: skip


def make(settings: TwoTower, collective: Collective) -> tuple[Trainer, Loader]:
    tables = {name: kind for name, kind in settings.placement.items() if name != "history_item"}
    if settings.history == "mean":
        tables = dict(settings.placement)
    trainer = Trainer(settings, SIZES, FEATURES, collective, tables)
    loader = Loader(events(collective.rank, collective.size), SIZES.users, SIZES.items, settings, collective)
    trainer.columns.count(loader.target_counts())
    return trainer, loader


def variables(trainer: Trainer) -> dict[str, np.ndarray]:
    """Every shipped weight, whole, on every rank."""
    weights = {k: v.numpy() for k, v in trainer.optimizer.shipped.items() if k not in trainer.tables}
    for name in trainer.tables:
        parts = [trainer.collective.allgather(rows) for _, rows in trainer.table_blocks(name)]
        weights[name] = np.concatenate(parts)
    return weights


def run(ranks: int, steps: int, **settings: Any) -> tuple[np.ndarray, dict[str, np.ndarray], Trainer]:
    """Σ weight · loss and Σ weight of each step [steps, 2], the variables after the last, rank 0's trainer."""
    config = TwoTower.model_validate({"width": 4, "batch": 10, "max_history": 5, "ranks": ranks, **settings})

    def rank(collective: Collective) -> Any:
        trainer, loader = make(config, collective)
        cut = (loader.step(*divmod(step, loader.steps_per_epoch)) for step in range(steps))
        with closing(trainer.ahead(cut)) as prepared:
            said = [trainer.step(step, number, steps)[:2] for number, step in enumerate(prepared)]
        trainer.check_equal("at the end")
        return np.asarray(said), variables(trainer), trainer

    first, *others = on_ranks(ranks, rank)
    for other in others:
        np.testing.assert_array_equal(first[0], other[0])
        for name, value in first[1].items():
            np.testing.assert_array_equal(value, other[1][name], err_msg=name)
    return first


def everywhere(placement: str) -> dict[str, str]:
    """One placement of all tables, or each kind once."""
    kinds = ("replicated_sparse", "sharded", "replicated_dense", "sharded")
    return dict(zip(TABLES, kinds if placement == "mixed" else [placement] * 4, strict=True))
