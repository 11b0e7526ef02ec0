"""Runs a function as W ranks that are threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sparkrec.training.collective import Threads


def on_ranks(size: int, function: Callable[[Threads], Any]) -> list[Any]:
    """Results in the order of ranks; the first error of any, with the others woken up."""

    def rank(collective: Threads) -> Any:
        try:
            return function(collective)
        except BaseException:
            collective.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(rank, collective) for collective in Threads.group(size)]
    return [future.result() for future in futures]
