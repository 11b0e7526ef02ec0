"""Exact top-k by inner product: a fast float32 product proposes, a double-precision dot product decides.

The order is total (score downwards, then item index upwards) and a score depends on its user and its item only, so
the result is the same to the bit however users and items are cut into blocks or partitions.

Why the proposal loses nothing: a float32 product of width d, in any order of summation, is off by at most
γ · ‖u‖ · ‖v‖ with γ ≈ d · 2⁻²⁴ (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., (3.5) and
Cauchy-Schwarz). Call that e, with room for the rounding of the exact score. If T is the k-th largest product, the k
items at or above it have exact scores ≥ T − e; so every item of the exact top-k has a product ≥ T − 2e, and all of
those are scored again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparkrec.errors import DataError

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
#: Item indices of user i: ``indices[indptr[i]:indptr[i + 1]]``, in any order.
Csr = tuple[NDArray[np.integer], NDArray[np.integer]]

_CELLS = 1 << 22  # products held at a time: 16 MB
_ITEMS = 1 << 16  # items in one block
_PAIRS = 1 << 20  # double-precision products held at a time: 8 MB
_GROUPS = 8  # maxima kept for each result wanted, when the threshold is sought


def top_k(
    users: F32,
    items: F32,
    k: int,
    exclude: Csr | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> tuple[I32, F32]:
    """The ``k`` best items for each user.

    Parameters
    ----------
    users, items
        Vectors, ``[n, d]`` and ``[m, d]``; ``items`` may be memory-mapped.
    exclude
        What each user has seen, as compressed rows: ``(indptr [n + 1], indices)``.
    allowed
        ``[m]``; False for items that nobody is offered.

    Returns
    -------
    indices, scores
        ``[n, k]``, best first, equal scores by lower index. Where fewer than ``k`` remain, the rest of the row is
        -1 and -inf. A score is the dot product in double precision, rounded to float32.

    Raises
    ------
    DataError
        Widths differ, or a vector holds NaN, infinity or numbers whose product overflows.
    """
    item_size, user_size = _sizes(users, items)
    n, m = len(users), len(items)
    if exclude is not None and len(exclude[0]) != n + 1:
        raise DataError(f"top_k was given what {len(exclude[0]) - 1} users have seen, for {n} users.")
    if allowed is not None and len(allowed) != m:
        raise DataError(f"top_k was given {len(allowed)} marks of what is allowed, for {m} items.")
    slack = 2 * (users.shape[1] + 4) * 2.0**-24 * 1.01 * user_size * item_size
    indices = np.full((n, k), -1, np.int32)
    scores = np.full((n, k), -np.inf, np.float32)
    if k <= 0 or m == 0:
        return indices, scores
    rows = max(1, _CELLS // min(m, _ITEMS))
    for start in range(0, n, rows):
        block = slice(start, min(start + rows, n))
        seen = None if exclude is None else _rows(exclude, block)
        for first in range(0, m, _ITEMS):
            chunk = slice(first, min(first + _ITEMS, m))
            product = users[block] @ items[chunk].T
            _hide(product, first, seen, None if allowed is None else allowed[chunk])
            found = _candidates(product, k, slack[block], scores[block, -1])
            _merge(indices[block], scores[block], users[block], items, found[0], found[1] + first)
    return indices, scores


def exact_scores(users: F32, items: F32, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> F32:
    """``⟨users[rows[p]], items[columns[p]]⟩`` for each pair p: double precision, a fixed tree of sums, then float32.

    Only elementwise operations, so a pair's score does not depend on the other pairs.
    """
    result = np.empty(len(rows), np.float32)
    step = max(1, _PAIRS // max(1, users.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        terms = users[rows[part]].astype(np.float64) * items[columns[part]]
        while terms.shape[1] > 1:
            half = terms.shape[1] // 2
            odd = terms[:, 2 * half :]
            terms = np.concatenate([terms[:, :half] + terms[:, half : 2 * half], odd], axis=1)
        result[part] = terms[:, 0] if terms.shape[1] else 0.0
    return result


def _sizes(users: F32, items: F32) -> tuple[np.floating, NDArray[np.floating]]:
    """The largest item norm and every user's; refuses what cannot be ranked."""
    if users.ndim != 2 or items.ndim != 2 or users.shape[1] != items.shape[1]:
        raise DataError(
            f"User vectors of shape {list(users.shape)} and item vectors of shape {list(items.shape)} cannot be "
            "multiplied: they must have the same width. They come from different models, or from a half-finished one."
        )
    sizes = []
    for name, vectors in (("user", users), ("item", items)):
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.einsum("nd,nd->n", vectors, vectors)
        if not np.isfinite(squares).all():
            row = int(np.flatnonzero(~np.isfinite(squares))[0])
            raise DataError(
                f"The {name} vector in row {row} holds NaN, infinity or numbers too large to multiply. "
                "The training diverged: look at its loss, and train again with a lower learning rate."
            )
        sizes.append(np.sqrt(squares))
    return sizes[1].max(initial=0), sizes[0]


def _rows(exclude: Csr, block: slice) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """The rows (from 0) and columns of what the users of a block have seen."""
    indptr, indices = exclude
    bounds = np.asarray(indptr[block.start : block.stop + 1])
    return np.repeat(np.arange(len(bounds) - 1), np.diff(bounds)), np.asarray(indices[bounds[0] : bounds[-1]])


def _hide(
    product: F32,
    first: int,
    seen: tuple[NDArray[np.integer], NDArray[np.integer]] | None,
    allowed: NDArray[np.bool_] | None,
) -> None:
    """-inf, in place, where an item is seen or not allowed."""
    if allowed is not None and not allowed.all():
        product += np.where(allowed, np.float32(0), np.float32(-np.inf))
    if seen is not None:
        rows, columns = seen[0], seen[1] - first
        inside = (columns >= 0) & (columns < product.shape[1])
        product[rows[inside], columns[inside]] = -np.inf


def _candidates(
    product: F32, k: int, slack: NDArray[np.floating], known: F32
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of every product that may belong to the k best; ``known`` is the k-th best score so far.

    The threshold is the k-th largest maximum over groups of columns: k groups reach it, so at least k products do.
    """
    n, m = product.shape
    threshold = known - slack  # what is below it is beaten by k items of the blocks before
    if m > k:
        groups = product
        if m >= 2 * _GROUPS * k:
            width = _GROUPS * k
            whole = m // width * width
            groups = product[:, :whole].reshape(n, -1, width).max(axis=1)
            np.maximum(groups[:, : m - whole], product[:, whole:], out=groups[:, : m - whole])
        kth = np.partition(groups, groups.shape[1] - k, axis=1)[:, groups.shape[1] - k]
        threshold = np.maximum(threshold, kth - slack)
    with np.errstate(over="ignore"):  # one step down, so that rounding to float32 cannot have raised it
        floor = np.nextafter(threshold.astype(np.float32), np.float32(-np.inf))
    floor = np.maximum(floor, np.finfo(np.float32).min)  # -inf, which is seen or not allowed, is never a candidate
    flat = np.flatnonzero(product >= floor[:, None])
    return flat // m, flat % m


def _merge(
    indices: I32,
    scores: F32,
    users: F32,
    items: F32,
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
) -> None:
    """Puts the candidates' exact scores among the best so far, in place."""
    k = indices.shape[1]
    kept_row, kept_rank = np.nonzero(indices >= 0)
    rows = np.concatenate([kept_row, rows])
    values = np.concatenate(
        [scores[kept_row, kept_rank], exact_scores(users, items, rows[len(kept_row) :], columns)],
    )
    columns = np.concatenate([indices[kept_row, kept_rank], columns])
    order = np.lexsort((columns, -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    best = rank < k
    indices[rows[best], rank[best]] = columns[best]
    scores[rows[best], rank[best]] = values[best]
