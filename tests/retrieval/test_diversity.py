"""Greedy reranking against loops in plain Python, one user at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkrec.retrieval.diversity import (
    Calibrated,
    Dpp,
    Limits,
    Mmr,
    Relevance,
    Wanted,
    greedy,
    relevance,
    shares_of,
)

pytestmark = pytest.mark.unit


def pools(seed, n=6, p=12, d=5):
    """Scores that fall, vectors with doubles among them, and a ragged number of candidates."""
    random = np.random.default_rng(seed)
    scores = -np.sort(-random.normal(size=(n, p)), axis=1)
    vectors = random.normal(size=(n, p, d))
    vectors[:, p // 2] = vectors[:, 0]
    there = np.arange(p) < random.integers(0, p + 1, (n, 1))
    return np.where(there, scores, -np.inf), vectors, there


def cosine(a, b):
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def test_relevance_is_one_for_the_best_and_nought_for_the_last():
    scores = np.array([[5.0, 4.0, 1.0], [2.0, 2.0, -np.inf], [-np.inf] * 3])
    assert relevance(scores).tolist() == [[1.0, 0.75, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    assert relevance(scores, np.array([[0, 0, 0.5]] * 3)).tolist() == [[1, 0.75, 0.5], [1, 1, 0], [0, 0, 0]]


def test_what_lies_below_the_pool_changes_no_relevance_in_it():
    scores = np.array([[4, 2, 0, -4], [2, 2, 2, 1.5], [3, -np.inf, -np.inf, -np.inf], [-np.inf] * 4])
    expected = [[1, 0.5, 0, -1], [1, 1, 1, 0.5], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert relevance(scores, size=3).tolist() == expected
    assert relevance(scores)[0, :3].tolist() != expected[0][:3]


def test_mmr_by_hand():
    # Relevances 1, .9, .4; the second is the first's twin, the third at a right angle to both. w = ½:
    # 1st: ½, .45, .2 → item 0. 2nd: .45 − ½ = −.05 against .2 − 0 → item 2. 3rd: item 1.
    vectors = np.array([[[1, 0], [2, 0], [0, 3]]], np.float32)
    picks, _ = greedy(3, np.ones((1, 3), bool), Mmr(np.array([[1, 0.9, 0.4]]), vectors, 0.5))
    assert picks.tolist() == [[0, 2, 1]]


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.8])
def test_mmr_equals_the_loop_of_its_definition(weight):
    scores, vectors, there = pools(1)
    rel = relevance(scores)
    picks, _ = greedy(5, there, Mmr(rel, vectors, weight))
    for u in range(len(rel)):
        left, chosen = list(np.flatnonzero(there[u])), []
        while left and len(chosen) < 5:
            gains = [
                (1 - weight) * rel[u, i]
                - weight * max((cosine(vectors[u, i], vectors[u, j]) for j in chosen), default=0.0)
                for i in left
            ]
            chosen.append(left.pop(int(np.argmax(gains))))
        assert picks[u].tolist() == chosen + [-1] * (5 - len(chosen))


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.8])
def test_dpp_equals_determinants_computed_anew_in_every_step(weight):
    scores, vectors, there = pools(2)
    vectors[:, 6] += 0.3  # no doubles: determinants of nought cannot be compared
    rel = relevance(scores)
    picks, _ = greedy(5, there, Dpp(rel, vectors, weight, 5))
    for u in range(len(rel)):
        kernel = np.array([[(1 + cosine(a, b)) / 2 for b in vectors[u]] for a in vectors[u]])
        left, chosen = list(np.flatnonzero(there[u])), []
        while left and len(chosen) < 5:
            totals = [
                (1 - weight) * rel[u, [*chosen, i]].sum()
                + weight * np.linalg.slogdet(kernel[np.ix_([*chosen, i], [*chosen, i])])[1]
                for i in left
            ]
            chosen.append(left.pop(int(np.argmax(totals))))
        assert picks[u].tolist() == chosen + [-1] * (5 - len(chosen))


def test_dpp_goes_on_by_relevance_when_the_space_is_full():
    # One dimension: S has rank 2, so two items of opposite direction are all that it can tell apart.
    vectors = np.array([[[1], [1], [-1], [1], [-1]]], np.float32)
    picks, _ = greedy(5, np.ones((1, 5), bool), Dpp(np.array([[1, 0.8, 0.6, 0.4, 0.2]]), vectors, 0.5, 5))
    assert picks.tolist() == [[0, 2, 1, 3, 4]]


def test_calibrated_by_hand():
    # Kinds A, A, A, B, B; of the taste A is 3/4, B 1/4. By score alone A fills the first three places. With w = ½:
    # 1st: A gains ¾ ln(.9975 / .0075) = 3.668, B ¼ ln(.9925 / .0025) = 1.496; so item 0 (½ + 1.834).
    # 2nd, of two places: A ¾ ln(.9975 / .5025) = .514, B ¼ ln(.4975 / .0025) = 1.323: item 3, (.2 + 1.323) / 2, before
    # item 1, (.9 + .514) / 2. 3rd, of three: A ¾ ln(.6675 / .3375) = .511, B ¼ ln(.6625 / .3325) = .172: item 1.
    kinds, shares = np.array([[7, 7, 7, 4, 4]]), np.array([[0.75, 0.75, 0.75, 0.25, 0.25]])
    gains = Calibrated(np.array([[1, 0.9, 0.8, 0.2, 0.1]]), kinds, shares, 0.5)
    first = gains.now()[0]
    assert first[[0, 3]] == pytest.approx([0.5 + 3.668 / 2, 0.1 + 1.496 / 2], abs=1e-3)
    picks, _ = greedy(3, np.ones((1, 5), bool), gains)
    assert picks.tolist() == [[0, 3, 1]]


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.3, 0.9]))
def test_calibrated_equals_the_divergence_computed_anew_in_every_step(seed, weight):
    scores, _, there = pools(seed)
    random = np.random.default_rng(seed)
    kinds, rel = random.integers(-1, 5, there.shape), relevance(scores)
    codes = np.array([random.permutation(6)[:3] for _ in kinds])  # one that no candidate has among them
    tastes = random.dirichlet(np.ones(4), len(kinds))[:, :3]  # what is missing from 1 is of other kinds
    picks, _ = greedy(6, there, Calibrated(rel, kinds, shares_of(kinds, codes, tastes), weight))
    for u in range(len(kinds)):

        def objective(chosen, u=u):
            total = (1 - weight) * sum(rel[u, i] for i in chosen)
            for code, p in zip(codes[u], tastes[u], strict=True):
                q = sum(kinds[u, i] == code for i in chosen) / len(chosen)
                total -= weight * p * np.log(p / (0.99 * q + 0.01 * p))
            return total

        chosen = []
        for place in range(min(6, there[u].sum())):
            left = [i for i in np.flatnonzero(there[u]) if i not in chosen]
            values = [objective([*chosen, i]) for i in left]
            assert objective([*chosen, picks[u, place]]) == pytest.approx(max(values), abs=1e-9)
            chosen.append(picks[u, place])


def test_lists_come_nearer_to_the_taste_with_more_weight():
    random = np.random.default_rng(8)
    kinds, there = random.integers(0, 4, (30, 60)), np.ones((30, 60), bool)
    rel, tastes = relevance(-np.sort(-random.random((30, 60)))), random.dirichlet(np.ones(4), 30)
    shares = shares_of(kinds, np.tile(np.arange(4), (30, 1)), tastes)
    off = []
    for weight in (0.0, 0.1, 0.5, 0.99):
        picks, _ = greedy(20, there, Calibrated(rel, kinds, shares, weight))
        q = np.array([np.bincount(kinds[u, picks[u]], minlength=4) / 20 for u in range(30)])
        off.append(np.abs(q - tastes).sum(axis=1).mean())
    assert off == sorted(off, reverse=True)
    assert off[-1] < 0.12 < off[0] / 3, "twenty places cannot be nearer than a fortieth a kind, on average"


def test_shares_of_kinds_by_hand():
    kinds = np.array([[3, -1, 5, 3], [5, 3, -1, 9]])
    found = shares_of(kinds, np.array([[5, 3], [9, -1]]), np.array([[0.6, 0.3], [0.7, 0.0]]))
    assert found.tolist() == [[0.3, 0, 0.6, 0.3], [0, 0, 0, 0.7]]
    assert shares_of(kinds, np.zeros((2, 0), int), np.zeros((2, 0))).tolist() == [[0] * 4] * 2


def test_more_weight_means_less_alike():
    scores, vectors, _ = pools(3, n=40, p=30)
    there = np.ones(scores.shape, bool)
    rel = relevance(np.sort(np.random.default_rng(4).normal(size=scores.shape))[:, ::-1])
    unit = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)

    def alike(picks):
        lists = np.take_along_axis(unit, picks[:, :, None], axis=1)
        return float(np.einsum("nkd,nld->nkl", lists, lists).sum(axis=(1, 2)).mean())

    for method in (lambda w: Mmr(rel, vectors, w), lambda w: Dpp(rel, vectors, w, 8)):
        found = [alike(greedy(8, there, method(w))[0]) for w in (0.0, 0.2, 0.5, 0.9)]
        assert found == sorted(found, reverse=True)
        assert found[-1] < found[0] / 2


def test_equal_gains_go_to_the_earlier_in_the_pool():
    vectors = np.ones((1, 4, 2), np.float32)
    for gains in (
        Relevance(np.ones((1, 4))),
        Mmr(np.ones((1, 4)), vectors, 0.5),
        Dpp(np.ones((1, 4)), vectors, 0.5, 4),
        Calibrated(np.ones((1, 4)), np.zeros((1, 4), int), np.full((1, 4), 0.5), 0.5),
    ):
        assert greedy(4, np.ones((1, 4), bool), gains)[0].tolist() == [[0, 1, 2, 3]]


def test_the_block_does_not_matter_to_the_bit():
    scores, vectors, there = pools(5, n=64, p=40, d=64)
    rel = relevance(scores)
    for make in (lambda r, v: Mmr(r, v, 0.4), lambda r, v: Dpp(r, v, 0.4, 10)):
        whole = make(rel, vectors)
        greedy(10, there, whole)
        parts = []
        for start in range(0, 64, 5):
            part = make(rel[start : start + 5], vectors[start : start + 5])
            greedy(10, there[start : start + 5], part)
            parts.append(part.now())
        np.testing.assert_array_equal(np.concatenate(parts), whole.now())


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 3), st.integers(1, 10))
def test_caps_equal_a_walk_down_the_ranking(seed, by_category, by_brand, k):
    random = np.random.default_rng(seed)
    there = random.random((4, 15)) < 0.9
    categories, brands = random.integers(-1, 3, (4, 15)), random.integers(-1, 4, (4, 15))
    gains = Relevance(-np.sort(-random.random((4, 15))))
    picks, _ = greedy(k, there, gains, Limits([categories, brands], [by_category, by_brand]))
    for u in range(4):
        chosen = []
        for i in np.flatnonzero(there[u]):
            full = [
                kinds[u, i] >= 0 and sum(kinds[u, j] == kinds[u, i] for j in chosen) >= most
                for kinds, most in ((categories, by_category), (brands, by_brand))
            ]
            if not any(full) and len(chosen) < k:
                chosen.append(i)
        assert picks[u].tolist() == chosen + [-1] * (k - len(chosen))


def test_room_is_asked_for_others_besides():
    limits = Limits([np.array([[0, 0, 1, -1]])], [2])
    limits.add(np.array([0]), [np.array([0])])
    assert limits.open().tolist() == [[True, True, True, True]]
    assert limits.open(reserve=1).tolist() == [[False, False, True, True]]
    limits.add(np.array([0]), [np.array([-1])])
    assert limits.open(reserve=1).tolist() == [[False, False, True, True]], "what is of no kind is not limited"


def test_a_quota_is_met_evenly_and_marked():
    promoted = np.zeros((3, 10), bool)
    promoted[0, [7, 8, 9]] = True  # late in the pool
    promoted[1, [0, 1]] = True  # there by itself
    promoted[2, [9]] = True  # fewer than the quota
    rel = np.tile(np.arange(10, 0, -1.0), (3, 1))
    picks, forced = greedy(6, np.ones((3, 10), bool), Relevance(rel), wanted=Wanted(promoted, 2))
    assert picks.tolist() == [[0, 1, 7, 2, 3, 8], [0, 1, 2, 3, 4, 5], [0, 1, 9, 2, 3, 4]]
    assert forced.tolist() == [
        [False, False, True, False, False, True],
        [False] * 6,
        [False, False, True, *[False] * 3],
    ]


def test_an_empty_pool_gives_an_empty_list():
    picks, forced = greedy(3, np.zeros((2, 4), bool), Relevance(np.zeros((2, 4))))
    assert picks.tolist() == [[-1] * 3] * 2
    assert not forced.any()
    assert greedy(3, np.zeros((0, 4), bool), Relevance(np.zeros((0, 4))))[0].shape == (0, 3)
    assert greedy(3, np.zeros((2, 0), bool), Relevance(np.zeros((2, 0))))[0].tolist() == [[-1] * 3] * 2
