"""Lists whose items differ: greedy choice from each user's pool of candidates, for a block of users at once.

A pool is a row of candidates, best score first, padded. Every choice is greedy: in each place, the candidate of the
largest gain that is still admissible; equal gains go to the earlier in the pool, which has the better score or, with
equal scores, the lower index. What a gain is, is the method: :class:`Relevance`, :class:`Mmr`, :class:`Dpp`,
:class:`Calibrated`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

#: What is left of a candidate's volume when it lies in the span of those chosen: it can still be chosen, last.
_FLAT = 1e-9
#: How much of a list's distribution over kinds is taken to be the user's own, which keeps its divergence finite.
_OWN = 0.01


class Gains(Protocol):
    """What a method knows of a block of pools."""

    def now(self) -> F64:
        """``[n, p]``: what each candidate would add to what has been chosen."""

    def add(self, rows: I64, places: I64) -> None:
        """In these rows the candidates at ``places`` were chosen."""


def relevance(scores: NDArray[np.floating], boost: NDArray[np.floating] | None = None, size: int | None = None) -> F64:
    """Scores as numbers that methods can weigh: 1 for the best of a pool, 0 for the last, plus ``boost``.

    ``scores`` is ``[n, p]``, -inf where there is no candidate; the result is 0 there. A pool of equal scores is all 1.
    ``size`` : the pool is the first so many columns, by which the others are measured too: what lies below is under 0.
    """
    real = np.isfinite(scores)
    values = np.where(real, scores, 0).astype(np.float64)
    pool = np.s_[:, :size]
    high = np.where(real, values, -np.inf)[pool].max(axis=1, initial=-np.inf, keepdims=True)
    low = np.where(real, values, np.inf)[pool].min(axis=1, initial=np.inf, keepdims=True)
    with np.errstate(invalid="ignore"):
        wide = high > low
        spread = np.where(wide, high - low, 1.0)
        below = np.where(np.isfinite(high), values - high, 0.0)
        found = np.where(wide, (values - np.where(wide, low, 0.0)) / spread, 1.0 + below)
    return np.where(real, found if boost is None else found + boost, 0.0)


class Relevance:
    """By relevance alone."""

    def __init__(self, relevances: F64) -> None:
        self._relevances = relevances

    def now(self) -> F64:
        return self._relevances

    def add(self, rows: I64, places: I64) -> None:
        pass


class Mmr:
    """Maximal marginal relevance: (1 − w) · relevance − w · largest cosine to an item chosen before.

    Carbonell and Goldstein, The use of MMR, diversity-based reranking, SIGIR 1998; λ = 1 − w.
    ``vectors`` is ``[n, p, d]``; a vector of zeros is like nothing.
    """

    def __init__(self, relevances: F64, vectors: NDArray[np.floating], weight: float) -> None:
        self._relevances, self._unit, self._weight = relevances * (1 - weight), _unit(vectors), weight
        self._nearest = np.full(relevances.shape, -np.inf)

    def now(self) -> F64:
        return self._relevances - self._weight * np.where(np.isneginf(self._nearest), 0.0, self._nearest)

    def add(self, rows: I64, places: I64) -> None:
        self._nearest[rows] = np.maximum(self._nearest[rows], _cosines(self._unit, rows, places))


class Dpp:
    """Greedy maximum a posteriori of a determinantal point process, by incremental Cholesky factors.

    The set Y maximises (1 − w) · Σ relevance + w · log det S_Y with S = (1 + cosine) / 2, which is positive
    semidefinite with ones on its diagonal: Chen, Zhang and Zhou, Fast greedy MAP inference for determinantal point
    process, NeurIPS 2018, algorithm 1 and section 4 (θ = 1 − w). A candidate's gain in log det is log d², and d² is
    kept up to date with one inner product a step. Where d² has come to nothing (the chosen span the candidate; more
    items than dimensions) it counts as 10⁻⁹, so that the list goes on by relevance instead of ending.
    """

    def __init__(self, relevances: F64, vectors: NDArray[np.floating], weight: float, k: int) -> None:
        n, p = relevances.shape
        self._relevances, self._unit, self._weight = relevances * (1 - weight), _unit(vectors), weight
        self._squares = np.ones((n, p))
        self._factors = np.zeros((n, p, k))
        self._step = 0

    def now(self) -> F64:
        return self._relevances + self._weight * np.log(np.maximum(self._squares, _FLAT))

    def add(self, rows: I64, places: I64) -> None:
        kernel = (1 + _cosines(self._unit, rows, places)) / 2
        kernel[np.arange(len(rows)), places] = 1.0
        known = self._factors[rows, :, : self._step]
        chosen = known[np.arange(len(rows)), places]
        explained = np.matmul(known, chosen[:, :, None])[:, :, 0]
        own = np.sqrt(np.maximum(self._squares[rows, places], _FLAT))
        new = (kernel - explained) / own[:, None]
        self._factors[rows, :, self._step] = new
        self._squares[rows] -= new**2
        self._step += 1


class Calibrated:
    """Kinds in the shares that they have in the user's taste: (1 − w) · Σ relevance − w · KL(p ‖ (1 − α) q + α p).

    p is the taste, q the distribution of the list's items over the kinds, and α = .01: Steck, Calibrated
    recommendations, RecSys 2018, equations 3, 4 and 6, filled greedily as there. To choose an item changes the
    divergence by a part that is the same for all candidates (the list grows) and by what its own kind gains; the
    latter is :meth:`now`. ``kinds`` is ``[n, p]``, -1 for none; ``shares`` ``[n, p]`` is p of each candidate's kind.
    """

    def __init__(self, relevances: F64, kinds: NDArray[np.integer], shares: F64, weight: float) -> None:
        self._relevances, self._kinds, self._shares, self._weight = relevances * (1 - weight), kinds, shares, weight
        self._taken = np.zeros(kinds.shape)
        self._length = np.zeros((len(kinds), 1))

    def now(self) -> F64:
        own = _OWN * self._shares
        before = (1 - _OWN) * self._taken / (self._length + 1) + own
        after = before + (1 - _OWN) / (self._length + 1)
        gain = self._shares * np.log(after / np.where(own > 0, before, 1.0))
        return self._relevances + self._weight * np.where(own > 0, gain, 0.0)

    def add(self, rows: I64, places: I64) -> None:
        chosen = self._kinds[rows, places][:, None]
        self._taken[rows] += (self._kinds[rows] == chosen) & (chosen >= 0)
        self._length[rows] += 1


def shares_of(kinds: NDArray[np.integer], codes: NDArray[np.integer], shares: NDArray[np.floating]) -> F64:
    """``[n, p]``: the share that each candidate's kind has in its user's taste; 0 for what is not in it.

    ``codes`` and ``shares`` are ``[n, t]``: the kinds of the taste and how much each is, -1 and 0 for padding.
    """
    found = np.zeros(kinds.shape)
    for code, share in zip(codes.T, shares.T, strict=True):
        found += np.where((kinds == code[:, None]) & (kinds >= 0), share[:, None], 0.0)
    return found


@dataclass
class Limits:
    """At most ``most`` items of one kind in a list, for each of several ways to sort items into kinds.

    ``kinds`` is one ``[n, p]`` array a way, -1 for what is of no kind and so never limited.
    """

    kinds: Sequence[NDArray[np.integer]]
    most: Sequence[int]

    def __post_init__(self) -> None:
        self.taken = [np.zeros(kinds.shape, np.int64) for kinds in self.kinds]

    def open(self, reserve: int = 0) -> Mask | bool:
        """``[n, p]``: candidates whose kinds have room for one more, and for ``reserve`` others besides."""
        mask: Mask | bool = True
        for kinds, taken, most in zip(self.kinds, self.taken, self.most, strict=True):
            mask = mask & ((kinds < 0) | (taken + reserve < most))
        return mask

    def taking(self, some: Mask, needed: I64) -> Mask:
        """``[n, p]``: candidates of a kind of which ``some`` need all the room that is left, to be ``needed`` ``[n]``.

        By each way for itself: ``some`` of a kind fill at most its room. Exact for one way.
        """
        mask = np.zeros(some.shape, bool)
        rows = np.arange(len(some))[:, None]
        for kinds, taken, most in zip(self.kinds, self.taken, self.most, strict=True):
            width = int(kinds.max(initial=0)) + 1
            at = rows * width + np.maximum(kinds, 0)
            limited = some & (kinds >= 0)
            there = np.bincount(at[limited], minlength=len(some) * width)[at]
            room = np.maximum(most - taken, 0)
            share = np.where(limited, np.minimum(there, room) / np.maximum(there, 1), some)
            scarce = np.rint(share.sum(axis=1)) <= needed
            mask |= (kinds >= 0) & (there > 0) & (there >= room) & scarce[:, None]
        return mask

    def add(self, rows: I64, chosen: Sequence[NDArray[np.integer]]) -> None:
        """Count one item in each of these rows; ``chosen`` holds its kinds, an array ``[len(rows)]`` a way."""
        for kinds, taken, kind in zip(self.kinds, self.taken, chosen, strict=True):
            taken[rows] += (kinds[rows] == kind[:, None]) & (kinds[rows] >= 0)


@dataclass(frozen=True)
class Wanted:
    """At least ``quota`` of a list's k items are to be of those in ``mask`` (``[n, p]``), evenly over the places."""

    mask: Mask
    quota: int

    def due(self, place: int, k: int) -> int:
        """How many there must be once ``place`` (from 0) is filled."""
        return self.quota * (place + 1) // k


def greedy(
    k: int, there: Mask, gains: Gains, limits: Limits | None = None, wanted: Wanted | None = None
) -> tuple[I64, Mask]:
    """Fills ``k`` places of each list from its pool.

    Parameters
    ----------
    there
        ``[n, p]``: where the pool has a candidate.

    Returns
    -------
    picks, forced
        ``[n, k]``: positions in the pool, -1 once nothing admissible is left; and whether a place was filled to meet
        the quota of ``wanted``.
    """
    n = len(there)
    left = there.copy()
    picks, forced = np.full((n, k), -1, np.int64), np.zeros((n, k), bool)
    met = np.zeros(n, np.int64)
    for place in range(k):
        admissible = left & limits.open() if limits else left
        if wanted:
            candidates = admissible & wanted.mask
            forced[:, place] = (met < wanted.due(place, k)) & candidates.any(axis=1)
            admissible = np.where(forced[:, [place]], candidates, admissible)
            if limits:  # nothing takes the room that the quota still needs
                admissible &= wanted.mask | ~limits.taking(candidates, wanted.quota - met)
        rows = np.flatnonzero(admissible.any(axis=1))
        if not len(rows):
            break
        best = np.where(admissible[rows], gains.now()[rows], -np.inf).argmax(axis=1)
        picks[rows, place] = best
        left[rows, best] = False
        gains.add(rows, best)
        if limits:
            limits.add(rows, [kinds[rows, best] for kinds in limits.kinds])
        if wanted:
            met[rows] += wanted.mask[rows, best]
    return picks, forced & (picks >= 0)


def _unit(vectors: NDArray[np.floating]) -> F32:
    sizes = np.sqrt(np.einsum("npd,npd->np", vectors, vectors, dtype=np.float64))
    return (vectors / np.where(sizes > 0, sizes, 1.0)[:, :, None]).astype(np.float32)


def _cosines(unit: F32, rows: I64, places: I64) -> F64:
    """``[len(rows), p]``: of every candidate with the one at ``places``. One product of the same shape a user, so it
    does not depend on who else is in the block."""
    block = unit if len(rows) == len(unit) else unit[rows]
    chosen = block[np.arange(len(rows)), places]
    return np.matmul(block, chosen[:, :, None])[:, :, 0].astype(np.float64)
