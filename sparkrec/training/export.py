"""The trained model from the ranks' tables to its form on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sparkrec.models.two_tower import exported
from sparkrec.training.loop import Trainer


def export(trainer: Trainer, folder: Path, about: dict[str, Any]) -> None:
    """The model's folder, written by all ranks: no rank holds a whole table that is sharded."""
    collective, sizes, width = trainer.collective, trainer.sizes, trainer.settings.width
    dense = {
        name: np.asarray(weight) for name, weight in trainer.optimizer.shipped.items() if name not in trainer.tables
    }
    shapes = {name: (rows, width) for name, rows in trainer.tables.items()} | {
        exported.ITEM_VECTORS: (sizes.items, width)
    }
    if collective.rank == 0:
        exported.create(folder, {name: weight.shape for name, weight in dense.items()} | shapes)
        for name, weight in dense.items():
            exported.put(folder, name, 0, weight)
    collective.barrier()
    for name in trainer.tables:
        for first, rows in trainer.table_blocks(name):
            exported.put(folder, name, first, rows)
    for items, vectors in trainer.item_blocks():
        exported.put(folder, exported.ITEM_VECTORS, int(items[0]) if len(items) else 0, vectors)
    collective.barrier()
    if collective.rank == 0:
        exported.finish(folder, trainer.settings, sizes, about)
