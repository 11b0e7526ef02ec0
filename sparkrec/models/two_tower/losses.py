"""Losses as sums over a batch: (Σ weight · loss, Σ weight), float32 scalars, from scores.

Sums, not means, because the mean is over the batch of all ranks: the loop divides by the sum of all weights.
A row is a user (mode user) or a position (mode position), a column an item of the denominator: all items, or those
drawn for the step. Shapes: r rows, k columns, p targets. Recipes and what they were worth: docs/models.md.
"""

from __future__ import annotations

import tensorflow as tf

_NEVER = -1e9


def column_scores(
    rows: tf.Tensor, columns: tf.Tensor, bias: tf.Tensor, hit_row: tf.Tensor, hit_column: tf.Tensor, temperature: float
) -> tf.Tensor:
    """⟨row, column⟩ / τ + bias: [r, k], without the pairs (hit_row, hit_column), which are positives.

    Parameters
    ----------
    rows : [r, d]; columns : [k, d].
    bias : [k], log of how often a column stands in the set less the log of its expected count: with it, the sum of
        exp(score) estimates the sum over the catalogue (Bengio and Senécal, 2008; 0: no correction).
    hit_row, hit_column : int32, one a pair; a column below 0 names none.
    """
    scores = tf.matmul(rows, columns, transpose_b=True) / temperature + bias
    pairs = tf.boolean_mask(tf.stack([hit_row, hit_column], axis=1), hit_column >= 0)
    return tf.tensor_scatter_nd_update(scores, pairs, tf.fill([tf.shape(pairs)[0]], _NEVER))


def user_softmax(
    positive: tf.Tensor, scores: tf.Tensor, segment: tf.Tensor, weight: tf.Tensor, user_weight: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """All positives of a user against one denominator: the columns that are none of them.

    loss_u = w_u (n_u · logsumexp over j not in P_u of s_uj − Σ over i in P_u of v_i s_ui), n_u = Σ v_i; its weight
    is w_u n_u. A row of scores serves all positives of its user, and a positive never pushes another down. A user
    whom no column is left for counts for nothing.

    Parameters
    ----------
    positive : s of the targets, [p]; segment : int32 [p], whose; weight : v, [p].
    scores : s of the columns, [r, k], from ``column_scores``; user_weight : w, [r].
    """
    denominator, has_columns = _denominator(scores)
    user_weight = user_weight * has_columns
    total = tf.math.unsorted_segment_sum(weight, segment, tf.shape(scores)[0])
    reward = tf.math.unsorted_segment_sum(weight * positive, segment, tf.shape(scores)[0])
    return tf.reduce_sum(user_weight * (total * denominator - reward)), tf.reduce_sum(user_weight * total)


def position_softmax(positive: tf.Tensor, scores: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """−log softmax of the target among itself and the columns: log(1 + Σ exp(s_j − s_target)), times its weight.

    ``positive``, ``weight``: [p]; ``scores``: [p, k], a row a target.
    """
    denominator, _ = _denominator(scores)
    loss = tf.nn.softplus(denominator - positive)
    return tf.reduce_sum(weight * loss), tf.reduce_sum(weight)


def _denominator(scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """logsumexp of each row [r], and 1 where a column is left to it, else 0."""
    total = tf.reduce_logsumexp(scores, axis=1)
    return total, tf.cast(total > _NEVER / 2, tf.float32)
