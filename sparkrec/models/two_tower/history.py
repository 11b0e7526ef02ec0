"""History encoders: from the tokens of a user's events to one vector, for whole histories and causally.

Tokens are packed: float32 [t, d], the events of one history (segment) together, oldest first, no padding. The
causal forms give at every token what the whole-history form gives for the events up to it. With segments no
longer than L, a token sees only its own block of L tokens and the one before, so that a causal sum over packed
tokens is one product of [L, 2L] weights with blocks: no padding to the longest, no packing problem to solve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from sparkrec.models.two_tower.hashing import dropout

Weights = Mapping[str, Any]


def initial_recency(d: int, length: int, normal: Callable[[str, tuple[int, ...]], np.ndarray]) -> dict[str, np.ndarray]:
    """Weights of ``recency`` and ``block``: at first every lag counts the same."""
    return {
        "recency_lag": np.zeros(length, np.float32),
        "recency_out": normal("recency_out", (d, d)) / np.float32(np.sqrt(d)),
        "norm_in": np.stack([np.ones(d, np.float32), np.zeros(d, np.float32)]),
        "norm_block": np.stack([np.ones(d, np.float32), np.zeros(d, np.float32)]),
        "block_up": normal("block_up", (d, 4 * d)) / np.float32(np.sqrt(d)),
        "block_up_bias": np.zeros(4 * d, np.float32),
        "block_down": normal("block_down", (4 * d, d)) / np.float32(np.sqrt(4 * d)),
        "block_down_bias": np.zeros(d, np.float32),
    }


def mean(weights: Weights, tokens: tf.Tensor, segment: tf.Tensor, n: tf.Tensor) -> tf.Tensor:
    """gate · Σ tokens / √count: [n, d]; zeros for a user without any."""
    total = tf.math.unsorted_segment_sum(tokens, segment, n)
    count = tf.math.unsorted_segment_sum(tf.ones_like(tokens[:, :1]), segment, n)
    return weights["history_gate"] * total * tf.math.rsqrt(tf.maximum(count, 1.0))


def causal_mean(weights: Weights, tokens: tf.Tensor, segment: tf.Tensor, length: int) -> tf.Tensor:
    """``mean`` of each token and those before it in its segment: [t, d]."""
    total, count = _causal(tf.ones(length), tokens, segment, length)
    return weights["history_gate"] * total * tf.math.rsqrt(tf.maximum(count, 1.0))


def recency(
    weights: Weights, tokens: tf.Tensor, segment: tf.Tensor, lag: tf.Tensor, n: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The mean weighted by exp(learned weight of the lag), and the newest token: [n, d] each."""
    tokens = tf.convert_to_tensor(tokens)
    weight = tf.gather(tf.exp(weights["recency_lag"]), lag)[:, None]
    values = layer_norm(weights["norm_in"], tokens)
    total = tf.math.unsorted_segment_sum(weight * values, segment, n)
    mass = tf.math.unsorted_segment_sum(weight, segment, n)
    newest = tf.math.unsorted_segment_sum(tf.where((lag == 0)[:, None], tokens, 0.0), segment, n)
    return tf.math.divide_no_nan(total, mass), newest


def causal_recency(weights: Weights, tokens: tf.Tensor, segment: tf.Tensor, length: int) -> tf.Tensor:
    """``recency`` of each token and those before it in its segment: [t, d]."""
    values = layer_norm(weights["norm_in"], tokens)
    total, mass = _causal(tf.exp(weights["recency_lag"]), values, segment, length)
    return tf.math.divide_no_nan(total, mass)


def block(weights: Weights, newest: tf.Tensor, pooled: tf.Tensor, key: tf.Tensor | None, rate: float) -> tf.Tensor:
    """A pre-norm residual block whose attention is the pooled history: x + pooled W, then x + MLP(norm x); [n, d]."""
    hidden = newest + dropout(tf.matmul(pooled, weights["recency_out"]), key, rate, 1)
    inner = tf.matmul(layer_norm(weights["norm_block"], hidden), weights["block_up"]) + weights["block_up_bias"]
    inner = dropout(tf.nn.gelu(inner, approximate=True), key, rate, 2)
    outer = tf.matmul(inner, weights["block_down"]) + weights["block_down_bias"]
    return hidden + dropout(outer, key, rate, 3)


def layer_norm(scale_and_shift: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Mean 0 and variance 1 a row, then scale and shift (Ba, Kiros and Hinton, 2016)."""
    centred = rows - tf.reduce_mean(rows, axis=-1, keepdims=True)
    variance = tf.reduce_mean(centred * centred, axis=-1, keepdims=True)
    return centred * tf.math.rsqrt(variance + 1e-6) * scale_and_shift[0] + scale_and_shift[1]


def _causal(by_lag: tf.Tensor, values: tf.Tensor, segment: tf.Tensor, length: int) -> tuple[tf.Tensor, tf.Tensor]:
    """At each token: Σ by_lag[lag] · value over its segment so far [t, d], and Σ by_lag[lag] [t, 1]."""
    t, d = tf.shape(values)[0], values.shape[-1]
    blocks = (t + length - 1) // length
    tail = blocks * length - t
    values = tf.reshape(tf.pad(values, [[0, tail], [0, 0]]), (blocks, length, d))
    segment = tf.reshape(tf.pad(segment, [[0, tail]], constant_values=-1), (blocks, length))
    before = tf.pad(values[:-1], [[1, 0], [0, 0], [0, 0]])[:blocks]
    segment_before = tf.pad(segment[:-1], [[1, 0], [0, 0]], constant_values=-2)[:blocks]
    keys = tf.concat([segment_before, segment], axis=1)
    lag = np.arange(length)[:, None] + length - np.arange(2 * length)[None, :]
    within = (lag >= 0) & (lag < length)
    band = tf.where(within, tf.gather(by_lag, np.clip(lag, 0, length - 1)), 0.0)
    mask = tf.cast(segment[:, :, None] == keys[:, None, :], tf.float32) * band[None]
    total = tf.matmul(mask, tf.concat([before, values], axis=1))
    mass = tf.reduce_sum(mask, axis=2, keepdims=True)
    return tf.reshape(total, (blocks * length, d))[:t], tf.reshape(mass, (blocks * length, 1))[:t]
