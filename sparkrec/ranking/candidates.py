"""Candidates of a block of users, from several sources: each item of a user once, with its place in every source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparkrec.ranking.histories import Histories, Pairs, grouped
from sparkrec.retrieval import csr, filters
from sparkrec.retrieval.filters import Audience

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Candidates:
    """``rows`` and ``items`` ``[P]``: users of the block, ascending, and of each the items, ascending.

    ``places`` : by source ``[P]``, 1 for its best; NaN where the source did not bring the item.
    """

    rows: I64
    items: I64
    places: dict[str, NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.rows)

    def source(self) -> I64:
        """``[P]``: in which source, by its position in :attr:`places`, the item stands highest; the first of equals."""
        columns = [np.nan_to_num(place, nan=np.inf) for place in self.places.values()]
        return np.argmin(np.stack(columns), axis=0) if len(self) else np.zeros(0, np.int64)


def merged(found: Mapping[str, I32], m: int) -> Candidates:
    """The union of lists ``[n, p]`` of item indices below ``m``, best first; -1 where a list is short."""
    keys, ranks = {}, {}
    for source, lists in found.items():
        rows, place = np.nonzero(lists >= 0)
        keys[source], ranks[source] = rows * np.int64(m) + lists[rows, place], place + 1
    every = np.unique(np.concatenate([np.zeros(0, np.int64), *keys.values()]))
    places = {}
    for source, mine in keys.items():
        places[source] = np.full(len(every), np.nan, np.float32)
        places[source][np.searchsorted(every, mine)] = ranks[source]
    return Candidates(every // m, every % m, places)


def of_neighbors(sums: Pairs, users: Audience, k: int, allowed: NDArray[np.bool_], hidden: I64 | None = None) -> I32:
    """``[n, k]``: the items that the same people met as those of the user's history, the largest sum first."""
    offered = filters.offered(users, sums.rows, sums.items, allowed, hidden)
    return csr.best(sums.rows[offered], sums.items[offered], sums.values["sum"][offered], len(users), k)[0]


def recently_met(
    histories: Histories, users: Audience, k: int, allowed: NDArray[np.bool_], hidden: I64 | None = None
) -> I32:
    """``[n, k]``: what the user met last, where the rules let it be offered again."""
    met = grouped(histories.rows, histories.items, len(allowed), {"age": histories.ages}, np.minimum)
    offered = filters.offered(users, met.rows, met.items, allowed, hidden)
    return csr.best(met.rows[offered], met.items[offered], -met.values["age"][offered], len(users), k)[0]
