"""Randomness inside the traced step, as hashes: equal wherever in which rank's batch a row stands."""

from __future__ import annotations

import tensorflow as tf

_SALT = 0x85EBCA77


def draw(key: tf.Tensor, number: tf.Tensor, salt: int) -> tf.Tensor:
    """uint32 hash of (key, number, salt), uint32 tensors that broadcast: MurmurHash3's 32-bit finaliser."""
    offset = tf.constant(salt * _SALT % 2**32, tf.uint32)
    state = tf.bitwise.bitwise_xor(key, number * tf.constant(0x9E3779B1, tf.uint32) + offset)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        shifted = tf.bitwise.right_shift(state, tf.constant(shift, tf.uint32))
        state = tf.bitwise.bitwise_xor(state, shifted) * tf.constant(factor, tf.uint32)
    return state


def kept(key: tf.Tensor, number: tf.Tensor, rate: float, salt: int) -> tf.Tensor:
    """bool, false for a share ``rate`` of the pairs (key, number)."""
    return draw(key, number, salt) >= tf.constant(int(rate * 2**32), tf.uint32)


def dropout(rows: tf.Tensor, key: tf.Tensor | None, rate: float, salt: int) -> tf.Tensor:
    """Zeroes a share ``rate`` of the elements and scales the rest; the mask is a hash of (key, column, salt).

    ``rows`` : [r, d]; ``key`` : uint32 [r], or None: unchanged.
    """
    if key is None or rate <= 0:
        return rows
    columns = tf.range(rows.shape[-1], dtype=tf.int64)
    return tf.where(kept(key[:, None], tf.cast(columns, tf.uint32)[None, :], rate, salt), rows / (1 - rate), 0.0)
