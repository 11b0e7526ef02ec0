"""Exact top-k against a brute force that sorts everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkrec.errors import DataError
from sparkrec.retrieval import topk
from sparkrec.retrieval.topk import top_k

pytestmark = pytest.mark.unit


def brute_force(users, items, k, seen=None, allowed=None):
    """Every score in double precision, sorted in plain Python."""
    chosen, values = [], []
    for u, user in enumerate(users):
        barred = set() if seen is None else set(seen[u])
        scored = [
            (-np.float32(sum(float(a) * float(b) for a, b in zip(user, item, strict=True))), i)
            for i, item in enumerate(items)
            if i not in barred and (allowed is None or allowed[i])
        ]
        best = sorted(scored)[:k]
        chosen.append([i for _, i in best] + [-1] * (k - len(best)))
        values.append([-s for s, _ in best] + [-np.inf] * (k - len(best)))
    return np.array(chosen, np.int32).reshape(len(users), k), np.array(values, np.float32).reshape(len(users), k)


def as_csr(seen):
    indptr = np.concatenate([[0], np.cumsum([len(s) for s in seen])]).astype(np.int64)
    return indptr, np.array([i for s in seen for i in s], np.int32)


@st.composite
def problems(draw):
    """Small integers, so that ties abound and every sum is exact; some items doubled, some seen, some barred."""
    n, m, d = draw(st.integers(0, 5)), draw(st.integers(0, 40)), draw(st.integers(1, 5))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    users = random.integers(-2, 3, (n, d)).astype(np.float32)
    items = random.integers(-2, 3, (m, d)).astype(np.float32)
    share = draw(st.sampled_from([0.0, 0.3, 1.0]))
    seen = [list(np.flatnonzero(random.random(m) < share)) for _ in range(n)]
    allowed = random.random(m) < draw(st.sampled_from([0.0, 0.7, 1.0]))
    return users, items, draw(st.integers(1, 12)), seen, allowed


@settings(max_examples=200, deadline=None)
@given(problems())
def test_equals_brute_force(problem):
    users, items, k, seen, allowed = problem
    indices, scores = top_k(users, items, k, as_csr(seen), allowed)
    expected_indices, expected_scores = brute_force(users, items, k, seen, allowed)
    assert indices.dtype == np.int32
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_array_equal(scores, expected_scores)


def test_equals_brute_force_on_real_numbers_over_several_blocks(monkeypatch):
    monkeypatch.setattr(topk, "_ITEMS", 37)
    monkeypatch.setattr(topk, "_CELLS", 500)
    monkeypatch.setattr(topk, "_PAIRS", 64)
    random = np.random.default_rng(1)
    users = random.normal(size=(23, 7)).astype(np.float32)
    items = random.normal(size=(200, 7)).astype(np.float32)
    items[150:] = items[:50]  # exact ties between blocks
    seen = [list(random.choice(200, 30, replace=False)) for _ in range(23)]
    indices, scores = top_k(users, items, 11, as_csr(seen))
    expected_indices, expected_scores = brute_force(users, items, 11, seen)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_allclose(scores, expected_scores, rtol=2e-7)


def test_the_result_does_not_depend_on_blocks_to_the_bit(monkeypatch):
    random = np.random.default_rng(2)
    users = random.normal(size=(301, 64)).astype(np.float32)
    items = random.normal(size=(5000, 64)).astype(np.float32)
    # Neighbours that differ by one unit in the last place: where a product's rounding would change the order.
    items[2500:] = np.nextafter(items[:2500], np.float32(np.inf))
    whole = top_k(users, items, 20)
    for cells, columns in ((1 << 12, 1 << 8), (1 << 15, 999), (1 << 22, 4096)):
        monkeypatch.setattr(topk, "_CELLS", cells)
        monkeypatch.setattr(topk, "_ITEMS", columns)
        parts = [top_k(users[i : i + 7], items, 20) for i in range(0, 301, 7)]
        np.testing.assert_array_equal(np.concatenate([p[0] for p in parts]), whole[0])
        np.testing.assert_array_equal(np.concatenate([p[1] for p in parts]), whole[1])


def test_order_is_that_of_the_exact_scores_where_float32_cannot_tell():
    # Exactly: 2^25 + 1 − 2^25 = 1 for item 0, 1.5 for item 1; summed in float32 from the left the 1 is lost.
    users = np.array([[1, 1, 1]], np.float32)
    items = np.array([[2**25, 1, -(2**25)], [0, 0.5, 0], [2**25, 1.5, -(2**25)]], np.float32)
    indices, scores = top_k(users, items, 3)
    assert indices.tolist() == [[2, 0, 1]]
    assert scores.tolist() == [[1.5, 1.0, 0.5]]


def test_ties_go_to_the_lower_index_beyond_the_kth():
    users = np.ones((2, 1), np.float32)
    items = np.zeros((100_000, 1), np.float32)
    items[[70_000, 99_999]] = 1
    indices, _ = top_k(users, items, 5, as_csr([[0, 2], []]))
    assert indices.tolist() == [[70_000, 99_999, 1, 3, 4], [70_000, 99_999, 0, 1, 2]]


def test_duplicates_in_what_is_seen_do_not_matter():
    indices, _ = top_k(np.ones((1, 1), np.float32), np.arange(4, dtype=np.float32)[:, None], 2, as_csr([[3, 3, 3]]))
    assert indices.tolist() == [[2, 1]]


@pytest.mark.parametrize(
    ("users", "items", "message"),
    [
        (np.ones((1, 2)), np.ones((3, 4)), r"\[1, 2\].*\[3, 4\].*same width"),
        (np.array([[1.0], [np.nan]]), np.ones((3, 1)), "user vector in row 1"),
        (np.ones((1, 1)), np.array([[1.0], [0], [np.inf]]), "item vector in row 2"),
        (np.ones((1, 1)), np.array([[1e30]]), "item vector in row 0"),
    ],
)
def test_what_cannot_be_ranked_is_refused_by_name(users, items, message):
    with pytest.raises(DataError, match=message):
        top_k(users.astype(np.float32), items.astype(np.float32), 1)


def test_marks_of_another_size_are_refused():
    users, items = np.ones((2, 1), np.float32), np.ones((3, 1), np.float32)
    with pytest.raises(DataError, match="1 users have seen, for 2"):
        top_k(users, items, 1, as_csr([[0]]))
    with pytest.raises(DataError, match=r"4 marks.*3 items"):
        top_k(users, items, 1, allowed=np.ones(4, bool))
