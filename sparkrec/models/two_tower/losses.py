"""Softmax losses as sums over a batch: (Σ weight · loss, Σ weight), float32 scalars.

Sums, not means, because the mean is over the batch of all ranks: the loop divides by the sum of all weights.
Scores are cosines over the temperature τ. Recipes and what they were worth: docs/models.md.
"""

from __future__ import annotations

import tensorflow as tf

_NEVER = -1e9


def user_softmax(
    users: tf.Tensor,
    items: tf.Tensor,
    target_segment: tf.Tensor,
    target_items: tf.Tensor,
    target_weight: tf.Tensor,
    user_weight: tf.Tensor,
    negatives: tf.Tensor | None,
    temperature: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """All positives of a user against one denominator: the items that are none of them.

    loss_u = w_u (n_u · logsumexp over j not in P_u of s_uj − Σ over i in P_u of v_i s_ui), n_u = Σ v_i; its weight
    is w_u n_u. A row of the score matrix serves all positives of its user, and a positive never pushes another down.

    Parameters
    ----------
    users : [n, d]; items : [m, d], both unit length.
    target_segment, target_items : int32 [p], which user, which item; distinct pairs.
    target_weight : v, [p]; user_weight : w, [n].
    negatives : int32 [k], distinct item indices that stand for the catalogue; None: all items.
    """
    n = tf.shape(users)[0]
    positive = tf.reduce_sum(tf.gather(users, target_segment) * tf.gather(items, target_items), axis=1) / temperature
    columns, column_of = items, tf.range(tf.shape(items)[0])
    if negatives is not None:
        columns = tf.gather(items, negatives)
        absent = tf.fill([tf.shape(items)[0]], -1)
        column_of = tf.tensor_scatter_nd_update(absent, negatives[:, None], tf.range(tf.size(negatives)))
    scores = mask_pairs(
        tf.matmul(users, columns, transpose_b=True) / temperature, target_segment, tf.gather(column_of, target_items)
    )
    weight = tf.math.unsorted_segment_sum(target_weight, target_segment, n)
    reward = tf.math.unsorted_segment_sum(target_weight * positive, target_segment, n)
    loss = user_weight * (weight * tf.reduce_logsumexp(scores, axis=1) - reward)
    return tf.reduce_sum(loss), tf.reduce_sum(user_weight * weight)


def position_softmax(
    users: tf.Tensor,
    items: tf.Tensor,
    target_items: tf.Tensor,
    target_weight: tf.Tensor,
    negatives: tf.Tensor | None,
    temperature: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """−log softmax of the target among itself and the negatives: log(1 + Σ exp(s_j − s_target)), times its weight.

    Parameters
    ----------
    users : [p, d], one for each target; items : [m, d].
    target_items : int32 [p]; target_weight : [p].
    negatives : int32 [k], distinct, shared by all targets; one that is the target itself does not count.
        None: all items.
    """
    positive = tf.reduce_sum(users * tf.gather(items, target_items), axis=1) / temperature
    names = tf.range(tf.shape(items)[0]) if negatives is None else negatives
    columns = items if negatives is None else tf.gather(items, negatives)
    scores = tf.matmul(users, columns, transpose_b=True) / temperature
    scores = tf.where(target_items[:, None] == names[None, :], _NEVER, scores)
    loss = tf.nn.softplus(tf.reduce_logsumexp(scores, axis=1) - positive)
    return tf.reduce_sum(target_weight * loss), tf.reduce_sum(target_weight)


def mask_pairs(scores: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """The scores with the pairs (row, column) out of every softmax; a column below 0 names nothing."""
    pairs = tf.boolean_mask(tf.stack([rows, columns], axis=1), columns >= 0)
    return tf.tensor_scatter_nd_update(scores, pairs, tf.fill([tf.shape(pairs)[0]], _NEVER))
