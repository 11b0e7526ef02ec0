"""A collective that notes what its rank sends."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparkrec.training.collective import Collective


class Recording:
    """As ``collective``; ``sent`` : kind of message, type and shape of each array that was sent."""

    def __init__(self, collective: Collective, sent: list[tuple[str, str, tuple[int, ...]]] | None = None) -> None:
        self._collective = collective
        self.sent = [] if sent is None else sent

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._collective, name)
        if name not in ("allreduce", "allgather", "alltoall", "broadcast"):
            return found

        def noted(array: Any, *more: Any) -> Any:
            array_sent = np.asarray(array)
            self.sent.append((name, array_sent.dtype.name, array_sent.shape))
            return found(array, *more)

        return noted

    def channel(self, name: str) -> Recording:
        return Recording(self._collective.channel(name), self.sent)

    def rows(self) -> list[tuple[str, int]]:
        """Type and columns of the rows of tables and their gradients, which are all that has two dimensions."""
        return [(kind, shape[1]) for _, kind, shape in self.sent if len(shape) == 2]
