"""Adam over all variables at once, its learning rate, and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from sparkrec.config import TwoTower

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-7


class Adam:
    """Dense Adam (Kingma and Ba, 2015) with bias correction, and an optional moving average of the weights.

    Own, because Horovod's and Keras 3's optimizers do not fit together: their DistributedOptimizer trains without
    exchanging a single gradient, and without an error.

    ``state`` names every array that a resumed training needs.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], average: float) -> None:
        self.variables = {name: tf.Variable(value, name=name) for name, value in weights.items()}
        self._m = {name: tf.Variable(tf.zeros_like(v)) for name, v in self.variables.items()}
        self._v = {name: tf.Variable(tf.zeros_like(v)) for name, v in self.variables.items()}
        self._decay = average
        self._average = {name: tf.Variable(v) for name, v in self.variables.items()} if average else {}

    @property
    def shipped(self) -> Mapping[str, tf.Variable]:
        """The weights that are evaluated and served: the averaged ones where there are any."""
        return self._average or self.variables

    @property
    def state(self) -> dict[str, tf.Variable]:
        groups = {"weights": self.variables, "m": self._m, "v": self._v, "average": self._average}
        return {f"{group}/{name}": v for group, members in groups.items() for name, v in members.items()}

    def apply(self, gradient: np.ndarray, step: int, learning_rate: float) -> None:
        """One update from the flat gradient, all variables in order; ``step`` counts from 0."""
        # The average starts short, or it would carry the untrained weights along (as TensorFlow's num_updates does).
        decay = min(self._decay, (1 + step) / (10 + step))
        powers = (_BETA1 ** (step + 1), _BETA2 ** (step + 1))
        self._apply(*(tf.constant(x, tf.float32) for x in (gradient, *powers, learning_rate, decay)))

    @tf.function(reduce_retracing=True)
    def _apply(
        self, gradient: tf.Tensor, power1: tf.Tensor, power2: tf.Tensor, rate: tf.Tensor, decay: tf.Tensor
    ) -> None:
        parts = tf.split(gradient, [int(np.prod(v.shape)) for v in self.variables.values()])
        for (name, variable), part in zip(self.variables.items(), parts, strict=True):
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle, m=self._m[name].handle, v=self._v[name].handle,
                beta1_power=power1, beta2_power=power2, lr=rate, beta1=_BETA1, beta2=_BETA2, epsilon=_EPSILON,
                grad=tf.reshape(part, variable.shape),
            )  # fmt: skip
            if self._average:
                average = self._average[name]
                average.assign_add((1 - decay) * (variable - average))


def learning_rate(settings: TwoTower, step: int, steps: int) -> float:
    """At ``step`` (from 0) of a training planned for ``steps``: constant, or falling in a line to nearly 0."""
    if settings.learning_rate_decay == "none":
        return settings.learning_rate
    return settings.learning_rate * max(0.0, 1 - step / steps)
