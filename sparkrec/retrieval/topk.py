"""Exact top-k by inner product: the checks in front of the native kernel.

The order is total (score downwards, then item index upwards) and a score depends on its user and its item only, so
the result is the same to the bit however users and items are cut into blocks, shards or partitions, on any CPU.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparkrec.errors import DataError
from sparkrec.retrieval import kernel
from sparkrec.retrieval.kernel import F32, I32, Csr, Packed

#: A vector may be this long: products and their sums stay far from the largest float32.
LONGEST = 2.0**62

_BLOCK = 1 << 16  # vectors measured at a time: a memory-mapped matrix is not held


def top_k(
    users: F32,
    items: F32 | Packed,
    k: int,
    exclude: Csr | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> tuple[I32, F32]:
    """The ``k`` best items for each user.

    Parameters
    ----------
    users, items
        Vectors, ``[n, d]`` and ``[m, d]``. ``items`` may be memory-mapped; from :func:`pack` it serves many calls.
    exclude
        What each user has seen, as compressed rows: ``(indptr [n + 1], indices)``.
    allowed
        ``[m]``; False for items that nobody is offered. What is packed has left them out already.

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
    matrix = items.vectors if isinstance(items, Packed) else items
    if users.ndim != 2 or matrix.ndim != 2 or users.shape[1] != matrix.shape[1]:
        raise DataError(
            f"User vectors of shape {list(users.shape)} and item vectors of shape {list(matrix.shape)} cannot be "
            "multiplied: they must have the same width. They come from different models, or from a half-finished one."
        )
    n = len(users)
    if exclude is not None and len(exclude[0]) != n + 1:
        raise DataError(f"top_k was given what {len(exclude[0]) - 1} users have seen, for {n} users.")
    lengths(users, "user")
    packed = items if isinstance(items, Packed) else pack(items, allowed)
    if k <= 0 or n == 0:
        return np.empty((n, max(k, 0)), np.int32), np.empty((n, max(k, 0)), np.float32)
    return kernel.search(packed, users, k, exclude)


def pack(items: F32, allowed: NDArray[np.bool_] | None = None) -> Packed:
    """An item matrix in the kernel's form, for as many calls of :func:`top_k` as there are."""
    if allowed is not None and len(allowed) != len(items):
        raise DataError(f"top_k was given {len(allowed)} marks of what is allowed, for {len(items)} items.")
    return kernel.pack(items, lengths(items, "item"), allowed)


def lengths(vectors: F32, what: str) -> NDArray[np.float64]:
    """Every vector's Euclidean norm; refuses what cannot be ranked."""
    norms = np.empty(len(vectors))
    for start in range(0, len(vectors), _BLOCK):
        part = vectors[start : start + _BLOCK].astype(np.float64)
        norms[start : start + _BLOCK] = np.sqrt(np.einsum("nd,nd->n", part, part))
    if not (norms < LONGEST).all():
        row = int(np.flatnonzero(~(norms < LONGEST))[0])
        raise DataError(
            f"The {what} vector in row {row} holds NaN, infinity or numbers too large to multiply. "
            "The training diverged: look at its loss, and train again with a lower learning rate."
        )
    return norms
