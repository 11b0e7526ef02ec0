"""Items in shares, users on all ranks: the lists are those of one search of everything, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from ranks import on_ranks

from sparkrec.retrieval.filters import rows_of
from sparkrec.retrieval.topk import pack, top_k
from sparkrec.training import search

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("empty_handed", [False, True], ids=["seen", "nothing_seen"])
@pytest.mark.parametrize(("ranks", "m"), [(1, 30), (3, 50), (4, 3)])
def test_each_user_gets_the_best_of_all_ranks_items(ranks, m, empty_handed):
    """Ranks without users and, of four, one without items; fewer items than places; equal scores."""
    rng, k, counts = np.random.default_rng(ranks), 5, [4, 0, 7, 1][:ranks]
    items, users = (rng.integers(-2, 3, (n, 4)).astype(np.float32) for n in (m, sum(counts)))
    owner, starts = rng.integers(ranks, size=m) % (3 if ranks == 4 else ranks), np.append(0, np.cumsum(counts))
    seen = rng.random((len(users), m)) < (0 if empty_handed else 0.4)

    def rows(first, last):
        row, item = np.nonzero(seen[first:last])
        return rows_of(row, item.astype(np.int32), last - first)

    def rank(collective):
        first, last = starts[collective.rank : collective.rank + 2]
        mine = np.flatnonzero(owner == collective.rank).astype(np.int32)
        return search.best(collective, users[first:last], rows(first, last), mine, pack(items[mine]), k)

    found = on_ranks(ranks, rank)
    assert [len(lists) for lists in found] == counts
    wanted, _ = top_k(users, items, k, exclude=rows(0, len(users)))
    np.testing.assert_array_equal(np.concatenate(found), wanted)
    scores = np.where(seen, -np.inf, users @ items.T)
    for row, lists in enumerate(wanted):  # and by hand
        best = [item for item in np.lexsort((np.arange(m), -scores[row])) if not seen[row, item]][:k]
        assert lists.tolist() == best + [-1] * (k - len(best))
