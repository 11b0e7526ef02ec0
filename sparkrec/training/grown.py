"""An earlier training's variables as the first ones of a model whose tables have grown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from sparkrec.config import TwoTower
from sparkrec.errors import DataError
from sparkrec.training import checkpoint
from sparkrec.training.checkpoint import Checkpoint
from sparkrec.training.collective import Collective
from sparkrec.training.optimizer import ROW_RULES
from sparkrec.training.plan import Base
from sparkrec.training.tables import initial_rows


def earlier(
    base: Base, collective: Collective, say: Callable[[str], None], alive: Callable[[], None] = lambda: None
) -> Checkpoint:
    """The last checkpoint of the finished training, its files checked; ``say``, ``alive`` : of ``checkpoint.newest``.

    Raises
    ------
    DataError
        It is gone, damaged, or another training's by now.
    RetryableError
        A rank could not read it.
    """
    folder = Path(base.folder, "checkpoints")
    found = checkpoint.newest(folder, base.fingerprint, collective, say, alive)
    if found is None or found.state["steps"] != base.steps:
        raise DataError(
            f"The warm start begins with the last checkpoint of run {base.run_id}, and it is no longer whole in "
            f"{folder}. Train that run again, or set two_tower.warm_start=none."
        )
    return found


def new_rows(saved: Checkpoint, tables: Mapping[str, int]) -> dict[str, int]:
    """By how many rows each table has grown."""
    return {name: rows - saved.state["rows"].get(name, 0) for name, rows in tables.items()}


def reader(
    saved: Checkpoint, settings: TwoTower, tables: Mapping[str, int]
) -> Callable[[str, np.ndarray | None], np.ndarray]:
    """What ``Trainer.begin`` reads from, for tables (name → rows) that are at least as large as they were.

    A row that is new is what it would be in an untrained table, with zeros for the optimizer's state; so is the state
    of all rows where the optimizer of the tables is another now. But Adam of whole tables corrects its moments for
    their zeros by the steps that were done, which are many: there the second moment begins with the mean of the known
    rows, or one gradient would move a new row by 30 times the learning rate. A moving average that was not kept begins
    with the weights.
    """
    width = settings.width
    columns = dict.fromkeys(("weights", "average", "m", "v"), width) | {"averaged_until": 1}
    columns |= ROW_RULES[settings.table_optimizer]().state(width)

    def read(name: str, rows: np.ndarray | None) -> np.ndarray:
        kind, weight = name.split("/", 1)
        source = name if kind != "average" or saved.holds(name) else f"weights/{weight}"
        if weight not in tables:
            return saved.read(source, rows)
        whole = rows is None
        rows = np.arange(tables[weight]) if rows is None else rows
        old = rows < saved.state["rows"].get(weight, 0)
        values = np.zeros((len(rows), columns[kind]), np.float32)
        if kind in ("weights", "average"):
            values[~old] = initial_rows(settings.seed, weight, rows[~old], width)
        if old.any() and saved.holds(source):
            values[old] = saved.read(source, rows[old])
            if whole and kind == "v":
                values[~old] = values[old].mean(axis=0, dtype=np.float64)
        return values

    return read
