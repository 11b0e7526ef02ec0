"""From a block of users to their lists: the filtered top-k, and where asked the reranking of a pool of it.

Reranking chooses among the ``pool`` best items of a user (and as many promoted ones as a list has places). A list that
caps leave short goes on down the ranking, by score, until it has k items or nothing is left: so exactly k remain.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sparkrec.config.recommend import Diversity, Recommend
from sparkrec.retrieval import exploration, filters
from sparkrec.retrieval.diversity import (
    Calibrated,
    Dpp,
    Gains,
    Limits,
    Mmr,
    Relevance,
    Wanted,
    greedy,
    relevance,
    shares_of,
)
from sparkrec.retrieval.filters import Audience
from sparkrec.retrieval.topk import Catalogue

#: Why an item stands where it stands: the model's score and the reranking; a quota of promotions; by lot.
CHOSEN, PROMOTED, EXPLORED = 0, 1, 2

_CELLS = 1 << 20  # numbers of the candidates' vectors held at a time: 4 MB, which stay in the cache


class Traits(Protocol):
    """What is known of items besides their vectors, ``[m]`` each: see :class:`sparkrec.retrieval.traits.ItemTraits`."""

    @property
    def hidden(self) -> NDArray[np.int64]: ...

    @property
    def memory_days(self) -> NDArray[np.float32]: ...

    @property
    def fresh(self) -> NDArray[np.bool_]: ...

    @property
    def promoted(self) -> NDArray[np.bool_]: ...

    def kinds(self, cap: str) -> NDArray[np.int32]:
        """The item's category, brand, … as a number; -1 for none."""


@dataclass(frozen=True)
class Policy:
    """What the configuration says of lists. Without ``traits`` there are no rules and nothing is reranked."""

    settings: Recommend
    traits: Traits | None = None

    @property
    def without_likeness(self) -> Policy:
        """The same, where vectors do not say how alike two items are: the order stays."""
        if self.settings.diversity.method not in ("mmr", "dpp"):
            return self
        return replace(self, settings=self.settings.model_copy(update={"diversity": Diversity()}))


@dataclass(frozen=True)
class Lists:
    """``[n, k]`` each. ``indices`` is -1 beyond a list's end; ``scores`` are the model's."""

    indices: NDArray[np.int32]
    scores: NDArray[np.float32]
    propensity: NDArray[np.float64]
    why: NDArray[np.int8]


@dataclass(frozen=True)
class Ranked:
    """Candidates of a block of users that are in order already, ``[n, p]`` each: as :func:`csr.best` gives them."""

    indices: NDArray[np.int32]
    scores: NDArray[np.float32]

    def first(self, size: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The ``size`` best; -1 and -inf where there are fewer."""
        wider = [(0, 0), (0, max(0, size - self.indices.shape[1]))]
        found = np.pad(self.indices, wider, constant_values=-1), np.pad(self.scores, wider, constant_values=-np.inf)
        return found[0][:, :size], found[1][:, :size]


Searched = NDArray[np.float32] | Catalogue | Ranked


@dataclass(frozen=True)
class Assortment:
    """A model's items, as the reranking sees them: what is searched, the vectors, which are allowed, their traits."""

    searched: Searched
    vectors: NDArray[np.float32]
    allowed: NDArray[np.bool_]
    traits: Traits

    def of(self, rows: NDArray[np.integer]) -> Assortment:
        """For some users of the block."""
        if not isinstance(self.searched, Ranked):
            return self
        return replace(self, searched=Ranked(self.searched.indices[rows], self.searched.scores[rows]))

    def best(self, users: Audience, size: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The ``size`` best items that each of these users may be offered."""
        return _best(users, self.searched, size, self.allowed, self.traits.hidden)


class _Campaign(Assortment):
    """Promoted items alone: as a rule they are few, and only they are multiplied."""

    def best(self, users: Audience, size: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        chosen = np.flatnonzero(self.traits.promoted)
        return filters.among(users, self.vectors, size, chosen, self.allowed, self.traits.hidden)


def lists(
    users: Audience,
    keys: NDArray[np.uint64],
    lottery: NDArray[np.bool_],
    searched: Searched,
    vectors: NDArray[np.float32],
    allowed: NDArray[np.bool_],
    k: int,
    policy: Policy | None = None,
) -> Lists:
    """The lists of a block of users; every user's own, whoever else is in the block.

    Parameters
    ----------
    keys
        ``[n]``: each user's number in the lot.
    lottery
        ``[n]``: whether a user takes part in it.
    searched, vectors
        The items as :func:`topk.top_k` takes them, and their vectors ``[m, d]``: the same, unless packed. Or what
        another model has put in order for these users.
    """
    traits = policy.traits if policy else None
    hidden = None if traits is None else traits.hidden
    if policy is None or traits is None or not policy.settings.reranks:
        indices, scores = _best(users, searched, k, allowed, hidden)
        return Lists(indices, scores, np.ones(indices.shape), np.zeros(indices.shape, np.int8))
    items, settings = Assortment(searched, vectors, allowed, traits), policy.settings
    pool, scores, more = _pool(users, items, k, settings)
    step = max(1, _CELLS // (pool.shape[1] * max(1, vectors.shape[1])))
    blocks = [slice(start, start + step) for start in range(0, len(users), step)]
    parts = []
    for rows in blocks:  # one search for all: only what is reranked has to stay in the cache
        part = users.take(np.arange(len(users))[rows])
        parts.append(_reranked(part, keys[rows], lottery[rows], pool[rows], scores[rows], items, k, settings))
    found = Lists(
        np.concatenate([np.zeros((0, k), np.int32), *[part.indices for part in parts]]),
        np.concatenate([np.zeros((0, k), np.float32), *[part.scores for part in parts]]),
        np.concatenate([np.zeros((0, k)), *[part.propensity for part in parts]]),
        np.concatenate([np.zeros((0, k), np.int8), *[part.why for part in parts]]),
    )
    short = np.flatnonzero(more & (found.indices[:, -1] < 0))
    if len(short):
        _fill(users.take(short), found, short, items.of(short), k, settings)
    return found


def pool_size(k: int, settings: Recommend) -> int:
    """How many of a user's best items the lists are made from."""
    return max(k, settings.pool) if settings.reranks else k


def _best(
    users: Audience, searched: Searched, k: int, allowed: NDArray[np.bool_], hidden: NDArray[np.int64] | None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    if isinstance(searched, Ranked):
        return searched.first(k)
    return filters.search(users, searched, k, allowed, hidden)


def _reranked(
    users: Audience,
    keys: NDArray[np.uint64],
    lottery: NDArray[np.bool_],
    pool: NDArray[np.int32],
    scores: NDArray[np.float32],
    items: Assortment,
    k: int,
    settings: Recommend,
) -> Lists:
    """Lists from the pool alone: they may be short."""
    there = pool >= 0
    limits = _limits(pool, items.traits, settings)
    wanted = None
    if settings.promotions.quota:
        wanted = Wanted(there & items.traits.promoted[pool], settings.promotions.quota)
    picks, forced = greedy(k, there, _gains(users, pool, scores, items, k, settings), limits, wanted)
    why = np.where(forced, PROMOTED, CHOSEN).astype(np.int8)
    propensity = np.ones(picks.shape)
    if settings.exploration.places:
        last = np.arange(k) >= k - settings.exploration.places
        places = last & (picks[:, -1:] >= 0) & lottery[:, None]
        if wanted:  # else the lot could take away what the quota rests on
            places &= ~np.take_along_axis(wanted.mask, picks, 1)
        free = there & limits.open(reserve=settings.exploration.places - 1)
        rows, columns = np.nonzero(picks >= 0)
        free[rows, picks[rows, columns]] = False
        drawn, propensity = exploration.explore(picks, free, pool, keys, places, settings.exploration.probability)
        why[drawn != picks] = EXPLORED
        picks = drawn
    return Lists(
        np.where(picks >= 0, np.take_along_axis(pool, picks, 1), -1).astype(np.int32),
        np.where(picks >= 0, np.take_along_axis(scores, picks, 1), -np.inf).astype(np.float32),
        propensity,
        why,
    )


def _pool(
    users: Audience, items: Assortment, k: int, settings: Recommend
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.bool_]]:
    """Each user's candidates and their scores, best first; and whether the ranking goes on below the pool.

    With a quota the first :func:`pool_size` columns are the pool, and the others what of :func:`promoted` is below it.
    """
    size = pool_size(k, settings)
    pool, scores = items.best(users, size)
    more = pool[:, -1] >= 0
    if not settings.promotions.quota:
        return pool, scores, more
    extra, points = promoted(users, items, k, settings)
    known = _within(extra, pool, len(items.vectors))
    # What is not in the pool lies below all of it, so the order by score stays.
    extra, points = np.where(known, -1, extra), np.where(known, -np.inf, points)
    return np.concatenate([pool, extra], axis=1), np.concatenate([scores, points], axis=1), more


def promoted(
    users: Audience, items: Assortment, k: int, settings: Recommend
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The ``k`` best promoted items of each user, best first; -1 and -inf for none. With caps also the ``k`` best that
    one list can hold under them: the others could all be of one full kind, and these of kinds that better items have.
    """
    allowed = items.allowed & items.traits.promoted
    if isinstance(items.searched, Ranked):
        own: Assortment = replace(items, searched=_promoted_of(items.searched, items.traits), allowed=allowed)
    else:
        own = _Campaign(items.searched, items.vectors, allowed, items.traits)
    best, scores = own.best(users, k)
    if not settings.caps:
        return best, scores
    shape = len(users), k
    found = Lists(
        np.full(shape, -1, np.int32), np.full(shape, -np.inf, np.float32), np.ones(shape), np.zeros(shape, np.int8)
    )
    _fill(users, found, np.arange(len(users)), own, k, settings)
    known = _within(found.indices, best, len(items.vectors))
    both = np.concatenate([best, np.where(known, -1, found.indices)], axis=1)
    points = np.concatenate([scores, np.where(known, -np.inf, found.scores)], axis=1)
    order = np.argsort(-points, axis=1, kind="stable")
    return np.take_along_axis(both, order, 1), np.take_along_axis(points, order, 1)


def _promoted_of(ranked: Ranked, traits: Traits) -> Ranked:
    """The promoted items of an order."""
    other = (ranked.indices < 0) | ~traits.promoted[ranked.indices]
    first = np.argsort(other, axis=1, kind="stable")
    gone = np.take_along_axis(other, first, 1)
    found = np.where(gone, -1, np.take_along_axis(ranked.indices, first, 1)).astype(np.int32)
    return Ranked(found, np.where(gone, -np.inf, np.take_along_axis(ranked.scores, first, 1)).astype(np.float32))


def _gains(
    users: Audience,
    pool: NDArray[np.int32],
    scores: NDArray[np.float32],
    items: Assortment,
    k: int,
    settings: Recommend,
) -> Gains:
    boost = items.traits.fresh[pool] * settings.new_items.boost if settings.new_items.boost else None
    relevances, weight = relevance(scores, boost, pool_size(k, settings)), settings.diversity.weight
    if settings.diversity.method == "none":
        return Relevance(relevances)
    if settings.diversity.method == "calibrated":
        if users.tastes is None:  # nobody's taste is known
            return Relevance(relevances)
        (kinds,) = _kinds(pool, items.traits, (settings.diversity.kind,))
        return Calibrated(relevances, kinds, shares_of(kinds, *users.tastes), weight)
    method = partial(Dpp, k=k) if settings.diversity.method == "dpp" else Mmr
    return method(relevances, items.vectors[np.maximum(pool, 0)], weight)


def _limits(pool: NDArray[np.int32], traits: Traits, settings: Recommend) -> Limits:
    return Limits(_kinds(pool, traits, settings.caps), list(settings.caps.values()))


def _kinds(pool: NDArray[np.int32], traits: Traits, names: Iterable[str]) -> list[NDArray[np.int32]]:
    return [np.where(pool >= 0, traits.kinds(name)[pool], -1) for name in names]


def _fill(
    users: Audience, found: Lists, rows: NDArray[np.int64], items: Assortment, k: int, settings: Recommend
) -> None:
    """Completes the lists of ``rows`` (which ``users`` are) in place: down the ranking by score, under the caps.

    The ranking is read twice as far each time, until the list is complete or as long as the caps let any list be.
    """
    most, size, m = _longest(users, items, settings), 2 * max(k, settings.pool), len(items.vectors)
    left = np.flatnonzero((found.indices[rows] >= 0).sum(axis=1) < most)
    while len(left):
        size = min(size, m)
        done = np.zeros(len(left), bool)
        for start in range(0, len(left), step := max(1, _CELLS // size)):
            part = left[start : start + step]
            done[start : start + step] = _fill_from(users.take(part), found, rows[part], items.of(part), size, settings)
        full = (found.indices[rows[left]] >= 0).sum(axis=1) >= np.minimum(most[left], k)
        left = left[~done & ~full] if size < m else left[:0]
        size *= 2


def _fill_from(
    users: Audience, found: Lists, rows: NDArray[np.int64], items: Assortment, size: int, settings: Recommend
) -> NDArray[np.bool_]:
    """Adds what the ``size`` best items give; returns for whom the ranking ends there."""
    pool, scores = items.best(users, size)
    limits, own = _limits(pool, items.traits, settings), found.indices[rows]
    for place in range(own.shape[1]):
        has = np.flatnonzero(own[:, place] >= 0)
        limits.add(has, [items.traits.kinds(cap)[own[has, place]] for cap in settings.caps])
    there = (pool >= 0) & ~_within(pool, own, len(items.vectors))
    k = own.shape[1]
    picks, _ = greedy(k, there, Relevance(scores.astype(np.float64)), limits)
    length = (own >= 0).sum(axis=1)
    who, turn = np.nonzero((picks >= 0) & (np.arange(k) + length[:, None] < k))
    found.indices[rows[who], length[who] + turn] = pool[who, picks[who, turn]]
    found.scores[rows[who], length[who] + turn] = scores[who, picks[who, turn]]
    ended: NDArray[np.bool_] = pool[:, -1] < 0
    return ended


def _longest(users: Audience, items: Assortment, settings: Recommend) -> NDArray[np.int64]:
    """``[n]``: no list of the user's can be longer under the caps, whatever the user has seen."""
    most = np.full(len(users), np.iinfo(np.int64).max)
    for barred, rows in filters.groups(users.barred, users.own):
        mask = filters.permitted(items.allowed, items.traits.hidden, barred)
        for cap, limit in settings.caps.items():
            kinds = items.traits.kinds(cap)[mask]
            room = np.minimum(np.bincount(kinds[kinds >= 0]), limit).sum() + (kinds < 0).sum()
            most[rows] = np.minimum(most[rows], room)
    return most


def _within(some: NDArray[np.integer], lists: NDArray[np.integer], m: int) -> NDArray[np.bool_]:
    """Which entries of each row of ``some`` are in the same row of ``lists``; -1 is not looked at in ``some``."""
    rows = np.arange(len(some), dtype=np.int64)[:, None] * (m + 1)
    found: NDArray[np.bool_] = np.isin(some + 1 + rows, (lists + 1 + rows)[lists >= 0])
    return found
