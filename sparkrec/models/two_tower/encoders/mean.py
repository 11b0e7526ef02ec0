"""gate · Σ tokens / √count: taste, in which the order does not count."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from sparkrec.config import TwoTower
from sparkrec.models.two_tower.encoders import packed
from sparkrec.models.two_tower.encoders.layers import Normal, Weights


def initial(settings: TwoTower, normal: Normal) -> dict[str, np.ndarray]:
    return {"history_gate": np.ones((1,), np.float32)}


def whole(weights: Weights, settings: TwoTower, batch: Weights, tokens: tf.Tensor, n: tf.Tensor) -> tf.Tensor:
    segment = batch["history_segment"]
    total = tf.math.unsorted_segment_sum(tokens, segment, n)
    count = tf.math.unsorted_segment_sum(tf.ones_like(tokens[:, :1]), segment, n)
    return weights["history_gate"] * total * tf.math.rsqrt(tf.maximum(count, 1.0))


def causal(weights: Weights, settings: TwoTower, batch: Weights, tokens: tf.Tensor) -> tf.Tensor:
    total, count = packed.weighted_sum(tf.ones(settings.max_history, tokens.dtype), tokens, batch["history_segment"])
    return weights["history_gate"] * total * tf.math.rsqrt(tf.maximum(count, 1.0))
