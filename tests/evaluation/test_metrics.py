"""Metrics: fractions worked by hand, a naive second implementation, and published numbers on the real files."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkrec.evaluation import metrics
from sparkrec.retrieval.topk import top_k

pytestmark = pytest.mark.unit


def one(places, n_relevant, k):
    """The metrics of one list whose hits are at the given ranks (from 1)."""
    found = np.zeros((1, max([k, *places])), bool)
    found[0, [p - 1 for p in places]] = True
    return dict(zip(metrics.NAMES, metrics.per_user(found, np.array([n_relevant]), k)[0], strict=True))


def test_worked_by_hand_two_of_three_hit():
    # Hits at ranks 1 and 3 of 4; three relevant items.
    got = one([1, 3], n_relevant=3, k=4)
    assert got["recall"] == pytest.approx(Fraction(2, 3))
    assert got["precision"] == Fraction(1, 2)
    assert got["hit_rate"] == 1
    assert got["map"] == pytest.approx(Fraction(1, 3) * (1 + Fraction(2, 3)))  # 5/9
    assert got["mrr"] == 1
    # DCG = 1 + 1/2; ideal = 1 + 1/log2(3) + 1/2
    assert got["ndcg"] == pytest.approx(1.5 / (1.5 + 1 / math.log2(3)))


def test_worked_by_hand_more_relevant_than_places():
    # One hit at rank 2 of 2; five relevant: the best list has two hits.
    got = one([2], n_relevant=5, k=2)
    assert got["recall"] == pytest.approx(Fraction(1, 5))
    assert got["precision"] == Fraction(1, 2)
    assert got["map"] == Fraction(1, 4)
    assert got["mrr"] == Fraction(1, 2)
    assert got["ndcg"] == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))


def test_a_hit_beyond_k_is_no_hit():
    assert set(one([3], n_relevant=1, k=2).values()) == {0.0}


def test_a_perfect_list_scores_one_in_all_but_precision():
    got = one([1, 2], n_relevant=2, k=4)
    assert {name: got[name] for name in got if name != "precision"} == dict.fromkeys(
        ("recall", "hit_rate", "ndcg", "map", "mrr"), 1.0
    )
    assert got["precision"] == Fraction(1, 2)


def test_a_list_shorter_than_k_goes_on_with_misses():
    short = metrics.per_user(np.array([[False, True]]), np.array([3]), 5)
    padded = metrics.per_user(np.array([[False, True, False, False, False]]), np.array([3]), 5)
    np.testing.assert_array_equal(short, padded)


def test_a_user_without_relevant_items_is_refused():
    with pytest.raises(ValueError, match="at least one relevant"):
        metrics.per_user(np.ones((1, 2), bool), np.array([0]), 2)


def naive(recommended, relevant, k):
    """A second implementation from the definitions, one user at a time, on sets and lists."""
    top = recommended[:k]
    gains = [1 if item in relevant else 0 for item in top]
    dcg = sum(g / math.log2(place + 2) for place, g in enumerate(gains))
    ideal = sum(1 / math.log2(place + 2) for place in range(min(k, len(relevant))))
    precisions = [sum(gains[: i + 1]) / (i + 1) for i in range(len(top)) if gains[i]]
    first = next((i + 1 for i, g in enumerate(gains) if g), None)
    return [
        len(set(top) & relevant) / len(relevant),
        sum(gains) / k,
        float(any(gains)),
        dcg / ideal,
        sum(precisions) / min(k, len(relevant)),
        1 / first if first else 0.0,
    ]


@settings(max_examples=150)
@given(st.data())
def test_agrees_with_a_naive_implementation(data):
    pool = st.integers(0, 15)
    users = data.draw(
        st.lists(st.tuples(st.lists(pool, unique=True, max_size=8), st.sets(pool, min_size=1)), max_size=6)
    )
    lists = np.full((len(users), 8), -1)
    for row, (recommended, _) in enumerate(users):
        lists[row, : len(recommended)] = recommended
    indptr = np.cumsum([0, *[len(relevant) for _, relevant in users]])
    flat = np.array([i for _, relevant in users for i in relevant], np.int64)
    found = metrics.hits(lists, indptr, flat)
    got = metrics.table(found, np.diff(indptr), (3, 8))
    expected = [naive(r, s, 3) + naive(r, s, 8) for r, s in users]
    np.testing.assert_allclose(got, np.array(expected).reshape(len(users), 12), rtol=1e-12)
    assert metrics.names((3, 8))[7] == ("precision", 8)


def test_gini_of_known_distributions():
    assert metrics.gini(np.array([5]), np.array([4])) == pytest.approx(0)  # four items, five places each
    assert metrics.gini(np.array([0, 10]), np.array([3, 1])) == pytest.approx(0.75)  # all to one of four: (n-1)/n
    # 1, 2, 3: mean absolute difference 8/9 over twice the mean 4 = 2/9
    assert metrics.gini(np.array([3, 1, 2]), np.array([1, 1, 1])) == pytest.approx(2 / 9)
    assert metrics.gini(np.array([0]), np.array([3])) == 0


def test_concentration_of_a_known_distribution():
    # Ten items: one has 50 of 100 places, four have 10, five have 2.
    curve = metrics.concentration(np.array([2, 50, 10]), np.array([5, 1, 4]), points=10)
    np.testing.assert_allclose(curve, [0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.92, 0.94, 0.96, 0.98, 1.0])


# --- calibration on the real files: what the literature's protocols give for "most popular" -------------------


def most_popular(train, seen, n_items, k):
    """The most popular unseen items by the project's own top-k; ``train`` and ``seen`` are (indptr, ids)."""
    counts = np.bincount(train[1], minlength=n_items).astype(np.float32)
    users = np.ones((len(seen[0]) - 1, 1), np.float32)
    return top_k(users, counts[:, None], k, seen)[0]


def as_csr(rows):
    return np.cumsum([0, *map(len, rows)]), np.array([i for row in rows for i in row], np.int64)


def mean(lists, relevant, k):
    indptr, items = relevant
    values = metrics.per_user(metrics.hits(lists, indptr, items), np.diff(indptr), k).mean(axis=0)
    return dict(zip(metrics.NAMES, values, strict=True))


def adjacency(path):
    return {int(user): list(map(int, items)) for user, *items in map(str.split, path.read_text().splitlines())}


def test_most_popular_on_the_random_split_of_movielens_1m(data):
    train = adjacency(data / "movielens-1m-lcfn" / "train.txt")
    test = adjacency(data / "movielens-1m-lcfn" / "test.txt")
    users = [user for user in test if test[user]]
    seen = as_csr([train.get(user, []) for user in users])
    n_items = 1 + max(max(map(max, train.values())), max(map(max, (v for v in test.values() if v))))
    lists = most_popular(as_csr(list(train.values())), seen, n_items, 20)
    got = mean(lists, as_csr([test[user] for user in users]), 20)
    assert (round(got["recall"], 4), round(got["ndcg"], 4), round(got["hit_rate"], 4)) == (0.1161, 0.1176, 0.6488)
    assert got["recall"] == pytest.approx(0.11608, abs=5e-6)
    assert got["ndcg"] == pytest.approx(0.11760, abs=5e-6)
    assert got["hit_rate"] == pytest.approx(0.64879, abs=5e-6)


def leave_one_out(sequences, k=10):
    """Popularity from all but the last two; seen = all but the last; the last is the test item."""
    n_items = 1 + max(map(max, sequences))
    lists = most_popular(as_csr([s[:-2] for s in sequences]), as_csr([s[:-1] for s in sequences]), n_items, k)
    got = mean(lists, as_csr([s[-1:] for s in sequences]), k)
    assert got["recall"] == got["hit_rate"]
    return got["hit_rate"], got["ndcg"]


def test_most_popular_leave_one_out_on_beauty(data):
    hit_rate, ndcg = leave_one_out(list(adjacency(data / "amazon-beauty" / "Beauty.txt").values()))
    assert hit_rate == pytest.approx(0.01154, abs=5e-6)
    assert ndcg == pytest.approx(0.00546, abs=5e-6)


def test_most_popular_leave_one_out_on_movielens_1m(data):
    pairs = np.loadtxt(data / "movielens-1m" / "sasrec_sequences.txt", dtype=np.int64)
    sequences = [group.tolist() for group in np.split(pairs[:, 1], np.flatnonzero(np.diff(pairs[:, 0])) + 1)]
    hit_rate, ndcg = leave_one_out(sequences)
    assert hit_rate == pytest.approx(0.03692, abs=5e-6)
    assert ndcg == pytest.approx(0.01803, abs=5e-6)
