"""What a process and all that it started use: memory and processor time, from Linux's /proc."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def peak_memory(of: int) -> Iterator[dict[str, float]]:
    """GB of the process ``of`` and its descendants, as their proportional set sizes; looked at twice a second."""
    result, done = {"gb": 0.0}, threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            result["gb"] = max(result["gb"], sum(map(_resident, _family(of))) / 1e6)

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
