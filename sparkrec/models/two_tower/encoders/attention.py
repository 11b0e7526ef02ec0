"""Causal self-attention in pre-norm blocks; where a token stands is a learned bias for each lag and head.

The bias by lag is that of T5 (Raffel et al., 2020) without its buckets; the block is that of SASRec's successors.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from sparkrec.config import TwoTower
from sparkrec.models.two_tower.encoders import layers, packed
from sparkrec.models.two_tower.encoders.layers import Normal, Tokens, Weights

#: Score of what a token does not see. Every token sees itself, so no row that is read is masked whole.
_NEVER = -1e9


def initial(settings: TwoTower, normal: Normal) -> dict[str, np.ndarray]:
    d = settings.width
    weights: dict[str, np.ndarray] = {}
    for layer in range(settings.layers):
        name = f"attention_{layer}_"
        weights |= {
            f"{name}norm": layers.initial_norm(d),
            f"{name}lag": np.zeros((settings.max_history, settings.attention_heads), np.float32),
            f"{name}in": layers.initial_matrix(normal, f"{name}in", d, 3 * d),
            f"{name}out": layers.initial_matrix(normal, f"{name}out", d, d),
            **layers.initial_block(normal, d, name),
        }
    return weights


def whole(weights: Weights, settings: TwoTower, batch: Weights, tokens: Tokens, n: tf.Tensor) -> tf.Tensor:
    """The last layer is asked at the newest token only."""
    last, segment = settings.layers - 1, batch["history_segment"]
    hidden = _causal_layers(weights, settings, layers.by_token(batch), tokens.each(), last)
    query, key, value = (tf.cast(rows, hidden.dtype) for rows in _project(weights, settings, last, hidden))
    query = tf.gather(layers.newest(query, batch, n), segment)

    def by_head(rows: tf.Tensor) -> tf.Tensor:
        """[t, d] → [t, heads, d / heads]."""
        return tf.reshape(rows, (-1, settings.attention_heads, settings.width // settings.attention_heads))

    scores = tf.reduce_sum(by_head(query * key), axis=2) + tf.gather(_lag(weights, last), batch["history_lag"])
    top = tf.stop_gradient(tf.math.unsorted_segment_max(scores, segment, n))
    mass = tf.exp(scores - tf.gather(top, segment))
    share = mass / tf.gather(layers.segment_sum(mass, segment, n), segment)
    shares = tf.reshape(share[:, :, None] * by_head(value), (-1, settings.width))
    pooled = layers.segment_sum(shares, segment, n)
    return _close(weights, settings, batch, layers.newest(hidden, batch, n), pooled, last)


def causal(weights: Weights, settings: TwoTower, batch: Weights, tokens: Tokens) -> tf.Tensor:
    return _causal_layers(weights, settings, batch, tokens.each(), settings.layers)


def _causal_layers(weights: Weights, settings: TwoTower, batch: Weights, hidden: tf.Tensor, count: int) -> tf.Tensor:
    """The first ``count`` layers at every token: [t, d]."""
    if not count:
        return hidden
    t, length = tf.shape(hidden)[0], packed.longest(batch["history_segment"])
    seen, lag = packed.window(batch["history_segment"], length)

    def by_head(cut: tf.Tensor) -> tf.Tensor:
        """[blocks, tokens, d] → [blocks, heads, tokens, d / heads]."""
        parts = tf.reshape(cut, (tf.shape(cut)[0], tf.shape(cut)[1], settings.attention_heads, -1))
        return tf.transpose(parts, (0, 2, 1, 3))

    for layer in range(count):
        query, key, value = _project(weights, settings, layer, hidden)
        query = by_head(packed.blocks(query, length))
        key, value = (by_head(packed.with_previous(packed.blocks(rows, length))) for rows in (key, value))
        bias = tf.transpose(tf.gather(_lag(weights, layer), lag), (2, 0, 1))
        scores = tf.cast(tf.matmul(query, key, transpose_b=True), bias.dtype) + bias[None]
        shares = tf.nn.softmax(tf.where(seen[:, None], scores, _NEVER))
        pooled = tf.transpose(tf.matmul(tf.cast(shares, value.dtype), value), (0, 2, 1, 3))
        pooled = packed.unblock(tf.reshape(pooled, (-1, length, settings.width)), t)
        hidden = _close(weights, settings, batch, hidden, pooled, layer)
    return hidden


def _project(weights: Weights, settings: TwoTower, layer: int, hidden: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Query (over the root of a head's width), key and value of every token, heads side by side: [t, d] each."""
    values = layers.layer_norm(weights[f"attention_{layer}_norm"], hidden, settings.precision)
    query, key, value = tf.split(layers.product(values, weights[f"attention_{layer}_in"]), 3, axis=1)
    return query * (settings.width // settings.attention_heads) ** -0.5, key, value


def _close(
    weights: Weights, settings: TwoTower, batch: Weights, hidden: tf.Tensor, pooled: tf.Tensor, layer: int
) -> tf.Tensor:
    name = f"attention_{layer}_"
    pooled = layers.product(layers.halved(pooled, settings.precision), weights[f"{name}out"])
    return layers.block(weights, hidden, pooled, batch.get("key"), settings.dropout, name, 10 * layer)


def _lag(weights: Weights, layer: int) -> tf.Tensor:
    """[max_history, heads]."""
    return tf.convert_to_tensor(weights[f"attention_{layer}_lag"])
