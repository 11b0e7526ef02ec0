"""The loss of a batch: towers and losses put together by the settings.

A batch names items by their place among the items that it touches, and so for every table: the rows are looked up
before, wherever they are kept, and the gradient is that of the rows. All arrays are flat; int32 unless said otherwise.

users [n or t]            rows of user_id
history_items [h]         touched items (history_rows [h]: rows of history_item, with ``history: mean``)
history_types [h]         event types; history_segment [h]: whose; history_lag [h]: 0 = newest (mode user)
key uint32 [n or t]       what dropout masks are made from
target_items [p]          touched items; target_segment [p]: at which user or token; target_weight float32 [p]
user_weight float32 [n]   mode user; target_label float32 [p]: stars, with ``loss: mse``
feature_item, feature_row [f], feature_weight float32 [f]: the features of the touched items, items ascending
columns [k]               touched items, distinct, in one order on all ranks: the denominator; column_bias float32 [k]
"""

from __future__ import annotations

import tensorflow as tf

from sparkrec.config import TwoTower
from sparkrec.models.two_tower import losses, towers
from sparkrec.models.two_tower.towers import Weights

#: Columns that each target is compared with under ``loss: bpr``.
BPR_DRAWS = 16


def loss(weights: Weights, settings: TwoTower, batch: Weights) -> tuple[tf.Tensor, tf.Tensor]:
    """Σ weight · loss and Σ weight of a batch, float32 scalars; ``weights`` of tables are the rows touched."""
    items = towers.item_rows(weights, batch)
    segment, weight = batch["target_segment"], batch["target_weight"]
    if settings.mode == "user":
        rows, row = towers.user_vectors(weights, settings, batch, items), segment
    else:
        rows = tf.gather(towers.position_vectors(weights, settings, batch, items), segment)
        row = tf.range(tf.shape(rows)[0])
    cosine = tf.reduce_sum(tf.gather(rows, row) * tf.gather(items, batch["target_items"]), axis=1)
    if settings.mode == "user" and settings.loss in ("bpr", "mse"):
        weight = weight * tf.gather(batch["user_weight"], row)
    if settings.loss == "mse":
        return losses.squared_error(towers.rating(weights, cosine), batch["target_label"], weight)
    positive, scores = cosine / settings.temperature, _column_scores(settings, batch, items, rows, row)
    if settings.loss == "bpr":
        drawn = losses.draw_columns(batch["key"], segment, tf.shape(scores)[1], BPR_DRAWS)
        return losses.bpr(positive, scores, row, drawn, weight)
    if settings.mode == "position":
        return losses.position_softmax(positive, scores, weight)
    n = tf.shape(rows)[0]
    if settings.loss == "bilateral":
        ratio = settings.positive_temperature / settings.temperature
        reward = losses.bilateral_reward(positive, row, weight, n, ratio)
    else:
        reward = losses.mean_reward(positive, row, weight, n)
    return losses.user_softmax(reward, tf.math.unsorted_segment_sum(weight, row, n), scores, batch["user_weight"])


def _column_scores(settings: TwoTower, batch: Weights, items: tf.Tensor, rows: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
    """[r, k], without each row's positives; ``row`` : int32 [p], the row of each target."""
    columns = batch["columns"]
    hit = tf.gather(_places(columns, tf.shape(items)[0]), batch["target_items"])
    return losses.column_scores(rows, tf.gather(items, columns), batch["column_bias"], row, hit, settings.temperature)


def _places(columns: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
    """Of each touched item its place among the columns, -1 where it is none of them."""
    absent = tf.fill([items], -1)
    return tf.tensor_scatter_nd_update(absent, columns[:, None], tf.range(tf.size(columns)))
