"""How fast a training is since this process began or went on with an epoch: not since before it was stopped."""

from __future__ import annotations

import time


class Pace:
    """From a place within an epoch on: ``step`` steps and ``examples`` of it were done before."""

    def __init__(self, step: int = 0, examples: float = 0.0) -> None:
        self._began, self._step, self._examples = time.monotonic(), step, examples

    def rate(self, examples: float) -> float:
        """Examples a second, with so many of the epoch done."""
        return (examples - self._examples) / max(self._seconds, 1e-9)

    def seconds_left(self, step: int, steps: int) -> float:
        """For ``steps`` more, with ``step`` of the epoch done."""
        return steps * self._seconds / max(step - self._step, 1)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began
