"""Steps cut ahead on a thread: the same ones in the same order, and what goes wrong there comes out here."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()


def ahead(values: Iterable[T], count: int) -> Generator[T, None, None]:
    """The values, of which ``count`` are made on a thread while one is used; 0: each is made when it is asked for.

    An error in making one is raised when its turn has come. ``close`` ends the thread, when it has made what it was
    to make: where making one takes messages, other ranks wait for them. Use ``contextlib.closing``.
    """
    if not count:
        yield from values
        return
    source = iter(values)
    waiting: deque[Future[Any]] = deque()
    pool = ThreadPoolExecutor(1, "prefetch")
    try:
        waiting.extend(pool.submit(next, source, _END) for _ in range(count))
        while (value := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(next, source, _END))
            yield value
    finally:
        pool.shutdown()
