"""Cells of similar items for an approximate search: an inverted file (Jégou et al. 2011, Product Quantization for
Nearest Neighbor Search, section IV) whose cells are blocks of the exact kernel.

Items are put into cells by direction (spherical k-means: Dhillon and Modha 2001); a user looks into the cells whose
mean vector promises the largest product. What is found there is filtered and scored as in the exact search, so a list
can miss items but never hold a wrong score, a wrong order, or an item that the user is not to be offered.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparkrec.retrieval import kernel
from sparkrec.retrieval.kernel import F32, I32, I64, TILE

_SAMPLE = 64  # items for each cell that k-means learns from
_ROUNDS = 8
_BLOCK = 1 << 16  # items assigned at a time


def build(vectors: F32, norms: NDArray[np.floating], items: I64, cells: int, seed: int = 0) -> tuple[I32, I64, F32]:
    """Cells of ``items`` (rows of ``vectors`` that may be offered).

    Returns
    -------
    order, starts
        As in :class:`kernel.Packed`, a block for each cell.
    centres
        float32 ``[cells, d]``: the mean of each cell's vectors.
    """
    random = np.random.default_rng(seed)
    sample = np.sort(random.choice(items, min(len(items), _SAMPLE * cells), replace=False))
    points = _directions(vectors[sample], norms[sample])
    heads = points[np.sort(random.choice(len(points), cells, replace=False))]
    for _ in range(_ROUNDS):
        sums = _sums(points, nearest(points, heads), cells)
        sizes = np.linalg.norm(sums, axis=1, keepdims=True)
        heads = np.where(sizes > 0, sums / np.maximum(sizes, 1e-30), heads).astype(np.float32)
    cell = np.empty(len(items), np.int64)
    totals = np.zeros((cells, vectors.shape[1]))
    for start in range(0, len(items), _BLOCK):
        part = items[start : start + _BLOCK]
        cell[start : start + _BLOCK] = nearest(_directions(vectors[part], norms[part]), heads)
        totals += _sums(vectors[part], cell[start : start + _BLOCK], cells)
    counts = np.bincount(cell, minlength=cells)
    starts = np.append(0, np.cumsum(-(-counts // TILE) * TILE))
    by_cell = np.lexsort((items, -norms[items], cell))
    order = np.full(starts[-1], -1, np.int32)
    order[starts[cell[by_cell]] + np.arange(len(items)) - (np.cumsum(counts) - counts)[cell[by_cell]]] = items[by_cell]
    return order, starts, (totals / np.maximum(counts, 1)[:, None]).astype(np.float32)


def nearest(points: F32, heads: F32) -> I64:
    """The row of ``heads`` with the largest product, for each point."""
    order, starts = kernel.by_length(np.ones(len(heads)), kernel.width_of(heads.shape[1]))
    return kernel.search(kernel.pack(heads, order, starts), points, 1)[0][:, 0].astype(np.int64)


def _directions(vectors: F32, norms: NDArray[np.floating]) -> F32:
    return (vectors / np.maximum(norms, 1e-30)[:, None]).astype(np.float32)


def _sums(points: F32, cell: I64, cells: int) -> NDArray[np.float64]:
    """``[cells, d]``: the sum of each cell's points."""
    order = np.argsort(cell, kind="stable")
    present, first = np.unique(cell[order], return_index=True)
    sums = np.zeros((cells, points.shape[1]))
    sums[present] = np.add.reduceat(points[order].astype(np.float64), first)
    return sums
