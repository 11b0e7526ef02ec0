"""From row groups to batches: each rank reads its share once, holds its own users' events, and cuts steps.

A batch is a set of users, chosen by (seed, epoch, step) alone. A rank contributes those of them that it owns
(user index modulo ranks), so one rank with batch B and W ranks together see the same batches, every rank takes
the same number of steps, and any step can be made without the steps before it.

Memory of a rank: 10 bytes an event (14 with stars) and 12 a user that it owns, by user 16 more for each distinct item
of a user; about 80 bytes an event for a moment while it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparkrec import columns as c
from sparkrec.config import TwoTower
from sparkrec.training import order
from sparkrec.training.collective import Collective
from sparkrec.training.manifest import Piece, open_file

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Events:
    """The events of some users, each user's in time order.

    users : int32 [n], ascending; ends : int64 [n], where each user's events end;
    items : int32 [e]; types : int8 [e], position in columns.EVENT_TYPES; validation : bool [e].
    stars : float32 [e], NaN where an event has none; None where no loss asks for them.
    """

    users: np.ndarray
    ends: np.ndarray
    items: np.ndarray
    types: np.ndarray
    validation: np.ndarray
    stars: np.ndarray | None = None

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.ends, prepend=0)

    @property
    def starts(self) -> np.ndarray:
        return self.ends - self.lengths

    def span(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the events of some users start, and how many they are; nothing is done for the other users."""
        starts = np.where(rows > 0, self.ends[rows - 1], 0)
        return starts, self.ends[rows] - starts

    @property
    def owner(self) -> np.ndarray:
        """The user's position for each event; int64 [e]."""
        return np.repeat(np.arange(len(self.users)), self.lengths)

    @property
    def nbytes(self) -> int:
        arrays = (self.users, self.ends, self.items, self.types, self.validation, self.stars)
        return sum(array.nbytes for array in arrays if array is not None)

    def where(self, kept: np.ndarray) -> Events:
        """Only the events in the mask; users without any stay, with none."""
        ends = np.cumsum(kept)[self.ends - 1] if len(kept) else self.ends
        ends = np.where(self.ends > 0, ends, 0)
        stars = None if self.stars is None else self.stars[kept]
        return Events(self.users, ends, self.items[kept], self.types[kept], self.validation[kept], stars)


def read(pieces: Sequence[Piece], collective: Collective, stars: bool = False) -> Events:
    """This rank's row groups, then each row to the rank that owns its user, then a user's chunks in time order."""
    users, chunks, lengths, *values = _read(pieces, stars)
    to = users % collective.size
    by_rank = np.argsort(to, kind="stable")
    rows = np.bincount(to, minlength=collective.size)
    counts = np.bincount(to, weights=lengths, minlength=collective.size).astype(np.int64)
    flat = order.ranges((np.cumsum(lengths) - lengths)[by_rank], lengths[by_rank])
    users, chunks, lengths = (
        collective.alltoall(x[by_rank].astype(np.int64), rows.tolist())[0] for x in (users, chunks, lengths)
    )
    values = [collective.alltoall(x[flat], counts.tolist())[0] for x in values]
    in_time = np.lexsort((-chunks, users))
    flat = order.ranges((np.cumsum(lengths) - lengths)[in_time], lengths[in_time])
    own, first = np.unique(users[in_time], return_index=True)
    last = np.append(first[1:], len(users)) - 1 if len(own) else first
    ends = np.cumsum(lengths[in_time])[last] if len(own) else np.zeros(0, np.int64)
    items, types, validation, *rest = (x[flat] for x in values)
    return Events(own.astype(np.int32), ends, items, types.astype(np.int8), validation.astype(bool), *rest)


def _read(pieces: Sequence[Piece], stars: bool) -> list[np.ndarray]:
    """users, chunks, lengths [rows]; items, types, validation and, if asked, stars [events]; in the pieces' order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    of_events: dict[str, type] = {c.ITEM_INDEX: np.int32, c.EVENT_TYPE: np.int32, c.VALIDATION: np.int32}
    if stars:
        of_events[c.VALUE] = np.float32
    tables = []
    for piece in pieces:
        with open_file(piece.path) as file:
            columns = [c.USER_INDEX, c.CHUNK, *of_events]
            tables.append(pq.ParquetFile(file).read_row_group(piece.row_group, columns=columns))
    if not tables:
        return [np.zeros(0, np.int64)] * 3 + [np.zeros(0, kind) for kind in of_events.values()]
    table = pa.concat_tables(tables).combine_chunks()
    lengths = np.diff(table[c.ITEM_INDEX].combine_chunks().offsets.to_numpy()).astype(np.int64)
    flat = {name: table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False) for name in of_events}
    return [
        table[c.USER_INDEX].to_numpy(), table[c.CHUNK].to_numpy(), lengths,
        *(flat[name].astype(kind) for name, kind in of_events.items()),
    ]  # fmt: skip


@dataclass(frozen=True)
class Step:
    """A rank's share of a step, in parts that are computed one after the other, with global indices.

    negatives : int32 [k], distinct items drawn uniformly; key : a hash of epoch and step; both the same on all ranks.
    """

    parts: tuple[Batch, ...]
    negatives: np.ndarray
    key: int


class Loader:
    """Cuts this rank's part of each step's batch.

    Parameters
    ----------
    events : the rank's users, without what must not be trained on.
    n_users : users of all ranks: one more than the largest index.
    n_items : size of the catalogue, from which negatives are drawn.
    """

    def __init__(self, events: Events, n_users: int, n_items: int, settings: TwoTower) -> None:
        self._settings, self._n_users, self._n_items = settings, n_users, n_items
        self.events = events
        self.steps_per_epoch = -(-n_users // settings.batch)
        by_type = [settings.weights.get(name, 0.0) for name in c.EVENT_TYPES]  # type: ignore[call-overload]
        self._weights = np.asarray(by_type, np.float32)[events.types]
        if events.stars is not None:  # a rating without stars tells nothing
            self._weights = np.where(np.isnan(events.stars), 0, self._weights)
        if settings.mode == "user":
            self._positives = _strongest(events, self._weights)
        elif not settings.repeats:
            self._weights = np.where(_first_meeting(events), self._weights, 0)
        self._epoch = -1
        self._order = self._bounds = np.zeros(0, np.int64)

    def step(self, epoch: int, step: int) -> Step:
        """Step ``step`` of ``epoch``, both from 0: this rank's users of it, who may be none."""
        if epoch != self._epoch:
            self._shuffle(epoch)
        rows = self._order[self._bounds[step] : self._bounds[step + 1]]
        make = self._by_user if self._settings.mode == "user" else self._by_position
        parts = tuple(make(part, epoch) for part in np.array_split(rows, self._settings.accumulate))
        return Step(parts, self._negatives(epoch, step), int(order.mix(self._settings.seed, epoch, step, 4)))

    def target_counts(self) -> np.ndarray:
        """How often each item is a target of this rank in an epoch; int64 [items]."""
        if self._settings.mode == "user":
            return np.bincount(self._positives[3], minlength=self._n_items)
        follows = np.ones(len(self.events.items), bool)
        follows[self.events.starts[self.events.lengths > 0]] = False
        return np.bincount(self.events.items[follows & (self._weights > 0)], minlength=self._n_items)

    def _shuffle(self, epoch: int) -> None:
        place = order.positions(self.events.users, self._n_users, self._settings.seed, epoch)
        self._order = np.argsort(place)
        edges = np.arange(self.steps_per_epoch + 1) * self._settings.batch
        self._bounds = np.searchsorted(place[self._order], edges)
        self._epoch = epoch

    def _negatives(self, epoch: int, step: int) -> np.ndarray:
        """Item indices, uniform and distinct, the same on all ranks; none where the softmax is full."""
        n = self._settings.negatives
        if not n or n >= self._n_items:
            return np.zeros(0, np.int32)
        key = int(order.mix(self._settings.seed, epoch, step, 1))
        return np.random.default_rng(key).choice(self._n_items, n, replace=False, shuffle=False).astype(np.int32)

    def _by_user(self, rows: np.ndarray, epoch: int) -> Batch:
        """A row a user: a kept part of the history, and all positives; names as in ``models.two_tower``."""
        events, settings = self.events, self._settings
        first, lengths = events.span(rows)
        lengths = np.minimum(lengths, settings.max_history)
        flat = order.ranges(events.ends[rows] - lengths, lengths)
        segment = np.repeat(np.arange(len(rows)), lengths)
        if settings.history_keep < 1:
            number = flat - first[segment]
            kept = order.uniform(settings.seed, epoch, events.users[rows][segment], number) < settings.history_keep
            flat, segment = flat[kept], segment[kept]
        starts, ends, events_of, items, weights = self._positives
        n = ends[rows] - starts[rows]
        chosen = order.ranges(starts[rows], n)
        positive_segment = np.repeat(np.arange(len(rows)), n)
        total = np.bincount(positive_segment, weights[chosen], len(rows))
        return {
            "users": events.users[rows],
            "history_items": events.items[flat],
            "history_types": events.types[flat].astype(np.int32),
            "history_segment": segment.astype(np.int32),
            "history_lag": lags(segment, len(rows)),
            "key": _key(settings.seed, epoch, events.users[rows], 0),
            "target_items": items[chosen],
            "target_segment": positive_segment.astype(np.int32),
            "target_weight": weights[chosen].astype(np.float32),
            "user_weight": _power(total, settings.user_weight),
        } | self._labels(events_of[chosen])

    def _by_position(self, rows: np.ndarray, epoch: int) -> Batch:
        """A token an event that is followed by another: histories in windows of ``max_history``, packed."""
        events, settings = self.events, self._settings
        first, lengths = events.span(rows)
        lengths = np.maximum(lengths - 1, 0)
        flat = order.ranges(first, lengths)
        row = np.repeat(np.arange(len(rows)), lengths)
        number = flat - first[row]
        window = (lengths[row] - 1 - number) // settings.max_history
        new = (np.diff(row, prepend=-1) != 0) | (np.diff(window, prepend=-1) != 0)
        weights = self._weights[flat + 1]
        targets = np.flatnonzero(weights > 0)
        total = np.bincount(row, weights, len(rows))
        scale = _power(total, settings.user_weight)[row] * weights
        return {
            "users": events.users[rows][row],
            "history_items": events.items[flat],
            "history_types": events.types[flat].astype(np.int32),
            "history_segment": (np.cumsum(new) - 1).astype(np.int32),
            "key": _key(settings.seed, epoch, events.users[rows][row], number),
            "target_items": events.items[flat + 1][targets],
            "target_segment": targets.astype(np.int32),
            "target_weight": scale[targets].astype(np.float32),
        } | self._labels(flat[targets] + 1)

    def _labels(self, events: np.ndarray) -> Batch:
        """Stars and types of the targets that are these events, where the loss or the heads ask for them."""
        labels = {} if self.events.stars is None else {"target_label": self.events.stars[events]}
        return labels | ({"target_types": self.events.types[events].astype(np.int32)} if self._settings.head else {})


def whole_histories(events: Events, rows: np.ndarray, max_history: int) -> Batch:
    """The newest ``max_history`` events of some users, as ``towers.user_vectors`` takes them, without dropout."""
    lengths = np.minimum(events.span(rows)[1], max_history)
    flat = order.ranges(events.ends[rows] - lengths, lengths)
    segment = np.repeat(np.arange(len(rows)), lengths)
    return {
        "users": events.users[rows],
        "history_items": events.items[flat],
        "history_types": events.types[flat].astype(np.int32),
        "history_segment": segment.astype(np.int32),
        "history_lag": lags(segment, len(rows)),
    }


def without_validation(events: Events) -> Events:
    """What is trained on while epochs are chosen."""
    return events.where(~events.validation)


def _strongest(events: Events, weights: np.ndarray) -> tuple[np.ndarray, ...]:
    """Each user's distinct items with the largest weight each: starts, ends [users], events, items, weights [pairs]."""
    owner = events.owner
    pairs = np.flatnonzero(weights > 0)
    pairs = pairs[np.lexsort((-weights[pairs], events.items[pairs], owner[pairs]))]
    first = (np.diff(owner[pairs], prepend=-1) != 0) | (np.diff(events.items[pairs], prepend=-1) != 0)
    pairs = pairs[first]
    ends = np.cumsum(np.bincount(owner[pairs], minlength=len(events.users)))
    return np.append(0, ends[:-1])[: len(ends)], ends, pairs, events.items[pairs], weights[pairs]


def _first_meeting(events: Events) -> np.ndarray:
    """Whether an event is its user's first on its item; bool [e]."""
    owner = events.owner
    by_item = np.lexsort((np.arange(len(owner)), events.items, owner))
    first = (np.diff(owner[by_item], prepend=-1) != 0) | (np.diff(events.items[by_item], prepend=-1) != 0)
    result = np.zeros(len(owner), bool)
    result[by_item] = first
    return result


def lags(segment: np.ndarray, n: int) -> np.ndarray:
    """0 for a segment's last element, 1 for the one before, …; int32, for ascending segments below n."""
    ends = np.cumsum(np.bincount(segment, minlength=n))
    return (ends[segment] - 1 - np.arange(len(segment))).astype(np.int32)


def _key(seed: int, epoch: int, users: np.ndarray, number: np.ndarray | int) -> np.ndarray:
    """What dropout masks are made from: uint32, one a user vector."""
    return (order.mix(seed, epoch, users, number, 2) >> np.uint64(32)).astype(np.uint32)


def _power(total: np.ndarray, exponent: float) -> np.ndarray:
    return np.where(total > 0, np.maximum(total, 1e-12) ** exponent, 0).astype(np.float32)
