"""Losses as sums over a batch: (Σ weight · loss, Σ weight), float32 scalars, from scores.

Sums, not means, because the mean is over the batch of all ranks: the loop divides by the sum of all weights.
A row is a user (mode user) or a position (mode position), a column an item of the denominator: all items, or those
drawn for the step. Shapes: r rows, k columns, p targets. Recipes and what they were worth: docs/models.md.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from sparkrec.models.two_tower.encoders.layers import halved
from sparkrec.models.two_tower.hashing import draw

_NEVER = -1e9
#: What a row's shares add up to at half precision: halves go from 6e-8 to 65,504.
_SHARES = 1024.0


def column_scores(
    rows: tf.Tensor, columns: tf.Tensor, bias: tf.Tensor, hit_row: tf.Tensor, hit_column: tf.Tensor,
    temperature: float, precision: str = "float32",
) -> tf.Tensor:  # fmt: skip
    """⟨row, column⟩ / τ + bias: [r, k], without the pairs (hit_row, hit_column), which are positives.

    Parameters
    ----------
    rows : [r, d]; columns : [k, d].
    bias : [k], log of how often a column stands in the set less the log of its expected count: with it, the sum of
        exp(score) estimates the sum over the catalogue (Bengio and Senécal, 2008; 0: no correction).
    hit_row, hit_column : int32, one a pair; a column below 0 names none.
    precision : of the product; scores are float32.
    """
    product = tf.matmul(halved(rows / temperature, precision), halved(columns, precision), transpose_b=True)
    scores = tf.cast(product, bias.dtype) + bias
    pairs = tf.boolean_mask(tf.stack([hit_row, hit_column], axis=1), hit_column >= 0)
    return tf.tensor_scatter_nd_update(scores, pairs, tf.fill([tf.shape(pairs)[0]], tf.constant(_NEVER, scores.dtype)))


def log_denominator(
    rows: tf.Tensor, columns: tf.Tensor, bias: tf.Tensor, hit_row: tf.Tensor, hit_column: tf.Tensor,
    temperature: float, precision: str = "float32",
) -> tf.Tensor:  # fmt: skip
    """logsumexp of each row of ``column_scores``: [r]; of a row that no column is left to, below half of never.

    Most of a step's time is spent here, so the gradient is written out: two products, no other pass over [r, k].
    At half ``precision`` the products are, and what is kept for the gradient; the sum is float32.
    """

    @tf.custom_gradient
    def logsumexp(rows: tf.Tensor, columns: tf.Tensor) -> Any:
        scores = column_scores(rows, columns, bias, hit_row, hit_column, temperature, precision)
        top = tf.reduce_max(scores, axis=1)
        exponentials = tf.exp(scores - top[:, None])
        total = mass = tf.reduce_sum(exponentials, axis=1)
        if precision != "float32":
            # A row's shares add up to so much that neither their products with columns nor they leave a half's range.
            mass = tf.fill(tf.shape(total), _SHARES)
            exponentials = tf.cast(exponentials * (_SHARES / total)[:, None], precision)

        def gradient(up: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            weight = tf.math.divide_no_nan(up, mass * temperature)[:, None]
            # The columns' part transposed: a third faster where there are many.
            of_columns = tf.transpose(tf.matmul(halved(weight * rows, precision), exponentials, transpose_a=True))
            of_rows = tf.cast(tf.matmul(exponentials, halved(columns, precision)), weight.dtype)
            return weight * of_rows, tf.cast(of_columns, weight.dtype)

        return tf.math.log(total) + top, gradient

    return logsumexp(rows, columns)


def user_softmax(
    reward: tf.Tensor, total: tf.Tensor, denominator: tf.Tensor, user_weight: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """All positives of a user against one denominator: the columns that are none of them.

    loss_u = w_u (n_u · logsumexp over j not in P_u of s_uj − reward_u); its weight is w_u n_u. A row of scores serves
    all positives of its user, and a positive never pushes another down. A user whom no column is left for counts for
    nothing.

    Parameters
    ----------
    reward : [r], ``mean_reward`` or ``bilateral_reward``; total : n, [r], the weight of the user's targets.
    denominator : [r], ``log_denominator``; user_weight : w, [r].
    """
    some = denominator > _NEVER / 2
    weight, denominator = tf.where(some, user_weight, 0.0), tf.where(some, denominator, 0.0)
    return tf.reduce_sum(weight * (total * denominator - reward)), tf.reduce_sum(weight * total)


def mean_reward(positive: tf.Tensor, segment: tf.Tensor, weight: tf.Tensor, n: tf.Tensor) -> tf.Tensor:
    """Σ over i in P_u of v_i s_ui: [n].

    ``positive`` : s of the targets, [p]; ``segment`` : int32 [p], whose; ``weight`` : v, [p].
    """
    return tf.math.unsorted_segment_sum(weight * positive, segment, n)


def bilateral_reward(
    positive: tf.Tensor, segment: tf.Tensor, weight: tf.Tensor, n: tf.Tensor, ratio: float
) -> tf.Tensor:
    """n_u ρ log Σ over i in P_u of (v_i / n_u) exp(s_ui / ρ): [n]; ρ is the positives' temperature over τ.

    The bilateral softmax loss (Wu et al., "BSL: understanding and improving softmax loss for recommendation", ICDE
    2024): positives that score low, which may be noise, count for less. ρ → ∞ gives ``mean_reward``.
    """
    total = tf.math.unsorted_segment_sum(weight, segment, n)
    scaled = positive / ratio
    top = tf.stop_gradient(tf.math.unsorted_segment_max(scaled, segment, n))
    mass = tf.math.unsorted_segment_sum(weight * tf.exp(scaled - tf.gather(top, segment)), segment, n)
    some = total > 0
    log = tf.math.log(tf.where(some, mass, 1.0)) - tf.math.log(tf.where(some, total, 1.0)) + tf.where(some, top, 0.0)
    return total * ratio * log


def position_softmax(positive: tf.Tensor, denominator: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """−log softmax of the target among itself and the columns: log(1 + Σ exp(s_j − s_target)), times its weight.

    ``positive``, ``denominator`` (``log_denominator`` of a row a target), ``weight``: [p].
    """
    loss = tf.nn.softplus(denominator - positive)
    return tf.reduce_sum(weight * loss), tf.reduce_sum(weight)


def bpr(
    positive: tf.Tensor, scores: tf.Tensor, row: tf.Tensor, drawn: tf.Tensor, weight: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """−log σ(s_target − s_j), the mean over the columns drawn for a target, times its weight.

    Bayesian personalised ranking (Rendle et al., 2009). A drawn column that is a positive of the row does not count;
    a target that none is left for counts for nothing.

    Parameters
    ----------
    positive, weight : [p]; row : int32 [p], the target's row of ``scores``.
    scores : [r, k], from ``column_scores``; drawn : int32 [p, m], columns, from ``draw_columns``.
    """
    negative = tf.gather_nd(scores, tf.stack([tf.broadcast_to(row[:, None], tf.shape(drawn)), drawn], axis=2))
    counts = tf.cast(negative > _NEVER / 2, weight.dtype)
    n = tf.reduce_sum(counts, axis=1)
    loss = tf.math.divide_no_nan(tf.reduce_sum(counts * tf.nn.softplus(negative - positive[:, None]), axis=1), n)
    weight = weight * tf.cast(n > 0, weight.dtype)
    return tf.reduce_sum(weight * loss), tf.reduce_sum(weight)


def draw_columns(key: tf.Tensor, segment: tf.Tensor, columns: tf.Tensor, draws: int) -> tf.Tensor:
    """``draws`` of the ``columns`` columns for each target: int32 [p, draws], a hash of the row's key and its place.

    ``key`` : uint32 [n]; ``segment`` : int32 [p], ascending, the target's key. Equal on any number of ranks.
    """
    place = tf.range(tf.size(segment)) - tf.searchsorted(segment, segment)
    number = tf.cast(place[:, None] * draws + tf.range(draws)[None, :], tf.uint32)
    hashed = tf.cast(draw(tf.gather(key, segment)[:, None], number, salt=17), tf.int64)
    return tf.cast(hashed % tf.cast(tf.maximum(columns, 1), tf.int64), tf.int32)


def squared_error(predicted: tf.Tensor, label: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(predicted − label)², times its weight; all [p]."""
    return tf.reduce_sum(weight * tf.math.squared_difference(predicted, label)), tf.reduce_sum(weight)
