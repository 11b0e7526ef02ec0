"""From the sums of outcomes to metrics with intervals, and to who is ahead of whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from sparkrec.evaluation import bootstrap, metrics
from sparkrec.evaluation.outcomes import SEGMENTS, Totals


@dataclass(frozen=True)
class Measure:
    """The mean of one metric over the test users of a segment, with its 95 % interval where there is one.

    There is none where nothing was resampled, or the users are too few (:attr:`few`).
    """

    model: str
    metric: str
    k: int
    segment: str
    value: float
    low: float | None
    high: float | None
    n_users: int

    @property
    def few(self) -> bool:
        """Whether the users are too few for an interval."""
        return self.n_users < bootstrap.FEWEST


@dataclass(frozen=True)
class Difference:
    """One model minus another on the same users: mean, 95 % interval, and what that says in words.

    ``apart`` : how many users have different results by the two. Where they are too few, there is no interval.
    """

    model: str
    other: str
    metric: str
    k: int
    value: float
    low: float | None
    high: float | None
    verdict: str
    apart: int


@dataclass(frozen=True)
class Comparison:
    """Everything that can be said from the sums of :func:`outcomes.totals`.

    ``base`` is the model that the others are held against in :meth:`gains`.
    """

    totals: Totals
    models: tuple[str, ...]
    ks: tuple[int, ...]
    segments: tuple[str, ...] = SEGMENTS
    base: str = "popularity"

    @property
    def users(self) -> int:
        """How many were tested."""
        return int(self.totals.sums[:, 0, 0].sum())

    def measures(self) -> list[Measure]:
        """Every model, metric and k: over all test users, and over each segment that has any."""
        every = self.totals.sums
        parts = {"all": every.sum(axis=0)} | dict(zip(self.segments, every, strict=True))
        found = []
        for segment, sums in parts.items():
            n_users = int(sums[0, 0])
            if not n_users:
                continue
            means = bootstrap.means(sums)
            resampled = means[1:] if n_users >= bootstrap.FEWEST else means[:0]
            for column, (model, metric, k) in enumerate(self._columns()):
                low, high = bootstrap.interval(resampled[:, column]) or (None, None)
                found.append(Measure(model, metric, k, segment, float(means[0, column]), low, high, n_users))
        return found

    def differences(self, metric: str, k: int, segment: str = "all") -> list[Difference]:
        """Every model against every other on one metric, over a segment; none where nobody was tested."""
        sums, apart = self._of(segment, self.totals.sums), self._of(segment, self.totals.apart)
        means, n_users = bootstrap.means(sums), int(sums[0, 0])
        pairs = [frozenset(pair) for pair in combinations(self.models, 2)]
        place, width = metrics.names(self.ks).index((metric, k)), len(metrics.names(self.ks))
        columns = {model: self._columns().index((model, metric, k)) for model in self.models}
        found = []
        for model in self.models:
            for other in self.models:
                if model == other or not np.isfinite(means[0]).all():
                    continue
                gap = means[:, columns[model]] - means[:, columns[other]]
                between = bootstrap.interval(gap[1:])
                differ = int(apart[pairs.index(frozenset((model, other))) * width + place])
                verdict = bootstrap.verdict(between, differ, n_users)
                low, high = (None, None) if between is None or verdict == bootstrap.TOO_FEW else between
                found.append(Difference(model, other, metric, k, float(gap[0]), low, high, verdict, differ))
        return found

    def gains(self, metric: str, k: int) -> dict[str, list[Difference]]:
        """By segment, every model but the base less the base."""
        found = {segment: self.differences(metric, k, segment) for segment in self.segments}
        return {segment: [d for d in gaps if d.other == self.base] for segment, gaps in found.items()}

    def _of(self, segment: str, parts: NDArray[np.int64]) -> NDArray[np.int64]:
        found: NDArray[np.int64] = parts.sum(axis=0) if segment == "all" else parts[self.segments.index(segment)]
        return found

    def _columns(self) -> Sequence[tuple[str, str, int]]:
        return [(model, metric, k) for model in self.models for metric, k in metrics.names(self.ks)]
