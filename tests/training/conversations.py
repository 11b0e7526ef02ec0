"""What ranks say to each other in the tests of collectives: fake ones, and Horovod's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from sparkrec.training.collective import AHEAD, Collective


def conversation(collective: Collective, more: int = 0) -> dict[str, Any]:
    """Every operation once, with ragged lengths; ``more`` is added to all that is said."""
    rank, size = collective.rank, collective.size
    collective.barrier()
    return {
        "allreduce": collective.allreduce(np.full(2, rank + 1.0 + more)).tolist(),
        "allgather": collective.allgather(np.arange(rank) + more).tolist(),
        "alltoall": collective.alltoall(np.arange(size) + 10 * rank + more, [1] * size)[0].tolist(),
        "ragged": collective.alltoall(np.full(size * rank, rank + more), [rank] * size)[0].tolist(),
        "senders": collective.alltoall(np.full(size * rank, rank), [rank] * size)[1],
        "broadcast": collective.broadcast(np.asarray([rank + more]), root=size - 1).tolist(),
    }


def two_at_once(collective: Collective) -> list[dict[str, Any]]:
    """On two channels from two threads; the ranks do not begin with the same one, and each says something else."""
    speakers = [(collective, 0), (collective.channel(AHEAD), 100)]
    with ThreadPoolExecutor(2) as threads:
        first = 1 if collective.rank % 2 else -1
        said = [threads.submit(conversation, *speaker) for speaker in speakers[::first]][::first]
    return [future.result() for future in said]
