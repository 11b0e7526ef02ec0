"""Towers and histories: the causal forms against the whole-history forms, and both against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkrec.config import TwoTower
from sparkrec.models.two_tower import exported, hashing, history, towers
from sparkrec.models.two_tower.towers import ItemFeatures, Sizes

pytestmark = pytest.mark.unit

RANDOM = np.random.default_rng(5)
SIZES = Sizes(users=5, items=7, features=3)


def weights_of(config):
    return towers.initial(config, SIZES)


def test_item_vector_is_id_row_plus_mean_of_features_at_unit_length():
    weights = weights_of(TwoTower(width=4))
    features = ItemFeatures(np.asarray([2, 2, 3, 3, 3, 3, 3]), np.asarray([0, 2, 1], np.int32))
    vectors = towers.item_rows(weights, features.of(np.arange(7))).numpy()
    rows, table = weights["item_id"], weights["item_feature"]
    expected = [rows[0] + (table[0] + table[2]) / 2, rows[1], rows[2] + table[1]]
    for vector, row in zip(vectors, expected, strict=False):
        np.testing.assert_allclose(vector, row / np.linalg.norm(row), rtol=1e-5)
    some = np.asarray([6, 2, 0, 2])
    part = towers.item_rows(weights | {"item_id": rows[some]}, features.of(some)).numpy()
    np.testing.assert_allclose(part, vectors[some], rtol=1e-6)


def test_mean_history_is_gate_times_sum_over_root_of_count():
    config = TwoTower(width=4, event_types=False)
    weights = weights_of(config) | {"history_gate": np.asarray([0.7], np.float32)}
    batch = {
        "users": np.asarray([3, 1], np.int32), "history_rows": np.asarray([6, 2, 6], np.int32),
        "history_types": np.zeros(3, np.int32), "history_segment": np.zeros(3, np.int32),
        "history_lag": np.asarray([2, 1, 0], np.int32),
    }  # fmt: skip
    vectors = towers.user_vectors(weights, config, batch, tf.zeros([7, 4])).numpy()
    table = weights["history_item"]
    first = weights["user_id"][3] + 0.7 * (2 * table[6] + table[2]) / np.sqrt(3)
    np.testing.assert_allclose(vectors[0], first / np.linalg.norm(first), rtol=1e-5)
    np.testing.assert_allclose(vectors[1], weights["user_id"][1] / np.linalg.norm(weights["user_id"][1]), rtol=1e-5)


@pytest.mark.parametrize("encoder", ["mean", "recency"])
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_at_every_token_the_causal_form_is_the_whole_form_of_what_came_before(encoder, lengths, seed):
    """Segments of up to ``max_history`` tokens, packed, wherever they lie against the blocks."""
    config = TwoTower(width=4, history=encoder, max_history=4, user_id=False)
    weights = weights_of(config)
    if encoder == "recency":
        weights["recency_lag"] = np.asarray([0.5, -1.0, 0.2, 2.0], np.float32)
    rng = np.random.default_rng(seed)
    t = sum(lengths)
    items, met = towers.normalise(weights["item_id"]), rng.integers(7, size=t).astype(np.int32)
    packed = {
        "users": np.zeros(t, np.int32), "history_items": met, "history_rows": met,
        "history_types": rng.integers(9, size=t).astype(np.int32),
        "history_segment": np.repeat(np.arange(len(lengths)), lengths).astype(np.int32),
    }  # fmt: skip
    causal = towers.position_vectors(weights, config, packed, items).numpy()
    at = 0
    for length in lengths:
        for end in range(1, length + 1):
            part = {name: packed[name][at : at + end] for name in ("history_items", "history_rows", "history_types")}
            whole = part | {
                "users": np.zeros(1, np.int32), "history_segment": np.zeros(end, np.int32),
                "history_lag": np.arange(end, dtype=np.int32)[::-1].copy(),
            }  # fmt: skip
            expected = towers.user_vectors(weights, config, whole, items).numpy()[0]
            np.testing.assert_allclose(causal[at + end - 1], expected, rtol=2e-4, atol=2e-5)
        at += length


def test_recency_weights_are_the_exponential_of_the_learned_lag():
    tokens = tf.constant([[1.0, -1.0], [-1.0, 1.0], [1.0, -1.0]])
    weights = {"recency_lag": tf.math.log([4.0, 2.0, 1.0]), "norm_in": tf.constant([[1.0, 1.0], [0.0, 0.0]])}
    pooled, newest = history.recency(weights, tokens, tf.zeros(3, tf.int32), tf.constant([2, 1, 0]), tf.constant(1))
    # Normalised tokens are (1, -1), (-1, 1), (1, -1), of weights 1, 2 and 4: (1 - 2 + 4) / 7.
    np.testing.assert_allclose(pooled, [[3 / 7, -3 / 7]], atol=1e-5)
    np.testing.assert_allclose(newest, [[1.0, -1.0]])


def test_dropout_masks_belong_to_the_row_and_not_to_its_place():
    rows, key = tf.ones([400, 16]), tf.constant(RANDOM.integers(2**32, size=400, dtype=np.uint32), tf.uint32)
    dropped = hashing.dropout(rows, key, 0.4, 1).numpy()
    np.testing.assert_array_equal(hashing.dropout(rows[5:9], key[5:9], 0.4, 1), dropped[5:9])
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.6)}
    assert np.mean(dropped == 0) == pytest.approx(0.4, abs=0.03)  # 6,400 draws: four standard errors are .025
    assert np.any(hashing.dropout(rows, key, 0.4, 2).numpy() != dropped)
    assert hashing.dropout(rows, None, 0.4, 1) is rows


def test_untrained_weights_depend_on_seed_and_name_only():
    small, large = TwoTower(width=4), TwoTower(width=4, history="recency", user_id=False)
    np.testing.assert_array_equal(weights_of(small)["item_id"], weights_of(large)["item_id"])
    assert np.any(weights_of(small)["item_id"] != weights_of(TwoTower(width=4, seed=18))["item_id"])


def test_a_model_survives_its_folder(tmp_path):
    config = TwoTower(width=4)
    weights = weights_of(config)
    for _ in range(2):  # the second takes the place of the first
        exported.save(tmp_path / "model", config, SIZES, weights, weights["item_id"], {"epochs": 3})
    model = exported.load(tmp_path / "model")
    assert model.settings == config
    assert model.sizes == {"users": 5, "items": 7, "features": 3}
    assert set(model.weights) == set(weights)
    np.testing.assert_array_equal(model.weights["user_id"], weights["user_id"])
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
