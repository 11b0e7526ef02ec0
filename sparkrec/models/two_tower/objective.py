"""The loss of a batch: towers and losses put together by the settings.

A batch names items by their place among the items that it touches, and so for every table: the rows are looked up
before, wherever they are kept, and the gradient is that of the rows. All arrays are flat; int32 unless said otherwise.

users [n or t]            rows of user_id
history_items [h]         touched items (history_rows [h]: rows of history_item, with ``history: mean``)
history_types [h]         event types; history_segment [h]: whose; history_lag [h]: 0 = newest (mode user)
key uint32 [n or t]       what dropout masks are made from
target_items [p]          touched items; target_segment [p]: at which user or token; target_weight float32 [p]
user_weight float32 [n]   mode user
feature_item, feature_row [f], feature_weight float32 [f]: the features of the touched items, items ascending
columns [k]               touched items, distinct: the denominator; column_bias float32 [k]
"""

from __future__ import annotations

import tensorflow as tf

from sparkrec.config import TwoTower
from sparkrec.models.two_tower import losses, towers
from sparkrec.models.two_tower.towers import Weights


def loss(weights: Weights, settings: TwoTower, batch: Weights) -> tuple[tf.Tensor, tf.Tensor]:
    """Σ weight · loss and Σ weight of a batch, float32 scalars; ``weights`` of tables are the rows touched."""
    items = towers.item_rows(weights, batch)
    target_items, segment = batch["target_items"], batch["target_segment"]
    if settings.mode == "user":
        rows = towers.user_vectors(weights, settings, batch, items)
        at_targets, hit_row = tf.gather(rows, segment), segment
    else:
        rows = at_targets = tf.gather(towers.position_vectors(weights, settings, batch, items), segment)
        hit_row = tf.range(tf.shape(rows)[0])
    positive = tf.reduce_sum(at_targets * tf.gather(items, target_items), axis=1) / settings.temperature
    columns = batch["columns"]
    hit_column = tf.gather(_places(columns, tf.shape(items)[0]), target_items)
    scores = losses.column_scores(
        rows, tf.gather(items, columns), batch["column_bias"], hit_row, hit_column, settings.temperature
    )
    if settings.mode == "user":
        return losses.user_softmax(positive, scores, segment, batch["target_weight"], batch["user_weight"])
    return losses.position_softmax(positive, scores, batch["target_weight"])


def _places(columns: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
    """Of each touched item its place among the columns, -1 where it is none of them."""
    absent = tf.fill([items], -1)
    return tf.tensor_scatter_nd_update(absent, columns[:, None], tf.range(tf.size(columns)))
