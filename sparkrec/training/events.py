"""A rank's events: its row groups read once, and every user's rows brought to the rank that owns the user.

Memory of a rank: 6 bytes an event (4 more with stars, 1 in a warm start, 1 where ``recommend`` forgets) and 12 a user
that it owns; under 80 bytes an event for a moment while it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sparkrec import columns as c
from sparkrec.training import order
from sparkrec.training.collective import Collective
from sparkrec.training.manifest import Piece, read


@dataclass(frozen=True)
class Events:
    """The events of some users, each user's in time order.

    users : int32 [n], ascending; ends : int64 [n], where each user's events end;
    items : int32 [e]; types : int8 [e], position in columns.EVENT_TYPES; validation : bool [e].
    stars : float32 [e], NaN where an event has none; None where no loss asks for them.
    new : bool [e], not known to the model that a warm start begins with; None where there is no warm start.
    forgotten : bool [e], so long ago that ``recommend`` may offer the item again; None where nothing is forgotten.
    """

    users: np.ndarray
    ends: np.ndarray
    items: np.ndarray
    types: np.ndarray
    validation: np.ndarray
    stars: np.ndarray | None = None
    new: np.ndarray | None = None
    forgotten: np.ndarray | None = None

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
        arrays = (self.users, self.ends, self.items, self.types, self.validation, *self._optional)
        return sum(array.nbytes for array in arrays if array is not None)

    def where(self, kept: np.ndarray) -> Events:
        """Only the events in the mask; users without any stay, with none."""
        ends = np.cumsum(kept)[self.ends - 1] if len(kept) else self.ends
        return self._those(self.users, np.where(self.ends > 0, ends, 0), kept)

    def of(self, rows: np.ndarray) -> Events:
        """Only the users in these places, which ascend, with all of their events."""
        starts, lengths = self.span(rows)
        return self._those(self.users[rows], np.cumsum(lengths), order.ranges(starts, lengths))

    def _those(self, users: np.ndarray, ends: np.ndarray, kept: np.ndarray) -> Events:
        optional = (None if array is None else array[kept] for array in self._optional)
        return Events(users, ends, self.items[kept], self.types[kept], self.validation[kept], *optional)

    @property
    def _optional(self) -> tuple[np.ndarray | None, ...]:
        return self.stars, self.new, self.forgotten


#: From items and times (unix seconds) of events, int [e] both, something about them: bool [e].
Mark = Callable[[np.ndarray, np.ndarray], np.ndarray]


def read_events(
    pieces: Sequence[Piece],
    collective: Collective,
    stars: bool = False,
    since: int | None = None,
    alive: Callable[[], None] = lambda: None,
    forgotten: Mark | None = None,
) -> Events:
    """This rank's row groups, then each row to the rank that owns its user, then a user's chunks in time order.

    ``since`` : events from this time on, unix seconds, are new; None: no warm start. ``alive`` is called between row
    groups. ``forgotten`` : which events ``recommend`` has forgotten; None: none ever is.
    """
    marks: list[Mark] = [] if since is None else [lambda _, times: times >= since]
    marks += [] if forgotten is None else [forgotten]
    users, chunks, lengths, *values = _read(pieces, stars, marks, alive)
    to = users % collective.size
    by_rank = np.argsort(to, kind="stable")
    rows = np.bincount(to, minlength=collective.size)
    counts = np.bincount(to, weights=lengths, minlength=collective.size).astype(np.int64)
    values = _in_order(values, lengths, by_rank)
    users, chunks, lengths = (
        collective.alltoall(x[by_rank].astype(np.int64), rows.tolist())[0] for x in (users, chunks, lengths)
    )
    values = [collective.alltoall(x, counts.tolist())[0] for x in values]
    in_time = np.lexsort((-chunks, users))
    items, types, validation, *rest = _in_order(values, lengths, in_time)
    own, first = np.unique(users[in_time], return_index=True)
    last = np.append(first[1:], len(users)) - 1 if len(own) else first
    ends = np.cumsum(lengths[in_time])[last] if len(own) else np.zeros(0, np.int64)
    old = rest.pop().astype(bool) if forgotten is not None else None
    new = rest.pop().astype(bool) if since is not None else None
    stars_of = rest[0] if stars else None
    return Events(own.astype(np.int32), ends, items, types, validation.astype(bool), stars_of, new, old)


def _in_order(values: list[np.ndarray], lengths: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """The events of rows of these lengths, rows in another order."""
    if np.all(np.diff(rows) == 1):
        return values
    flat = order.ranges((np.cumsum(lengths) - lengths)[rows], lengths[rows])
    return [x[flat] for x in values]


def _read(pieces: Sequence[Piece], stars: bool, marks: Sequence[Mark], alive: Callable[[], None]) -> list[np.ndarray]:
    """users, chunks, lengths [rows]; items, types, validation, where asked stars, and the marks [events]; in order."""
    import pyarrow as pa

    of_events: dict[str, type] = {c.ITEM_INDEX: np.int32, c.EVENT_TYPE: np.int8, c.VALIDATION: np.int8}
    if stars:
        of_events[c.VALUE] = np.float32
    columns = [c.USER_INDEX, c.CHUNK, *of_events, *([c.EVENT_TIME] if marks else [])]
    tables = []
    for piece in pieces:
        alive()
        tables.append(read(piece, columns))
    if not tables:
        kinds = [*of_events.values(), *(np.int8 for _ in marks)]
        return [np.zeros(0, np.int64)] * 3 + [np.zeros(0, kind) for kind in kinds]
    table = pa.concat_tables(tables).combine_chunks()

    def flat(name: str) -> np.ndarray:
        return table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)

    values: list[np.ndarray] = [flat(name).astype(kind) for name, kind in of_events.items()]
    values += [mark(values[0], flat(c.EVENT_TIME)).astype(np.int8) for mark in marks]
    lengths = np.diff(table[c.ITEM_INDEX].combine_chunks().offsets.to_numpy()).astype(np.int64)
    return [table[c.USER_INDEX].to_numpy(), table[c.CHUNK].to_numpy(), lengths, *values]


def without_validation(events: Events) -> Events:
    """What is trained on while epochs are chosen."""
    return events.where(~events.validation)
