"""Similarities against values worked out by hand, and loops in plain Python."""

from __future__ import annotations

from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkrec.retrieval.similarity import (
    adjusted_cosine,
    jaccard,
    nearest,
    pearson,
    together,
    unit,
    widened,
)
from sparkrec.retrieval.topk import pack, top_k

pytestmark = pytest.mark.unit
NAN = float("nan")


def test_a_dot_product_of_unit_vectors_is_the_cosine():
    vectors = np.array([[3, 4], [0, 0], [1e-20, 0]], np.float32)
    assert unit(vectors).tolist() == [[np.float32(0.6), np.float32(0.8)], [0, 0], [1, 0]]
    items = np.array([[10, 0], [1, 1], [0, 2]], np.float32)
    found, scores = top_k(unit(np.array([[1, 1]], np.float32)), unit(items), 3)
    assert found.tolist() == [[1, 0, 2]]
    np.testing.assert_allclose(scores, [[1, sqrt(0.5), sqrt(0.5)]], rtol=1e-6)


def by_distance(users, items, k, seen, allowed):
    chosen, distances = [], []
    for u, user in enumerate(users.astype(np.float64)):
        far = [
            (sqrt(sum((a - b) ** 2 for a, b in zip(user, item, strict=True))), i)
            for i, item in enumerate(items.astype(np.float64))
            if allowed[i] and i not in seen[u]
        ]
        best = sorted(far)[:k]
        chosen.append([i for _, i in best] + [-1] * (k - len(best)))
        distances.append([d for d, _ in best] + [inf] * (k - len(best)))
    return chosen, distances


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.integers(0, 40), st.integers(1, 8))
def test_nearest_equals_brute_force(seed, m, k):
    random = np.random.default_rng(seed)
    users, items = (random.integers(-2, 3, (n, 3)).astype(np.float32) for n in (4, m))
    seen = [list(np.flatnonzero(random.random(m) < 0.3)) for _ in range(4)]
    allowed = random.random(m) < 0.8
    exclude = (np.cumsum([0, *map(len, seen)]), np.array([i for x in seen for i in x], np.int64))
    found, distances = nearest(users, widened(items), k, exclude, allowed)
    packed = nearest(users, pack(widened(items), allowed), k, exclude)
    assert [part.tolist() for part in packed] == [found.tolist(), distances.tolist()]
    expected, apart = by_distance(users, items, k, seen, allowed)
    assert found.tolist() == expected
    np.testing.assert_allclose(distances, apart, rtol=1e-12)


def test_nearest_tells_apart_what_a_float_score_cannot():
    # All are 10⁴ away from the origin and millionths from each other: scores of 10⁸ round to multiples of 8.
    steps = np.random.default_rng(3).permutation(200)
    items = np.array([[1e4, 0, step * 2.0**-18] for step in steps], np.float32)
    users = np.array([[1e4, 0, 0], [1e4, 0, 70.2 * 2.0**-18]], np.float32)
    found, distances = nearest(users, widened(items), 3)
    place = np.argsort(steps)
    assert found.tolist() == [place[[0, 1, 2]].tolist(), place[[70, 71, 69]].tolist()]
    np.testing.assert_allclose(distances[0] * 2.0**18, [0, 1, 2])


def test_pearson_and_adjusted_cosine_by_hand():
    # Items by users. Both were rated by users 0, 1 and 3: (1, 2), (2, 4), (3, 3); means 2 and 3.
    # Pearson = (−1·−1 + 0·1 + 1·0) / √(2 · 2) = ½.
    x = np.array([[1, 2, NAN, 3, 5]])
    y = np.array([[2, 4, 4, 3, NAN], [NAN, NAN, 5, NAN, 1], [7, 7, 7, 7, 7]])
    assert pearson(together(x, y)) == pytest.approx(np.array([[0.5, 0, 0]])), "one user, or no spread: 0"
    # Less the users' means (1, 3, 4, 3, 4): (0, 1), (−1, 1), (0, 0) → −1 / √(1 · 2).
    means = np.array([1, 3, 4, 3, 4])
    found = adjusted_cosine(together(x - means, y - means))
    assert found[0, 0] == pytest.approx(-1 / sqrt(2))
    assert found[0, 1] == pytest.approx(1 * -3 / 3), "user 4 alone: +1 and −3"


def test_sums_of_blocks_of_users_add_up():
    random = np.random.default_rng(1)
    x, y = (np.where(random.random((n, 30)) < 0.5, NAN, random.integers(1, 6, (n, 30))) for n in (4, 5))
    whole, parts = together(x, y), together(x[:, :11], y[:, :11]) + together(x[:, 11:], y[:, 11:])
    np.testing.assert_allclose(pearson(parts), pearson(whole))
    for i in range(4):
        for j in range(5):
            both = ~np.isnan(x[i]) & ~np.isnan(y[j])
            assert pearson(whole)[i, j] == pytest.approx(np.corrcoef(x[i, both], y[j, both])[0, 1])


def test_jaccard_by_hand():
    found = jaccard(np.array([2.0, 0.0, 0.0]), np.array([3.0, 3.0, 0.0]), np.array([4.0, 1.0, 0.0]))
    assert found.tolist() == [2 / 5, 0, 0]
