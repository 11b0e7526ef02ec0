"""Wide rows to fixed width: fitted on a sample that fits in memory, then a function of a block of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparkrec.features.text import Floats, signed

_STEPS, _BATCH, _RATE = 1000, 256, 3e-3


@dataclass(frozen=True)
class Encoder:
    """(n, inputs) → (n, width): (x − mean) · weights, and the tangent of it plus bias for the autoencoder."""

    mean: Floats
    weights: Floats
    bias: Floats | None = None

    def __call__(self, rows: Floats) -> Floats:
        linear: Floats = (rows - self.mean) @ self.weights
        return linear if self.bias is None else np.tanh(linear + self.bias)


def pca(sample: Floats, width: int) -> Encoder:
    """The ``width`` directions of largest variance; columns of zeros where there are fewer."""
    mean = sample.mean(axis=0)
    centred = sample - mean
    values, vectors = np.linalg.eigh(centred.T @ centred)
    largest = np.argsort(-values, kind="stable")[:width]
    found = signed(vectors[:, largest])
    return Encoder(mean, np.pad(found, ((0, 0), (0, width - found.shape[1]))))


def autoencoder(sample: Floats, width: int, seed: int) -> Encoder:
    """One hidden layer of tanh and a linear way back, least squares, Adam (Kingma and Ba, 2015), a fixed seed."""
    rng = np.random.default_rng(seed)
    mean, inputs = sample.mean(axis=0), sample.shape[1]
    centred = sample - mean
    scale = np.sqrt(6 / (inputs + width))
    weights = {
        "in": rng.uniform(-scale, scale, (inputs, width)), "bias": np.zeros(width),
        "out": rng.uniform(-scale, scale, (width, inputs)),
    }  # fmt: skip
    first = {name: np.zeros_like(value) for name, value in weights.items()}
    second = {name: np.zeros_like(value) for name, value in weights.items()}
    for step in range(1, _STEPS + 1):
        rate = _RATE * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        for name, gradient in _gradients(centred[rng.integers(0, len(centred), _BATCH)], weights).items():
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            weights[name] = weights[name] - rate * first[name] / (np.sqrt(second[name]) + 1e-8)
    return Encoder(mean, weights["in"], weights["bias"])


def _gradients(rows: Floats, weights: dict[str, Floats]) -> dict[str, Floats]:
    """Of the mean over rows of half the squared error."""
    hidden = np.tanh(rows @ weights["in"] + weights["bias"])
    error = (hidden @ weights["out"] - rows) / len(rows)
    back = (error @ weights["out"].T) * (1 - hidden**2)
    return {"in": rows.T @ back, "bias": back.sum(axis=0), "out": hidden.T @ error}
