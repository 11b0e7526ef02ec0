"""What ranks say to each other, behind one interface. Horovod is imported here and in the launcher only.

NumPy arrays go in and come out; for an eager tensor, what comes out may be one. All ranks call the same operations
in the same order with equal dtypes; nothing else is promised to work.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

Array = np.ndarray


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


class Horovod:
    """Ranks started by ``training.launcher``; Horovod's TensorFlow binding over gloo or NCCL."""

    def __init__(self) -> None:
        import horovod.tensorflow as hvd

        hvd.init()
        self._hvd = hvd
        self.rank: int = hvd.rank()
        self.size: int = hvd.size()
        self.local_rank: int = hvd.local_rank()

    def allreduce(self, array: Any) -> Array:
        return _like(array, self._hvd.allreduce(array, op=self._hvd.Sum, name="allreduce"))

    def allgather(self, array: Any) -> Array:
        return _like(array, self._hvd.allgather(array, name="allgather"))

    def alltoall(self, array: Any, splits: Sequence[int]) -> tuple[Array, list[int]]:
        received, counts = self._hvd.alltoall(array, splits=np.asarray(splits, np.int32), name="alltoall")
        return _like(array, received), np.asarray(counts).tolist()

    def broadcast(self, array: Any, root: int = 0) -> Array:
        return np.asarray(self._hvd.broadcast(array, root, name="broadcast"))

    def barrier(self) -> None:
        self._hvd.allreduce(np.zeros(1, np.float32), op=self._hvd.Sum, name="barrier")

    def shutdown(self) -> None:
        self._hvd.shutdown()


def _like(sent: Any, received: Any) -> Any:
    """A tensor for a tensor, because millions of elements would be copied to make an array of one; else an array."""
    return np.asarray(received) if isinstance(sent, np.ndarray) else received


class Threads:
    """One of ``size`` ranks that are threads of this process: for tests of everything distributed."""

    def __init__(self, rank: int, size: int, board: list[Any], gate: threading.Barrier) -> None:
        self.rank, self.size, self.local_rank, self._board, self._gate = rank, size, rank, board, gate

    @classmethod
    def group(cls, size: int) -> list[Threads]:
        board: list[Any] = [None] * size
        gate = threading.Barrier(size)
        return [cls(rank, size, board, gate) for rank in range(size)]

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
        self._gate.wait()

    def abort(self) -> None:
        """Wakes the other ranks with an error, so that a failed test ends."""
        self._gate.abort()

    def _all(self, value: Any, convert: bool = True) -> list[Any]:
        """What every rank put on the board; nobody overwrites it before all have read."""
        self._gate.wait()
        self._board[self.rank] = np.asarray(value) if convert else value
        self._gate.wait()
        return list(self._board)


def tell(collective: Collective, value: Any) -> list[Any]:
    """What JSON can hold, from every rank to every rank, in their order."""
    line = json.dumps(value).encode() + b"\n"
    every = collective.allgather(np.frombuffer(line, np.uint8))
    return [json.loads(line) for line in every.tobytes().splitlines()]
