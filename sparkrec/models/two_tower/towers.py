"""The two towers as plain functions of a mapping name → weights, the same in training and in embed.

    score(u, i) = ⟨f(u), g(i)⟩ with |f| = |g| = 1; training divides it by the temperature.

g(i) = normalise(x), x = id row + mean of the item's feature rows, with ``item_mlp`` x + MLP(x) in its place.
f(u) = normalise(id row + history), where the history is ``none`` or one of ``models.two_tower.encoders``; with heads,
normalise(f(u) · the served event type's row). Shapes: d is the width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from sparkrec import columns as c
from sparkrec.config import TwoTower
from sparkrec.models.two_tower.encoders import ENCODERS, layers
from sparkrec.models.two_tower.encoders.layers import Tokens
from sparkrec.models.two_tower.hashing import kept

#: A row whose squared length is below this gets no gradient.
_SHORT = 1e-6
#: Name → variable, tensor or array.
Weights = Mapping[str, Any]


@dataclass(frozen=True)
class Sizes:
    """Rows of the tables: one more than the largest index."""

    users: int
    items: int
    features: int


@dataclass(frozen=True)
class ItemFeatures:
    """The features of items 0 … n-1, flat: ``ends`` int64 [n], ``features`` int32 [f]."""

    ends: np.ndarray
    features: np.ndarray

    def of(self, items: np.ndarray) -> dict[str, np.ndarray]:
        """What ``item_rows`` takes of some items: feature_item (place in ``items``) and feature_row."""
        ends = self.ends[items]
        lengths = ends - np.where(items > 0, self.ends[items - 1], 0)
        flat_ends = np.cumsum(lengths)
        total = int(flat_ends[-1]) if len(items) else 0
        flat = np.arange(total) + np.repeat(ends - flat_ends, lengths)
        return {
            "feature_item": np.repeat(np.arange(len(items), dtype=np.int32), lengths),
            "feature_row": self.features[flat].astype(np.int32),
        }


def tables(settings: TwoTower, sizes: Sizes) -> dict[str, int]:
    """The model's embedding tables, which have a row of ``width`` an id: name → rows."""
    used = {
        "item_id": True, "item_feature": settings.item_features and sizes.features > 0, "user_id": settings.user_id,
        "history_item": settings.history == "mean",
    }  # fmt: skip
    rows = {"item_id": sizes.items, "item_feature": sizes.features, "user_id": sizes.users, "history_item": sizes.items}
    return {name: rows[name] for name, there in used.items() if there}


def initial(settings: TwoTower) -> dict[str, np.ndarray]:
    """The untrained weights that are no tables, float32: each a function of the seed and its name only.

    The tables' first rows: ``training.tables.initial_rows``.
    """
    d = settings.width

    def normal(name: str, shape: tuple[int, ...]) -> np.ndarray:
        return _normal(settings.seed, name, shape)

    weights: dict[str, np.ndarray] = {}
    if settings.history != "none" and settings.event_types:
        weights["event_type"] = np.float32(0.01) * normal("event_type", (len(c.EVENT_TYPES), d))
    if settings.item_mlp:
        weights |= layers.initial_block(normal, d, "item_")
        weights["item_block_down"] *= 0.1
    if settings.head:
        weights["head"] = np.ones((len(heads(settings)), d), np.float32)
    if settings.loss == "mse":
        weights["rating"] = np.asarray([3.0, 0.7], np.float32)
    if settings.history != "none":
        weights |= ENCODERS[settings.history].initial(settings, normal)
    return weights


def _normal(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big")
    return np.random.default_rng(key).standard_normal(shape, np.float32)


def heads(settings: TwoTower) -> list[str]:
    """Event types that have a head: those with a weight in the loss, in the order of the weight's rows."""
    return [name for name in c.EVENT_TYPES if settings.weights.get(name, 0) > 0]  # type: ignore[call-overload]


def item_rows(weights: Weights, batch: Weights, id_dropout: float = 0.0, precision: str = "float32") -> tf.Tensor:
    """g of the items whose id rows are ``weights["item_id"]``: float32 [u, d], unit length.

    ``batch``: feature_item (ascending) and feature_row int32 [f], where there are features.
    With ``id_dropout`` its item_key uint32 [u] chooses a share of the items that have features, whose id row counts
    as zeros: so an item that nobody has met yet finds its place by its features (Volkovs et al., "DropoutNet", 2017).
    """
    rows = tf.convert_to_tensor(weights["item_id"])
    if "item_feature" in weights:
        table = tf.convert_to_tensor(weights["item_feature"])
        owner, u = batch["feature_item"], tf.shape(rows)[0]
        features = layers.count(owner, u)
        content = layers.gathered_sum(table, batch["feature_row"], owner, u)
        content /= tf.cast(tf.maximum(features, 1), content.dtype)[:, None]
        if id_dropout:
            stays = (features == 0) | kept(batch["item_key"], tf.zeros([], tf.uint32), id_dropout, salt=23)
            rows = tf.where(stays[:, None], rows, 0.0)
        rows += content
    if "item_block_up" in weights:
        rows = layers.mlp(weights, rows, None, 0.0, "item_", precision=precision)
    return normalise(rows)


def user_vectors(weights: Weights, settings: TwoTower, batch: Weights, items: tf.Tensor) -> tf.Tensor:
    """f of each user of a batch, as it is served: float32 [n, d], unit length, whatever precision it was trained at.

    ``batch``: ``encode_users``.
    """
    settings = settings.model_copy(update={"precision": "float32"})
    users = encode_users(weights, settings, batch, items)
    if not settings.head:
        return users
    return normalise(users * weights["head"][heads(settings).index(settings.head)])


def encode_users(weights: Weights, settings: TwoTower, batch: Weights, items: tf.Tensor) -> tf.Tensor:
    """Each user of a batch from the whole history, before any head: float32 [n, d], unit length.

    ``batch``: users int32 [n]; history_items (rows of ``items``), history_types, history_segment (ascending, below n)
    and history_lag (0 = newest) int32 [h], with ``history: mean`` history_rows (rows of history_item) in place of
    history_items; key uint32 [n] switches dropout on.
    """
    if settings.history == "none":
        return _with_id(weights, batch, None)
    tokens, n = _tokens(weights, settings, batch, items), tf.shape(batch["users"])[0]
    return _with_id(weights, batch, ENCODERS[settings.history].whole(weights, settings, batch, tokens, n))


def encode_positions(weights: Weights, settings: TwoTower, batch: Weights, items: tf.Tensor) -> tf.Tensor:
    """The user at each token of packed sequences, from the token and those before it: float32 [t, d], unit length.

    ``batch``: users, history_items (or history_rows), history_types and history_segment (ascending) int32 [t], key
    uint32 [t].
    """
    if settings.history == "none":
        return _with_id(weights, batch, None)
    tokens = _tokens(weights, settings, batch, items)
    return _with_id(weights, batch, ENCODERS[settings.history].causal(weights, settings, batch, tokens))


def rating(weights: Weights, cosine: tf.Tensor) -> tf.Tensor:
    """Stars: learned offset + exp(learned) · cosine, so that the order of a user's items is that of the cosines."""
    return weights["rating"][0] + tf.exp(weights["rating"][1]) * cosine


def normalise(rows: tf.Tensor) -> tf.Tensor:
    """Rows of unit length; a row of zeros stays one.

    A row with next to no length has no direction to learn, and its gradient would be divided by that length: the one of
    a user of whose history nothing was kept would be a million times all others. So it has none.
    """
    square = tf.reduce_sum(rows * rows, axis=-1, keepdims=True)
    unit = rows * tf.math.rsqrt(tf.maximum(square, 1e-12))
    return tf.where(square < _SHORT, tf.stop_gradient(unit), unit)


def _with_id(weights: Weights, batch: Weights, encoded: tf.Tensor | None) -> tf.Tensor:
    if "user_id" not in weights:
        return normalise(encoded)
    own = tf.gather(weights["user_id"], batch["users"])
    return normalise(own if encoded is None else own + encoded)


def _tokens(weights: Weights, settings: TwoTower, batch: Weights, items: tf.Tensor) -> Tokens:
    """What the history encoder reads of each event."""
    own = settings.history == "mean"
    table, index = (weights["history_item"], batch["history_rows"]) if own else (items, batch["history_items"])
    if "event_type" not in weights:
        return Tokens(table, index)
    return Tokens(table, index, tf.convert_to_tensor(weights["event_type"]), batch["history_types"])
