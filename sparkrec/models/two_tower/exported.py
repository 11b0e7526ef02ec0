"""The trained model on disk: a folder of .npy files, which executors memory-map, and a description.

model.json       settings of the two_tower section, sizes, what it was trained on
WEIGHT.npy       one file a weight
item_vectors.npy float32 [items, width]: g of every item, as the history encoders take it
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sparkrec.config import TwoTower
from sparkrec.errors import ConfigError, DataError
from sparkrec.models import folders

DESCRIPTION, ITEM_VECTORS = "model.json", "item_vectors"


@dataclass(frozen=True)
class Exported:
    """``weights`` and ``item_vectors`` are memory maps.

    tables : name → version of what it was trained on; hash : of its variables. Empty where that was not said.
    """

    settings: TwoTower
    sizes: dict[str, int]
    weights: dict[str, np.ndarray]
    item_vectors: np.ndarray
    tables: dict[str, int] = field(default_factory=dict)
    hash: str = ""


def save(
    folder: Path,
    settings: TwoTower,
    sizes: Any,
    weights: Mapping[str, np.ndarray],
    item_vectors: np.ndarray,
    about: Mapping[str, Any],
) -> None:
    """A whole model from one process; several call ``create``, ``put`` and ``finish``."""
    arrays = {**weights, ITEM_VECTORS: item_vectors}
    create(folder, {name: np.shape(array) for name, array in arrays.items()})
    for name, array in arrays.items():
        put(folder, name, 0, array)
    finish(folder, settings, sizes, about)


def create(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Files of these shapes, name → shape, under a temporary name; by one process, before the others ``put``."""
    temporary = folders.begin(folder)
    for name, shape in shapes.items():
        with open(temporary / f"{name}.npy", "wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + 4 * int(np.prod(shape)))


def put(folder: Path, name: str, first: int, rows: np.ndarray) -> None:
    """Write rows from row ``first`` on.

    Contiguous rows by ordinary writes, because pages of a memory map are not shared between machines.

    Raises
    ------
    ConfigError
        They are not finite.
    """
    if not np.isfinite(rows).all():
        raise ConfigError(f"The trained weights '{name}' hold NaN or infinity: lower two_tower.learning_rate.")
    with open(folders.beside(folder) / f"{name}.npy", "r+b") as file:
        np.lib.format.read_magic(file)
        header = int.from_bytes(file.read(2), "little")
        file.seek(header + 4 * first * int(np.prod(rows.shape[1:])), os.SEEK_CUR)
        file.write(np.ascontiguousarray(rows, np.float32).data)


def finish(folder: Path, settings: TwoTower, sizes: Any, about: Mapping[str, Any]) -> None:
    """Puts the folder in the place of an older one; by one process, after the others."""
    temporary = folders.beside(folder)
    weights = sorted(path.stem for path in temporary.glob("*.npy") if path.stem != ITEM_VECTORS)
    description = {
        "two_tower": settings.model_dump(mode="json"), "sizes": asdict(sizes), "weights": weights, **about,
    }  # fmt: skip
    (temporary / DESCRIPTION).write_text(json.dumps(description, indent=1))
    folders.exchange(folder)


def renumber(folder: Path, numbers: Callable[[str, int], int]) -> None:
    """Says anew on which versions of tables the model was trained: ``numbers(table, version)``."""
    described = json.loads((folder / DESCRIPTION).read_text())
    tables = {name: numbers(name, version) for name, version in described.get("tables", {}).items()}
    if tables != described.get("tables", {}):
        folders.write_json(folder / DESCRIPTION, described | {"tables": tables}, indent=1)


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
    return Exported(
        TwoTower.model_validate(described["two_tower"]),
        described["sizes"],
        weights,
        vectors,
        described.get("tables", {}),
        described.get("hash", ""),
    )
