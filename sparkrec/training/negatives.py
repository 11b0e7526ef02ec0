"""The columns of a step's softmax: all items, items drawn uniformly, the targets of the whole batch, or both.

The targets of other ranks come as indices and are looked up like any other row, so their gradients travel home the way
all gradients do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparkrec.config import TwoTower
from sparkrec.training.collective import AHEAD, Collective
from sparkrec.training.loader import Batch
from sparkrec.training.rows import distinct


class Columns:
    """The same columns on all ranks, with the correction for how they were drawn."""

    def __init__(self, settings: TwoTower, n_items: int, collective: Collective) -> None:
        self._settings, self._n_items, self._collective = settings, n_items, collective
        self._ahead = collective.channel(AHEAD)
        self._everything = np.arange(n_items, dtype=np.int32), np.zeros(n_items, np.float32)
        self._scratch = np.zeros(n_items if settings.in_batch else 0, np.int32)
        self._share = np.zeros(n_items)

    @property
    def whole(self) -> bool:
        """Whether all items are columns: the full softmax."""
        if self._settings.loss == "mse":
            return False
        drawn = self._settings.negatives
        return drawn >= self._n_items or not (drawn or self._settings.in_batch)

    def count(self, targets: np.ndarray) -> None:
        """Learns the items' shares of the training targets from this rank's counts, int64 [items], and the others'."""
        if self._settings.in_batch:
            counts = self._collective.allreduce(targets.astype(np.float64))
            self._share = counts / max(counts.sum(), 1.0)

    def of(self, parts: Sequence[Batch], drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distinct items int32 [k], and what is added to their scores, float32 [k].

        ``drawn`` : the step's uniform negatives, distinct, the same on all ranks. The addition is log of how often an
        item stands in the set less log of how often it was to be expected, the log-q correction of Yi et al.,
        "Sampling-bias-corrected neural modeling" (2019), with exact counts; 0 without ``in_batch`` or ``log_q``.
        """
        if self.whole:
            return self._everything
        if not self._settings.in_batch:
            return drawn, np.zeros(len(drawn), np.float32)
        targets = self._ahead.allgather(np.concatenate([part["target_items"] for part in parts]))
        items, places = distinct(np.concatenate([drawn, targets]), self._scratch)
        times = np.bincount(places, minlength=len(items))
        in_order = np.argsort(items)  # the order of the ranks' targets depends on how many ranks there are
        items, times = items[in_order], times[in_order]
        if not self._settings.log_q:
            return items, np.zeros(len(items), np.float32)
        expected = len(targets) * self._share[items] + len(drawn) / self._n_items
        return items, (np.log(times) - np.log(np.maximum(expected, 1e-12))).astype(np.float32)
