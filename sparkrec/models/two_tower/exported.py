"""The trained model on disk: a folder of .npy files, which executors memory-map, and a description.

model.json       settings of the two_tower section, sizes, what it was trained on
WEIGHT.npy       one file a weight
item_vectors.npy float32 [items, width]: g of every item, as the history encoders take it
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparkrec.config import TwoTower
from sparkrec.errors import ConfigError, DataError

DESCRIPTION, ITEM_VECTORS = "model.json", "item_vectors"


@dataclass(frozen=True)
class Exported:
    """``weights`` and ``item_vectors`` are memory maps."""

    settings: TwoTower
    sizes: dict[str, int]
    weights: dict[str, np.ndarray]
    item_vectors: np.ndarray


def save(
    folder: Path,
    settings: TwoTower,
    sizes: Any,
    weights: Mapping[str, np.ndarray],
    item_vectors: np.ndarray,
    about: Mapping[str, Any],
) -> None:
    """Write the folder under a temporary name, then put it in the place of an older one."""
    temporary, old = folder.with_name(f".{folder.name}.tmp"), folder.with_name(f".{folder.name}.old")
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, array in {**weights, ITEM_VECTORS: item_vectors}.items():
        if not np.isfinite(array).all():
            raise ConfigError(f"The trained weights '{name}' hold NaN or infinity: lower two_tower.learning_rate.")
        np.save(temporary / f"{name}.npy", np.ascontiguousarray(array, np.float32))
    description = {
        "two_tower": settings.model_dump(mode="json"), "sizes": asdict(sizes), "weights": sorted(weights), **about,
    }  # fmt: skip
    (temporary / DESCRIPTION).write_text(json.dumps(description, indent=1))
    if folder.exists():
        os.rename(folder, old)
    os.rename(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


def load(folder: str | Path) -> Exported:
    """The model, memory-mapped.

    Raises
    ------
    DataError
        It is not there.
    """
    folder = Path(folder)
    if not (folder / DESCRIPTION).is_file():
        raise DataError(
            f"There is no two-tower model in {folder}. Run train_two_tower for this run first, and see to it that the "
            "lake's folder is mounted at the same path on every executor."
        )
    described = json.loads((folder / DESCRIPTION).read_text())
    weights = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in described["weights"]}
    vectors = np.load(folder / f"{ITEM_VECTORS}.npy", mmap_mode="r")
    return Exported(TwoTower.model_validate(described["two_tower"]), described["sizes"], weights, vectors)
