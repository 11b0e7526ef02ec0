"""Recurrent layers over packed tokens: as many rows a time step as segments are that long, so no padding either.

Segments are ordered by length, the longest first. Then the tokens at time s are rows 0 … active(s) - 1, and those that
go on at s + 1 are the first of them. What a cell takes from its input is one product for all tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from sparkrec.config import TwoTower
from sparkrec.models.two_tower.encoders import layers, packed
from sparkrec.models.two_tower.encoders.layers import Normal, Tokens, Weights
from sparkrec.models.two_tower.hashing import dropout

#: (what the input gives to the gates [r, g], state [r, s], recurrent matrix [d, g]) → the next state [r, s], whose
#: first d columns are the output.
Cell = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


def initial(settings: TwoTower, normal: Normal, prefix: str, gates: int) -> dict[str, np.ndarray]:
    d = settings.width
    weights: dict[str, np.ndarray] = {}
    for layer in range(settings.layers):
        name = f"{prefix}_{layer}"
        weights |= {
            f"{name}_norm": layers.initial_norm(d),
            f"{name}_input": layers.initial_matrix(normal, f"{name}_input", d, gates * d),
            f"{name}_bias": np.zeros(gates * d, np.float32),
            f"{name}_recurrent": layers.initial_matrix(normal, f"{name}_recurrent", d, gates * d),
            f"{name}_out": layers.initial_matrix(normal, f"{name}_out", d, d),
        }
    return weights


def encode(
    weights: Weights, settings: TwoTower, batch: Weights, tokens: Tokens, prefix: str, cell: Cell, state: int
) -> tf.Tensor:
    """Residual layers, x + output of the cells over norm x: [t, d]; ``state``: columns of a cell's state."""
    place, active = time_major(batch["history_segment"])
    hidden = tokens.each()
    for layer in range(settings.layers):
        name = f"{prefix}_{layer}"
        values = layers.layer_norm(weights[f"{name}_norm"], hidden, settings.precision)
        gates = layers.product(values, weights[f"{name}_input"], weights[f"{name}_bias"])
        outputs = run(gates, place, active, cell, weights[f"{name}_recurrent"], state)
        outputs = layers.product(outputs, weights[f"{name}_out"])
        hidden += tf.cast(dropout(outputs, batch.get("key"), settings.dropout, 10 * layer + 1), hidden.dtype)
    return hidden


def time_major(segment: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where each token stands when tokens are ordered by time and then by length of segment, the longest first.

    Returns
    -------
    place : int32 [t]; active : int32 [longest, at least 1], tokens at each time.
    """
    lengths = packed.lengths(segment)
    rank = tf.math.invert_permutation(tf.argsort(lengths, direction="DESCENDING", stable=True))
    time = tf.range(tf.size(segment)) - tf.gather(tf.cumsum(lengths, exclusive=True), segment)
    active = layers.count(time, packed.longest(segment))
    return tf.gather(tf.cumsum(active, exclusive=True), time) + tf.gather(rank, segment), active


def run(
    gates: tf.Tensor, place: tf.Tensor, active: tf.Tensor, cell: Cell, recurrent: tf.Tensor, state: int
) -> tf.Tensor:
    """The outputs of a cell at every token: [t, d].

    ``gates`` : [t, g]; ``place``, ``active`` : ``time_major``; ``recurrent`` : [d, g]; ``state`` : columns of a state.
    """
    recurrent = tf.cast(recurrent, gates.dtype)
    (d, width), steps = recurrent.shape, tf.size(active)
    inputs = tf.TensorArray(gates.dtype, size=steps, element_shape=[None, width], infer_shape=False)
    inputs = inputs.split(tf.gather(gates, tf.math.invert_permutation(place)), active)
    outputs = tf.TensorArray(gates.dtype, size=steps, element_shape=[None, d], infer_shape=False)

    def step(
        time: tf.Tensor, before: tf.Tensor, outputs: tf.TensorArray
    ) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray]:
        after = cell(inputs.read(time), before[: active[time]], recurrent)
        return time + 1, after, outputs.write(time, after[:, :d])

    first = tf.zeros([tf.reduce_max(tf.pad(active, [[0, 1]])), state], gates.dtype)
    shapes = (tf.TensorShape([]), tf.TensorShape([None, state]), tf.TensorShape(None))
    _, _, outputs = tf.while_loop(
        lambda time, *_: time < steps, step, (0, first, outputs),
        shape_invariants=shapes,
    )  # fmt: skip
    return tf.gather(outputs.concat(), place)
