"""The loss of a batch against NumPy written from the formula, one row and one item at a time."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
import tensorflow as tf
import untrained
from pydantic import ValidationError

from sparkrec.config import TwoTower
from sparkrec.models.two_tower import losses, objective, towers
from sparkrec.models.two_tower.encoders import ENCODERS
from sparkrec.models.two_tower.towers import ItemFeatures, Sizes
from sparkrec.training.collective import SingleProcess
from sparkrec.training.negatives import Columns

pytestmark = pytest.mark.workers

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
        "target_types": np.asarray([0, 3, 3], np.int32), "item_key": np.arange(5, dtype=np.uint32),
        "target_label": np.asarray([5, 1, 3.5], np.float32),
        "columns": np.asarray([3, 4, 2, 0], np.int32), "column_bias": np.asarray([0.3, -0.2, 0, 1], np.float32),
    }  # fmt: skip


def make_weights(config):
    """As they are looked up: tables with a row an item hold the rows of ``TOUCHED``."""
    weights = untrained.weights(config, SIZES)
    return weights | {name: weights[name][TOUCHED] for name in ("item_id", "history_item") if name in weights}


def parts(mode, loss, **settings):
    """The batch's loss; cosines of its rows and items; its targets as (row, item, weight)."""
    if loss == "mse":
        settings |= {"weights": {"rating": 1}}
    config = TwoTower(width=4, mode=mode, max_history=4, loss=loss, **settings)
    weights, batch = make_weights(config), make_batch(mode)
    items = towers.item_rows(weights, batch).numpy()
    vectors = (towers.encode_users if mode == "user" else towers.encode_positions)(weights, config, batch, items)
    targets = list(zip(batch["target_segment"], batch["target_items"], batch["target_weight"], strict=True))
    found = [float(x) for x in objective.loss(weights, config, batch)]
    return found, vectors.numpy() @ items.T, targets, batch


@pytest.mark.parametrize("history", ["none", "mean", "recency"])
@pytest.mark.parametrize("mode", ["user", "position"])
def test_softmax_over_columns(mode, history):
    found, cosine, targets, batch = parts(mode, "softmax", history=history, temperature=0.2)
    score, expected, total = cosine / 0.2, 0.0, 0.0
    for row, item, weight in targets:
        positives = {i for r, i, _ in targets if r == row}
        columns = zip(batch["columns"], batch["column_bias"], strict=True)
        others = sum(np.exp(score[row, j] + bias) for j, bias in columns if j not in positives)
        if mode == "user":
            weight = weight * batch["user_weight"][row]
            expected += weight * (np.log(others) - score[row, item])
        else:
            expected += weight * (np.log(others + np.exp(score[row, item])) - score[row, item])
        total += weight
    assert found == pytest.approx([expected, total], rel=1e-5)


@pytest.mark.parametrize("negatives", [0, 2])
def test_corrected_columns_estimate_the_denominator_over_the_catalogue(negatives):
    """Without bias: the mean of Σ exp(score + bias) over all batches of three targets and all drawn negatives."""
    counts, score = np.asarray([5, 3, 2, 0]), np.asarray([0.3, -1.0, 2.0, 0.7])
    if not negatives:  # an item that is never a target is in no batch
        counts, score = counts[:3], score[:3]
    n = len(counts)
    columns = Columns(TwoTower(in_batch=True, negatives=negatives), n, SingleProcess())
    columns.count(counts)
    draws = list(combinations(range(n), negatives))
    mean = 0.0
    for targets in product(range(n), repeat=3):
        chance = np.prod(counts[list(targets)] / counts.sum()) / len(draws)
        if not chance:
            continue
        for drawn in draws:
            batch = {"target_items": np.asarray(targets, np.int32)}
            items, bias = columns.of([batch], np.asarray(drawn, np.int32))
            mean += chance * np.exp(score[items] + bias).sum()
    assert mean == pytest.approx(np.exp(score).sum(), rel=1e-5)


def test_bilateral_softmax():
    """User 0 has the touched items 1 (weight 1) and 4 (weight 3), user 1 item 2 (weight 2); columns 3, 4, 2, 0."""
    found, cosine, _, batch = parts("user", "bilateral", temperature=0.2, positive_temperature=0.5)
    bias = dict(zip(batch["columns"], batch["column_bias"], strict=True))
    others = [
        np.log(sum(np.exp(cosine[0, j] / 0.2 + bias[j]) for j in (3, 2, 0))),
        np.log(sum(np.exp(cosine[1, j] / 0.2 + bias[j]) for j in (3, 4, 0))),
    ]
    own = 0.5 / 0.2 * np.log((np.exp(cosine[0, 1] / 0.5) + 3 * np.exp(cosine[0, 4] / 0.5)) / 4), cosine[1, 2] / 0.2
    expected = 0.5 * 4 * (others[0] - own[0]) + 0.7 * 2 * (others[1] - own[1])
    assert found == pytest.approx([expected, 0.5 * 4 + 0.7 * 2], rel=1e-5)


@pytest.mark.parametrize("mode", ["user", "position"])
def test_pairs(mode):
    found, cosine, targets, batch = parts(mode, "bpr", temperature=0.2)
    drawn = losses.draw_columns(batch["key"], batch["target_segment"], 4, objective.BPR_DRAWS).numpy()
    expected = total = 0.0
    for (row, item, weight), columns in zip(targets, drawn, strict=True):
        positives = {i for r, i, _ in targets if r == row}
        score = [cosine[row, batch["columns"][j]] / 0.2 + batch["column_bias"][j] for j in columns
                 if batch["columns"][j] not in positives]  # fmt: skip
        weight = weight * batch["user_weight"][row] if mode == "user" else weight
        expected += weight * np.mean(np.log1p(np.exp(np.asarray(score) - cosine[row, item] / 0.2)))
        total += weight
    assert found == pytest.approx([expected, total], rel=1e-5)


@pytest.mark.parametrize("mode", ["user", "position"])
def test_stars(mode):
    found, cosine, targets, batch = parts(mode, "mse")
    expected = total = 0.0
    for (row, item, weight), stars in zip(targets, batch["target_label"], strict=True):
        weight = weight * batch["user_weight"][row] if mode == "user" else weight
        expected += weight * (3.0 + np.exp(0.7) * cosine[row, item] - stars) ** 2
        total += weight
    assert found == pytest.approx([expected, total], rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"history": "none", "user_id": False}, "nothing to make a user's vector from"),
        ({"loss": "bilateral", "mode": "position"}, "one target a row"),
        ({"loss": "bpr", "in_batch": True}, "log_q: false"),
        ({"history": "attention", "width": 9}, "no multiple of attention_heads"),
        ({"id_dropout": 0.1, "item_features": False}, "item_features: true"),
        ({"head": "search"}, "serve one of view, click, cart"),
        ({"loss": "mse", "negatives": 5, "weights": {"rating": 1}}, "no negatives"),
        ({"loss": "mse", "weights": {"rating": 1, "view": 1}}, "leave these out"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, why):
    with pytest.raises(ValidationError, match=why):
        TwoTower(**settings)


@pytest.mark.parametrize("mode", ["user", "position"])
def test_heads_share_the_towers(mode):
    """Under its head a target is told from what its user has met under none."""
    config = TwoTower(width=4, mode=mode, max_history=4, head="view", weights={"view": 1, "purchase": 1})
    weights, batch = make_weights(config), make_batch(mode)
    weights["head"] = np.random.default_rng(1).random((2, 4)).astype(np.float32)
    items = towers.item_rows(weights, batch).numpy()
    encode = towers.encode_users if mode == "user" else towers.encode_positions
    shared = encode(weights, config, batch, items).numpy()
    expected = total = 0.0
    targets = list(zip(batch["target_segment"], batch["target_items"], batch["target_weight"], strict=True))
    for (row, item, weight), kind in zip(targets, batch["target_types"], strict=True):
        vector = shared[row] * weights["head"][{0: 0, 3: 1}[kind]]
        score = items @ vector / np.linalg.norm(vector) / config.temperature
        positives = {i for r, i, _ in targets if r == row}
        columns = zip(batch["columns"], batch["column_bias"], strict=True)
        others = sum(np.exp(score[j] + bias) for j, bias in columns if j not in positives)
        weight = weight * batch["user_weight"][row] if mode == "user" else weight
        own = 0 if mode == "user" else np.exp(score[item])
        expected += weight * (np.log(others + own) - score[item])
        total += weight
    found = [float(x) for x in objective.loss(weights, config, batch)]
    assert found == pytest.approx([expected, total], rel=1e-5)


MODES = {
    "user": [{"loss": "softmax"}, {"loss": "bilateral"}, {"loss": "bpr"}, {"loss": "mse", "weights": {"rating": 1}}],
    "position": [{"loss": "softmax"}, {"loss": "bpr"}, {"loss": "mse", "weights": {"rating": 1}}],
}


def gradients_of(config, weights, batch):
    """Loss, weight, and the gradient of every weight as arrays."""
    with tf.GradientTape() as tape:
        loss, total = objective.loss(weights, config, batch)
    slopes = tape.gradient(loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return loss, total, {name: tf.convert_to_tensor(slope) for name, slope in slopes.items()}


@pytest.mark.parametrize("history", ["none", *ENCODERS])
@pytest.mark.parametrize(("mode", "extra"), [(mode, extra) for mode in MODES for extra in MODES[mode]])
def test_every_combination_has_a_finite_loss_whose_gradient_reaches_every_weight(mode, history, extra):
    extra = {"item_mlp": True, "id_dropout": 0.3} | ({"head": "rating"} if mode == "user" else {}) | extra
    config = TwoTower(width=4, mode=mode, history=history, max_history=4, dropout=0.1, **extra)
    weights = {name: tf.Variable(w) for name, w in make_weights(config).items()}
    *sums, slopes = gradients_of(config, weights, make_batch(mode))
    assert np.isfinite(sums).all()
    for name, slope in slopes.items():
        assert np.isfinite(slope).all(), name
        assert np.any(slope != 0), name


@pytest.mark.parametrize("history", ["none", *ENCODERS])
@pytest.mark.parametrize("mode", MODES)
def test_one_trace_serves_batches_of_every_length(mode, history):
    """The traced gradient is the eager one, and that of a rank without users is nothing."""
    config = TwoTower(width=4, mode=mode, history=history, max_history=4, dropout=0.1, layers=1)
    weights = {name: tf.Variable(w) for name, w in make_weights(config).items()}
    batch = make_batch(mode)
    signature = {name: tf.TensorSpec([None], x.dtype) for name, x in batch.items()}
    traced = tf.function(lambda batch: gradients_of(config, weights, batch), input_signature=[signature])
    *sums, slopes = traced(batch)
    *expected, eager = gradients_of(config, weights, batch)
    assert [float(x) for x in sums] == pytest.approx([float(x) for x in expected], rel=1e-5)
    for name, slope in slopes.items():
        np.testing.assert_allclose(slope, eager[name], rtol=1e-4, atol=1e-5, err_msg=name)
    shared = ("columns", "column_bias", "feature_item", "feature_row")
    *sums, slopes = traced({name: x if name in shared else x[:0] for name, x in batch.items()})
    assert [float(x) for x in sums] == [0, 0]
    assert not any(np.any(slope != 0) for slope in slopes.values())
