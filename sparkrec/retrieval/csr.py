"""Compressed rows: a list of item indices for each user, and what is done with all of them at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparkrec.retrieval.kernel import F32, I32, I64, Csr

__all__ = ["Csr", "best", "pairs", "rows_of", "take"]


def pairs(lists: Csr) -> tuple[I64, I64]:
    """Row and column of each entry."""
    indptr, indices = lists
    rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    return rows, np.asarray(indices[indptr[0] : indptr[-1]], np.int64)


def rows_of(rows: NDArray[np.integer], columns: NDArray[np.integer], n: int) -> Csr:
    """Compressed rows of entries whose rows ascend."""
    return np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))]).astype(np.int64), columns


def take(lists: Csr, chosen: NDArray[np.integer]) -> Csr:
    """The compressed rows of some rows, in that order."""
    indptr, indices = lists
    starts, lengths = indptr[:-1][chosen], np.diff(indptr)[chosen]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    within = np.arange(ends[-1]) - np.repeat(ends[:-1], lengths)
    return ends.astype(np.int64), indices[np.repeat(starts, lengths) + within]


def best(rows: I64, columns: I64, values: NDArray[np.floating], n: int, k: int) -> tuple[I32, F32]:
    """Of pairs with a value, each row's ``k`` largest, ``[n, k]`` each: equal values by lower column; -1 and -inf."""
    indices, scores = np.full((n, k), -1, np.int32), np.full((n, k), -np.inf, np.float32)
    order = np.lexsort((columns, -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = rank < k
    indices[rows[kept], rank[kept]] = columns[kept]
    scores[rows[kept], rank[kept]] = values[kept]
    return indices, scores
