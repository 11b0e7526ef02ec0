"""What ranks send each other in a step: one dense buffer, merged rows, rows of shards and their gradients.

Sums over ranks, in a fixed order: the same bytes on every rank, and again when repeated.

Which rows go where does not depend on their values, so these messages have a channel of their own and are sent while
the step before is computed. The same is done by TorchRec (Ivchenko et al., "TorchRec: a PyTorch domain library for
recommendation systems", 2022).

Bytes are counted for each variable as what this rank has to send: 2 (W − 1) / W of a dense buffer (ring), W − 1 times
its own rows, and for a row of a shard elsewhere all that it takes: the index, the row, the gradient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from sparkrec.training.collective import AHEAD, Collective
from sparkrec.training.rows import Touched, distinct
from sparkrec.training.tables import Store

_INDEX = 4


@dataclass(frozen=True)
class Merge:
    """Rows that come more than once, added up.

    slots : int32 [k], the distinct ones; places : int32 [m], where among them each one that comes is.
    """

    slots: np.ndarray
    places: np.ndarray

    @classmethod
    def of(cls, slots: np.ndarray, scratch: np.ndarray) -> Merge:
        """Of the slots that come, int32 [m]; ``scratch`` as in ``rows.distinct``."""
        return cls(*distinct(slots, scratch))

    def sums(self, values: np.ndarray | tf.Tensor) -> tf.Tensor:
        """From [m, d] to [k, d]; each sum in the order in which its rows stand."""
        return tf.math.unsorted_segment_sum(values, self.places, len(self.slots))


@dataclass(frozen=True)
class Route:
    """The way of rows to their owners and back.

    by_owner : int64 [n], this rank's rows in the order of their owners; splits: how many go to each.
    asked : int32 [m], the slots that the ranks ask of this one, in their order; asked_splits: how many each.
    """

    by_owner: np.ndarray
    splits: list[int]
    asked: np.ndarray
    asked_splits: list[int]

    @property
    def back(self) -> np.ndarray:
        """Where each of this rank's rows stands in the answer."""
        place = np.empty(len(self.by_owner), np.int32)
        place[self.by_owner] = np.arange(len(self.by_owner), dtype=np.int32)
        return place


class Exchange:
    """The messages of one rank. Every rank calls the same methods in the same order."""

    def __init__(self, collective: Collective, fp16_rows: bool) -> None:
        self.collective, self._ahead, self._fp16 = collective, collective.channel(AHEAD), fp16_rows
        self.bytes: Counter[str] = Counter()
        self.steps = 0

    def dense(self, flat: tf.Tensor, sizes: Mapping[str, int]) -> tf.Tensor | np.ndarray:
        """The sum over ranks of a buffer; ``sizes`` : name → elements, for the count."""
        ranks = self.collective.size
        self.steps += 1
        if ranks == 1:
            return flat
        self.bytes.update({name: 8 * size * (ranks - 1) // ranks for name, size in sizes.items()})
        return self.collective.allreduce(flat)

    def route(self, store: Store, touched: Touched, ahead: bool = False) -> Route:
        """Asks the owners of the touched rows of a sharded store; ``ahead``: of the step before."""
        owner = np.concatenate([store.owner(rows) for rows in touched.values()])
        slots = np.concatenate([store.slot(name, rows) for name, rows in touched.items()])
        by_owner = np.argsort(owner.astype(np.uint16), kind="stable")
        splits = np.bincount(owner, minlength=store.size).tolist()
        asked, asked_splits = (self._ahead if ahead else self.collective).alltoall(slots[by_owner], splits)
        return Route(by_owner, splits, asked, asked_splits)

    def touched_by_all(self, store: Store, touched: Touched) -> np.ndarray:
        """The slots of a replicated store that each rank touches, one rank after the other; int32. Sent ahead."""
        return self._ahead.allgather(np.concatenate([store.slot(name, rows) for name, rows in touched.items()]))

    def rows(self, route: Route, answer: tf.Tensor, exact: bool = False) -> tf.Tensor:
        """From what this rank was asked for, float32 [m, d], to what it asked for [n, d].

        ``exact`` : not at half precision, whatever the gradients are sent at.
        """
        if exact:
            values, _ = self.collective.alltoall(answer, route.asked_splits)
        else:
            packed, _ = self.collective.alltoall(self._pack(answer), route.asked_splits)
            values = self._unpack(packed)
        return tf.gather(values, route.back)

    def home(self, store: Store, route: Route, merge: Merge, touched: Touched, gradient: tf.Tensor) -> tf.Tensor:
        """Gradients of looked-up rows [n, d] to the owners: the sums over ranks for the slots of ``merge``."""
        received, _ = self.collective.alltoall(self._pack(tf.gather(gradient, route.by_owner)), route.splits)
        for name, rows in touched.items():
            elsewhere = int(np.count_nonzero(store.owner(rows) != self.collective.rank))
            self.bytes[name] += elsewhere * (_INDEX + 2 * self._row_bytes(store.width))
        return merge.sums(self._unpack(received))

    def everywhere(self, store: Store, merge: Merge, touched: Touched, gradient: tf.Tensor) -> tf.Tensor:
        """Gradients of rows of a replicated store to all ranks: the sums for the slots of ``merge``."""
        others = self.collective.size - 1
        for name, rows in touched.items():
            self.bytes[name] += others * len(rows) * (_INDEX + self._row_bytes(store.width))
        return merge.sums(self._unpack(self.collective.allgather(self._pack(gradient))))

    def _row_bytes(self, width: int) -> int:
        return 2 * width + 4 if self._fp16 else 4 * width

    def _pack(self, values: tf.Tensor) -> tf.Tensor:
        return pack(values) if self._fp16 else values

    def _unpack(self, values: np.ndarray) -> np.ndarray | tf.Tensor:
        return unpack(values) if self._fp16 else values


def pack(values: tf.Tensor | np.ndarray) -> tf.Tensor:
    """float32 [n, d] at half precision: int16 [n, d + 2], each row over its largest element, which is kept whole.

    Horovod does not compress rows, and sums of gradients need not lie in the range of a half; with a scale a row they
    do, to a relative 2^-11 of the row's largest element.
    """
    largest = tf.reduce_max(tf.abs(values), axis=1, keepdims=True)
    scale = tf.where(largest > 0, largest, 1.0)
    halves = tf.bitcast(tf.cast(values / scale, tf.float16), tf.int16)
    return tf.concat([halves, tf.bitcast(scale, tf.int16)[:, 0]], axis=1)


def unpack(packed: np.ndarray) -> tf.Tensor:
    """What ``pack`` was given, to its precision; float32."""
    scale = tf.bitcast(packed[:, None, -2:], tf.float32)
    return tf.cast(tf.bitcast(packed[:, :-2], tf.float16), tf.float32) * scale
