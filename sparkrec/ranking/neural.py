"""NeuMF (He et al., Neural collaborative filtering, WWW 2017) as a ranker.

    φ_GMF = p ⊙ q          φ_MLP = a(W_L … a(W_1 [p; q; x] + b_1) …)          ŷ = h · [φ_GMF; φ_MLP] + c

p and q are the two-tower model's vectors of user and item in the place of embeddings of its own: so a user or an item
that was never trained on is ranked too. x are the features. Trained by TensorFlow on log loss; computed by numpy where
it serves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparkrec.config.ranker import Ranker
from sparkrec.ranking.examples import FIT, STOP, Examples

F32 = NDArray[np.float32]
_CLIP = 5.0  # standard deviations: beyond them a feature says no more
_ROWS = 1024  # of one product


class NeuMF:
    """``weights`` : ``w0, b0, …`` of the perceptron, ``h``, ``c``, and ``mean``, ``spread`` of the features."""

    def __init__(self, weights: Mapping[str, F32]) -> None:
        self.weights = dict(weights)

    def scores(self, features: F32, users: F32, items: F32) -> NDArray:
        """``[P]`` log-odds; vectors ``[P, d]``. Of a row the same to the bit, whatever rows are beside it.

        A product's last rows are added up otherwise than the rest, so all products are of one shape.
        """
        found = np.zeros(-(-len(features) // _ROWS) * _ROWS, np.float32)
        for start in range(0, len(features), _ROWS):
            own, *vectors = (x[start : start + _ROWS] for x in (features, users, items))
            missing = [(0, _ROWS - len(own)), (0, 0)]
            parts = [np.pad(x, missing) for x in (standard(own, self.weights), *vectors)]
            found[start : start + _ROWS] = forward(np, self.weights, *parts)
        return found[: len(features)]


def standard(features: F32, weights: Mapping[str, Any]) -> F32:
    """Features with mean 0 and spread 1; 0 where there is none."""
    z = np.nan_to_num((features - weights["mean"]) / weights["spread"], nan=0.0)
    return np.clip(z, -_CLIP, _CLIP).astype(np.float32)


def forward(xp: Any, weights: Mapping[str, Any], features: Any, users: Any, items: Any) -> Any:
    """The formula above; ``xp`` is numpy, or TensorFlow's numpy."""
    hidden = xp.concatenate([users, items, features], axis=1)
    for layer in range(_layers(weights)):
        hidden = xp.maximum(hidden @ weights[f"w{layer}"] + weights[f"b{layer}"], np.float32(0))
    return (xp.concatenate([users * items, hidden], axis=1) @ weights["h"] + weights["c"])[:, 0]


def fit(parts: dict[str, Examples], item_vectors: F32, settings: Ranker) -> tuple[NeuMF, int]:
    """The weights, and after how many epochs: as many as are best for the users of the part :data:`STOP`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    first = _initial(parts[FIT], item_vectors.shape[1], settings)
    fixed = {name: first.pop(name) for name in ("mean", "spread")}
    variables = {name: tf.Variable(value) for name, value in first.items()}
    optimizer = tf.keras.optimizers.Adam(settings.step_size)
    optimizer.build(list(variables.values()))
    step = _step(tf, variables, optimizer)
    data = {name: standard(parts[name].features, fixed) for name in (FIT, STOP)}
    best, kept, waited = np.inf, {name: x.numpy() for name, x in variables.items()}, 0
    random, chosen_epoch = np.random.default_rng(settings.seed), 0
    for epoch in range(1, settings.epochs + 1):
        order = random.permutation(len(parts[FIT]))
        for rows in _batches(order, settings.batch):
            step(*_inputs(parts[FIT], data[FIT], item_vectors, rows), parts[FIT].chosen[rows].astype(np.float32))
        now = {name: x.numpy() for name, x in variables.items()}
        loss = _loss(parts[STOP], data[STOP], item_vectors, now, settings.batch)
        waited += 1
        if loss < best:
            best, kept, waited, chosen_epoch = loss, now, 0, epoch
        if waited > settings.patience // 10:
            break
    return NeuMF(kept | fixed), chosen_epoch


def _initial(examples: Examples, width: int, settings: Ranker) -> dict[str, F32]:
    """He-normal layers (He et al., ICCV 2015), and an output that begins as the log-odds of the mean."""
    random = np.random.default_rng(settings.seed)
    features = examples.features
    sizes = [2 * width + features.shape[1], *settings.layers]
    weights: dict[str, NDArray] = {}
    for layer, (rows, columns) in enumerate(pairwise(sizes)):
        weights[f"w{layer}"] = random.normal(0, np.sqrt(2 / rows), (rows, columns))
        weights[f"b{layer}"] = np.zeros(columns)
    weights["h"] = random.normal(0, np.sqrt(1 / (width + sizes[-1])), (width + sizes[-1], 1))
    share = (examples.chosen.sum() + 1) / (len(examples) + 2)
    weights["c"] = np.log([[share / (1 - share)]])
    known = np.isfinite(features)
    count = np.maximum(known.sum(axis=0), 1)
    weights["mean"] = np.where(known, features, 0).sum(axis=0, dtype=np.float64) / count
    squares = np.where(known, (features - weights["mean"]) ** 2, 0).sum(axis=0, dtype=np.float64)
    weights["spread"] = np.maximum(np.sqrt(squares / count), 1e-6)
    return {name: value.astype(np.float32) for name, value in weights.items()}


def _step(tf: Any, variables: dict[str, Any], optimizer: Any) -> Callable[..., Any]:
    import tensorflow.experimental.numpy as tnp

    @tf.function(reduce_retracing=True)
    def step(features: Any, users: Any, items: Any, chosen: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = forward(tnp, variables, features, users, items)
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(chosen, logits))
        names = list(variables)
        gradients = tape.gradient(loss, [variables[name] for name in names])
        optimizer.apply_gradients(zip(gradients, [variables[name] for name in names], strict=True))
        return loss

    return step


def _loss(examples: Examples, features: F32, item_vectors: F32, weights: dict[str, F32], batch: int) -> float:
    """Mean log loss."""
    total = 0.0
    for rows in _batches(np.arange(len(examples)), batch):
        z = forward(np, weights, *_inputs(examples, features, item_vectors, rows)).astype(np.float64)
        total += float(np.logaddexp(0, np.where(examples.chosen[rows], -z, z)).sum())
    return total / max(len(examples), 1)


def _inputs(examples: Examples, features: F32, item_vectors: F32, rows: NDArray) -> tuple[F32, F32, F32]:
    return features[rows], examples.vectors[examples.users[rows]], item_vectors[examples.items[rows]]


def _batches(order: NDArray, size: int) -> Iterator[NDArray]:
    return (order[start : start + size] for start in range(0, len(order), size))


def _layers(weights: Mapping[str, Any]) -> int:
    return sum(name.startswith("w") for name in weights)
