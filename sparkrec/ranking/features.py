"""What the ranker knows of a candidate: one row a pair of a user and an item, from what happened before the moment.

Every number comes from the user's history, from the facts of items, or from the first stage, each as of the same
moment; so features of the past, on which the ranker is trained, and of today are computed by the same code. NaN: there
is nothing to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sparkrec import columns as c
from sparkrec.ranking.candidates import Candidates
from sparkrec.ranking.histories import Histories, Pairs, grouped

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

_PURCHASE = c.EVENT_TYPES.index(c.PURCHASE)
_KINDS = ("leaf", "root", "brand")
#: In the order of the columns, after a score and a place for each source.
_NAMES = (
    "neighbors_sum", "neighbors_largest", "neighbors_last",
    "met", "met_days", "met_bought",
    *(f"{kind}_{what}" for kind in _KINDS for what in ("share", "days")),
    "events", "events_recent", "trend", "purchases", "item_age_days", "price",
    "history", "history_items", "idle_days", "popularity_gap", "price_gap",
)  # fmt: skip


class Facts(Protocol):
    """Of items, ``[m]`` each, from events before the moment.

    events, recent, purchases : events, those weighted by age, and purchases. age_days : since the first event, NaN for
    none. price : NaN where unknown. leaf, root, brand : a number for the kind, -1 for none.
    """

    @property
    def events(self) -> F32: ...
    @property
    def recent(self) -> F32: ...
    @property
    def purchases(self) -> F32: ...
    @property
    def age_days(self) -> F32: ...
    @property
    def price(self) -> F32: ...
    @property
    def leaf(self) -> I32: ...
    @property
    def root(self) -> I32: ...
    @property
    def brand(self) -> I32: ...


def names(models: tuple[str, ...], sources: tuple[str, ...]) -> tuple[str, ...]:
    """The columns of :func:`matrix`."""
    return (*(f"{model}_score" for model in models), *(f"{source}_place" for source in sources), *_NAMES)


def matrix(candidates: Candidates, histories: Histories, facts: Facts, sums: Pairs, scores: Mapping[str, F32]) -> F32:
    """``[P, F]``, the columns of :func:`names`. ``scores`` : of each model with vectors, ``[P]``."""
    rows, items = candidates.rows, candidates.items
    columns = [*scores.values(), *candidates.places.values()]
    columns += [sums.at(name, rows, items) for name in ("sum", "largest", "last")]
    columns += _met(histories, rows, items, len(facts.events))
    for kind in _KINDS:
        columns += _taste(histories, getattr(facts, kind), rows, items)
    columns += _of_items(facts, items)
    columns += _of_users(histories, facts, rows, items)
    return np.stack([np.asarray(column, np.float32) for column in columns], axis=1)


def _met(histories: Histories, rows: I64, items: I64, m: int) -> list[F32]:
    """How often the user met the item, how long ago at the earliest, how often it was bought."""
    mine = histories.rows, histories.items, m
    counts = grouped(*mine, {"bought": (histories.types == _PURCHASE).astype(np.float32)})
    ages = grouped(*mine, {"days": histories.ages}, np.minimum)
    return [counts.at("count", rows, items), ages.at("days", rows, items, np.nan), counts.at("bought", rows, items)]


def _taste(histories: Histories, kinds: I32, rows: I64, items: I64) -> list[F32]:
    """The share of the user's events on items of the candidate's kind, and the days since the last of them."""
    of_event, of_item = kinds[histories.items], kinds[items]
    known, width = of_event >= 0, int(kinds.max(initial=0)) + 2
    mine = histories.rows[known], of_event[known].astype(np.int64), width
    ages = grouped(*mine, {"days": histories.ages[known]}, np.minimum)
    total = np.bincount(histories.rows[known], minlength=histories.n)
    asked = np.where(of_item >= 0, of_item, width - 1).astype(np.int64)  # of no kind: nobody's
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(of_item >= 0, ages.at("count", rows, asked) / total[rows], np.nan)
    return [share, ages.at("days", rows, asked, np.nan)]


def _of_items(facts: Facts, items: I64) -> list[F32]:
    events, recent = facts.events[items], facts.recent[items]
    with np.errstate(invalid="ignore", divide="ignore"):
        trend, bought = np.where(events > 0, [recent / events, facts.purchases[items] / events], np.nan)
    return [np.log1p(events), np.log1p(recent), trend, bought, facts.age_days[items], np.log(facts.price[items])]


def _of_users(histories: Histories, facts: Facts, rows: I64, items: I64) -> list[F32]:
    """How much is known of the user, and how far the candidate's popularity and price are from what they met."""
    n, mine = histories.n, histories.rows
    events = np.bincount(mine, minlength=n)
    distinct = np.bincount(grouped(mine, histories.items, len(facts.events), {}).rows, minlength=n)
    idle = np.full(n, np.nan, np.float32)
    np.fmin.at(idle, mine, histories.ages)
    popularity, price = np.log1p(facts.events), np.log(facts.price)
    return [
        np.log1p(events)[rows],
        np.log1p(distinct)[rows],
        idle[rows],
        popularity[items] - _mean(popularity[histories.items], mine, n)[rows],
        price[items] - _mean(price[histories.items], mine, n)[rows],
    ]


def _mean(values: F32, rows: I64, n: int) -> NDArray[np.float64]:
    """Of each user, over the values that are known; NaN for none."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: NDArray[np.float64] = np.bincount(rows[known], values[known], n) / np.bincount(rows[known], minlength=n)
    return mean
