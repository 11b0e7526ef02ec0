"""Towers, their untrained weights, and their form on disk."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import untrained

from sparkrec.config import TwoTower
from sparkrec.models.two_tower import exported, hashing, towers
from sparkrec.models.two_tower.towers import ItemFeatures, Sizes

pytestmark = pytest.mark.unit

RANDOM = np.random.default_rng(5)
SIZES = Sizes(users=5, items=7, features=3)
FEATURES = ItemFeatures(np.asarray([2, 2, 3, 3, 3, 3, 3]), np.asarray([0, 2, 1], np.int32))


def weights_of(config):
    return untrained.weights(config, SIZES)


def test_item_vector_is_id_row_plus_mean_of_features_at_unit_length():
    weights = weights_of(TwoTower(width=4))
    vectors = towers.item_rows(weights, FEATURES.of(np.arange(7))).numpy()
    rows, table = weights["item_id"], weights["item_feature"]
    expected = [rows[0] + (table[0] + table[2]) / 2, rows[1], rows[2] + table[1]]
    for vector, row in zip(vectors, expected, strict=False):
        np.testing.assert_allclose(vector, row / np.linalg.norm(row), rtol=1e-5)
    some = np.asarray([6, 2, 0, 2])
    part = towers.item_rows(weights | {"item_id": rows[some]}, FEATURES.of(some)).numpy()
    np.testing.assert_allclose(part, vectors[some], rtol=1e-6)


def test_a_row_without_length_has_no_gradient_and_any_other_has_that_of_its_direction():
    rows = np.asarray([[0, 0, 0], [3, 0, 4], [1e-5, 0, 0], [0.003, 0, 0.004]], np.float32)
    upstream = np.asarray([[1, 2, 3]] * 4, np.float32)
    variable = tf.constant(rows)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        unit = towers.normalise(variable)
    gradient = tape.gradient(unit, variable, upstream).numpy()
    np.testing.assert_allclose(unit, [[0, 0, 0], [0.6, 0, 0.8], [1, 0, 0], [0.6, 0, 0.8]], rtol=1e-6)
    # (1 - f fᵀ) g / |x|, with f = (.6, 0, .8) and f g = 3.
    across = np.asarray([1 - 1.8, 2, 3 - 2.4])
    np.testing.assert_allclose(gradient, [[0] * 3, across / 5, [0] * 3, across / 0.005], rtol=1e-4)


def test_the_item_mlp_is_a_residual_of_the_sum():
    config = TwoTower(width=4, item_mlp=True)
    weights = {name: w.astype(np.float64) for name, w in weights_of(config).items()}
    found = towers.item_rows(weights, FEATURES.of(np.arange(7))).numpy()
    x = weights["item_id"][0] + (weights["item_feature"][0] + weights["item_feature"][2]) / 2
    inner = (x - x.mean()) / np.sqrt(x.var() + 1e-6) @ weights["item_block_up"]
    inner = inner / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
    x += inner @ weights["item_block_down"]
    np.testing.assert_allclose(found[0], x / np.linalg.norm(x), rtol=1e-6)


def test_a_dropped_id_leaves_an_item_to_its_features():
    """Items 0, 2 and 4 have features; whether one is dropped depends on its key and not on its place."""
    weights = weights_of(TwoTower(width=4))
    features = ItemFeatures(np.asarray([2, 2, 3, 3, 4, 4, 4]), np.asarray([0, 2, 1, 1], np.int32))
    flat, kept, dropped = features.of(np.arange(7)), set(), set()
    full = towers.item_rows(weights, flat).numpy()
    bare = towers.item_rows(weights | {"item_id": np.zeros((7, 4), np.float32)}, flat).numpy()
    for seed in range(100):
        key = np.random.default_rng(seed).integers(2**32, size=7, dtype=np.uint32)
        found = towers.item_rows(weights, flat | {"item_key": key}, 0.3).numpy()
        for item in range(7):
            same = np.allclose(found[item], full[item])
            assert same or np.allclose(found[item], bare[item])
            (kept if same else dropped).add((seed, item))
        some = np.asarray([4, 1, 0])
        part = {**features.of(some), "item_key": key[some]}
        again = towers.item_rows(weights | {"item_id": weights["item_id"][some]}, part, 0.3)
        np.testing.assert_allclose(again, found[some], rtol=1e-5)
    assert {item for _, item in dropped} == {0, 2, 4}
    assert len(dropped) == pytest.approx(90, abs=24)  # of 300 draws; three standard deviations


def test_the_served_head_scales_the_columns_of_a_user():
    config = TwoTower(width=4, history="none", head="purchase", weights={"view": 1, "purchase": 2, "cart": 0})
    plain = TwoTower(width=4, history="none")
    assert towers.heads(config) == ["view", "purchase"]
    weights, batch = weights_of(config), {"users": np.asarray([3, 1], np.int32)}
    users = towers.user_vectors(weights, plain, batch, None)
    np.testing.assert_allclose(towers.user_vectors(weights, config, batch, None), users, rtol=1e-6)
    weights["head"] = np.asarray([[9, 9, 9, 9], [1, 0, 2, 1]], np.float32)
    expected = users.numpy() * weights["head"][1]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(towers.user_vectors(weights, config, batch, None), expected, rtol=1e-6)


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
