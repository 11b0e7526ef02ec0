"""Runs a function as W ranks that are threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sparkrec.training.collective import Threads


def on_ranks(size: int, function: Callable[[Threads], Any]) -> list[Any]:
    """Results in the order of ranks; or the error of one, after which the others were woken up."""

    def rank(collective: Threads) -> Any:
        try:
            return function(collective)
        except BaseException:
            collective.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(rank, collective) for collective in Threads.group(size)]
    errors = [error for future in futures if (error := future.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return [future.result() for future in futures]
