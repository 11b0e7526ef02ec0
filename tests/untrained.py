"""A model that has learned nothing, whole: what the trainer begins with, in one mapping."""

from __future__ import annotations

import numpy as np

from sparkrec.config import TwoTower
from sparkrec.models.two_tower import towers
from sparkrec.models.two_tower.towers import Sizes
from sparkrec.training.tables import initial_rows


def weights(settings: TwoTower, sizes: Sizes) -> dict[str, np.ndarray]:
    tables = {
        name: initial_rows(settings.seed, name, np.arange(rows), settings.width)
        for name, rows in towers.tables(settings, sizes).items()
    }
    return towers.initial(settings) | tables
