"""The loss of a batch against NumPy written from the formula, one row and one item at a time."""

from __future__ import annotations

import numpy as np
import pytest

from sparkrec.config import TwoTower
from sparkrec.models.two_tower import objective, towers
from sparkrec.models.two_tower.towers import ItemFeatures, Sizes

pytestmark = pytest.mark.unit

SIZES = Sizes(users=5, items=8, features=3)
FEATURES = ItemFeatures(np.asarray([2, 2, 3, 3, 3, 3, 4, 6]), np.asarray([0, 2, 1, 1, 0, 1], np.int32))
#: The items that the batch touches; what the batch holds are places in this list.
TOUCHED = np.asarray([7, 2, 0, 5, 3])


def make_batch(mode):
    """Two users, or five tokens of them; the targets of user 0 are touched items 1 and 4, of user 1 item 2."""
    user = {
        "users": [3, 1], "history_items": [0, 3, 1, 2, 2], "history_segment": [0, 0, 0, 1, 1],
        "history_lag": [2, 1, 0, 1, 0], "target_items": [1, 4, 2], "target_segment": [0, 0, 1], "key": [11, 12],
    }  # fmt: skip
    position = user | {"users": [3, 3, 3, 1, 1], "target_segment": [1, 2, 4], "key": [11, 12, 13, 14, 15]}
    batch = {name: np.asarray(x, np.int32) for name, x in (user if mode == "user" else position).items()}
    return batch | FEATURES.of(TOUCHED) | {
        "key": batch["key"].astype(np.uint32), "history_rows": batch["history_items"],
        "history_types": np.asarray([0, 3, 3, 1, 0], np.int32),
        "target_weight": np.asarray([1, 3, 2], np.float32), "user_weight": np.asarray([0.5, 0.7], np.float32),
        "columns": np.asarray([3, 4, 2, 0], np.int32), "column_bias": np.asarray([0.3, -0.2, 0, 1], np.float32),
    }  # fmt: skip


def make_weights(config):
    """As they are looked up: tables with a row an item hold the rows of ``TOUCHED``."""
    weights = towers.initial(config, SIZES)
    return weights | {name: weights[name][TOUCHED] for name in ("item_id", "history_item") if name in weights}


@pytest.mark.parametrize("history", ["none", "mean", "recency"])
@pytest.mark.parametrize("mode", ["user", "position"])
def test_softmax_over_columns(mode, history):
    config = TwoTower(width=4, mode=mode, history=history, max_history=4)
    weights, batch = make_weights(config), make_batch(mode)
    items = towers.item_rows(weights, batch).numpy()
    vectors = (towers.user_vectors if mode == "user" else towers.position_vectors)(weights, config, batch, items)
    score = vectors.numpy() @ items.T / config.temperature
    expected = total = 0.0
    pairs = list(zip(batch["target_segment"], batch["target_items"], batch["target_weight"], strict=True))
    for row, item, weight in pairs:
        positives = {i for r, i, _ in pairs if r == row}
        columns = zip(batch["columns"], batch["column_bias"], strict=True)
        others = sum(np.exp(score[row, j] + bias) for j, bias in columns if j not in positives)
        if mode == "user":
            weight = weight * batch["user_weight"][row]
            expected += weight * (np.log(others) - score[row, item])
        else:
            expected += weight * (np.log(others + np.exp(score[row, item])) - score[row, item])
        total += weight
    assert [float(x) for x in objective.loss(weights, config, batch)] == pytest.approx([expected, total], rel=1e-5)
