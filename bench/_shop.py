"""A training problem of shop size for the benchmarks of steps: 1 M users, 100 k items, histories of 50."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

USERS, ITEMS, WIDTH, HISTORY, BATCH, TEMPERATURE = 1_000_000, 100_000, 64, 50, 1024, 0.2
GROUPS = 100


def draw(users: np.ndarray, items: int = ITEMS) -> np.ndarray:
    """int32 [n, HISTORY + 1]: half of a user's items from the group's own, the rest from all; few items are popular.

    A function of the user alone, so that it does not depend on who draws.
    """
    from sparkrec.training import order

    result = np.empty((len(users), HISTORY + 1), np.int32)
    size, number = items // GROUPS, np.arange(HISTORY + 1)
    for start in range(0, len(users), 50_000):
        some = users[start : start + 50_000, None].astype(np.int64)
        place = order.uniform(some, number, 1) ** 3
        own = some % GROUPS * size + (place * size).astype(np.int64)
        of_all = 7919 * (place * items).astype(np.int64) % items
        result[start : start + 50_000] = np.where(order.uniform(some, number, 2) < 0.5, own, of_all)
    return result


def settings(**more: Any) -> Any:
    """The two-tower of the peers: ids, mean of the history, softmax over the batch's targets, uncorrected."""
    from sparkrec.config import TwoTower

    return TwoTower.model_validate(
        {
            "ranks": 1, "batch": BATCH, "width": WIDTH, "max_history": HISTORY + 1, "history_keep": 1.0,
            "event_types": False, "in_batch": True, "log_q": False, "temperature": TEMPERATURE, "user_weight": 0.0,
            "weights": {"purchase": 1.0}, "learning_rate": 0.1, "epochs": 1, **more,
        }
    )  # fmt: skip


def steps(
    collective: Any,
    configured: Any,
    count: int,
    users: int = USERS,
    items: int = ITEMS,
    every: int = 1,
    after_step: Callable[[], None] = lambda: None,
    in_turn: bool = False,
) -> dict[str, Any]:
    """``count`` steps of one rank, loader and all: seconds and mean loss of each, and the trainer.

    Only one user in ``every`` has events. ``in_turn``: no step is prepared ahead.
    """
    from sparkrec import columns as c
    from sparkrec.models.two_tower import towers
    from sparkrec.training import placement
    from sparkrec.training.events import Events
    from sparkrec.training.loader import Loader
    from sparkrec.training.loop import Trainer
    from sparkrec.training.prefetch import ahead

    own = np.arange(0, users, every, dtype=np.int32)
    own = own + np.arange(len(own), dtype=np.int32) % every  # not all of one remainder
    own = own[own % collective.size == collective.rank]
    met = draw(own, items)
    types = np.full(met.shape, c.EVENT_TYPES.index("view"), np.int8)
    types[:, -1] = c.EVENT_TYPES.index("purchase")
    ends = np.arange(1, len(own) + 1, dtype=np.int64) * met.shape[1]
    events = Events(own, ends, met.ravel(), types.ravel(), np.zeros(met.size, bool))
    loader = Loader(events, users, items, configured, collective)
    sizes = towers.Sizes(users, items, 0)
    tables = towers.tables(configured, sizes)
    touched = placement.touched_rows(configured, tables, users, users * (HISTORY + 1), users)
    planned = placement.plan(configured, tables, touched)
    trainer = Trainer(configured, sizes, None, collective, {table.table: table.placement for table in planned})
    trainer.columns.count(loader.target_counts())
    seconds, losses = [], []
    cut = ahead((loader.step(0, number) for number in range(count)), configured.prefetch)
    before = time.perf_counter()
    for number, step in enumerate(map(trainer.prepare, cut) if in_turn else trainer.ahead(cut)):
        loss, weight, _ = trainer.step(step, number, count)
        now = time.perf_counter()
        seconds.append(now - before)
        losses.append(loss / weight)
        after_step()
        before = time.perf_counter()
    return {"seconds": seconds, "losses": losses, "trainer": trainer}
