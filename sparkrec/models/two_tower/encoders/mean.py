"""gate · Σ tokens / √count: taste, in which the order does not count."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from sparkrec.config import TwoTower
from sparkrec.models.two_tower.encoders import layers, packed
from sparkrec.models.two_tower.encoders.layers import Normal, Tokens, Weights


def initial(settings: TwoTower, normal: Normal) -> dict[str, np.ndarray]:
    return {"history_gate": np.ones((1,), np.float32)}


def whole(weights: Weights, settings: TwoTower, batch: Weights, tokens: Tokens, n: tf.Tensor) -> tf.Tensor:
    segment = batch["history_segment"]
    count = layers.count(segment, n, tokens.rows.dtype)[:, None]
    return weights["history_gate"] * tokens.total(segment, n) * tf.math.rsqrt(tf.maximum(count, 1.0))


def causal(weights: Weights, settings: TwoTower, batch: Weights, tokens: Tokens) -> tf.Tensor:
    ones = tf.ones(settings.max_history, tokens.rows.dtype)
    total, count = packed.weighted_sum(ones, tokens.each(), batch["history_segment"], settings.precision)
    return weights["history_gate"] * total * tf.math.rsqrt(tf.maximum(count, 1.0))
