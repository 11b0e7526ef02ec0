"""From a score to a probability, and how far such probabilities are from what happened."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


class Platt(NamedTuple):
    """p = 1 / (1 + exp(−(slope · score + offset))): Platt, Probabilistic outputs for support vector machines, 1999.

    It keeps the order of the scores, as steps (isotonic regression) do not.
    """

    slope: float
    offset: float

    def probability(self, scores: NDArray[np.floating]) -> F64:
        """``[n]`` in (0, 1)."""
        z = np.clip(self.slope * scores.astype(np.float64) + self.offset, -500, 500)
        p: F64 = 1 / (1 + np.exp(-z))
        return p


def fit(scores: NDArray[np.floating], chosen: NDArray[np.bool_]) -> Platt:
    """By maximum likelihood, on rows that the model was not fitted to; the slope stays above 0.

    Where only one of the two outcomes is there, or the scores say nothing, the offset alone is fitted.
    """
    from sklearn.linear_model import LogisticRegression

    n, right = len(chosen), int(chosen.sum())
    if 0 < right < n and np.ptp(scores) > 0:
        model = LogisticRegression(C=1e6).fit(scores.astype(np.float64)[:, None], chosen)
        if model.coef_[0, 0] > 0:
            return Platt(float(model.coef_[0, 0]), float(model.intercept_[0]))
    share = (right + 1) / (n + 2)  # Laplace's rule of succession
    return Platt(1e-6, float(np.log(share / (1 - share))))


def crossed(scores: NDArray[np.floating], chosen: NDArray[np.bool_], side: NDArray[np.bool_]) -> F64:
    """``[n]``: the probabilities of rows of each side (``[n]``) by what :func:`fit` makes of the other.

    So they say how good such a calibration is for users whom it has not seen.
    """
    found = np.zeros(len(scores))
    for half in (side, ~side):
        if half.any():
            found[half] = fit(scores[~half], chosen[~half]).probability(scores[half])
    return found


class Bin(NamedTuple):
    """Rows with similar probabilities: how many, the mean of what was said, and the share of what happened."""

    rows: int
    said: float
    happened: float


def reliability(probability: NDArray[np.floating], chosen: NDArray[np.bool_], bins: int = 10) -> list[Bin]:
    """Ten groups of equal size by probability, lowest first (a reliability diagram)."""
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return [Bin(len(part), float(probability[part].mean()), float(chosen[part].mean())) for part in parts]
