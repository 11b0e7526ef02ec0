"""AdamW for what is updated whole, row rules for what is updated row by row, the learning rate, the moving average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import tensorflow as tf

from sparkrec.config import TwoTower

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-7

#: The state of some rows: name → float32 [n, columns].
RowState = dict[str, tf.Tensor]


class AdamW:
    """Adam over whole variables (Kingma and Ba, 2015) with bias correction, decoupled weight decay (Loshchilov and
    Hutter, 2019) and an optional moving average of the weights.

    Own, because Horovod's and Keras 3's optimizers do not fit together: their DistributedOptimizer trains without
    exchanging a single gradient, and without an error.

    ``state`` names every array that a resumed training needs.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], decay: Decay | None, weight_decay: float = 0.0) -> None:
        self.variables = {name: tf.Variable(value, name=name) for name, value in weights.items()}
        self._m = {name: tf.Variable(tf.zeros_like(v)) for name, v in self.variables.items()}
        self._v = {name: tf.Variable(tf.zeros_like(v)) for name, v in self.variables.items()}
        self._decay, self._weight_decay = decay, weight_decay
        self._average = {name: tf.Variable(v) for name, v in self.variables.items()} if decay else {}

    @property
    def shipped(self) -> Mapping[str, tf.Variable]:
        """The weights that are evaluated and served: the averaged ones where there are any."""
        return self._average or self.variables

    @property
    def state(self) -> dict[str, tf.Variable]:
        groups = {"weights": self.variables, "m": self._m, "v": self._v, "average": self._average}
        return {f"{group}/{name}": v for group, members in groups.items() for name, v in members.items()}

    def apply(self, gradient: tf.Tensor | np.ndarray, scale: float, rate: float, step: int) -> None:
        """One update from ``scale`` · the flat gradient, all variables in order; ``step`` counts from 0."""
        if not self.variables:
            return
        powers = (_BETA1 ** (step + 1), _BETA2 ** (step + 1))
        self._apply(tf.convert_to_tensor(gradient), *(tf.constant(x, tf.float32) for x in (scale, *powers, rate, step)))

    @tf.function(reduce_retracing=True, autograph=False)
    def _apply(
        self,
        gradient: tf.Tensor,
        scale: tf.Tensor,
        power1: tf.Tensor,
        power2: tf.Tensor,
        rate: tf.Tensor,
        step: tf.Tensor,
    ) -> None:
        parts = tf.split(gradient, [int(np.prod(v.shape)) for v in self.variables.values()])
        for (name, variable), part in zip(self.variables.items(), parts, strict=True):
            if self._weight_decay:
                variable.assign_sub(rate * self._weight_decay * variable)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle, m=self._m[name].handle, v=self._v[name].handle,
                beta1_power=power1, beta2_power=power2, lr=rate, beta1=_BETA1, beta2=_BETA2, epsilon=_EPSILON,
                grad=tf.reshape(scale * part, variable.shape),
            )  # fmt: skip
            if self._decay:
                average = self._average[name]
                average.assign_add((1 - self._decay.at(step)) * (variable - average))


class RowRule(Protocol):
    """An update of touched rows from their gradients; a row that is not touched is not read."""

    def state(self, width: int) -> dict[str, int]:
        """Columns of each array beside the rows; all begin with zeros."""

    def update(
        self, gradient: tf.Tensor, scale: tf.Tensor, rate: tf.Tensor, state: RowState
    ) -> tuple[tf.Tensor, RowState]:
        """What to subtract [n, width] for the gradient ``scale`` · ``gradient``, and the state after it.

        Large arrays are gone through as seldom as can be: this is most of what a step does outside the towers.
        """


class Sgd:
    """The gradient itself."""

    def state(self, width: int) -> dict[str, int]:
        return {}

    def update(
        self, gradient: tf.Tensor, scale: tf.Tensor, rate: tf.Tensor, state: RowState
    ) -> tuple[tf.Tensor, RowState]:
        return rate * scale * gradient, {}


class RowwiseAdagrad:
    """One accumulator a row: s += mean(g²), row −= rate · g / √s (as FBGEMM's exact row-wise Adagrad)."""

    def state(self, width: int) -> dict[str, int]:
        return {"sum": 1}

    def update(
        self, gradient: tf.Tensor, scale: tf.Tensor, rate: tf.Tensor, state: RowState
    ) -> tuple[tf.Tensor, RowState]:
        total = state["sum"] + scale * scale * tf.reduce_mean(tf.square(gradient), axis=1, keepdims=True)
        return gradient * (rate * scale / (tf.sqrt(total) + _EPSILON)), {"sum": total}


class LazyAdam:
    """Adam as if a row's untouched steps did not exist: moments and the count that corrects them are the row's own."""

    def state(self, width: int) -> dict[str, int]:
        return {"m": width, "v": width, "count": 1}

    def update(
        self, gradient: tf.Tensor, scale: tf.Tensor, rate: tf.Tensor, state: RowState
    ) -> tuple[tf.Tensor, RowState]:
        gradient, count = scale * gradient, state["count"] + 1
        m = _BETA1 * state["m"] + (1 - _BETA1) * gradient
        v = _BETA2 * state["v"] + (1 - _BETA2) * gradient * gradient
        corrected = tf.sqrt(1 - tf.pow(_BETA2, count)) / (1 - tf.pow(_BETA1, count))
        return rate * corrected * m / (tf.sqrt(v) + _EPSILON), {"m": m, "v": v, "count": count}


ROW_RULES: dict[str, type[RowRule]] = {"adagrad": RowwiseAdagrad, "lazy_adam": LazyAdam, "sgd": Sgd}


class Decay:
    """The moving average's decay at each step: short at first, or it would carry the untrained weights along.

    min(decay, (1 + step) / (10 + step)), as TensorFlow's num_updates does. A row that was left alone for some steps
    has not moved, so its average is brought up to date by the product of the decays since: exact, and no row is
    touched for it.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        short = max(int(np.ceil((10 * decay - 1) / (1 - decay))), 0)
        steps = np.arange(short)
        self._logs = np.append(0, np.cumsum(np.log(np.minimum(decay, (1 + steps) / (10 + steps)))))

    def at(self, step: tf.Tensor) -> tf.Tensor:
        return tf.minimum(self._decay, (1 + step) / (10 + step))

    def since(self, step: tf.Tensor, now: tf.Tensor) -> tf.Tensor:
        """The product of the decays of ``step``, … ``now`` − 1; float32 of the shape of ``step``."""
        return tf.cast(tf.exp(self._log(now) - self._log(step)), tf.float32)

    def _log(self, step: tf.Tensor) -> tf.Tensor:
        short = len(self._logs) - 1
        whole = tf.gather(tf.constant(self._logs), tf.minimum(tf.cast(step, tf.int32), short))
        return whole + tf.maximum(tf.cast(step, tf.float64) - short, 0) * float(np.log(self._decay))


def learning_rate(settings: TwoTower, step: int, steps: int) -> float:
    """At ``step`` (from 0) of a training planned for ``steps``.

    Scaled by the number of ranks if asked (Goyal et al., "Accurate, large minibatch SGD", 2017), rising in a line over
    ``warmup_steps``, then constant or falling in a line to nearly 0.
    """
    scale = {"none": 1.0, "linear": settings.ranks, "sqrt": settings.ranks**0.5}[settings.scale_learning_rate]
    warm = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    left = 1.0 if settings.learning_rate_decay == "none" else max(0.0, 1 - step / steps)
    return settings.learning_rate * scale * warm * left
