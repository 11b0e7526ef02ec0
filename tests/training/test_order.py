"""Orders and draws as pure functions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkrec.training import order

pytestmark = pytest.mark.unit


@given(n=st.integers(1, 700), seed=st.integers(0, 2**40), epoch=st.integers(0, 100))
def test_positions_are_a_permutation(n, seed, epoch):
    assert sorted(order.positions(np.arange(n), n, seed, epoch)) == list(range(n))


def test_a_rank_needs_only_its_own_users():
    whole = order.positions(np.arange(1000), 1000, 7, 3)
    np.testing.assert_array_equal(order.positions(np.arange(1, 1000, 3), 1000, 7, 3), whole[1::3])


def test_epochs_and_seeds_have_their_own_orders():
    orders = {tuple(order.positions(np.arange(50), 50, seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}
    assert len(orders) == 4


def test_every_user_comes_early_and_late():
    """Over 400 epochs the mean position of each of 20 users is near the middle: its standard error is .29."""
    places = np.mean([order.positions(np.arange(20), 20, 1, epoch) for epoch in range(400)], axis=0)
    assert np.abs(places - 9.5).max() < 4 * 0.29


def test_uniform_is_uniform_and_repeats():
    draws = order.uniform(5, np.arange(100_000))
    assert draws.min() >= 0
    assert draws.max() < 1
    assert np.histogram(draws, 10, (0, 1))[0] == pytest.approx(10_000, abs=4 * 95)
    np.testing.assert_array_equal(draws[7:9], order.uniform(5, np.asarray([7, 8])))


def test_ranges():
    found = order.ranges(np.asarray([5, 9, 0]), np.asarray([2, 0, 3]))
    assert found.tolist() == [5, 6, 0, 1, 2]
    assert order.ranges(np.zeros(0), np.zeros(0)).tolist() == []
