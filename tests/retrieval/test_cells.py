"""An approximate search misses items; it never bends a score, an order or a filter."""

from __future__ import annotations

import numpy as np
import pytest

from sparkrec.retrieval import cells, kernel, topk
from sparkrec.retrieval.filters import Audience
from sparkrec.retrieval.planner import plan
from sparkrec.retrieval.recall import of_block, reached

pytestmark = pytest.mark.unit

K = 10


def clusters(seed, n, m, d=16, centres=30):
    """Users and items around the same directions; the items of unequal lengths."""
    random = np.random.default_rng(seed)
    heads = random.normal(size=(centres, d))
    users = heads[random.integers(0, centres, n)] + 0.3 * random.normal(size=(n, d))
    items = (heads[random.integers(0, centres, m)] + 0.3 * random.normal(size=(m, d))) * random.lognormal(
        0, 0.2, (m, 1)
    )
    return users.astype(np.float32), items.astype(np.float32)


def same(found, wanted):
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def in_cells(items, allowed, count, probes):
    order, starts, centres = cells.build(items, topk.lengths(items, "item"), np.flatnonzero(allowed), count)
    return topk.Catalogue(items, (kernel.pack(items, order, starts),), topk.pack(centres).parts, probes)


@pytest.fixture(scope="module")
def problem():
    users, items = clusters(1, 200, 6000)
    random = np.random.default_rng(2)
    seen = np.sort(random.integers(0, 6000, (200, 40)), axis=1)
    return users, items, (np.arange(201) * 40, seen.reshape(-1)), random.random(6000) < 0.8


def test_every_item_that_may_be_offered_lies_in_one_cell(problem):
    _, items, _, allowed = problem
    order, starts, centres = cells.build(items, topk.lengths(items, "item"), np.flatnonzero(allowed), 40)
    assert sorted(order[order >= 0]) == np.flatnonzero(allowed).tolist()
    assert (starts % kernel.TILE == 0).all()
    assert starts[-1] == len(order)
    for cell in range(40):
        members = order[starts[cell] : starts[cell + 1]]
        members = members[members >= 0]
        if len(members):
            np.testing.assert_allclose(centres[cell], items[members].mean(axis=0), rtol=1e-4, atol=1e-5)


def test_all_cells_are_the_exact_search_to_the_bit(problem):
    users, items, seen, allowed = problem
    same(topk.top_k(users, in_cells(items, allowed, 40, 40), K, seen), topk.top_k(users, items, K, seen, allowed))


def test_few_cells_find_most_and_bend_nothing(problem):
    users, items, seen, allowed = problem
    wanted, best = topk.top_k(users, items, K, seen, allowed)
    shares = []
    for probes in (1, 4, 12):
        indices, scores = topk.top_k(users, in_cells(items, allowed, 40, probes), K, seen)
        shares.append(reached(scores, best) / wanted.size)
        both = [len(set(a) & set(b)) / K for a, b in zip(indices, wanted, strict=True)]
        assert shares[-1] == pytest.approx(np.mean(both))
        rows = np.repeat(np.arange(200), K)
        np.testing.assert_array_equal(scores.reshape(-1), topk.exact_scores(users, items, rows, indices.reshape(-1)))
        assert (np.diff(scores, axis=1) <= 0).all()
        assert allowed[indices].all()
        assert not (indices[:, :, None] == seen[1].reshape(200, 1, 40)).any()
    assert shares == sorted(shares)
    assert shares[0] < 0.99
    assert shares[-1] > 0.97


def test_who_finds_too_few_in_the_cells_is_searched_for_in_all():
    users, items = clusters(3, 5, 2000)
    catalogue = in_cells(items, np.ones(2000, bool), 20, 1)
    first = kernel.search(catalogue.centres[0], users, 1)[0][:, 0]
    part = catalogue.parts[0]
    cell = [part.order[part.starts[i] : part.starts[i + 1]] for i in first]
    seen = [members[members >= 0][2:] for members in cell]  # two are left in the nearest cell
    csr = np.append(0, np.cumsum([len(s) for s in seen])), np.concatenate(seen)
    same(topk.top_k(users, catalogue, K, csr), topk.top_k(users, items, K, csr))


def test_cells_of_nothing_give_empty_lists():
    users, items = clusters(4, 3, 100)
    indices, scores = topk.top_k(users, in_cells(items, np.zeros(100, bool), 0, 1), K)
    assert (indices == -1).all()
    assert (scores == -np.inf).all()


def test_what_is_as_good_as_the_last_of_the_exact_list_is_found():
    none = -np.inf
    found = np.array([[0.9, 0.5, 0.5], [0.7, 0.6, none], [none, none, none]])
    wanted = np.array([[0.9, 0.8, 0.5], [0.7, 0.65, none], [none, none, none]])
    assert reached(found, wanted) == 3 + 1 + 0
    assert reached(np.zeros((0, 3)), np.zeros((0, 3))) == 0


def test_what_is_found_is_counted_through_rules_and_subsets(problem):
    users, items, seen, allowed = problem
    random = np.random.default_rng(5)
    hidden, barred = random.integers(0, 4, 6000), random.integers(0, 3, 200)
    own = random.random(200) < 0.2
    subset = [np.sort(random.choice(6000, 15, replace=False)) if mine else [] for mine in own]
    subsets = np.append(0, np.cumsum([len(x) for x in subset])), np.concatenate(subset).astype(np.int64)
    people, catalogue = Audience(users, seen, barred, own, subsets), in_cells(items, allowed, 40, 2)
    found, wanted = 0, 0
    cells_of = kernel.search(catalogue.centres[0], users, 2)[0]
    part = catalogue.parts[0]
    for u in range(200):
        able = [i for i in (subset[u] if own[u] else range(6000)) if allowed[i] and not barred[u] & hidden[i]]
        able = np.setdiff1d(able, seen[1].reshape(200, 40)[u]).astype(np.int64)
        exact = able[np.lexsort((able, -(items[able].astype(np.float64) @ users[u])))][:K]
        near = np.concatenate([part.order[part.starts[x] : part.starts[x + 1]] for x in cells_of[u]])
        reached = able if own[u] or np.isin(able, near).sum() < K else near
        found, wanted = found + np.isin(exact, reached).sum(), wanted + len(exact)
    assert of_block(people, catalogue, K, allowed, hidden) == (found, wanted)
    assert 0.5 < found / wanted < 0.99, "worth measuring"


def test_the_plan_follows_from_the_sizes():
    # 64 × 4 bytes for the exact scores, 64 × 2 and in an exact search 64 for the first look, 4 for the order: 452 or
    # 388 an item.
    whole, parts = plan(100_000, 64, 44), plan(100_000, 64, 43)
    assert (whole.parts, whole.cells, whole.probes) == (1, 0, 0)
    assert parts.parts == 2
    assert str(whole) == "100,000 items of width 64, 43 MB: whole, exact"
    assert str(plan(1_000_000, 64, 100, 16)) == (
        "1,000,000 items of width 64, 370 MB: in 4 parts, one after the other, approximate: 16 of 2000 cells"
    )
    assert plan(100, 8, 1, 50).probes == 1  # one cell: there are not enough items for two
    assert plan(60, 8, 1, 50).probes == 0
