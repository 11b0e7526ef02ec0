"""Chance, against which new items are held: lists by lot."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from sparkrec.evaluation.new_items import by_lot

pytestmark = pytest.mark.unit


def test_every_list_is_equally_likely_for_every_user():
    n, m, k = 60_000, 5, 2
    lots = np.random.default_rng(1).integers(0, 2**63, n, dtype=np.uint64)
    drawn = by_lot(lots, m, k)
    times = Counter(map(tuple, drawn.tolist()))
    assert set(times) == {(i, j) for i in range(m) for j in range(m) if i != j}
    share = 1 / (m * (m - 1))
    assert max(abs(x - n * share) for x in times.values()) < 4.5 * np.sqrt(n * share * (1 - share))


def test_a_list_by_lot_is_the_users_own_and_no_longer_than_there_are_items():
    lots = np.arange(50, dtype=np.uint64)
    whole = by_lot(lots, 183, 20)
    np.testing.assert_array_equal(by_lot(lots[7:9], 183, 20), whole[7:9])
    assert all(len(set(row)) == 20 for row in whole.tolist())
    assert np.sort(by_lot(lots, 3, 20), axis=1).tolist() == [[0, 1, 2]] * 50
    assert by_lot(lots, 0, 20).shape == (50, 0)
