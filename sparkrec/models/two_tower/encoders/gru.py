"""Gated recurrent units (Cho et al., 2014), reset after the product as cuDNN has it; the user's newest state."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from sparkrec.config import TwoTower
from sparkrec.models.two_tower.encoders import layers, recurrent
from sparkrec.models.two_tower.encoders.layers import Normal, Tokens, Weights


def initial(settings: TwoTower, normal: Normal) -> dict[str, np.ndarray]:
    return recurrent.initial(settings, normal, "gru", 3)


def whole(weights: Weights, settings: TwoTower, batch: Weights, tokens: Tokens, n: tf.Tensor) -> tf.Tensor:
    return layers.newest(causal(weights, settings, layers.by_token(batch), tokens), batch, n)


def causal(weights: Weights, settings: TwoTower, batch: Weights, tokens: Tokens) -> tf.Tensor:
    return recurrent.encode(weights, settings, batch, tokens, "gru", cell, settings.width)


def cell(gates: tf.Tensor, state: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """z = σ(x_z + h_z), r = σ(x_r + h_r), c = tanh(x_c + r h_c), next h = z h + (1 − z) c; [r, d]."""
    d = matrix.shape[0]
    own = tf.matmul(state, matrix)
    both = tf.sigmoid(gates[:, : 2 * d] + own[:, : 2 * d])
    candidate = tf.tanh(gates[:, 2 * d :] + both[:, d:] * own[:, 2 * d :])
    return candidate + both[:, :d] * (state - candidate)
