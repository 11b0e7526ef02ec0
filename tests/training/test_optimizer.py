"""Adam against the paper's formula, the moving average, the schedule."""

from __future__ import annotations

import numpy as np
import pytest

from sparkrec.config import TwoTower
from sparkrec.training.optimizer import Adam, learning_rate

pytestmark = pytest.mark.unit


def test_three_steps_of_adam_and_the_average_as_in_the_paper():
    start = {"a": np.asarray([1.0, -2.0], np.float32), "b": np.asarray([[0.5]], np.float32)}
    adam = Adam(start, average=0.25)
    x = np.asarray([1.0, -2.0, 0.5])
    m, v, average = np.zeros(3), np.zeros(3), x.copy()
    for step, gradient in enumerate(([0.1, -3.0, 0.0], [0.2, 1.0, 4.0], [-0.1, 1.0, 1e-3])):
        g = np.asarray(gradient)
        adam.apply(g.astype(np.float32), step, learning_rate=0.01)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = x - 0.01 * (m / (1 - 0.9 ** (step + 1))) / (np.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-7)
        decay = min(0.25, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * x
    found = np.concatenate([variable.numpy().ravel() for variable in adam.variables.values()])
    # TensorFlow adds epsilon before the correction of the second moment: a difference of the order of epsilon.
    np.testing.assert_allclose(found, x, rtol=1e-4)
    np.testing.assert_allclose([y for v in adam.shipped.values() for y in v.numpy().ravel()], average, rtol=1e-4)


def test_without_an_average_the_weights_themselves_are_shipped():
    adam = Adam({"a": np.ones(1, np.float32)}, average=0)
    assert adam.shipped is adam.variables
    assert set(adam.state) == {"weights/a", "m/a", "v/a"}


def test_the_schedule():
    constant = TwoTower(learning_rate=0.5)
    falling = TwoTower(learning_rate=0.5, learning_rate_decay="linear")
    assert [learning_rate(constant, step, 4) for step in range(4)] == [0.5] * 4
    assert [learning_rate(falling, step, 4) for step in range(5)] == [0.5, 0.375, 0.25, 0.125, 0.0]
