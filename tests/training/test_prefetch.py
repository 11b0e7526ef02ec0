"""The thread changes when a step is cut, and nothing else."""

from __future__ import annotations

import itertools
import threading
from contextlib import closing

import pytest

from sparkrec.training.prefetch import ahead

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("count", [0, 1, 3, 99])
def test_order_and_end_are_those_of_the_values(count):
    assert list(ahead(range(7), count)) == list(range(7))
    assert list(ahead([], count)) == []


def test_no_more_are_made_than_may_wait():
    made, ready = [], threading.Semaphore(0)

    def values():
        for number in itertools.count():
            made.append(number)
            yield number
            ready.release()  # asked for the one after it

    with closing(ahead(values(), 2)) as cut:
        assert next(cut) == 0
        for _ in range(2):
            ready.acquire()
        assert next(cut) == 1
        ready.acquire()
        assert len(made) <= 4  # two used, two waiting


@pytest.mark.parametrize("count", [0, 1, 5])
def test_an_error_comes_out_in_its_turn(count):
    def values():
        yield 1
        yield 2
        raise ValueError("no third")

    cut = ahead(values(), count)
    assert [next(cut), next(cut)] == [1, 2]
    with pytest.raises(ValueError, match="no third"):
        next(cut)


def test_leaving_early_ends_the_thread():
    before = set(threading.enumerate())
    with closing(ahead(itertools.count(), 2)) as cut:
        next(cut)
        assert len(set(threading.enumerate()) - before) == 1
    assert set(threading.enumerate()) <= before
