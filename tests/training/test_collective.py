"""The fake ranks mean what Horovod's operations mean; real ranks of Horovod are in test_horovod.py."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conversations import conversation, two_at_once
from ranks import on_ranks

import sparkrec
from sparkrec.training.collective import Disconnected, Horovod, SingleProcess, Threads

pytestmark = pytest.mark.unit


def test_three_ranks():
    first, _, third = on_ranks(3, conversation)
    assert first == {
        "allreduce": [6.0, 6.0], "allgather": [0, 0, 1], "alltoall": [0, 10, 20], "ragged": [1, 2, 2],
        "senders": [0, 1, 2], "broadcast": [2],
    }  # fmt: skip
    assert third["alltoall"] == [2, 12, 22]


@pytest.mark.parametrize("size", [1, 3])
def test_what_is_said_on_two_channels_at_once_is_not_mixed_up(size):
    alone = [on_ranks(size, partial(conversation, more=more)) for more in (0, 100)]
    assert on_ranks(size, two_at_once) == [list(said) for said in zip(*alone, strict=True)]


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


@pytest.mark.parametrize(
    ("error", "lost"), [("UnknownError", True), ("AbortedError", True), ("InvalidArgumentError", False)]
)
def test_a_rank_that_is_gone_is_told_from_a_message_that_does_not_fit(error, lost):
    """As gloo says it when a connection breaks: nothing in the words names Horovod."""
    import tensorflow as tf

    def broken(tensor):
        raise getattr(tf.errors, error)(None, None, "Read error [127.0.0.1]:42368: Connection reset by peer")

    rank = Horovod.__new__(Horovod)
    rank._hvd, rank._channel, rank._graphs = SimpleNamespace(Sum=1), "", {"allreduce.float32.1.1": broken}
    with pytest.raises(Disconnected if lost else tf.errors.OpError, match="Connection reset"):
        rank.allreduce(np.ones(3, np.float32))
