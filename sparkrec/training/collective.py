"""What ranks say to each other, behind one interface. Horovod is imported here and in the launcher only.

NumPy arrays go in and come out; for an eager tensor, what comes out may be one. All ranks call the same operations
in the same order with equal dtypes; nothing else is promised to work. Messages that are sent from another thread, at
the same time, need a channel of their own.
"""

from __future__ import annotations

import copy
import functools
import json
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

Array = np.ndarray
#: The channel of what is sent for a step while the one before is computed.
AHEAD = "ahead"


class Disconnected(RuntimeError):
    """A message did not reach the other ranks, or theirs did not come: one has ended, or the network has."""


class Collective(Protocol):
    """``size`` ranks, of which this is number ``rank``."""

    rank: int
    size: int
    #: Number of this rank among those of its machine (or container).
    local_rank: int

    def allreduce(self, array: Any) -> Array:
        """The sum over ranks of an array of one shape."""

    def allgather(self, array: Any) -> Array:
        """The ranks' arrays one after the other along axis 0; lengths may differ."""

    def alltoall(self, array: Any, splits: Sequence[int]) -> tuple[Array, list[int]]:
        """Sends ``splits[r]`` leading rows to rank r, in order. What came, by sender, and how many of each."""

    def broadcast(self, array: Any, root: int = 0) -> Array:
        """The array of rank ``root``, everywhere."""

    def barrier(self) -> None:
        """Returns when every rank has called it."""

    def channel(self, name: str) -> Collective:
        """The same ranks. Only messages of one channel have to be in one order on all of them."""


class SingleProcess:
    """One rank: nothing to say, nobody to say it to."""

    rank = 0
    size = 1
    local_rank = 0

    def allreduce(self, array: Any) -> Array:
        return np.asarray(array)

    def allgather(self, array: Any) -> Array:
        return np.asarray(array)

    def alltoall(self, array: Any, splits: Sequence[int]) -> tuple[Array, list[int]]:
        return np.asarray(array), list(splits)

    def broadcast(self, array: Any, root: int = 0) -> Array:
        return np.asarray(array)

    def barrier(self) -> None:
        pass

    def channel(self, name: str) -> SingleProcess:
        return self


class Horovod:
    """Ranks started by ``training.launcher``; Horovod's TensorFlow binding over gloo or NCCL.

    Horovod matches messages by the name of their operation, and TensorFlow gives all eager operations of a kind one
    name: so each kind of message is a graph of one operation.
    """

    def __init__(self) -> None:
        import horovod.tensorflow as hvd

        hvd.init()
        self._hvd, self._channel = hvd, ""
        self._graphs: dict[str, Any] = {}
        self.rank: int = hvd.rank()
        self.size: int = hvd.size()
        self.local_rank: int = hvd.local_rank()

    def allreduce(self, array: Any) -> Array:
        return _like(array, self._send("allreduce", array, op=self._hvd.Sum))

    def allgather(self, array: Any) -> Array:
        return _like(array, self._send("allgather", array))

    def alltoall(self, array: Any, splits: Sequence[int]) -> tuple[Array, list[int]]:
        received, counts = self._send("alltoall", array, np.asarray(splits, np.int32))
        return _like(array, received), np.asarray(counts).tolist()

    def broadcast(self, array: Any, root: int = 0) -> Array:
        return np.asarray(self._send("broadcast", array, root_rank=root))

    def barrier(self) -> None:
        self.allreduce(np.zeros(1, np.float32))

    def channel(self, name: str) -> Horovod:
        other = copy.copy(self)
        other._channel, other._graphs = f"{name}.", {}
        return other

    def shutdown(self) -> None:
        self._hvd.shutdown()

    def _send(self, kind: str, array: Any, *more: Array, **options: Any) -> Any:
        import tensorflow as tf

        tensor = tf.convert_to_tensor(array)
        about = [kind, tensor.dtype.name, tensor.shape.rank, *options.values()]
        name = self._channel + ".".join(map(str, about))
        if name not in self._graphs:
            specs = [tf.TensorSpec([None] * len(x.shape), x.dtype) for x in (tensor, *more)]
            operation = functools.partial(getattr(self._hvd, kind), name=name, **options)
            self._graphs[name] = tf.function(operation, input_signature=specs, autograph=False)
        try:
            return self._graphs[name](tensor, *more)
        except (tf.errors.UnknownError, tf.errors.AbortedError) as error:
            # What does not fit together (shapes, types) is another error, and a defect.
            raise Disconnected(f"{name}: {error.message}") from error


def _like(sent: Any, received: Any) -> Any:
    """A tensor for a tensor, because millions of elements would be copied to make an array of one; else an array."""
    return np.asarray(received) if isinstance(sent, np.ndarray) else received


class _Board:
    """Where the threads of a channel put what they say."""

    def __init__(self, size: int) -> None:
        self.values: list[Any] = [None] * size
        self.gate = threading.Barrier(size)


class Threads:
    """One of ``size`` ranks that are threads of this process: for tests of everything distributed."""

    def __init__(self, rank: int, size: int, boards: dict[str, _Board], channel: str = "") -> None:
        self.rank, self.size, self.local_rank, self._boards = rank, size, rank, boards
        self._board = boards.setdefault(channel, _Board(size))

    @classmethod
    def group(cls, size: int) -> list[Threads]:
        boards: dict[str, _Board] = {}
        return [cls(rank, size, boards) for rank in range(size)]

    def allreduce(self, array: Any) -> Array:
        return np.asarray(sum(self._all(array)))

    def allgather(self, array: Any) -> Array:
        return np.concatenate(self._all(array))

    def alltoall(self, array: Any, splits: Sequence[int]) -> tuple[Array, list[int]]:
        ends = np.cumsum(splits)
        parts = [np.asarray(array)[end - n : end] for end, n in zip(ends, splits, strict=True)]
        received = [sent[self.rank] for sent in self._all(parts, convert=False)]
        return np.concatenate(received), [len(part) for part in received]

    def broadcast(self, array: Any, root: int = 0) -> Array:
        return np.array(self._all(array)[root])

    def barrier(self) -> None:
        self._board.gate.wait()

    def channel(self, name: str) -> Threads:
        return Threads(self.rank, self.size, self._boards, name)

    def abort(self) -> None:
        """Wakes the other ranks with an error, so that a failed test ends."""
        for board in self._boards.values():
            board.gate.abort()

    def _all(self, value: Any, convert: bool = True) -> list[Any]:
        """What every rank put on the board; nobody overwrites it before all have read."""
        self._board.gate.wait()
        self._board.values[self.rank] = np.asarray(value) if convert else value
        self._board.gate.wait()
        return list(self._board.values)


def tell(collective: Collective, value: Any) -> list[Any]:
    """What JSON can hold, from every rank to every rank, in their order."""
    line = json.dumps(value).encode() + b"\n"
    every = collective.allgather(np.frombuffer(line, np.uint8))
    return [json.loads(line) for line in every.tobytes().splitlines()]
