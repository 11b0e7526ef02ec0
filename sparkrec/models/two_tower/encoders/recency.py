"""The mean weighted by exp(learned weight of the lag), then a residual block: what comes next, in one product."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from sparkrec.config import TwoTower
from sparkrec.models.two_tower.encoders import layers, packed
from sparkrec.models.two_tower.encoders.layers import Normal, Tokens, Weights


def initial(settings: TwoTower, normal: Normal) -> dict[str, np.ndarray]:
    """At first every lag counts the same."""
    d = settings.width
    return {
        "recency_lag": np.zeros(settings.max_history, np.float32),
        "recency_out": layers.initial_matrix(normal, "recency_out", d, d),
        "norm_in": layers.initial_norm(d),
        **layers.initial_block(normal, d),
    }


def whole(weights: Weights, settings: TwoTower, batch: Weights, tokens: Tokens, n: tf.Tensor) -> tf.Tensor:
    segment, rows = batch["history_segment"], tokens.each()
    weight = tf.gather(tf.exp(weights["recency_lag"]), batch["history_lag"])[:, None]
    total = layers.segment_sum(weight * layers.standardise(rows), segment, n)
    mass = layers.segment_sum(weight, segment, n)
    return _block(weights, settings, batch, layers.newest(rows, batch, n), total, mass)


def causal(weights: Weights, settings: TwoTower, batch: Weights, tokens: Tokens) -> tf.Tensor:
    rows = tokens.each()
    by_lag, values = tf.exp(weights["recency_lag"]), layers.standardise(rows)
    total, mass = packed.weighted_sum(by_lag, values, batch["history_segment"], settings.precision)
    return _block(weights, settings, batch, rows, total, mass)


def _block(
    weights: Weights, settings: TwoTower, batch: Weights, hidden: tf.Tensor, total: tf.Tensor, mass: tf.Tensor
) -> tf.Tensor:
    """``total`` of standardised tokens: the norm's scale and shift are the same for all, so they wait for the mean."""
    scale, shift = tf.unstack(tf.convert_to_tensor(weights["norm_in"]))
    pooled = tf.where(mass > 0, tf.math.divide_no_nan(total, mass) * scale + shift, 0.0)
    pooled = layers.product(layers.halved(pooled, settings.precision), weights["recency_out"])
    return layers.block(weights, hidden, pooled, batch.get("key"), settings.dropout)
