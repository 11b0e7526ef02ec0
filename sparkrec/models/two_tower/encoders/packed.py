"""Causal sums over packed tokens, without padding to the longest history.

If no segment is longer than L, a token needs only its own block of L tokens and the block before. So what every
token takes from those before it is one batched product of [L, 2L] weights with blocks.
"""

from __future__ import annotations

import tensorflow as tf

from sparkrec.models.two_tower.encoders import layers


def lengths(segment: tf.Tensor) -> tf.Tensor:
    """Tokens of each segment: int32, at least one number."""
    return layers.count(segment, tf.maximum(tf.reduce_max(segment) + 1, 1))


def longest(segment: tf.Tensor) -> tf.Tensor:
    """Tokens of the longest segment, at least 1: int32 scalar."""
    return tf.maximum(tf.reduce_max(lengths(segment)), 1)


def blocks(rows: tf.Tensor, length: tf.Tensor, filler: int = 0) -> tf.Tensor:
    """[t, …] cut into [blocks, length, …], the last one filled up."""
    t, rest = tf.shape(rows)[0], [[0, 0]] * (len(rows.shape) - 1)
    count = (t + length - 1) // length
    filled = tf.pad(rows, [[0, count * length - t], *rest], constant_values=filler)
    return tf.reshape(filled, tf.concat([[count, length], tf.shape(rows)[1:]], axis=0))


def with_previous(cut: tf.Tensor, filler: int = 0) -> tf.Tensor:
    """Each block behind the one before it: [blocks, length, …] → [blocks, 2 · length, …]."""
    rest = [[0, 0]] * (len(cut.shape) - 1)
    before = tf.pad(cut[:-1], [[1, 0], *rest], constant_values=filler)[: tf.shape(cut)[0]]
    return tf.concat([before, cut], axis=1)


def unblock(cut: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
    """[blocks, length, d] → [t, d]."""
    return tf.reshape(cut, (-1, cut.shape[-1]))[:t]


def window(segment: tf.Tensor, length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Which keys a token sees and how far back they lie.

    Returns
    -------
    seen : bool [blocks, length, 2 · length], of its own segment and not after it.
    lag : int32 [length, 2 · length], within 0 … length - 1 where ``seen`` can be true, clipped to it elsewhere.
    """
    lag = tf.range(length)[:, None] + length - tf.range(2 * length)[None, :]
    own = blocks(segment, length, filler=-1)
    same = own[:, :, None] == with_previous(own, filler=-2)[:, None, :]
    return same & ((lag >= 0) & (lag < length))[None], tf.clip_by_value(lag, 0, length - 1)


def weighted_sum(
    by_lag: tf.Tensor, values: tf.Tensor, segment: tf.Tensor, precision: str = "float32"
) -> tuple[tf.Tensor, tf.Tensor]:
    """At each token: Σ by_lag[lag] · value over its segment so far [t, d], and Σ by_lag[lag] [t, 1].

    ``precision`` : of the product; what comes back is float32.
    """
    length, t = longest(segment), tf.shape(values)[0]
    seen, lag = window(segment, length)
    weight = tf.where(seen, tf.gather(by_lag, lag)[None], 0.0)
    cut = with_previous(blocks(layers.halved(values, precision), length))
    total = tf.cast(tf.matmul(layers.halved(weight, precision), cut), by_lag.dtype)
    return unblock(total, t), unblock(tf.reduce_sum(weight, axis=2, keepdims=True), t)
