"""Exact top-k by inner product: the checks in front of the native kernel, and catalogues in parts.

The order is total (score downwards, then item index upwards) and a score depends on its user and its item only, so
the result is the same to the bit however users and items are cut into blocks, parts or partitions, on any CPU.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sparkrec.errors import DataError
from sparkrec.retrieval import kernel
from sparkrec.retrieval.indexes import Index
from sparkrec.retrieval.kernel import F32, I32, Csr, Packed, exact_scores

__all__ = ["Catalogue", "Csr", "exact_scores", "pack", "top_k"]

#: A vector may be this long: products and their sums stay far from the largest float32.
LONGEST = 2.0**62

_BLOCK = 1 << 16  # vectors measured at a time: a memory-mapped matrix is not held


@dataclass(frozen=True)
class Catalogue:
    """Items ready to be searched: :attr:`parts` hold consecutive rows of :attr:`vectors`, and go into memory in turn.

    ``probes`` ≥ 1: the parts' blocks are cells, :attr:`centres` are theirs, and a search is approximate: it looks into
    so many of each part (:mod:`sparkrec.retrieval.cells`). Or each part has one of :attr:`indexes`, which proposes its
    items (:mod:`sparkrec.retrieval.indexes`).
    """

    vectors: F32
    parts: tuple[Packed, ...]
    centres: tuple[Packed, ...] = ()
    probes: int = 0
    indexes: tuple[Index, ...] = ()

    @property
    def exact(self) -> Catalogue:
        """The same items, searched exactly."""
        return replace(self, probes=0, indexes=())


def top_k(
    users: F32,
    items: F32 | Catalogue,
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
        ``[m]``; False for items that none of these users is offered.

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
    matrix = items.vectors if isinstance(items, Catalogue) else items
    if users.ndim != 2 or matrix.ndim != 2 or users.shape[1] != matrix.shape[1]:
        raise DataError(
            f"User vectors of shape {list(users.shape)} and item vectors of shape {list(matrix.shape)} cannot be "
            "multiplied: they must have the same width. They come from different models, or from a half-finished one."
        )
    if exclude is not None and len(exclude[0]) != len(users) + 1:
        raise DataError(f"top_k was given what {len(exclude[0]) - 1} users have seen, for {len(users)} users.")
    if allowed is not None and len(allowed) != len(matrix):
        raise DataError(f"top_k was given {len(allowed)} marks of what is allowed, for {len(matrix)} items.")
    lengths(users, "user")
    if not isinstance(items, Catalogue):
        items, allowed = pack(items, allowed), None
    k = max(k, 0)
    found = np.full((len(users), k), -1, np.int32), np.full((len(users), k), -np.inf, np.float32)
    if not k or not len(users):
        return found
    first = 0
    for number, part in enumerate(items.parts):
        last = first + len(part.vectors)
        inside = None if exclude is None else (exclude[0], np.asarray(exclude[1]) - first)
        offered = None if allowed is None else allowed[first:last]
        if items.indexes:
            better = items.indexes[number].search(part, users, k, inside, offered)
        else:
            nearest = kernel.search(items.centres[number], users, items.probes)[0] if items.probes else None
            better = kernel.search(part, users, k, inside, offered, nearest)
        better[0][better[0] >= 0] += first
        found = better if len(items.parts) == 1 else merge(found, better)
        if len(items.parts) > 1:
            _release(part)
        first = last
    return found


def merge(*lists: tuple[I32, F32]) -> tuple[I32, F32]:
    """The k best of several lists of the same users, ``[n, k]`` each, of items that do not overlap."""
    indices, scores = (np.concatenate(arrays, axis=1) for arrays in zip(*lists, strict=True))
    order = np.lexsort((indices, -scores), axis=-1)[:, : lists[0][0].shape[1]]
    return np.take_along_axis(indices, order, axis=1), np.take_along_axis(scores, order, axis=1)


def pack(items: F32, allowed: NDArray[np.bool_] | None = None, parts: int = 1) -> Catalogue:
    """An item matrix in the kernel's form, for as many calls of :func:`top_k` as there are."""
    if allowed is not None and len(allowed) != len(items):
        raise DataError(f"top_k was given {len(allowed)} marks of what is allowed, for {len(items)} items.")
    packed = []
    for part in part_bounds(len(items), parts):
        norms = lengths(items[part], "item", part.start)
        known = None if allowed is None else allowed[part]
        packed.append(kernel.pack(items[part], *kernel.by_length(norms, kernel.width_of(items.shape[1]), known)))
    return Catalogue(items, tuple(packed))


def part_bounds(items: int, parts: int) -> list[slice]:
    """The rows of each part."""
    ends = [items * number // parts for number in range(parts + 1)]
    return [slice(*ends[number : number + 2]) for number in range(parts)]


def lengths(vectors: F32, what: str, first: int = 0) -> NDArray[np.float64]:
    """Every vector's Euclidean norm; refuses what cannot be ranked."""
    norms = np.empty(len(vectors))
    for start in range(0, len(vectors), _BLOCK):
        part = vectors[start : start + _BLOCK].astype(np.float64)
        norms[start : start + _BLOCK] = np.sqrt(np.einsum("nd,nd->n", part, part))
    if not (norms < LONGEST).all():
        row = first + int(np.flatnonzero(~(norms < LONGEST))[0])
        raise DataError(
            f"The {what} vector in row {row} holds NaN, infinity or numbers too large to multiply. "
            "The training diverged: look at its loss, and train again with a lower learning rate."
        )
    return norms


def _release(part: Packed) -> None:
    """The next part needs the memory: what is mapped goes back to the page cache, which may drop it."""
    for array in (part.rows, part.bytes, part.vectors):
        mapped = getattr(array, "_mmap", None)
        if mapped is not None:
            mapped.madvise(mmap.MADV_DONTNEED)
