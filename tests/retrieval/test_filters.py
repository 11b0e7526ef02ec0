"""Filters inside the top-k against a walk over every user and item."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkrec.retrieval.csr import pairs, take
from sparkrec.retrieval.filters import Audience, among, groups, recent, search

pytestmark = pytest.mark.unit
NONE = (np.zeros(1, np.int64), np.zeros(0, np.int32))


def csr(lists):
    return np.cumsum([0, *map(len, lists)]).astype(np.int64), np.array([i for x in lists for i in x], np.int32)


@st.composite
def problems(draw):
    """Small integers, so that ties abound; rules, subsets and what is seen overlap at random."""
    n, m = draw(st.integers(0, 7)), draw(st.integers(1, 25))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    users = random.integers(-2, 3, (n, 3)).astype(np.float32)
    items = random.integers(-2, 3, (m, 3)).astype(np.float32)
    seen = [list(random.choice(m, random.integers(0, m + 1))) for _ in range(n)]
    subset = [list(random.choice(m, random.integers(0, m + 1))) for _ in range(n)]
    own = random.random(n) < 0.4
    subset = [x if mine else [] for x, mine in zip(subset, own, strict=True)]
    barred, hidden = random.integers(0, 4, n), random.integers(0, 4, m) * (random.random(m) < 0.6)
    allowed = random.random(m) < 0.8
    return users, items, seen, subset, own, barred, hidden, allowed, draw(st.integers(1, 8))


def offered(problem, u, only=None):
    users, items, seen, subset, own, barred, hidden, allowed, k = problem
    able = [
        i
        for i in range(len(items))
        if allowed[i]
        and i not in seen[u]
        and not (barred[u] & hidden[i])
        and (not own[u] or i in subset[u])
        and (only is None or i in only)
    ]
    return sorted(able, key=lambda i: (-float(users[u] @ items[i]), i))[:k]


def audience(problem):
    users, _, seen, subset, own, barred, *_ = problem
    return Audience(users, csr(seen), barred, own, csr(subset))


@settings(max_examples=200)
@given(problems())
def test_equals_brute_force(problem):
    users, items, _, _, _, _, hidden, allowed, k = problem
    indices, scores = search(audience(problem), items, k, allowed, hidden)
    for u in range(len(users)):
        expected = offered(problem, u)
        assert indices[u].tolist() == expected + [-1] * (k - len(expected))
        assert scores[u, : len(expected)].tolist() == [float(users[u] @ items[i]) for i in expected]
        assert np.isneginf(scores[u, len(expected) :]).all()


@settings(max_examples=100)
@given(problems(), st.integers(0, 2**32))
def test_the_best_of_some_items_equals_brute_force(problem, seed):
    users, items, _, _, _, _, hidden, allowed, k = problem
    chosen = np.flatnonzero(np.random.default_rng(seed).random(len(items)) < 0.3)
    indices, scores = among(audience(problem), items, k, chosen, allowed, hidden)
    for u in range(len(users)):
        expected = offered(problem, u, set(chosen.tolist()))
        assert indices[u].tolist() == expected + [-1] * (k - len(expected))
        assert scores[u, : len(expected)].tolist() == [float(users[u] @ items[i]) for i in expected]


def test_users_of_one_rule_outcome_share_one_group():
    barred = np.array([3, 0, 3, 0, 1, 0])
    own = np.array([False, False, False, True, False, False])
    found = [(bits, rows.tolist()) for bits, rows in groups(barred, own)]
    assert found == [(0, [1, 5]), (1, [4]), (3, [0, 2]), (0, [3])]
    assert groups(barred[:0], own[:0]) == []


def test_a_consumable_is_offered_again_when_its_time_has_passed():
    # Item 0 counts for 30 days, item 1 for ever. Item 0 was met twice by user 0, the later time 10 days ago.
    memory = np.array([30.0, np.inf])
    seen = csr([[0, 1, 0], [0, 1], []])
    ages = np.array([100, 5000, 10, 31, 31])
    indptr, indices = recent(seen, ages, memory)
    assert indptr.tolist() == [0, 2, 3, 3]
    assert indices.tolist() == [1, 0, 1]
    assert recent(csr([[0]]), np.array([30.0]), memory)[1].tolist() == [0], "on the last day it still counts"


def test_rows_are_taken_in_the_order_asked_for():
    indptr, indices = take(csr([[5, 6], [], [7]]), np.array([2, 0, 2, 1]))
    assert indptr.tolist() == [0, 1, 3, 4, 4]
    assert indices.tolist() == [7, 5, 6, 7]
    assert pairs(NONE)[0].tolist() == []
