"""What a block of users did, as arrays, and sums over the pairs of a user and an item."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Histories:
    """The newest events of each user, all users' one after the other, oldest first: ``[e]`` each.

    ``n`` : users. ``rows`` : whose an event is, ascending. ``types`` : position in ``columns.EVENT_TYPES``.
    ``ages`` : days before the moment at which the question is asked.
    """

    n: int
    rows: I64
    items: I64
    types: NDArray[np.int8]
    ages: F32


@dataclass(frozen=True)
class Pairs:
    """Values of pairs (user, item), each once, in order: ``rows``, ``items`` and every value ``[q]``."""

    m: int
    rows: I64
    items: I64
    values: dict[str, NDArray]

    def at(self, name: str, rows: I64, items: I64, otherwise: float = 0.0) -> F32:
        """A value of other pairs; ``otherwise`` where the pair is not here."""
        keys, wanted = self.rows * self.m + self.items, rows * self.m + items
        place = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
        if not len(keys):
            return np.full(len(wanted), otherwise, np.float32)
        return np.where(keys[place] == wanted, self.values[name][place], otherwise).astype(np.float32)


def grouped(rows: I64, items: I64, m: int, values: Mapping[str, NDArray], how: np.ufunc = np.add) -> Pairs:
    """Pairs from rows that may repeat: ``how`` joins the values, ``count`` says of how many."""
    keys = rows * np.int64(m) + items
    order = np.argsort(keys, kind="stable")
    every, first, count = np.unique(keys[order], return_index=True, return_counts=True)
    joined = {name: how.reduceat(value[order], first) if len(every) else value[:0] for name, value in values.items()}
    return Pairs(m, every // m, every % m, joined | {"count": count})


def neighbor_sums(histories: Histories, neighbors: I32, cosines: F32) -> Pairs:
    """Of every item that neighbours a user's history: ``sum`` and ``largest`` of the cosines, and that to the ``last``.

    Item-based collaborative filtering (Deshpande and Karypis, Item-based top-N recommendation algorithms, TOIS 2004)
    on the newest events, each item of a user once. ``neighbors``, ``cosines`` ``[m, w]``: -1 where there is none.
    """
    m, width = neighbors.shape
    newest = grouped(histories.rows, histories.items, m, {"at": np.arange(len(histories.rows))}, np.maximum)
    is_last = np.append(histories.rows[1:] != histories.rows[:-1], [True] * (len(histories.rows) > 0))
    near = neighbors[newest.items]
    there = near >= 0
    cosine = cosines[newest.items].astype(np.float64)
    last = np.where(is_last[newest.values["at"]][:, None], cosine, 0.0)
    rows = np.repeat(newest.rows, width).reshape(near.shape)[there]
    values = {"sum": cosine[there], "largest": cosine[there], "last": last[there]}
    sums = grouped(rows, near[there].astype(np.int64), m, values)
    largest = grouped(rows, near[there].astype(np.int64), m, values, np.maximum)
    return Pairs(m, sums.rows, sums.items, sums.values | {"largest": largest.values["largest"]})
