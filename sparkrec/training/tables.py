"""Embedding tables: their first rows, and where one rank keeps rows with the optimizer's state beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import numpy as np
import tensorflow as tf

from sparkrec.training import order
from sparkrec.training.optimizer import Decay, RowRule

#: Rows that are made, read or written at a time.
BLOCK = 1 << 14
_SCALE = 0.1
#: A row of which no element has moved by so much is still what it was drawn as: a step is about the learning rate.
_MOVED = 1e-6


def initial_rows(seed: int, name: str, rows: np.ndarray, width: int) -> np.ndarray:
    """The untrained rows of a table: float32 [n, width], normal with deviation 0.1.

    Each row is a function of (seed, name, row) alone, so a shard and a table that has grown begin as the whole would.
    A hash makes two uniform numbers, and two normal ones by Box and Muller, "A note on the generation of random normal
    deviates" (1958).
    """
    key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big")
    pairs = -(-width // 2)
    bits = order.mix(order.mix(key, np.asarray(rows, np.int64))[:, None], np.arange(pairs))
    # In (0, 1]: the logarithm exists.
    first = ((bits >> np.uint64(40)).astype(np.float32) + 1) / np.float32(1 << 24)
    angle = (bits & np.uint64(0xFFFFFF)).astype(np.float32) * np.float32(2 * np.pi / (1 << 24))
    radius = np.float32(_SCALE) * np.sqrt(-2 * np.log(first))
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :width]


def moved(seed: int, name: str, rows: np.ndarray, values: tf.Tensor) -> tf.Tensor:
    """A table's rows; zeros for those that are what they began as, because nothing was ever asked of whose they are.

    Where a history is read, random numbers would outvote it, so that such a user were served worse than a stranger, who
    has no row. Whatever updates a table, a row that no gradient reaches stays; with ``weight_decay`` only, it does not
    where the table is updated whole. Not to the bit: another machine's logarithm may round in another way.
    """
    first = initial_rows(seed, name, rows, values.shape[1])
    stayed = tf.reduce_all(tf.abs(values - first) < _MOVED, axis=1, keepdims=True)
    return tf.where(stayed, 0.0, values)


class Store:
    """Tables of one width, one after the other in one array, of which this rank keeps every ``size``-th row.

    So one message, one gather and one update serve all of them. Row r of a table lies on rank r mod ``size``, in slot
    offset + r div ``size``; a replicated store is one of ``size`` 1. Everything that belongs to a row (optimizer state,
    moving average) lies in the same slot of an array beside it, and only touched rows are ever updated.

    Parameters
    ----------
    tables : name → rows.
    rule : how a row is updated.
    decay : the moving average of the weights; None: there is none.
    """

    def __init__(
        self, tables: Mapping[str, int], width: int, rule: RowRule, decay: Decay | None, rank: int = 0, size: int = 1
    ) -> None:
        self.tables, self.width, self.rank, self.size = dict(tables), width, rank, size
        self._rule, self._decay = rule, decay
        counts = [-(-rows // size) for rows in tables.values()]
        ends = np.cumsum([0, *counts])
        self.slots = int(ends[-1])
        self._span = {name: (int(a), int(b)) for name, a, b in zip(tables, ends, ends[1:], strict=False)}
        widths = {"weights": width, **rule.state(width)}
        if decay:
            widths |= {"average": width, "averaged_until": 1}
        self._arrays = {
            name: tf.Variable(tf.zeros((self.slots, columns)), name=name) for name, columns in widths.items()
        }

        scalar = tf.TensorSpec([], tf.float32)
        rows = [tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, width], tf.float32)]
        self._apply = tf.function(self._update, [*rows, scalar, scalar, scalar], autograph=False)

    def reset(self, seed: int, alive: Callable[[], None] = lambda: None) -> None:
        """Untrained. ``alive`` is called between blocks."""
        for name in self.tables:
            for rows in self.own_rows(name):
                alive()
                first = initial_rows(seed, name, rows, self.width)
                slots = self.slot(name, rows)
                for array, variable in self._arrays.items():
                    value = (
                        first
                        if array in ("weights", "average")
                        else np.zeros((len(rows), variable.shape[1]), np.float32)
                    )
                    _write(variable, slots, value)

    def own_rows(self, name: str) -> Iterator[np.ndarray]:
        """The rows of a table that lie here, int64, a block at a time."""
        for start in range(self.rank, self.tables[name], self.size * BLOCK):
            yield np.arange(start, min(start + self.size * BLOCK, self.tables[name]), self.size)

    def owner(self, rows: np.ndarray) -> np.ndarray:
        return rows % self.size

    def slot(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Where rows of a table lie on the ranks that own them; int32."""
        return (self._span[name][0] + rows // self.size).astype(np.int32)

    def gather(self, slots: np.ndarray) -> tf.Tensor:
        """float32 [n, width]"""
        return tf.gather(self._arrays["weights"], slots)

    def shipped(self, slots: np.ndarray, step: int) -> tf.Tensor:
        """The rows that are evaluated and served after ``step`` steps: averaged ones, if there is an average."""
        if not self._decay:
            return self.gather(slots)
        late = self._decay.since(tf.gather(self._arrays["averaged_until"], slots), tf.constant(step, tf.float32))
        weights = self.gather(slots)
        return weights + late * (tf.gather(self._arrays["average"], slots) - weights)

    def apply(self, slots: tf.Tensor, gradient: tf.Tensor, scale: float, rate: float, step: int) -> None:
        """Updates the rows in ``slots``, which are distinct, from ``scale`` · ``gradient`` [n, width]."""
        self._apply(
            tf.convert_to_tensor(slots), tf.convert_to_tensor(gradient),
            *(tf.constant(value, tf.float32) for value in (scale, rate, step)),
        )  # fmt: skip

    def _update(
        self, slots: tf.Tensor, gradient: tf.Tensor, scale: tf.Tensor, rate: tf.Tensor, step: tf.Tensor
    ) -> None:
        state = {name: tf.gather(self._arrays[name], slots) for name in self._rule.state(self.width)}
        change, after = self._rule.update(gradient, scale, rate, state)
        before = tf.gather(self._arrays["weights"], slots) if self._decay else None
        for name, rows in after.items():
            _scatter(self._arrays[name], slots, rows)
        weights = self._arrays["weights"]
        tf.raw_ops.ResourceScatterSub(resource=weights.handle, indices=slots, updates=change)
        if self._decay:
            until, average = self._arrays["averaged_until"], self._arrays["average"]
            late = self._decay.since(tf.gather(until, slots), step)
            caught_up = before + late * (tf.gather(average, slots) - before)
            now = before - change
            _scatter(average, slots, now + self._decay.at(step) * (caught_up - now))
            _scatter(until, slots, tf.fill([tf.size(slots), 1], step + 1))

    @cached_property
    def scratch(self) -> np.ndarray:
        """For ``rows.distinct`` over slots; int32 [slots]."""
        return np.zeros(self.slots, np.int32)

    @property
    def arrays(self) -> tuple[str, ...]:
        """What is kept of each row: ``weights`` and the optimizer's."""
        return tuple(self._arrays)

    def shape(self, name: str, array: str) -> tuple[int, int]:
        """Of this rank's part of a table's array."""
        return len(range(self.rank, self.tables[name], self.size)), self._arrays[array].shape[1]

    def read(self, name: str, array: str) -> Iterator[np.ndarray]:
        """The values of ``own_rows``, float32 [n, columns] a block."""
        for rows in self.own_rows(name):
            yield tf.gather(self._arrays[array], self.slot(name, rows)).numpy()

    def write(self, name: str, array: str, rows: np.ndarray, values: np.ndarray) -> None:
        """Puts back what ``read`` gave, for any of this rank's rows."""
        _write(self._arrays[array], self.slot(name, rows), values)


def _write(variable: tf.Variable, slots: np.ndarray, values: np.ndarray) -> None:
    _scatter(variable, tf.constant(slots), tf.constant(values))


def _scatter(variable: tf.Variable, slots: tf.Tensor, values: tf.Tensor) -> None:
    tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=slots, updates=values)
