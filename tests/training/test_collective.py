"""The fake ranks mean what Horovod's operations mean; Horovod itself is in test_horovod.py."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from ranks import on_ranks

import sparkrec
from sparkrec.training.collective import Collective, SingleProcess, Threads

pytestmark = pytest.mark.unit


def conversation(collective: Collective):
    """Every operation once, with ragged lengths."""
    rank, size = collective.rank, collective.size
    collective.barrier()
    return {
        "allreduce": collective.allreduce(np.full(2, rank + 1.0)).tolist(),
        "allgather": collective.allgather(np.arange(rank)).tolist(),
        "alltoall": collective.alltoall(np.arange(size) + 10 * rank, [1] * size)[0].tolist(),
        "ragged": collective.alltoall(np.full(size * rank, rank), [rank] * size)[0].tolist(),
        "senders": collective.alltoall(np.full(size * rank, rank), [rank] * size)[1],
        "broadcast": collective.broadcast(np.asarray([rank]), root=size - 1).tolist(),
    }


def test_three_ranks():
    first, _, third = on_ranks(3, conversation)
    assert first == {
        "allreduce": [6.0, 6.0], "allgather": [0, 0, 1], "alltoall": [0, 10, 20], "ragged": [1, 2, 2],
        "senders": [0, 1, 2], "broadcast": [2],
    }  # fmt: skip
    assert third["alltoall"] == [2, 12, 22]


@pytest.mark.parametrize("size", [1, 3])
def test_what_is_said_on_two_channels_at_once_is_not_mixed_up(size):
    """Each rank begins with another one, and is answered on it although the others are not there yet."""

    def both(collective: Collective):
        ahead = collective.channel("ahead")
        order = [collective, ahead] if collective.rank % 2 else [ahead, collective]
        with ThreadPoolExecutor(2) as threads:
            said = [threads.submit(conversation, channel) for channel in order]
        return [future.result(timeout=60) for future in said]

    alone = on_ranks(size, conversation)
    assert on_ranks(size, both) == [[said, said] for said in alone]


def test_a_single_process_is_a_group_of_one():
    single = SingleProcess()
    assert conversation(single) == conversation(single.channel("ahead")) == conversation(Threads.group(1)[0])


def test_horovod_is_imported_in_two_modules_and_never_its_broken_parts():
    """notes: horovod.keras trains without exchanging a gradient, and without an error."""
    package = Path(sparkrec.__file__).parent
    importing = set()
    for path in [*package.rglob("*.py"), *(package.parent / "jobs").glob("*.py")]:
        code = path.read_text()
        assert not re.search(r"horovod\.(tensorflow\.|spark\.)?keras|import petastorm|from petastorm", code), path
        if re.search(r"^\s*(import|from) horovod", code, re.MULTILINE):
            importing.add(path.relative_to(package).as_posix())
    assert importing == {"training/collective.py", "training/launcher.py"}
