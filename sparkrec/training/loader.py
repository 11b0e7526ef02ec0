"""From a rank's events to batches.

A batch is a set of users who have targets, chosen by (seed, epoch, step) alone. A rank contributes those of them that
it owns (user index modulo ranks), so one rank with batch B and W ranks together see the same batches, every rank takes
the same number of steps, and any step can be made without the steps before it. Where every index is a user with targets
a batch is ``batch`` of them; where some are not, because a vocabulary only grows, about as many.

A warm start asks for the new events only, of the users who have any, and besides for all events of a share of the users
(``replay``), drawn anew each epoch by a hash of (seed, epoch, user): so that what was learned is not forgotten.

Memory beside the events: 5 bytes an event, by user 8 more for each distinct item of a user; 24 bytes a user.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sparkrec import columns as c
from sparkrec.config import TwoTower
from sparkrec.training import order
from sparkrec.training.collective import Collective, SingleProcess
from sparkrec.training.events import Events

Batch = dict[str, np.ndarray]


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
    n_users : one more than the largest index of a user, on all ranks.
    n_items : size of the catalogue, from which negatives are drawn.
    collective : users with targets are counted over all ranks; None: this is the only one.
    begun : the draws of a warm start are those of epoch ``begun`` and later, which must be others each day, or the same
        users would be replayed for ever.
    """

    def __init__(
        self,
        events: Events,
        n_users: int,
        n_items: int,
        settings: TwoTower,
        collective: Collective | None = None,
        begun: int = 0,
    ) -> None:
        self._begun = begun
        self._settings, self._n_users, self._n_items = settings, n_users, n_items
        self.events = events
        by_type = [settings.weights.get(name, 0.0) for name in c.EVENT_TYPES]  # type: ignore[call-overload]
        self._weights = np.asarray(by_type, np.float32)[events.types]
        if events.stars is not None:  # a rating without stars tells nothing
            self._weights = np.where(np.isnan(events.stars), 0, self._weights)
        if settings.mode == "user":
            self._positives = _strongest(events, self._weights)
        elif not settings.repeats:
            # Each head tells its own type's first meetings: most of what is bought was looked at before.
            kinds = events.types if settings.head else np.zeros_like(events.types)
            self._weights = np.where(_first_meeting(events, self._weights > 0, kinds), self._weights, 0)
        self._epoch = -1
        self._order = self._bounds = np.zeros(0, np.int64)
        self._new = np.zeros(len(events.items), bool) if events.new is None else self._asked_anew(events.new)
        self._counts = self._count()
        sums = np.asarray([np.count_nonzero(self._counts[:, 0]), np.count_nonzero(self._has_targets)], np.float64)
        new, known = (collective or SingleProcess()).allreduce(sums).tolist()
        self.new_users, self._users = int(new), int(known)
        if events.new is not None:
            # As many as are expected each epoch: all ranks and epochs must take the same number of steps.
            self._users = int(new + np.ceil(settings.replay * (known - new)))
        self.steps_per_epoch = -(-self._users // settings.batch)

    def step(self, epoch: int, step: int) -> Step:
        """Step ``step`` of ``epoch``, both from 0: this rank's users of it, who may be none."""
        epoch += self._begun
        if epoch != self._epoch:
            self._shuffle(epoch)
        rows = self._order[self._bounds[step] : self._bounds[step + 1]]
        n = self._settings.accumulate
        if self._settings.mode == "user":
            parts = [self._by_user(part, epoch) for part in np.array_split(rows, n)]
        else:
            parts = _cut(self._by_position(rows, epoch), n)
        return Step(tuple(parts), self._negatives(epoch, step), int(order.mix(self._settings.seed, epoch, step, 4)))

    def targets_by_type(self) -> np.ndarray:
        """How many targets of this rank are events of each type; int64 [types]. Of a warm start, new and old ones."""
        return np.bincount(self.events.types[self._targets()], minlength=len(c.EVENT_TYPES))

    def target_counts(self) -> np.ndarray:
        """How often each item is a target of this rank in an epoch; of a warm start, is expected to be; [items]."""
        targets, often = self._targets(), None
        if self.events.new is not None:
            by_user = self._settings.mode == "user"  # there a user's old items come along, for nothing
            asked = self._counts[self.events.owner[targets], 0] > 0 if by_user else self._new[targets]
            often = np.where(asked, 1.0, self._settings.replay)
        return np.bincount(self.events.items[targets], often, self._n_items)

    def trained(self, epochs: int) -> tuple[int, int]:
        """This rank's targets in the epochs of a warm start: new ones, and old ones replayed."""
        replayed = sum(int(self._counts[self._replayed(self._begun + epoch), 1].sum()) for epoch in range(epochs))
        return int(epochs * self._counts[:, 0].sum()), replayed

    def _targets(self) -> np.ndarray:
        """The events that may be asked for; mode user: one for each user and item."""
        if self._settings.mode == "user":
            return self._positives[2]
        follows = np.ones(len(self.events.items), bool)
        follows[self.events.starts[self.events.lengths > 0]] = False
        return np.flatnonzero(follows & (self._weights > 0))

    def _asked_anew(self, new: np.ndarray) -> np.ndarray:
        """Which targets are new, bool [e]; mode user: an item is new again by any event that counts."""
        if self._settings.mode == "position":
            return new
        pairs, targets = self.events.owner * self._n_items + self.events.items, self._targets()
        result = np.zeros(len(new), bool)
        result[targets] = np.isin(pairs[targets], pairs[new & (self._weights > 0)])
        return result

    def _count(self) -> np.ndarray:
        """Of each user the new targets and the old ones; int64 [users, 2]."""
        targets, n = self._targets(), len(self.events.users)
        owner, new = self.events.owner[targets], self._new[targets]
        return np.stack([np.bincount(owner[kind], minlength=n) for kind in (new, ~new)], axis=1)

    @property
    def _has_targets(self) -> np.ndarray:
        """bool [users]"""
        return self._counts.any(axis=1)

    def _replayed(self, epoch: int) -> np.ndarray:
        return order.uniform(self._settings.seed, epoch, self.events.users, 0, 5) < self._settings.replay

    def _due(self, targets: np.ndarray, users: np.ndarray) -> np.ndarray:
        """Weights of targets of these users (their places); 0 where a warm start passes one over in this epoch."""
        if self.events.new is None:
            return self._weights[targets]
        return np.where(self._new[targets] | self._drawn[users], self._weights[targets], 0)

    def _shuffle(self, epoch: int) -> None:
        place = order.positions(self.events.users, self._n_users, self._settings.seed, epoch)
        chosen = self._has_targets
        if self.events.new is not None:
            self._drawn = self._replayed(epoch)
            chosen = (self._counts[:, 0] > 0) | (self._drawn & chosen)
        self._order = np.argsort(place)
        self._order = self._order[chosen[self._order]]
        # A step's share of the permutation holds ``batch`` users if all indices are chosen, else about as many.
        edges = -(-np.arange(self.steps_per_epoch + 1) * self._settings.batch * self._n_users // max(self._users, 1))
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
        starts, lengths = events.span(rows)
        flat, segment = _newest(starts, lengths, settings.max_history)
        if settings.history_keep < 1:
            number = flat - starts[segment]
            kept = order.uniform(settings.seed, epoch, events.users[rows][segment], number) < settings.history_keep
            flat, segment = flat[kept], segment[kept]
        first, last, positives = self._positives
        n = last[rows] - first[rows]
        chosen = positives[order.ranges(first[rows], n)]
        positive_segment = np.repeat(np.arange(len(rows)), n)
        # A positive that is passed over stays in the batch, with weight 0: it is nobody's negative.
        weights = self._due(chosen, rows[positive_segment])
        total = np.bincount(positive_segment, weights, len(rows))
        return {
            "users": events.users[rows],
            "history_items": events.items[flat],
            "history_segment": segment.astype(np.int32),
            "key": _key(settings.seed, epoch, events.users[rows], 0),
            "target_items": events.items[chosen],
            "target_segment": positive_segment.astype(np.int32),
            "target_weight": weights.astype(np.float32),
            "user_weight": _power(total, settings.user_weight),
            **self._types(flat),
            **({} if settings.history in ("none", "mean") else {"history_lag": lags(segment, len(rows))}),
        } | self._labels(chosen)

    def _by_position(self, rows: np.ndarray, epoch: int) -> Batch:
        """A token an event that is followed by another: histories in windows of ``max_history``, packed."""
        events, settings = self.events, self._settings
        starts, lengths = events.span(rows)
        lengths = np.maximum(lengths - 1, 0)
        flat = order.ranges(starts, lengths)
        row = np.repeat(np.arange(len(rows)), lengths)
        number = flat - starts[row]
        window = (lengths[row] - 1 - number) // settings.max_history
        begins = (np.diff(row, prepend=-1) != 0) | (np.diff(window, prepend=-1) != 0)
        weights = self._due(flat + 1, rows[row])
        total = np.bincount(row, weights, len(rows))
        if events.new is not None:  # windows of old events that nothing is asked of
            segment = np.cumsum(begins) - 1
            asked = (np.bincount(segment, weights) > 0)[segment]
            flat, row, number, begins, weights = (x[asked] for x in (flat, row, number, begins, weights))
        targets = np.flatnonzero(weights > 0)
        scale = _power(total, settings.user_weight)[row] * weights
        return {
            "users": events.users[rows][row],
            "history_items": events.items[flat],
            "history_segment": (np.cumsum(begins) - 1).astype(np.int32),
            "key": _key(settings.seed, epoch, events.users[rows][row], number),
            "target_items": events.items[flat + 1][targets],
            "target_segment": targets.astype(np.int32),
            "target_weight": scale[targets].astype(np.float32),
            **self._types(flat),
        } | self._labels(flat[targets] + 1)

    def _types(self, events: np.ndarray) -> Batch:
        """Event types of the history, where the towers read them."""
        return {"history_types": self.events.types[events].astype(np.int32)} if self._settings.event_types else {}

    def _labels(self, events: np.ndarray) -> Batch:
        """Stars and types of the targets that are these events, where the loss or the heads ask for them."""
        labels = {} if self.events.stars is None else {"target_label": self.events.stars[events]}
        return labels | ({"target_types": self.events.types[events].astype(np.int32)} if self._settings.head else {})


def _cut(batch: Batch, n: int) -> list[Batch]:
    """A batch by position in ``n`` parts of about as many tokens each.

    Between windows and not between users: a window is read by itself, and one user may have most of all tokens.
    """
    segment, target_segment = batch["history_segment"], batch["target_segment"]
    begins = np.append(np.flatnonzero(np.diff(segment, prepend=-1)), len(segment))
    edges = begins[np.searchsorted(begins, len(segment) * np.arange(n + 1) // n)].tolist()
    parts = []
    for start, end in pairwise(edges):
        tokens, targets = slice(start, end), slice(*np.searchsorted(target_segment, (start, end)))
        part = {name: array[targets if name.startswith("target_") else tokens] for name, array in batch.items()}
        part["history_segment"] = segment[tokens] - segment[start : start + 1]
        part["target_segment"] = target_segment[targets] - start
        parts.append(part)
    return parts


def whole_histories(events: Events, rows: np.ndarray, max_history: int) -> Batch:
    """The newest ``max_history`` events of some users, as ``towers.user_vectors`` takes them, without dropout."""
    flat, segment = _newest(*events.span(rows), max_history)
    return {
        "users": events.users[rows],
        "history_items": events.items[flat],
        "history_types": events.types[flat].astype(np.int32),
        "history_segment": segment.astype(np.int32),
        "history_lag": lags(segment, len(rows)),
    }


def _newest(starts: np.ndarray, lengths: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of each row's newest ``most`` events, and the row of each."""
    kept = np.minimum(lengths, most)
    return order.ranges(starts + lengths - kept, kept), np.repeat(np.arange(len(kept)), kept)


def _strongest(events: Events, weights: np.ndarray) -> tuple[np.ndarray, ...]:
    """Each user's distinct items by the event of the largest weight, the newest of equals: of stars, the last word.

    starts, ends [users], events [pairs].
    """
    owner = events.owner
    pairs = np.flatnonzero(weights > 0)
    pairs = pairs[np.lexsort((-pairs, -weights[pairs], events.items[pairs], owner[pairs]))]
    first = (np.diff(owner[pairs], prepend=-1) != 0) | (np.diff(events.items[pairs], prepend=-1) != 0)
    pairs = pairs[first]
    ends = np.cumsum(np.bincount(owner[pairs], minlength=len(events.users)))
    return np.append(0, ends[:-1])[: len(ends)], ends, pairs


def _first_meeting(events: Events, counts: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Which events are their user's first of their kind on their item, among those that count; bool [e].

    ``kinds`` : int8 [e]. What does not count (a type without a weight, no stars) leaves the item to be met.
    """
    which = np.flatnonzero(counts)
    keys = events.owner[which], events.items[which], kinds[which]
    by_item = np.lexsort(keys[::-1])  # stable: in time order within
    first = np.any([np.diff(key[by_item], prepend=-1) != 0 for key in keys], axis=0)
    result = np.zeros(len(counts), bool)
    result[which[by_item[first]]] = True
    return result


def lags(segment: np.ndarray, n: int) -> np.ndarray:
    """0 for a segment's last element, 1 for the one before, …; int32, for ascending segments below n."""
    ends = np.cumsum(np.bincount(segment, minlength=n), dtype=np.int32)
    return ends[segment] - np.arange(1, len(segment) + 1, dtype=np.int32)


def _key(seed: int, epoch: int, users: np.ndarray, number: np.ndarray | int) -> np.ndarray:
    """What dropout masks are made from: uint32, one a user vector."""
    return (order.mix(seed, epoch, users, number, 2) >> np.uint64(32)).astype(np.uint32)


def _power(total: np.ndarray, exponent: float) -> np.ndarray:
    return np.where(total > 0, np.maximum(total, 1e-12) ** exponent, 0).astype(np.float32)
