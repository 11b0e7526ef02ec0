"""Causal dilated convolutions with residuals (Yuan et al., "A simple convolutional generative network for next item
recommendation", 2019): layer l reads the tokens 0, 2^l and 2 · 2^l back."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from sparkrec.config import TwoTower
from sparkrec.models.two_tower.encoders import layers
from sparkrec.models.two_tower.encoders.layers import Normal, Tokens, Weights
from sparkrec.models.two_tower.hashing import dropout

TAPS = 3


def initial(settings: TwoTower, normal: Normal) -> dict[str, np.ndarray]:
    d = settings.width
    weights: dict[str, np.ndarray] = {}
    for layer in range(settings.layers):
        name = f"cnn_{layer}"
        weights |= {
            f"{name}_norm": layers.initial_norm(d),
            f"{name}_up": layers.initial_matrix(normal, f"{name}_up", TAPS * d, 2 * d),
            f"{name}_up_bias": np.zeros(2 * d, np.float32),
            f"{name}_down": layers.initial_matrix(normal, f"{name}_down", 2 * d, d),
            f"{name}_down_bias": np.zeros(d, np.float32),
        }
    return weights


def whole(weights: Weights, settings: TwoTower, batch: Weights, tokens: Tokens, n: tf.Tensor) -> tf.Tensor:
    reach = 1 + (TAPS - 1) * (2**settings.layers - 1)
    read = tf.where(batch["history_lag"] < reach)[:, 0]
    names = ("history_segment", "history_lag")
    part = layers.by_token({**batch, **{name: tf.gather(batch[name], read) for name in names}})
    return layers.newest(_encode(weights, settings, part, tf.gather(tokens.each(), read)), part, n)


def causal(weights: Weights, settings: TwoTower, batch: Weights, tokens: Tokens) -> tf.Tensor:
    return _encode(weights, settings, batch, tokens.each())


def _encode(weights: Weights, settings: TwoTower, batch: Weights, hidden: tf.Tensor) -> tf.Tensor:
    key, rate = batch.get("key"), settings.dropout
    for layer in range(settings.layers):
        name = f"cnn_{layer}"
        values = layers.layer_norm(weights[f"{name}_norm"], hidden, settings.precision)
        taps = [values, *(_back(values, batch["history_segment"], tap * 2**layer) for tap in range(1, TAPS))]
        inner = layers.product(tf.concat(taps, axis=1), weights[f"{name}_up"], weights[f"{name}_up_bias"])
        inner = dropout(tf.nn.gelu(inner, approximate=True), key, rate, 10 * layer + 1)
        outer = layers.product(inner, weights[f"{name}_down"], weights[f"{name}_down_bias"])
        hidden += tf.cast(dropout(outer, key, rate, 10 * layer + 2), hidden.dtype)
    return hidden


def _back(values: tf.Tensor, segment: tf.Tensor, steps: int) -> tf.Tensor:
    """Of each token the one ``steps`` before it in its segment, zeros where there is none."""
    t = tf.shape(values)[0]
    own = tf.pad(segment, [[steps, 0]], constant_values=-1)[:t] == segment
    return tf.where(own[:, None], tf.pad(values, [[steps, 0], [0, 0]])[:t], 0.0)
