"""Distributions that are compared by their divergence: rows that add up to 1.

Kullback-Leibler is an inner product (:mod:`sparkrec.models.tastes`), Jensen-Shannon lies between two of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparkrec.retrieval.csr import Csr, pairs, take
from sparkrec.retrieval.topk import Catalogue, pack, top_k

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
_MARGIN = 16  # candidates beyond k at first
_ROUNDED = 2.0**-22  # at most what float32 roots and their product are away from the Bhattacharyya coefficient
_CELLS = 1 << 20  # candidates of all users that are looked at together
_ROWS = 1 << 16  # rows looked at together: a memory-mapped matrix is not held


def roots(logarithms: F32) -> F32:
    """√q for rows of log q, as :func:`least_divergent` takes them; q is made to add up to 1."""
    shares = np.exp(logarithms.astype(np.float64))
    return np.sqrt(shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True)
class Distributions:
    """Items that distributions are compared with, for as many calls of :func:`least_divergent` as there are.

    roots : from :func:`roots`, ``[m, d]``; may be memory-mapped. groups, one_of_each : items of equal rows, as those
    that nobody met have, are one candidate: else all of them would have to be looked at before any other.
    """

    roots: F32
    groups: _Equal
    one_of_each: Catalogue

    @classmethod
    def of(cls, roots: F32, allowed: NDArray[np.bool_] | None = None) -> Distributions:
        """``allowed`` : ``[m]``, False for items that none is to be compared with."""
        groups = _Equal.of(roots, allowed)
        firsts = np.zeros(len(roots), bool)
        firsts[groups.members[groups.starts[:-1]]] = True
        return cls(roots, groups, pack(roots, firsts))


def least_divergent(
    users: F32, items: Distributions, k: int, exclude: Csr | None = None
) -> tuple[NDArray[np.int32], F64]:
    """The ``k`` items of the smallest Jensen-Shannon divergence, equal ones by lower index; exact in double precision.

    The divergence is no function of an inner product, but lies between two. With h = 1 − Σ √(p q), the squared
    Hellinger distance, ln 2 · h ≤ JS ≤ h: element by element JS is ½ (p ln(2p / (p + q)) + q ln(2q / (p + q))), h is
    ½ (√p − √q)², and their quotient depends on q / p alone: it is 1 where that is 1, and falls to ln 2 where it is 0 or
    infinite. So the items of the largest Σ √(p q) are candidates, and whatever lies outside them diverges at least by
    ln 2 times the h of the last: where that cannot tell it from the k-th, the number is doubled.

    Parameters
    ----------
    users
        Square roots of distributions, ``[n, d]``, from :func:`roots`: the distributions are their squares, made to add
        up to 1.

    Returns
    -------
    indices, divergences
        ``[n, k]``, in nats; -1 and infinite where fewer than ``k`` remain.
    """
    groups, indices = items.groups, np.full((len(users), k), -1, np.int32)
    divergences = np.full((len(users), k), np.inf)
    left, size = np.arange(len(users)), k + _MARGIN
    while len(left) and k and len(groups):
        size = min(size, len(groups))
        certain = np.zeros(len(left), bool)
        for start in range(0, len(left), step := max(1, _CELLS // size)):
            part = left[start : start + step]
            found, scores = top_k(users[part], items.one_of_each, size)
            apart = np.empty(found.shape)
            own = _distributions(users[part])
            for place in range(size):
                apart[:, place] = _divergence(own, _distributions(items.roots[found[:, place]]))
            barred = None if exclude is None else take(exclude, part)
            indices[part], divergences[part] = groups.least(found, apart, k, barred)
            outside = np.log(2) * (1 - scores[:, -1].astype(np.float64) - _ROUNDED)
            certain[start : start + step] = divergences[part, -1] < outside
        left = left[~certain] if size < len(groups) else left[:0]
        size *= 2
    return indices, divergences


@dataclass(frozen=True)
class _Equal:
    """Items in groups of equal rows: ``members`` one group after the other, ascending in each, and where it begins."""

    members: I64
    starts: I64
    group: I64  # [m], of each item; -1 for none

    def __len__(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def of(cls, rows: F32, allowed: NDArray[np.bool_] | None) -> _Equal:
        """Of the allowed ones. Found by a hash and then compared; two groups may be equal, never one be mixed."""
        members = np.arange(len(rows)) if allowed is None else np.flatnonzero(allowed)
        factors = np.random.default_rng(0).integers(1 << 63, size=rows.shape[1], dtype=np.uint64) * 2 + 1
        keys = np.empty(len(members), np.uint64)
        for start in range(0, len(members), _ROWS):
            bits = np.ascontiguousarray(rows[members[start : start + _ROWS]]).view(np.uint32)
            keys[start : start + _ROWS] = (bits * factors).sum(axis=1, dtype=np.uint64)  # modulo 2⁶⁴
        order = np.argsort(keys, kind="stable")
        members, keys = members[order], keys[order]
        new = np.ones(len(members), bool)
        alike = np.flatnonzero(keys[1:] == keys[:-1]) + 1
        for start in range(0, len(alike), _ROWS):
            part = alike[start : start + _ROWS]
            new[part] = (rows[members[part]] != rows[members[part - 1]]).any(axis=1)
        group = np.full(len(rows), -1)
        group[members] = np.cumsum(new) - 1
        return cls(members, np.append(np.flatnonzero(new), len(members)), group)

    def least(
        self, found: NDArray[np.integer], apart: F64, k: int, exclude: Csr | None
    ) -> tuple[NDArray[np.int32], F64]:
        """The ``k`` least divergent members, ``[n, k]`` each, of the groups of ``found`` ``[n, s]``."""
        n, m = len(found), len(self.group)
        longest = 0 if exclude is None else int(np.diff(exclude[0]).max(initial=0))
        most = k + longest  # so many hold k that are not excluded
        near = apart <= np.sort(apart, axis=1)[:, [min(most, apart.shape[1]) - 1]]
        rows, places = np.nonzero(near)
        groups = self.group[found[rows, places]]
        counts = np.minimum(np.diff(self.starts)[groups], most)
        ends = np.cumsum(counts)
        within = np.arange(counts.sum()) - np.repeat(ends - counts, counts)
        owner = np.repeat(rows, counts)
        items = self.members[np.repeat(self.starts[groups], counts) + within]
        values = np.repeat(apart[rows, places], counts)
        if exclude is not None:
            barred, columns = pairs(exclude)
            kept = ~np.isin(owner * m + items, barred * m + columns)
            owner, items, values = owner[kept], items[kept], values[kept]
        order = np.lexsort((items, values, owner))
        owner, items, values = owner[order], items[order], values[order]
        rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
        indices, divergences = np.full((n, k), -1, np.int32), np.full((n, k), np.inf)
        best = rank < k
        indices[owner[best], rank[best]] = items[best]
        divergences[owner[best], rank[best]] = values[best]
        return indices, divergences


def jensen_shannon(codes: NDArray[np.integer], shares: F64, other_codes: NDArray[np.integer], other_shares: F64) -> F64:
    """Jensen-Shannon divergence in nats, ``[n]``, of row i of the one from row i of the other; from 0 to ln 2.

    ``codes`` and ``shares`` are ``[n, t]`` (``[n, s]``): what the mass lies on and how much, -1 and 0 for padding.
    Mass that is missing from 1 counts as lying where the other has none. With f(x) = x ln x it is
    ln 2 − ½ Σ over common codes of f(p + q) − f(p) − f(q) (Lin, Divergence measures based on the Shannon entropy,
    1991, equation 3.1), so only what both have is looked at.
    """
    common = np.zeros(len(codes))
    for code, p in zip(codes.T, shares.T, strict=True):
        for other, q in zip(other_codes.T, other_shares.T, strict=True):
            terms = _entropic(p + q) - _entropic(p) - _entropic(q)
            common += np.where((code == other) & (code >= 0), terms, 0.0)
    return np.maximum(np.log(2.0) - common / 2, 0.0)


def _distributions(roots: F32) -> F64:
    squares = roots.astype(np.float64) ** 2
    return np.asarray(squares / squares.sum(axis=1, keepdims=True))


def _divergence(p: F64, q: F64) -> F64:
    """Jensen-Shannon of row i of the one from row i of the other, every element given.

    2p / (p + q) is 1 − t and 2q / (p + q) is 1 + t, t being (q − p) / (p + q): so nothing is lost where they are nearly
    the same, and the same row is exactly 0 away. :func:`jensen_shannon` is for rows of which most is padding.
    """
    both = p + q
    t = (q - p) / np.where(both > 0, both, 1.0)
    least = -1 + 2.0**-53  # what is less of the sum adds less than a rounding
    parts = p * np.log1p(np.maximum(-t, least)) + q * np.log1p(np.maximum(t, least))
    return np.asarray(np.maximum(parts.sum(axis=1) / 2, 0.0))


def _entropic(x: F64) -> F64:
    return x * np.log(np.where(x > 0, x, 1.0))
