"""What several encoders are built from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from sparkrec.models.two_tower.hashing import draw, dropout

Weights = Mapping[str, Any]
Normal = Callable[[str, tuple[int, ...]], np.ndarray]


def initial_norm(d: int) -> np.ndarray:
    return np.stack([np.ones(d, np.float32), np.zeros(d, np.float32)])


def initial_matrix(normal: Normal, name: str, rows: int, columns: int) -> np.ndarray:
    """Columns of about unit length: what comes in leaves with the variance that it had."""
    return normal(name, (rows, columns)) / np.float32(np.sqrt(rows))


class Tokens(NamedTuple):
    """What an encoder reads of each event: a row of a table, and its event type's where there is one.

    rows : [u, d]; index : int32 [t]; type_rows : [k, d] or None; types : int32 [t] or None.
    """

    rows: tf.Tensor
    index: tf.Tensor
    type_rows: tf.Tensor | None = None
    types: tf.Tensor | None = None

    def each(self) -> tf.Tensor:
        """[t, d]."""
        tokens = tf.gather(self.rows, self.index)
        return tokens if self.type_rows is None else tokens + tf.gather(self.type_rows, self.types)

    def total(self, segment: tf.Tensor, n: tf.Tensor) -> tf.Tensor:
        """The sum of each segment's tokens, [n, d], without a row a token; ``segment`` : int32 [t], ascending."""
        rows = tf.convert_to_tensor(self.rows)
        total = gathered_sum(rows, self.index, segment, n)
        if self.type_rows is None:
            return total
        kinds = self.type_rows.shape[0]
        times = count(segment * kinds + self.types, n * kinds, rows.dtype)
        return total + tf.matmul(tf.reshape(times, (n, kinds)), self.type_rows)


def gathered_sum(rows: tf.Tensor, index: tf.Tensor, segment: tf.Tensor, n: tf.Tensor) -> tf.Tensor:
    """The sum of rows[index] over each segment, [n, d]; ``index``, ``segment`` (ascending) : int32 [t].

    TensorFlow's gradient holds whatever was in memory where ``index`` is empty (tensorflow#72785), as it is for a rank
    without users. So here one index more is given to it, of a segment that sends nothing.
    """

    @tf.custom_gradient
    def total(rows: tf.Tensor) -> Any:
        result = tf.raw_ops.SparseSegmentSumWithNumSegments(
            data=rows, indices=index, segment_ids=segment, num_segments=n
        )

        def gradient(up: tf.Tensor) -> tf.Tensor:
            return tf.raw_ops.SparseSegmentSumGrad(
                grad=tf.pad(up, [[0, 1], [0, 0]]), indices=tf.pad(index, [[0, 1]]),
                segment_ids=tf.pad(segment, [[0, 1]], constant_values=n), output_dim0=tf.shape(rows)[0],
            )  # fmt: skip

        return result, gradient

    return total(rows)


def segment_sum(rows: tf.Tensor, segment: tf.Tensor, n: tf.Tensor) -> tf.Tensor:
    """``tf.math.unsorted_segment_sum`` for segments of 0 … n - 1 only, which makes its gradient a plain gather."""

    @tf.custom_gradient
    def total(rows: tf.Tensor) -> Any:
        return tf.math.unsorted_segment_sum(rows, segment, n), lambda up: tf.gather(up, segment)

    return total(rows)


def count(numbers: tf.Tensor, n: tf.Tensor, dtype: tf.DType = tf.int32) -> tf.Tensor:
    """How often each of 0 … n - 1 stands in ``numbers``: [n]. Not ``bincount``, which no GPU does the same twice."""
    return tf.math.unsorted_segment_sum(tf.ones_like(numbers, dtype), numbers, n)


def layer_norm(scale_and_shift: tf.Tensor, rows: tf.Tensor, precision: str) -> tf.Tensor:
    """Mean 0 and variance 1 a row, then scale and shift (Ba, Kiros and Hinton, 2016); the result in ``precision``.

    A branch begins here, so what follows is computed in that type, up to where it joins the residuals in float32.
    """
    return halved(standardise(rows) * scale_and_shift[0] + scale_and_shift[1], precision)


def halved(rows: tf.Tensor, precision: str) -> tf.Tensor:
    """In half ``precision``; with float32, as they are."""
    return rows if precision == "float32" else tf.cast(rows, precision)


def product(rows: tf.Tensor, matrix: tf.Tensor, bias: tf.Tensor | None = None) -> tf.Tensor:
    """rows · matrix + bias, in the type of ``rows``."""
    result = tf.matmul(rows, tf.cast(matrix, rows.dtype))
    return result if bias is None else result + tf.cast(bias, rows.dtype)


@tf.custom_gradient
def standardise(rows: tf.Tensor) -> Any:
    """Mean 0 and variance 1 a row; the gradient in half the passes that the tape would make."""
    centred = rows - tf.reduce_mean(rows, axis=-1, keepdims=True)
    scale = tf.math.rsqrt(tf.reduce_mean(centred * centred, axis=-1, keepdims=True) + 1e-6)
    result = centred * scale

    def gradient(up: tf.Tensor) -> tf.Tensor:
        along = tf.reduce_mean(up * result, axis=-1, keepdims=True)
        return scale * (up - tf.reduce_mean(up, axis=-1, keepdims=True) - result * along)

    return result, gradient


def initial_block(normal: Normal, d: int, prefix: str = "") -> dict[str, np.ndarray]:
    """Weights of ``block`` and ``mlp``."""
    return {
        f"{prefix}norm_block": initial_norm(d),
        f"{prefix}block_up": initial_matrix(normal, f"{prefix}block_up", d, 4 * d),
        f"{prefix}block_up_bias": np.zeros(4 * d, np.float32),
        f"{prefix}block_down": initial_matrix(normal, f"{prefix}block_down", 4 * d, d),
        f"{prefix}block_down_bias": np.zeros(d, np.float32),
    }


def block(
    weights: Weights, hidden: tf.Tensor, pooled: tf.Tensor, key: tf.Tensor | None, rate: float, prefix: str = "",
    salt: int = 0,
) -> tf.Tensor:  # fmt: skip
    """The end of a pre-norm transformer block: x + what attention pooled, then x + MLP(norm x); [r, d].

    The MLP is computed in the type of ``pooled``.
    """
    joined = hidden + tf.cast(dropout(pooled, key, rate, salt + 1), hidden.dtype)
    return mlp(weights, joined, key, rate, prefix, salt, pooled.dtype.name)


def mlp(
    weights: Weights, hidden: tf.Tensor, key: tf.Tensor | None, rate: float, prefix: str = "", salt: int = 0,
    precision: str = "float32",
) -> tf.Tensor:  # fmt: skip
    """x + MLP(norm x), four times as wide inside: [r, d]."""
    norm = layer_norm(weights[f"{prefix}norm_block"], hidden, precision)
    inner = product(norm, weights[f"{prefix}block_up"], weights[f"{prefix}block_up_bias"])
    inner = dropout(tf.nn.gelu(inner, approximate=True), key, rate, salt + 2)
    outer = product(inner, weights[f"{prefix}block_down"], weights[f"{prefix}block_down_bias"])
    return hidden + tf.cast(dropout(outer, key, rate, salt + 3), hidden.dtype)


def newest(rows: tf.Tensor, batch: Weights, n: tf.Tensor) -> tf.Tensor:
    """The row of each user's newest token: [n, d], zeros for a user without any."""
    last = tf.where(batch["history_lag"] == 0)[:, 0]
    return segment_sum(tf.gather(rows, last), tf.gather(batch["history_segment"], last), n)


def by_token(batch: Weights) -> dict[str, Any]:
    """The batch of whole histories for a causal form: a key a token, made from its user's."""
    local = dict(batch)
    if "key" in batch:
        of_user = tf.gather(batch["key"], batch["history_segment"])
        local["key"] = draw(of_user, tf.cast(batch["history_lag"], tf.uint32), salt=11)
    return local
