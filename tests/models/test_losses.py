"""Losses against NumPy written from the formula, one user and one item at a time."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from sparkrec.models.two_tower import losses

pytestmark = pytest.mark.unit

RNG = np.random.default_rng(1)
USERS = RNG.standard_normal((3, 4)).astype(np.float32)
ITEMS = RNG.standard_normal((6, 4)).astype(np.float32)
POSITIVES = {0: {1: 1.0, 4: 3.0}, 1: {2: 2.0}, 2: {}}
WEIGHT = {0: 4.0**-0.5, 1: 2.0**-0.5, 2: 0.0}
TAU = 0.5


def by_hand(catalogue, bias=None):
    """loss_u = w_u (n_u log Σ_{j in catalogue, not in P_u} exp(s_uj + b_j) − Σ_{i in P_u} v_i s_ui)."""
    bias = dict.fromkeys(catalogue, 0.0) if bias is None else bias
    total = weight = 0.0
    for u, positives in POSITIVES.items():
        score = USERS[u].astype(float) @ ITEMS.T.astype(float) / TAU
        n = sum(positives.values())
        others = sum(np.exp(score[j] + bias[j]) for j in catalogue if j not in positives)
        total += WEIGHT[u] * (n * np.log(others) - sum(v * score[i] for i, v in positives.items()))
        weight += WEIGHT[u] * n
    return total, weight


def scores_of(rows, vectors, columns, hits, bias=None):
    """``column_scores`` of items ``columns``; ``hits``: (row, item)."""
    place = {item: at for at, item in enumerate(columns)}
    row, item = np.asarray([(r, place.get(i, -1)) for r, i in hits], np.int32).reshape(-1, 2).T
    bias = np.zeros(len(columns), np.float32) if bias is None else np.asarray(bias, np.float32)
    return losses.column_scores(rows, tf.gather(vectors, columns), bias, row, item, TAU)


def user_loss(columns, bias=None, vectors=ITEMS):
    pairs = [(u, i, v) for u, positives in POSITIVES.items() for i, v in positives.items()]
    segment, items, weight = (np.asarray(x) for x in zip(*pairs, strict=True))
    positive = tf.reduce_sum(tf.gather(USERS, segment) * tf.gather(vectors, items), axis=1) / TAU
    scores = scores_of(USERS, vectors, columns, [(u, i) for u, i, _ in pairs], bias)
    return losses.user_softmax(
        positive, scores, segment.astype(np.int32), weight.astype(np.float32),
        np.asarray(list(WEIGHT.values()), np.float32),
    )  # fmt: skip


def floats(loss):
    return [float(x) for x in loss]


def test_user_softmax_over_the_catalogue():
    assert floats(user_loss(range(6))) == pytest.approx(by_hand(range(6)), rel=1e-5)


def test_user_softmax_over_drawn_items_leaves_out_those_that_are_positive():
    assert floats(user_loss([5, 4, 0, 2])) == pytest.approx(by_hand([5, 4, 0, 2]), rel=1e-5)


def test_the_bias_of_a_column_is_added_to_its_score():
    bias = {5: 0.5, 4: 9.0, 0: -2.0, 2: 0.1}
    assert floats(user_loss(list(bias), list(bias.values()))) == pytest.approx(by_hand(bias, bias), rel=1e-5)


def test_a_user_whom_no_column_is_left_for_counts_for_nothing():
    """The only column is item 2, which user 1 has and user 0 has not."""
    total, weight = floats(user_loss([2]))
    score = USERS[0].astype(float) @ ITEMS.T.astype(float) / TAU
    assert weight == pytest.approx(WEIGHT[0] * 4)
    assert total == pytest.approx(WEIGHT[0] * (4 * score[2] - score[1] - 3 * score[4]), rel=1e-5)


@pytest.mark.parametrize("columns", [range(6), [0, 3, 5]])
def test_position_softmax(columns):
    targets, weight = [3, 1, 3], [1.0, 0.0, 2.5]
    expected = 0.0
    for user, target, w in zip(USERS.astype(float), targets, weight, strict=True):
        score = user @ ITEMS.T.astype(float) / TAU
        expected += w * (np.log(sum(np.exp(score[j]) for j in {target, *columns})) - score[target])
    positive = tf.reduce_sum(USERS * ITEMS[targets], axis=1) / TAU
    scores = scores_of(USERS, ITEMS, columns, enumerate(targets))
    loss = losses.position_softmax(positive, scores, tf.constant(weight, tf.float32))
    assert floats(loss) == pytest.approx([expected, 3.5], rel=1e-5)


def test_a_positive_does_not_push_another_down():
    """Raising the score of item 2, which user 1 alone has, changes his loss only through its own reward."""
    vectors = tf.Variable(ITEMS)
    with tf.GradientTape() as tape:
        loss, _ = user_loss([2], vectors=vectors)
    slope = tape.gradient(loss, vectors)
    assert 2 in slope.indices.numpy()
    np.testing.assert_allclose(tf.convert_to_tensor(slope)[2], WEIGHT[0] * 4 * USERS[0] / TAU, rtol=1e-5)


def test_a_step_of_a_rank_without_users_is_nothing():
    empty = tf.zeros([0], tf.int32)
    scores = losses.column_scores(tf.zeros([0, 4]), ITEMS, tf.zeros([6]), empty, empty, TAU)
    none = tf.zeros([0])
    assert floats(losses.user_softmax(none, scores, empty, none, none)) == [0.0, 0.0]
    assert floats(losses.position_softmax(none, scores, none)) == [0.0, 0.0]
