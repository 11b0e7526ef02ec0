"""Long short-term memory (Hochreiter and Schmidhuber, 1997; forget gate: Gers et al., 2000); the newest state."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from sparkrec.config import TwoTower
from sparkrec.models.two_tower.encoders import layers, recurrent
from sparkrec.models.two_tower.encoders.layers import Normal, Tokens, Weights


def initial(settings: TwoTower, normal: Normal) -> dict[str, np.ndarray]:
    """The forget gates start open (bias 1: Jozefowicz et al., 2015)."""
    weights, d = recurrent.initial(settings, normal, "lstm", 4), settings.width
    for layer in range(settings.layers):
        weights[f"lstm_{layer}_bias"][d : 2 * d] = 1
    return weights


def whole(weights: Weights, settings: TwoTower, batch: Weights, tokens: Tokens, n: tf.Tensor) -> tf.Tensor:
    return layers.newest(causal(weights, settings, layers.by_token(batch), tokens), batch, n)


def causal(weights: Weights, settings: TwoTower, batch: Weights, tokens: Tokens) -> tf.Tensor:
    return recurrent.encode(weights, settings, batch, tokens, "lstm", cell, 2 * settings.width)


def cell(gates: tf.Tensor, state: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """i, f, o = σ, g = tanh of (x + h W); next c = f c + i g, next h = o tanh c; the state is (h, c), [r, 2d]."""
    d = matrix.shape[0]
    gates += tf.matmul(state[:, :d], matrix)
    let_in, keep, let_out = (tf.sigmoid(gates[:, at * d : (at + 1) * d]) for at in (0, 1, 2))
    memory = keep * state[:, d:] + let_in * tf.tanh(gates[:, 3 * d :])
    return tf.concat([let_out * tf.tanh(memory), memory], axis=1)
