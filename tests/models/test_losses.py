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


def by_hand(catalogue):
    """loss_u = w_u (n_u log Σ_{j in catalogue, not in P_u} exp s_uj − Σ_{i in P_u} v_i s_ui)."""
    total = weight = 0.0
    for u, positives in POSITIVES.items():
        score = USERS[u].astype(float) @ ITEMS.T.astype(float) / TAU
        n = sum(positives.values())
        others = sum(np.exp(score[j]) for j in catalogue if j not in positives)
        total += WEIGHT[u] * (n * np.log(others) - sum(v * score[i] for i, v in positives.items()))
        weight += WEIGHT[u] * n
    return total, weight


def user_loss(negatives=None):
    pairs = [(u, i, v) for u, positives in POSITIVES.items() for i, v in positives.items()]
    segment, items, weight = (np.asarray(x) for x in zip(*pairs, strict=True))
    drawn = None if negatives is None else tf.constant(negatives, tf.int32)
    loss = losses.user_softmax(
        USERS, ITEMS, segment.astype(np.int32), items.astype(np.int32), weight.astype(np.float32),
        np.asarray(list(WEIGHT.values()), np.float32), drawn, TAU,
    )  # fmt: skip
    return [float(x) for x in loss]


def test_user_softmax_over_the_catalogue():
    assert user_loss() == pytest.approx(by_hand(range(6)), rel=1e-5)


def test_user_softmax_over_drawn_items_leaves_out_those_that_are_positive():
    assert user_loss([5, 4, 0, 2]) == pytest.approx(by_hand([5, 4, 0, 2]), rel=1e-5)


@pytest.mark.parametrize("negatives", [None, [0, 3, 5]])
def test_position_softmax(negatives):
    targets, weight = [3, 1, 3], [1.0, 0.0, 2.5]
    expected = 0.0
    for user, target, w in zip(USERS.astype(float), targets, weight, strict=True):
        score = user @ ITEMS.T.astype(float) / TAU
        catalogue = {target, *(range(6) if negatives is None else negatives)}
        expected += w * (np.log(sum(np.exp(score[j]) for j in catalogue)) - score[target])
    drawn = None if negatives is None else tf.constant(negatives, tf.int32)
    loss = losses.position_softmax(
        USERS, ITEMS, tf.constant(targets, tf.int32), tf.constant(weight, tf.float32), drawn, TAU
    )
    assert [float(x) for x in loss] == pytest.approx([expected, 3.5], rel=1e-5)


def test_a_positive_does_not_push_another_down():
    """Raising the score of item 4, which the user has, changes the loss only through its own reward."""
    segment, items, one = tf.constant([0, 0]), tf.constant([1, 4]), tf.ones(2)
    vectors = tf.Variable(ITEMS)
    with tf.GradientTape() as tape:
        loss, _ = losses.user_softmax(USERS[:1], vectors, segment, items, one, tf.ones(1), None, TAU)
    slope = tape.gradient(loss, vectors).numpy()
    np.testing.assert_allclose(slope[4], -USERS[0] / TAU, rtol=1e-5)


def test_a_step_of_a_rank_without_users_is_nothing():
    empty = tf.zeros([0], tf.int32)
    loss = losses.user_softmax(tf.zeros([0, 4]), ITEMS, empty, empty, tf.zeros([0]), tf.zeros([0]), None, TAU)
    assert [float(x) for x in loss] == [0.0, 0.0]
    loss = losses.position_softmax(tf.zeros([0, 4]), ITEMS, empty, tf.zeros([0]), None, TAU)
    assert [float(x) for x in loss] == [0.0, 0.0]
