"""The trained ranker on disk and on executors.

ranker.json    what it was trained with, the columns of its features, the calibration
trees.txt      LightGBM's text, or
neural.npz     the weights of NeuMF
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparkrec.errors import DataError
from sparkrec.models import folders
from sparkrec.ranking.calibration import Platt
from sparkrec.ranking.neural import NeuMF
from sparkrec.ranking.trees import Trees

NAME = "ranker"
_DESCRIPTION, _TREES, _NEURAL = "ranker.json", "trees.txt", "neural.npz"


@dataclass(frozen=True)
class RankingModel:
    """``names`` : the columns of its features, in order."""

    names: tuple[str, ...]
    scorer: Trees | NeuMF
    platt: Platt

    def probability(
        self, features: NDArray[np.float32], users: NDArray[np.float32], items: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """``[P]``: that a user who comes back chooses the item."""
        return self.platt.probability(self.scorer.scores(features, users, items)).astype(np.float32)


def save(folder: Path, model: RankingModel, about: Mapping[str, Any]) -> None:
    """Whole, or not at all: an older one is replaced."""
    temporary = folders.begin(folder)
    if isinstance(model.scorer, Trees):
        (temporary / _TREES).write_text(model.scorer.text)
    else:
        np.savez(temporary / _NEURAL, **model.scorer.weights)
    described = {"names": model.names, "platt": model.platt._asdict(), **about}
    (temporary / _DESCRIPTION).write_text(json.dumps(described, indent=1))
    folders.exchange(folder)


def load(folder: Path) -> RankingModel:
    """The trained ranker.

    Raises
    ------
    DataError
        There is none.
    """
    if not (folder / _DESCRIPTION).is_file():
        raise DataError(f"There is no ranker in {folder}. Run train_ranker for this run first.")
    described = json.loads((folder / _DESCRIPTION).read_text())
    if (folder / _TREES).exists():
        scorer: Trees | NeuMF = Trees((folder / _TREES).read_text())
    else:
        with np.load(folder / _NEURAL) as arrays:
            scorer = NeuMF({name: arrays[name] for name in arrays.files})
    return RankingModel(tuple(described["names"]), scorer, Platt(**described["platt"]))
