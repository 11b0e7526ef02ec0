"""The mean weighted by exp(learned weight of the lag), then a residual block: what comes next, in one product."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from sparkrec.config import TwoTower
from sparkrec.models.two_tower.encoders import layers, packed
from sparkrec.models.two_tower.encoders.layers import Normal, Weights


def initial(settings: TwoTower, normal: Normal) -> dict[str, np.ndarray]:
    """At first every lag counts the same."""
    d = settings.width
    return {
        "recency_lag": np.zeros(settings.max_history, np.float32),
        "recency_out": layers.initial_matrix(normal, "recency_out", d, d),
        "norm_in": layers.initial_norm(d),
        **layers.initial_block(normal, d),
    }


def whole(weights: Weights, settings: TwoTower, batch: Weights, tokens: tf.Tensor, n: tf.Tensor) -> tf.Tensor:
    segment = batch["history_segment"]
    weight = tf.gather(tf.exp(weights["recency_lag"]), batch["history_lag"])[:, None]
    total = tf.math.unsorted_segment_sum(weight * layers.layer_norm(weights["norm_in"], tokens), segment, n)
    mass = tf.math.unsorted_segment_sum(weight, segment, n)
    return _block(weights, settings, batch, layers.newest(tokens, batch, n), tf.math.divide_no_nan(total, mass))


def causal(weights: Weights, settings: TwoTower, batch: Weights, tokens: tf.Tensor) -> tf.Tensor:
    values = layers.layer_norm(weights["norm_in"], tokens)
    total, mass = packed.weighted_sum(tf.exp(weights["recency_lag"]), values, batch["history_segment"])
    return _block(weights, settings, batch, tokens, tf.math.divide_no_nan(total, mass))


def _block(weights: Weights, settings: TwoTower, batch: Weights, hidden: tf.Tensor, pooled: tf.Tensor) -> tf.Tensor:
    return layers.block(weights, hidden, tf.matmul(pooled, weights["recency_out"]), batch.get("key"), settings.dropout)
