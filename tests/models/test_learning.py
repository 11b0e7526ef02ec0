"""An encoder that reads the order learns a rule that needs it; the mean, which does not, cannot."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import untrained

from sparkrec.config import TwoTower
from sparkrec.models.two_tower import objective, towers
from sparkrec.models.two_tower.encoders import ENCODERS
from sparkrec.models.two_tower.towers import Sizes

pytestmark = [pytest.mark.unit, pytest.mark.slow]

ITEMS, STEPS = 12, 150


def make_batch(random, walks):
    """Walks in which an item is decided by the one two before: five times it, and three, of twelve."""
    sequences = []
    for length in random.integers(4, 11, walks):
        walk = list(random.integers(ITEMS, size=2))
        while len(walk) < length:
            walk.append((5 * walk[-2] + 3) % ITEMS)
        sequences.append(walk)
    tokens = np.concatenate([walk[:-1] for walk in sequences])
    number = np.concatenate([np.arange(len(walk) - 1) for walk in sequences])
    decided = np.flatnonzero(number >= 1)
    batch = {
        "users": np.zeros(len(tokens)), "history_items": tokens, "history_rows": tokens,
        "history_segment": np.cumsum(number == 0) - 1, "target_segment": decided,
        "target_items": np.concatenate([walk[1:] for walk in sequences])[decided], "columns": np.arange(ITEMS),
    }  # fmt: skip
    floats = {"target_weight": np.ones(len(decided), np.float32), "column_bias": np.zeros(ITEMS, np.float32)}
    return {name: x.astype(np.int32) for name, x in batch.items()} | floats


@pytest.mark.parametrize("history", ENCODERS)
def test_what_decides_lies_two_events_back(history):
    config = TwoTower(
        width=16, history=history, mode="position", user_id=False, item_features=False, event_types=False,
        max_history=10, temperature=0.1,
    )  # fmt: skip
    weights = {name: tf.Variable(w) for name, w in untrained.weights(config, Sizes(1, ITEMS, 0)).items()}
    adam = tf.keras.optimizers.Adam(0.01)
    adam.build(list(weights.values()))
    random = np.random.default_rng(1)
    signature = {name: tf.TensorSpec([None], x.dtype) for name, x in make_batch(random, 2).items()}

    @tf.function(input_signature=[signature])
    def step(batch):
        with tf.GradientTape() as tape:
            loss, total = objective.loss(weights, config, batch)
        slopes = tape.gradient(loss, list(weights.values()))
        adam.apply([tf.convert_to_tensor(slope) / total for slope in slopes], list(weights.values()))

    for _ in range(STEPS):
        step(make_batch(random, 24))
    batch = make_batch(random, 100)
    items = towers.item_rows(weights, batch)
    users = tf.gather(towers.encode_positions(weights, config, batch, items), batch["target_segment"])
    right = np.mean(np.argmax(users @ tf.transpose(items), axis=1) == batch["target_items"])
    assert right < 0.9 if history == "mean" else right > 0.98
