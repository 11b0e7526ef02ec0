"""Updates against the papers' formulas, the moving average against itself step by step, the schedule."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkrec.config import TwoTower
from sparkrec.training.optimizer import ROW_RULES, AdamW, Decay, learning_rate

pytestmark = pytest.mark.unit

GRADIENTS = ([0.1, -3.0, 0.0], [0.2, 1.0, 4.0], [-0.1, 1.0, 1e-3])


def adam(x, gradients, rate):
    """Kingma and Ba, algorithm 1: x after each step."""
    m, v = np.zeros_like(x), np.zeros_like(x)
    for step, g in enumerate(np.asarray(gradients)):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = x - rate * (m / (1 - 0.9 ** (step + 1))) / (np.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-7)
        yield x


def test_three_steps_of_adam_and_the_average_as_in_the_paper():
    start = {"a": np.asarray([1.0, -2.0], np.float32), "b": np.asarray([[0.5]], np.float32)}
    optimizer = AdamW(start, Decay(0.25))
    average = np.asarray([1.0, -2.0, 0.5])
    for step, x in enumerate(adam(average, GRADIENTS, 0.01)):
        # Twice the gradient, halved by the scale.
        optimizer.apply(2 * np.asarray(GRADIENTS[step], np.float32), 0.5, 0.01, step)
        decay = min(0.25, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * x
    found = np.concatenate([variable.numpy().ravel() for variable in optimizer.variables.values()])
    # TensorFlow adds epsilon before the correction of the second moment: a difference of the order of epsilon.
    np.testing.assert_allclose(found, x, rtol=1e-4)
    np.testing.assert_allclose([y for v in optimizer.shipped.values() for y in v.numpy().ravel()], average, rtol=1e-4)


def test_weight_decay_shrinks_by_rate_times_decay_apart_from_the_gradient():
    optimizer = AdamW({"a": np.asarray([2.0], np.float32)}, None, weight_decay=0.1)
    optimizer.apply(np.zeros(1, np.float32), 1.0, 0.5, 0)
    assert optimizer.variables["a"].numpy().tolist() == pytest.approx([2.0 * (1 - 0.5 * 0.1)])


def test_without_an_average_the_weights_themselves_are_shipped():
    optimizer = AdamW({"a": np.ones(1, np.float32)}, None)
    assert optimizer.shipped is optimizer.variables
    assert set(optimizer.state) == {"weights/a", "m/a", "v/a"}


def by_rule(name, gradients):
    """One row from (1, -2, 0.5), rate 0.01."""
    rule, x = ROW_RULES[name](), np.asarray([[1.0, -2.0, 0.5]])
    state = {key: tf.zeros((1, columns)) for key, columns in rule.state(3).items()}
    for g in gradients:
        # Twice the gradient, halved by the scale.
        change, state = rule.update(2 * tf.constant([g], tf.float32), tf.constant(0.5), tf.constant(0.01), state)
        x = x - change.numpy()
    return x[0]


def test_lazy_adam_is_adam_of_the_steps_that_touched_the_row():
    *_, expected = adam(np.asarray([1.0, -2.0, 0.5]), GRADIENTS, 0.01)
    np.testing.assert_allclose(by_rule("lazy_adam", GRADIENTS), expected, rtol=1e-4)


def test_rowwise_adagrad_divides_by_the_root_of_the_summed_mean_squares():
    x, total = np.asarray([1.0, -2.0, 0.5]), 0.0
    for g in np.asarray(GRADIENTS):
        total += np.mean(g**2)
        x = x - 0.01 * g / np.sqrt(total)
    np.testing.assert_allclose(by_rule("adagrad", GRADIENTS), x, rtol=1e-5)


def test_sgd_is_the_gradient():
    expected = np.asarray([1.0, -2.0, 0.5]) - 0.01 * np.sum(GRADIENTS, axis=0)
    np.testing.assert_allclose(by_rule("sgd", GRADIENTS), expected, rtol=1e-5)


@settings(max_examples=30)
@given(decay=st.sampled_from([0.05, 0.5, 0.9, 0.998]), first=st.integers(0, 6000), steps=st.integers(0, 300))
def test_decays_since_a_step_are_their_product(decay, first, steps):
    expected = np.prod([min(decay, (1 + s) / (10 + s)) for s in range(first, first + steps)])
    found = Decay(decay).since(tf.constant([[first]], tf.float32), tf.constant(first + steps, tf.float32))
    np.testing.assert_allclose(found, [[expected]], rtol=1e-5, atol=1e-30)


def test_the_schedule():
    constant = TwoTower(learning_rate=0.5)
    falling = TwoTower(learning_rate=0.5, learning_rate_decay="linear")
    assert [learning_rate(constant, step, 4) for step in range(4)] == [0.5] * 4
    assert [learning_rate(falling, step, 4) for step in range(5)] == [0.5, 0.375, 0.25, 0.125, 0.0]
    warm = TwoTower(learning_rate=0.5, warmup_steps=4)
    assert [learning_rate(warm, step, 9) for step in range(6)] == [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(("how", "expected"), [("none", 0.5), ("linear", 2.0), ("sqrt", 1.0)])
def test_the_learning_rate_grows_with_the_ranks_if_asked(how, expected):
    assert learning_rate(TwoTower(learning_rate=0.5, ranks=4, scale_learning_rate=how), 0, 9) == expected
