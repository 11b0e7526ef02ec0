"""History encoders: from the tokens of a user's events to one vector, for whole histories and causally.

Tokens are packed: [t, d], the events of one history (segment) together, oldest first, no padding. Each module of this
package has

    initial(settings, normal)                       its untrained weights
    whole(weights, settings, batch, tokens, n)      [n, d], one vector a user; zeros where no event is
    causal(weights, settings, batch, tokens)        [t, d]: at every token what ``whole`` gives for the events up to it

``batch`` holds history_segment (ascending) int32 [t]; ``whole`` reads history_lag (0 = newest) too. Its key switches
dropout on: uint32, one a user in ``whole``, one a token in ``causal``. ``normal(name, shape)``: standard normal
numbers that depend on seed and name only. Products are computed in ``settings.precision``; the rest, and what comes
back, is float32.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import tensorflow as tf

from sparkrec.config import TwoTower
from sparkrec.models.two_tower.encoders import attention, convolution, gru, lstm, mean, recency
from sparkrec.models.two_tower.encoders.layers import Normal, Tokens, Weights


class Encoder(Protocol):
    """What a module of this package offers."""

    def initial(self, settings: TwoTower, normal: Normal) -> dict[str, np.ndarray]: ...

    def whole(
        self, weights: Weights, settings: TwoTower, batch: Weights, tokens: Tokens, n: tf.Tensor
    ) -> tf.Tensor: ...

    def causal(self, weights: Weights, settings: TwoTower, batch: Weights, tokens: Tokens) -> tf.Tensor: ...


#: ``two_tower.history`` → encoder; ``none`` has none.
ENCODERS: dict[str, Encoder] = {
    "mean": mean, "recency": recency, "cnn": convolution, "gru": gru, "lstm": lstm, "attention": attention,
}  # fmt: skip
