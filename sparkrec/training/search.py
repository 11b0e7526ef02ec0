"""The best items of every rank's users where each rank holds the vectors of some items only.

All users are searched for on every rank, among its items, and each gets the best of what the ranks have found: as much
work as if every rank searched all items for its own users.
"""

from __future__ import annotations

import numpy as np

from sparkrec.retrieval.filters import rows_of
from sparkrec.retrieval.topk import Catalogue, Csr, merge, top_k
from sparkrec.training.collective import Collective


def best(
    collective: Collective, users: np.ndarray, seen: Csr, items: np.ndarray, vectors: Catalogue, k: int
) -> np.ndarray:
    """The ``k`` best items of this rank's users, int32 [n, k], as ``top_k`` has them; every rank calls it together.

    users : float32 [n, d], of whom there may be none. seen : what each is not offered, of all items.
    items : int32 [m], ascending, of this rank, and ``vectors`` theirs; each item is one rank's.
    """
    counts = collective.allgather(np.asarray([len(users)])).tolist()
    everyone = collective.allgather(users)
    met = _everyones(collective, seen, counts)
    found, scores = top_k(everyone, vectors, k, exclude=_among(met, items))
    found[found >= 0] = items[found[found >= 0]]
    parts = [collective.alltoall(array, counts)[0] for array in (found, scores)]
    by_rank = [part.reshape(collective.size, len(users), k) for part in parts]
    return merge(*zip(*by_rank, strict=True))[0]


def _everyones(collective: Collective, lists: Csr, counts: list[int]) -> Csr:
    """The rows of all ranks, ``counts`` of each, one rank's after another's."""
    # Lengths and items in one message: no rank may have any item, and nothing was sent then.
    told = collective.allgather(np.concatenate([np.diff(lists[0]), lists[1]]).astype(np.int32))
    lengths, items, start = [], [], 0
    for n in counts:
        lengths.append(told[start : start + n])
        end = start + n + int(lengths[-1].sum(dtype=np.int64))
        items.append(told[start + n : end])
        start = end
    return np.append(0, np.cumsum(np.concatenate(lengths), dtype=np.int64)), np.concatenate(items)


def _among(lists: Csr, items: np.ndarray) -> Csr:
    """Of compressed rows, what is in ``items`` (ascending), by its place there."""
    indptr, indices = lists
    rows, places = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)), np.searchsorted(items, indices)
    here = places < len(items)
    here[here] = items[places[here]] == indices[here]
    return rows_of(rows[here], places[here].astype(np.int32), len(indptr) - 1)
