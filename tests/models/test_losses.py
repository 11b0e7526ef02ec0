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


def denominator_of(rows, vectors, columns, hits, bias=None):
    """``log_denominator`` over items ``columns``; ``hits``: (row, item)."""
    place = {item: at for at, item in enumerate(columns)}
    row, item = np.asarray([(r, place.get(i, -1)) for r, i in hits], np.int32).reshape(-1, 2).T
    bias = np.zeros(len(columns), np.float32) if bias is None else np.asarray(bias, np.float32)
    return losses.log_denominator(rows, tf.gather(vectors, columns), bias, row, item, TAU)


def user_loss(columns, bias=None, vectors=ITEMS):
    pairs = [(u, i, v) for u, positives in POSITIVES.items() for i, v in positives.items()]
    segment, items, weight = (np.asarray(x) for x in zip(*pairs, strict=True))
    positive = tf.reduce_sum(tf.gather(USERS, segment) * tf.gather(vectors, items), axis=1) / TAU
    denominator = denominator_of(USERS, vectors, columns, [(u, i) for u, i, _ in pairs], bias)
    segment, weight = segment.astype(np.int32), weight.astype(np.float32)
    total = tf.math.unsorted_segment_sum(weight, segment, 3)
    reward = losses.mean_reward(positive, segment, weight, 3)
    return losses.user_softmax(reward, total, denominator, np.asarray(list(WEIGHT.values()), np.float32))


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
    denominator = denominator_of(USERS, ITEMS, columns, enumerate(targets))
    loss = losses.position_softmax(positive, denominator, tf.constant(weight, tf.float32))
    assert floats(loss) == pytest.approx([expected, 3.5], rel=1e-5)


def test_a_positive_does_not_push_another_down():
    """Raising the score of item 2, which user 1 alone has, changes his loss only through its own reward."""
    vectors = tf.Variable(ITEMS)
    with tf.GradientTape() as tape:
        loss, _ = user_loss([2], vectors=vectors)
    slope = tape.gradient(loss, vectors)
    assert 2 in slope.indices.numpy()
    np.testing.assert_allclose(tf.convert_to_tensor(slope)[2], WEIGHT[0] * 4 * USERS[0] / TAU, rtol=1e-5)


def test_bilateral_reward_is_the_log_of_the_mean_of_exponentials():
    positive, weight = np.asarray([0.3, -2.0, 5.0]), np.asarray([1.0, 3.0, 0.5])
    found = losses.bilateral_reward(positive, [0, 0, 2], weight, 4, ratio=2.0)
    first = 4 * 2 * np.log((1 * np.exp(0.3 / 2) + 3 * np.exp(-2.0 / 2)) / 4)
    np.testing.assert_allclose(found, [first, 0, 0.5 * 5.0, 0], rtol=1e-6)


def test_bilateral_reward_of_hot_positives_is_their_mean():
    positive, segment, weight = RNG.standard_normal(9), np.repeat([0, 1, 3], 3), RNG.random(9)
    found = losses.bilateral_reward(positive, segment, weight, 4, ratio=1e6)
    np.testing.assert_allclose(found, losses.mean_reward(positive, segment, weight, 4), rtol=1e-4, atol=1e-6)


def test_bilateral_reward_survives_a_small_temperature():
    found = losses.bilateral_reward(np.asarray([6.0, -6.0], np.float32), [0, 0], np.ones(2, np.float32), 1, ratio=0.01)
    np.testing.assert_allclose(found, [2 * (6 - 0.01 * np.log(2))], rtol=1e-5)


def test_bpr_is_the_mean_over_the_drawn_columns_that_are_no_positive():
    positive, scores = np.asarray([1.0, -0.5, 2.0]), np.asarray([[0.2, losses._NEVER, 1.5], [losses._NEVER] * 3])
    drawn, weight = np.asarray([[0, 1], [2, 2], [0, 2]], np.int32), np.asarray([2.0, 1.0, 5.0])
    loss = losses.bpr(positive, scores, np.asarray([0, 0, 1], np.int32), drawn, weight)
    first, second = np.log1p(np.exp(0.2 - 1.0)), np.log1p(np.exp(1.5 + 0.5))
    assert floats(loss) == pytest.approx([2 * first + second, 3])


def test_drawn_columns_belong_to_the_row_and_not_to_its_place():
    key, segment = tf.constant([7, 8, 9], tf.uint32), tf.constant([0, 0, 2, 2, 2])
    drawn = losses.draw_columns(key, segment, 1000, 400).numpy()
    np.testing.assert_array_equal(losses.draw_columns(key[2:], segment[2:] - 2, 1000, 400), drawn[2:])
    assert drawn.min() >= 0
    assert drawn.max() < 1000
    # 2,000 uniform draws of 1,000: 865 distinct are expected, with a standard deviation of 10.
    assert abs(len(np.unique(drawn)) - 865) < 50


def test_squared_error():
    loss = losses.squared_error(np.asarray([3.5, 1.0]), np.asarray([4.0, 4.0]), np.asarray([2.0, 1.0]))
    assert floats(loss) == [2 * 0.25 + 9, 3]


def slopes(loss, *values):
    """Largest difference between the gradient by TensorFlow and by finite differences, in float64."""
    by_rule, by_difference = tf.test.compute_gradient(loss, [tf.constant(x, tf.float64) for x in values], 1e-5)
    return max(np.abs(a - b).max() for a, b in zip(by_rule, by_difference, strict=True))


def test_gradients_are_those_of_finite_differences():
    row, weight, user_weight = np.asarray([0, 0, 2], np.int32), RNG.random(3) + 0.5, RNG.random(3) + 0.5
    total = np.bincount(row, weight, 3)
    drawn = losses.draw_columns(tf.constant([1, 2, 3], tf.uint32), row, 4, 3)
    users, columns, bias = RNG.standard_normal((3, 4)), RNG.standard_normal((4, 4)), RNG.standard_normal(4)
    hit = np.asarray([1, -1, 3], np.int32)

    def by_user(reward, ratio=()):
        def loss(users, columns, positive):
            denominator = losses.log_denominator(users, columns, bias, row, hit, TAU)
            return losses.user_softmax(reward(positive, row, weight, 3, *ratio), total, denominator, user_weight)[0]

        return loss

    def position(users, columns, positive):
        denominator = losses.log_denominator(users, columns, bias, row, hit, TAU)
        return losses.position_softmax(positive, denominator, weight)[0]

    def pairs(users, columns, positive):
        return losses.bpr(positive, losses.column_scores(users, columns, bias, row, hit, TAU), row, drawn, weight)[0]

    def stars(users, columns, positive):
        return losses.squared_error(positive, tf.constant([1.0, 3, 4], tf.float64), weight)[0]

    for loss in (by_user(losses.mean_reward), by_user(losses.bilateral_reward, (1.7,)), position, pairs, stars):
        assert slopes(loss, users, columns, RNG.standard_normal(3)) < 1e-6


def test_a_batch_without_targets_has_no_columns_of_its_own():
    empty, none = tf.zeros([0], tf.int32), tf.zeros([0])
    users = tf.Variable(USERS)
    with tf.GradientTape() as tape:
        denominator = losses.log_denominator(users, tf.zeros([0, 4]), none, empty, empty, TAU)
        reward = losses.mean_reward(none, empty, none, 3)
        loss = losses.user_softmax(reward, tf.zeros(3), denominator, tf.zeros(3))
    assert floats(loss) == [0, 0]
    assert not np.any(tape.gradient(loss[0], users))


def test_a_step_of_a_rank_without_users_is_nothing():
    empty, none = tf.zeros([0], tf.int32), tf.zeros([0])
    scores = losses.column_scores(tf.zeros([0, 4]), ITEMS, tf.zeros([6]), empty, empty, TAU)
    denominator = losses.log_denominator(tf.zeros([0, 4]), ITEMS, tf.zeros([6]), empty, empty, TAU)
    drawn = losses.draw_columns(tf.zeros([0], tf.uint32), empty, 6, 3)
    for reward in (losses.mean_reward(none, empty, none, 0), losses.bilateral_reward(none, empty, none, 0, 2.0)):
        assert floats(losses.user_softmax(reward, none, denominator, none)) == [0.0, 0.0]
    assert floats(losses.position_softmax(none, denominator, none)) == [0.0, 0.0]
    assert floats(losses.bpr(none, scores, empty, drawn, none)) == [0.0, 0.0]
    assert floats(losses.squared_error(none, none, none)) == [0.0, 0.0]
