"""What a user may be offered, inside the top-k: rules for groups of users, lists for one user, what counts as seen.

All exact: a filter leaves the k best of what remains, never k less what it took away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparkrec.retrieval.csr import Csr, best, pairs, rows_of, take
from sparkrec.retrieval.topk import Catalogue, exact_scores, top_k

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Audience:
    """A block of users, as the filters see them.

    ``vectors``
        ``[n, d]``.
    ``seen``
        Items that each is not offered, as compressed rows.
    ``barred``
        ``[n]``: the rules, a bit each, whose items this user is not offered.
    ``own``
        ``[n]``: these users are offered nothing but their ``subset``.
    ``subset``
        Compressed rows; empty for the others.
    ``tastes``
        Kinds of items and their shares in what each likes, ``[n, t]`` both, -1 and 0 for padding; None: not asked for.
    """

    vectors: F32
    seen: Csr
    barred: I64
    own: NDArray[np.bool_]
    subset: Csr
    tastes: tuple[NDArray[np.integer], NDArray[np.floating]] | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: NDArray[np.integer]) -> Audience:
        """Some of them."""
        tastes = self.tastes and (self.tastes[0][rows], self.tastes[1][rows])
        own, subset = self.own[rows], take(self.subset, rows)
        return Audience(self.vectors[rows], take(self.seen, rows), self.barred[rows], own, subset, tastes)


def search(
    users: Audience, items: F32 | Catalogue, k: int, allowed: NDArray[np.bool_], hidden: I64 | None = None
) -> tuple[I32, F32]:
    """The ``k`` best items that each user may be offered, as :func:`topk.top_k` gives them.

    A catalogue holds the ``allowed`` items only. ``hidden`` is ``[m]``: the rules, a bit each, that an item falls
    under. Users with the same ``barred`` share a mask and a search; a user with a subset is scored on that alone.
    """
    indices = np.full((len(users), k), -1, np.int32)
    scores = np.full((len(users), k), -np.inf, np.float32)
    packed = isinstance(items, Catalogue)
    for barred, rows in groups(users.barred, users.own):
        part = users.take(rows)
        mask = permitted(allowed, hidden, barred)
        if users.own[rows[0]]:
            vectors = items.vectors if isinstance(items, Catalogue) else items
            indices[rows], scores[rows] = top_k_of_subset(part, vectors, k, mask)
        else:
            some = None if packed and mask is allowed else mask
            indices[rows], scores[rows] = top_k(part.vectors, items, k, part.seen, some)
    return indices, scores


def groups(barred: I64, own: NDArray[np.bool_]) -> list[tuple[int, I64]]:
    """Rows of users to whom the same rules apply: (their bits, rows). Users with a subset come apart."""
    if not len(barred):
        return []
    order = np.lexsort((barred, own))
    new = (np.diff(barred[order]) != 0) | np.diff(own[order])
    return [(int(barred[rows[0]]), rows) for rows in np.split(order, np.flatnonzero(new) + 1)]


def permitted(allowed: NDArray[np.bool_], hidden: I64 | None, barred: int) -> NDArray[np.bool_]:
    """``[m]``: items that users with these bits are offered."""
    return allowed if hidden is None or not barred else allowed & (hidden & barred == 0)


def top_k_of_subset(users: Audience, items: F32, k: int, allowed: NDArray[np.bool_]) -> tuple[I32, F32]:
    """The ``k`` best of each user's own subset. Cost follows the size of the subsets, not the catalogue's."""
    rows, columns = pairs(users.subset)
    key = np.unique(rows * len(items) + columns)
    rows, columns = key // len(items), key % len(items)
    kept = offered(users, rows, columns, allowed)
    rows, columns = rows[kept], columns[kept]
    return best(rows, columns, exact_scores(users.vectors, items, rows, columns), len(users), k)


def offered(
    users: Audience, rows: I64, columns: I64, allowed: NDArray[np.bool_], hidden: I64 | None = None
) -> NDArray[np.bool_]:
    """``[P]``: which of these pairs of a user (``rows``) and an item (``columns``) pass all filters."""
    m = len(allowed)
    keys, met = rows * m + columns, pairs(users.seen)
    passed = allowed[columns] & ~np.isin(keys, met[0] * m + met[1])
    if hidden is not None:
        passed &= hidden[columns] & users.barred[rows] == 0
    if users.own.any():
        own = pairs(users.subset)
        passed &= ~users.own[rows] | np.isin(keys, own[0] * m + own[1])
    return passed


def among(
    users: Audience, items: F32, k: int, chosen: I64, allowed: NDArray[np.bool_], hidden: I64 | None = None
) -> tuple[I32, F32]:
    """The ``k`` best items of ``chosen`` (ascending) for each user, under the same filters.

    Only these items are multiplied, so a short list of them costs little.
    """
    place = np.full(len(items), -1, np.int64)
    place[chosen] = np.arange(len(chosen))
    part = Audience(users.vectors, _renamed(users.seen, place), users.barred, users.own, _renamed(users.subset, place))
    found, scores = search(part, items[chosen], k, allowed[chosen], None if hidden is None else hidden[chosen])
    return (np.where(found >= 0, chosen[found], -1).astype(np.int32) if len(chosen) else found), scores


def recent(seen: Csr, age_days: NDArray[np.floating], memory_days: NDArray[np.floating]) -> Csr:
    """Of what users met, what still counts: met at most ``memory_days`` (``[m]``, by item) ago.

    ``age_days`` goes with the indices of ``seen``. An item met twice counts if the later time does.
    """
    rows, columns = pairs(seen)
    counts = age_days <= memory_days[columns]
    return rows_of(rows[counts], columns[counts], len(seen[0]) - 1)


def _renamed(lists: Csr, place: I64) -> Csr:
    rows, columns = pairs(lists)
    known = place[columns] >= 0
    return rows_of(rows[known], place[columns[known]], len(lists[0]) - 1)
