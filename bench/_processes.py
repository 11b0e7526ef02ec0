"""What a process and all that it started use: memory and processor time, from Linux's /proc."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
#: In the command line of a Spark executor.
EXECUTOR = "CoarseGrainedExecutorBackend"


@contextmanager
def used(of: int) -> Iterator[dict[str, float]]:
    """What the process ``of`` and its descendants use, looked at every two seconds.

    ``gb``: at most, as their proportional set sizes. ``driver_gb``: the same without Spark's executors and their Python
    workers. ``core_s``: processor time.
    """
    result, done = {"gb": 0.0, "driver_gb": 0.0, "core_s": 0.0}, threading.Event()

    def watch() -> None:
        while not done.wait(2):  # to add up the pages of a large process takes a tenth of a second
            sizes = {pid: _resident(pid) / 1e6 for pid in _family(of)}
            executors = [p for pid in sizes if EXECUTOR in _text(Path(f"/proc/{pid}/cmdline")) for p in _family(pid)]
            of_driver = sum(size for pid, size in sizes.items() if pid not in executors)
            now = {"gb": sum(sizes.values()), "driver_gb": of_driver, "core_s": processor_seconds(of)}
            result.update({name: max(most, now[name]) for name, most in result.items()})

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield result
    finally:
        done.set()
        thread.join()


def processor_seconds(of: int) -> float:
    """Of the process ``of`` and its descendants, those that have ended among them."""
    stats = [_text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split() for pid in _family(of)]
    return sum(int(ticks) for stat in stats for ticks in stat[11:15]) / TICKS


def _family(pid: int) -> list[int]:
    found = [pid]
    for process in found:
        with suppress(OSError):  # it has just ended
            for children in Path(f"/proc/{process}/task").glob("*/children"):
                found += map(int, _text(children).split())
    return found


def _resident(pid: int) -> int:
    """kB"""
    sizes = [line.split()[1] for line in _text(Path(f"/proc/{pid}/smaps_rollup")).splitlines() if line[:4] == "Pss:"]
    return int(sizes[0]) if sizes else 0


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the process has just ended
        return ""
