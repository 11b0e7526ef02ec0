"""Divergences of distributions against their definitions, and brute force in plain Python."""

from __future__ import annotations

from itertools import pairwise
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkrec.retrieval import divergence
from sparkrec.retrieval.divergence import Distributions, jensen_shannon, least_divergent, roots
from sparkrec.retrieval.topk import top_k

pytestmark = pytest.mark.unit


def test_jensen_shannon_by_hand_and_by_its_definition():
    # (½, ½, 0) against (½, 0, ½): the middle is (½, ¼, ¼), each is ½ ln 2 from it.
    codes, shares = np.array([[7, 3]] * 3), np.array([[0.5, 0.5]] * 3)
    others, weights = np.array([[5, 7], [3, 7], [9, -1]]), np.array([[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]])
    found = jensen_shannon(codes, shares, others, weights)
    assert found == pytest.approx(np.array([0.5 * log(2), 0, log(2)]))

    random = np.random.default_rng(2)
    p, q = random.dirichlet(np.ones(4), 5), random.dirichlet(np.ones(4), 5)
    names = np.tile(np.arange(4), (5, 1))
    found = jensen_shannon(names, p, names[:, ::-1], q[:, ::-1])
    for i in range(5):
        middle = (p[i] + q[i]) / 2
        expected = sum(x * log(x / m) / 2 for row in (p[i], q[i]) for x, m in zip(row, middle, strict=True))
        assert found[i] == pytest.approx(expected)


def test_mass_beyond_the_tastes_that_are_kept_counts_as_different():
    # Only .6 of the user's mass is known; the item is all 7: as if .4 lay elsewhere.
    found = jensen_shannon(np.array([[7, -1]]), np.array([[0.6, 0.0]]), np.array([[7]]), np.array([[1.0]]))
    expected = 0.5 * (0.6 * log(0.6 / 0.8) + 0.4 * log(0.4 / 0.2)) + 0.5 * log(1 / 0.8)
    assert found[0] == pytest.approx(expected)


def by_divergence(p, q):
    """From the definition, in plain Python: the entropy of the middle less the mean entropy."""
    h = [-sum(x * log(x) for x in row if x > 0) for row in (p, q, [(x + y) / 2 for x, y in zip(p, q, strict=True)])]
    return h[2] - (h[0] + h[1]) / 2


def distributions(random, n, d):
    """Of small whole numbers, so that there are zeros, and rows that are the same."""
    counts = random.integers(0, 3, (n, d)) * random.integers(0, 2, (n, d))
    counts[counts.sum(axis=1) == 0, random.integers(d)] = 1
    return counts / counts.sum(axis=1, keepdims=True)


def as_roots(shares):
    with np.errstate(divide="ignore"):
        return roots(np.log(shares).astype(np.float32))


@settings(max_examples=150)
@given(st.integers(0, 2**32), st.integers(0, 40), st.integers(1, 8), st.integers(1, 5))
def test_least_divergent_equals_brute_force(seed, m, k, d):
    random = np.random.default_rng(seed)
    p, q = distributions(random, 4, d), distributions(random, m, d)
    if m:
        q[-1] = p[0]
    seen = [list(np.flatnonzero(random.random(m) < 0.3)) for _ in range(4)]
    allowed = random.random(m) < 0.8
    exclude = (np.cumsum([0, *map(len, seen)]), np.array([i for x in seen for i in x], np.int64))
    found, divergences = least_divergent(as_roots(p), Distributions.of(as_roots(q), allowed), k, exclude)
    for u in range(4):
        # 1e-7: roots are float32. Different distributions here either are further apart from each other or tie.
        apart = {i: by_divergence(p[u], q[i]) for i in range(m) if allowed[i] and i not in seen[u]}
        expected = sorted(apart, key=lambda i: (apart[i], i))[:k]
        n = len(expected)
        own = found[u, :n].tolist()
        np.testing.assert_allclose(divergences[u, :n], [apart[i] for i in expected], atol=2e-7)
        np.testing.assert_allclose([apart[i] for i in own], [apart[i] for i in expected], atol=1e-6)
        assert found[u, n:].tolist() == [-1] * (k - n)
        assert np.isinf(divergences[u, n:]).all()
        assert (np.diff(divergences[u, :n]) >= 0).all()
        for one, other in pairwise(own):  # equal ones by lower index
            assert not np.array_equal(q[one], q[other]) or one < other
        for i in set(apart) - set(own):  # a row that was left out has no equal of a higher index in the list
            assert not [j for j in own if j > i and np.array_equal(q[i], q[j])]


def test_least_divergent_looks_beyond_what_the_product_of_roots_puts_first():
    """200 items hold the user's two kinds unevenly, the last holds a third kind besides: it is further away by
    Hellinger's distance (.1056 against at most .0917) and nearer by divergence (.0749 against at least .0833)."""
    shifts = np.linspace(0.37, 0.38, 200)
    q = np.array([*[(0.5 + x, 0.5 - x, 0) for x in shifts], (0.4, 0.4, 0.2)])
    asked, items = as_roots(np.array([[0.5, 0.5, 0]])), as_roots(q)
    assert 200 not in top_k(asked, items, 200)[0]
    found, divergences = least_divergent(asked, Distributions.of(items), 3)
    assert found.tolist() == [[200, 0, 1]]
    np.testing.assert_allclose(divergences[0], [by_divergence((0.5, 0.5, 0), q[i]) for i in (200, 0, 1)], atol=1e-7)


def test_least_divergent_is_exact_where_float_scores_tie():
    """A cloud of items closer to each other than a float32 score can tell, some of them the same."""
    random = np.random.default_rng(4)
    q = np.exp(random.normal(0, 3e-4, (300, 8)))
    q[150:250] = q[7]
    items = as_roots(q / q.sum(axis=1, keepdims=True))
    found, divergences = least_divergent(items[:150], Distributions.of(items), 5)
    held = items.astype(np.float64) ** 2
    held /= held.sum(axis=1, keepdims=True)
    for u in range(150):
        t = (held - held[u]) / (held + held[u])  # JS is Σ (p + q) t² / 4, as near as it matters here
        apart = ((held + held[u]) * t**2).sum(axis=1) / 4
        assert found[u].tolist() == np.lexsort((np.arange(300), apart))[:5].tolist()
        np.testing.assert_allclose(divergences[u], apart[found[u]], rtol=1e-6, atol=0)


def test_items_that_nobody_met_are_as_like_each_other_as_can_be(monkeypatch):
    """Thousands of the same row: the lowest indices, itself left out, and no more than one of them is a candidate."""
    asked = []
    monkeypatch.setattr(divergence, "top_k", lambda users, items, k: asked.append(k) or top_k(users, items, k))
    rows = as_roots(np.array([[0.75, 0.25], [0.25, 0.75]])[np.arange(5000) % 2])
    found, divergences = least_divergent(rows[:2], Distributions.of(rows), 3, (np.array([0, 1, 2]), np.array([0, 1])))
    assert found.tolist() == [[2, 4, 6], [3, 5, 7]]
    assert (divergences == 0).all()
    assert asked == [2]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6))
def test_jensen_shannon_lies_between_the_bounds_of_the_hellinger_distance(pairs):
    p, q = np.array(pairs).T + 1e-12
    p, q = p / p.sum(), q / q.sum()
    away = ((np.sqrt(p) - np.sqrt(q)) ** 2).sum() / 2
    names = np.arange(len(p))[None]
    divergence = jensen_shannon(names, p[None], names, q[None])[0]
    assert log(2) * away - 1e-12 <= divergence <= away + 1e-12
    assert divergence == pytest.approx(by_divergence(p, q), abs=1e-12)


def test_the_bounds_are_attained():
    apart, near = np.array([[1.0, 0.0]]), np.array([[0.5, 0.5], [0.501, 0.499]])
    found, divergences = least_divergent(as_roots(apart), Distributions.of(as_roots(apart[:, ::-1])), 1)
    assert (found.tolist(), divergences.tolist()) == ([[0]], [[pytest.approx(log(2))]])  # h is 1
    _, divergences = least_divergent(as_roots(near[:1]), Distributions.of(as_roots(near[1:])), 1)
    away = 1 - np.sqrt(near[0] * near[1]).sum()
    assert divergences[0, 0] == pytest.approx(away, rel=1e-3)
