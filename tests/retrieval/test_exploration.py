"""Lots against their propensities, counted; and the estimator against the truth."""

from __future__ import annotations

import numpy as np
import pytest

from sparkrec.retrieval.exploration import explore, uniform

pytestmark = pytest.mark.unit

N, K, P = 60_000, 4, 9
KEYS = np.arange(N, dtype=np.uint64)
PICKS = np.tile([0, 1, 2, 3], (N, 1))
FREE = np.tile(np.isin(np.arange(P), [4, 5, 7]), (N, 1))
ITEMS = np.tile(np.arange(100, 100 + P), (N, 1))
LAST_TWO = np.tile([False, False, True, True], (N, 1))


def test_frequencies_are_the_propensities():
    shown, propensity = explore(PICKS, FREE, ITEMS, KEYS, LAST_TWO, 0.3)
    for place in range(K):
        for item in range(P):
            here = shown[:, place] == item
            expected = {True: [0.7, 0.1], False: [1.0, 0.0]}[place >= 2][item != place]
            if item != place and item not in (4, 5, 7):
                expected = 0.0
            assert (propensity[here, place] == pytest.approx(expected)) or not here.any()
            error = np.sqrt(expected * (1 - expected) / N)
            assert here.mean() == pytest.approx(expected, abs=4.5 * error + 1e-12), (place, item)


def test_no_item_comes_twice():
    shown, _ = explore(PICKS, FREE, ITEMS, KEYS, LAST_TWO, 0.9)
    assert (np.diff(np.sort(shown, axis=1), axis=1) > 0).all()


def test_the_estimator_finds_the_value_of_another_policy():
    # The reward of place and item is known; the other policy shows item 5 in the last place, else the list's own.
    reward = np.arange(K)[:, None] * 0.1 + np.arange(P) * 0.05
    shown, propensity = explore(PICKS, FREE, ITEMS, KEYS, LAST_TWO, 0.3)
    other = np.array([0, 1, 2, 5])
    gained = reward[np.arange(K), shown] * (shown == other) / propensity
    truth = reward[np.arange(K), other].sum()
    totals = gained.sum(axis=1)
    assert totals.mean() == pytest.approx(truth, abs=4 * totals.std() / np.sqrt(N))


def test_what_cannot_be_explored_has_propensity_one():
    free = np.zeros((3, P), bool)
    free[1, 4] = True  # one candidate, two places: only the first of them takes part
    free[2, [4, 5]] = True
    shown, propensity = explore(PICKS[:3], free, ITEMS[:3], KEYS[:3], LAST_TWO[:3], 1.0)
    assert shown[:2].tolist() == [[0, 1, 2, 3], [0, 1, 4, 3]]
    assert propensity[:2].tolist() == [[1, 1, 1, 1], [1, 1, 1, 1]]
    assert sorted(shown[2, 2:]) == [4, 5]
    assert propensity[2].tolist() == [1, 1, 0.5, 0.5]


def test_the_lot_is_the_users_own():
    shown, propensity = explore(PICKS, FREE, ITEMS, KEYS, LAST_TWO, 0.5)
    some = np.random.default_rng(1).permutation(N)[:500]
    again = explore(PICKS[some], FREE[some], ITEMS[some], KEYS[some], LAST_TWO[some], 0.5)
    np.testing.assert_array_equal(again[0], shown[some])
    np.testing.assert_array_equal(again[1], propensity[some])
    # The order of the pool does not matter either: the item's own number draws.
    turned = explore(PICKS[some], FREE[some][:, ::-1], ITEMS[some][:, ::-1], KEYS[some], LAST_TWO[some], 0.5)
    drawn = again[0] != PICKS[some]
    assert drawn.any()
    np.testing.assert_array_equal(P - 1 - turned[0][drawn], again[0][drawn])


def test_streams_are_even_and_independent():
    first, second = uniform(KEYS, 0), uniform(KEYS, 1)
    assert 0 <= first.min() < first.max() < 1
    counts = np.histogram(first, 20, (0, 1))[0]
    assert ((counts - N / 20) ** 2 / (N / 20)).sum() < 43.8  # chi-square, 19 degrees, one in a thousand
    assert abs(np.corrcoef(first, second)[0, 1]) < 4.5 / np.sqrt(N)
