"""The loss of a batch: towers and losses put together by the settings.

A batch names items by their place among the items that it touches, and so for every table: the rows are looked up
before, wherever they are kept, and the gradient is that of the rows. All arrays are flat; int32 unless said otherwise.

users [n or t]            rows of user_id
history_items [h]         touched items (history_rows [h]: rows of history_item, with ``history: mean``)
history_types [h]         event types; history_segment [h]: whose; history_lag [h]: 0 = newest (mode user)
key uint32 [n or t]       what dropout masks are made from
target_items [p]          touched items; target_segment [p]: at which user or token; target_weight float32 [p]
target_types [p]          event types, with heads; target_label float32 [p]: stars, with ``loss: mse``
user_weight float32 [n]   mode user
feature_item, feature_row [f]: the features of the touched items, items ascending
item_key uint32 [u]       of every touched item, with ``id_dropout``: a hash of step and item
columns [k]               touched items, distinct, in one order on all ranks: the denominator; column_bias float32 [k]
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from sparkrec import columns as c
from sparkrec.config import TwoTower
from sparkrec.models.two_tower import losses, towers
from sparkrec.models.two_tower.towers import Weights

#: Columns that each target is compared with under ``loss: bpr``.
BPR_DRAWS = 16


def loss(weights: Weights, settings: TwoTower, batch: Weights) -> tuple[tf.Tensor, tf.Tensor]:
    """Σ weight · loss and Σ weight of a batch, float32 scalars; ``weights`` of tables are the rows touched."""
    items = towers.item_rows(weights, batch, settings.id_dropout, settings.precision)
    by_user = settings.mode == "user"
    rows, row = (_user_rows if by_user else _position_rows)(weights, settings, batch, items)
    weight, user_weight = batch["target_weight"], batch.get("user_weight")
    if by_user:
        user_weight = tf.repeat(user_weight, _heads(settings))
        if settings.loss in ("bpr", "mse"):
            weight = weight * tf.gather(user_weight, row)
    cosine = tf.reduce_sum(tf.gather(rows, row) * tf.gather(items, batch["target_items"]), axis=1)
    if settings.loss == "mse":
        return losses.squared_error(towers.rating(weights, cosine), batch["target_label"], weight)
    positive, columns = cosine / settings.temperature, _columns(settings, batch, items, row)
    if settings.loss == "bpr":
        scores = losses.column_scores(rows, *columns, settings.temperature, settings.precision)
        drawn = losses.draw_columns(batch["key"], batch["target_segment"], tf.shape(scores)[1], BPR_DRAWS)
        return losses.bpr(positive, scores, row, drawn, weight)
    denominator = losses.log_denominator(rows, *columns, settings.temperature, settings.precision)
    if not by_user:
        return losses.position_softmax(positive, denominator, weight)
    n = tf.shape(rows)[0]
    if settings.loss == "bilateral":
        ratio = settings.positive_temperature / settings.temperature
        reward = losses.bilateral_reward(positive, row, weight, n, ratio)
    else:
        reward = losses.mean_reward(positive, row, weight, n)
    return losses.user_softmax(reward, tf.math.unsorted_segment_sum(weight, row, n), denominator, user_weight)


def _heads(settings: TwoTower) -> int:
    return len(towers.heads(settings)) if settings.head else 1


def _head_of_type(settings: TwoTower) -> np.ndarray:
    """Of each event type the row of its head; of one that is no target, 0."""
    known = towers.heads(settings)
    return np.asarray([known.index(name) if name in known else 0 for name in c.EVENT_TYPES], np.int32)


def _user_rows(weights: Weights, settings: TwoTower, batch: Weights, items: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A row a user, with heads a row a user and head; and the row of each target, int32 [p]."""
    users, segment = towers.encode_users(weights, settings, batch, items), batch["target_segment"]
    if not settings.head:
        return users, segment
    under = towers.normalise(users[:, None, :] * tf.convert_to_tensor(weights["head"])[None])
    head = tf.gather(_head_of_type(settings), batch["target_types"])
    return tf.reshape(under, (-1, settings.width)), segment * _heads(settings) + head


def _position_rows(
    weights: Weights, settings: TwoTower, batch: Weights, items: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """A row a target, and their numbers."""
    rows = tf.gather(towers.encode_positions(weights, settings, batch, items), batch["target_segment"])
    if settings.head:
        head = tf.gather(_head_of_type(settings), batch["target_types"])
        rows = towers.normalise(rows * tf.gather(weights["head"], head))
    return rows, tf.range(tf.shape(rows)[0])


def _columns(
    settings: TwoTower, batch: Weights, items: tf.Tensor, row: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The columns' vectors [k, d] and bias [k], and the pairs (row, column) to leave out, as ``losses`` takes them.

    These are each row's positives, those of the user under every head; ``row`` : ``_user_rows``.
    """
    columns = batch["columns"]
    hit = tf.gather(_places(columns, tf.shape(items)[0]), batch["target_items"])
    if settings.mode == "user" and settings.head:
        every = tf.range(_heads(settings))[None, :] + batch["target_segment"][:, None] * _heads(settings)
        row, hit = tf.reshape(every, [-1]), tf.repeat(hit, _heads(settings))
    return tf.gather(items, columns), batch["column_bias"], row, hit


def _places(columns: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
    """Of each touched item its place among the columns, -1 where it is none of them."""
    absent = tf.fill([items], -1)
    return tf.tensor_scatter_nd_update(absent, columns[:, None], tf.range(tf.size(columns)))
