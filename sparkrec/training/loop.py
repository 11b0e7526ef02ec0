"""The train step and the epochs around it: one flat exchange a step, equal variables on every rank."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from sparkrec.config import TwoTower
from sparkrec.errors import ConfigError, RetryableError
from sparkrec.models.two_tower import losses, towers
from sparkrec.models.two_tower.towers import ItemFeatures, Sizes
from sparkrec.training.collective import Collective
from sparkrec.training.loader import Batch, Loader
from sparkrec.training.optimizer import Adam, learning_rate


@dataclass
class Place:
    """Where a training stands: ``epoch`` and ``step`` are the next to be done, both from 0; the epoch's sums so far."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    weight: float = 0.0
    examples: float = 0.0

    @property
    def mean_loss(self) -> float:
        return self.loss / self.weight if self.weight else 0.0


class Trainer:
    """One rank's copy of the model, kept equal to the others' by summing every step's gradients.

    The loss and the gradient are sums over the rank's examples; the sums over all ranks are divided by the weight of
    the whole batch. So W ranks with their parts of a batch make the step that one rank makes with all of it.
    """

    def __init__(self, settings: TwoTower, sizes: Sizes, features: ItemFeatures | None, collective: Collective) -> None:
        self.settings, self.sizes, self.collective = settings, sizes, collective
        use = features is not None and settings.item_features and sizes.features > 0
        self._features = features.mean_matrix(sizes.features) if use and features else None
        self.optimizer = Adam(towers.initial(settings, sizes), settings.average)
        self._untrained = self.state()
        self._flat: Callable[[Mapping[str, tf.Tensor]], tf.Tensor] | None = None

    @property
    def weights(self) -> Mapping[str, Any]:
        """What is evaluated and shipped."""
        return self.optimizer.shipped

    def item_vectors(self) -> np.ndarray:
        """float32 [items, d] from the shipped weights."""
        return np.asarray(towers.item_vectors(self.weights, self._features))

    def user_vectors(self, batch: Batch, items: np.ndarray) -> np.ndarray:
        """float32 [n, d] from the shipped weights and whole histories."""
        return np.asarray(towers.user_vectors(self.weights, self.settings, _tensors(batch), tf.constant(items)))

    def step(self, batch: Batch, number: int, steps: int) -> tuple[float, float, float]:
        """One step on all ranks; ``number`` counts from 0. Returns Σ weight · loss, Σ weight, targets of all ranks.

        Raises
        ------
        ConfigError
            The loss is not a number.
        """
        if self._flat is None:
            self._flat = _traced(self._gradients, batch)
        flat = self.exchange(self._flat(_tensors(batch)))
        loss, weight, examples = flat[-3:].tolist()
        if not np.isfinite(loss):
            raise ConfigError(
                f"The two-tower loss became {loss} at step {number + 1}. The training has diverged: lower "
                f"two_tower.learning_rate (now {self.settings.learning_rate}) or raise two_tower.temperature "
                f"(now {self.settings.temperature})."
            )
        if weight > 0:
            self.optimizer.apply(flat[:-3] / np.float32(weight), number, learning_rate(self.settings, number, steps))
        return loss, weight, examples

    def exchange(self, flat: tf.Tensor) -> np.ndarray:
        """The sum over ranks of the flat gradient: one dense buffer, one message."""
        return self.collective.allreduce(flat)

    def hash(self) -> str:
        """Of every variable's bytes, 16 hex digits."""
        digest = hashlib.sha256()
        for variable in self.optimizer.state.values():
            digest.update(variable.numpy().tobytes())
        return digest.hexdigest()[:16]

    def check_equal(self, where: str) -> str:
        """The hash, the same on all ranks.

        Raises
        ------
        RetryableError
            The ranks' variables differ.
        """
        own = self.hash()
        hashes = self.collective.allgather(np.frombuffer(bytes.fromhex(own), np.int64)).tolist()
        if len(set(hashes)) > 1:
            listed = ", ".join(f"rank {rank}: {value & (2**64 - 1):016x}" for rank, value in enumerate(hashes))
            raise RetryableError(
                f"The ranks' variables differ {where} ({listed}), so their gradients were not exchanged rightly, or a "
                "machine computes wrongly. Nothing was written. Start again from the last checkpoint; if it comes "
                "again at the same step, report it."
            )
        return own

    def state(self) -> dict[str, np.ndarray]:
        """Every array of a checkpoint."""
        return {name: variable.numpy() for name, variable in self.optimizer.state.items()}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        for name, variable in self.optimizer.state.items():
            variable.assign(arrays[name])

    def reset(self) -> None:
        """Untrained again."""
        self.restore(self._untrained)

    def _gradients(self, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Gradient of Σ weight · loss, all variables in order, then the sums that ``step`` returns."""
        variables = list(self.optimizer.variables.values())
        with tf.GradientTape() as tape:
            loss, weight = self._loss(batch)
        gradients = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        flat = [tf.reshape(tf.convert_to_tensor(gradient), [-1]) for gradient in gradients]
        return tf.concat([*flat, tf.stack([loss, weight, tf.cast(tf.size(batch["target_items"]), tf.float32)])], axis=0)

    def _loss(self, batch: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        settings, weights = self.settings, self.optimizer.variables
        items = towers.item_vectors(weights, self._features)
        negatives = batch["negatives"] if 0 < settings.negatives < self.sizes.items else None
        if settings.mode == "user":
            return losses.user_softmax(
                towers.user_vectors(weights, settings, batch, items), items,
                batch["target_segment"], batch["target_items"], batch["target_weight"], batch["user_weight"],
                negatives, settings.temperature,
            )  # fmt: skip
        at_targets = tf.gather(towers.position_vectors(weights, settings, batch, items), batch["target_segment"])
        return losses.position_softmax(
            at_targets, items, batch["target_items"], batch["target_weight"], negatives, settings.temperature
        )


def finish_epoch(trainer: Trainer, loader: Loader, place: Place, after_step: Callable[[Place, int], None]) -> None:
    """The steps of ``place.epoch`` from ``place.step`` on; ``place`` is moved along and ends at the epoch's end.

    ``after_step`` is called with it and the number of steps done in all.
    """
    planned = loader.steps_per_epoch * trainer.settings.epochs
    while place.step < loader.steps_per_epoch:
        number = place.epoch * loader.steps_per_epoch + place.step
        sums = trainer.step(loader.batch(place.epoch, place.step), number, planned)
        place.step += 1
        place.loss, place.weight, place.examples = (
            place.loss + sums[0],
            place.weight + sums[1],
            place.examples + sums[2],
        )
        after_step(place, number + 1)


def _traced(function: Callable[..., tf.Tensor], batch: Batch) -> Callable[[Mapping[str, tf.Tensor]], tf.Tensor]:
    """``function`` compiled once for batches of every length."""
    signature = {name: tf.TensorSpec([None], array.dtype) for name, array in batch.items()}
    compiled: Callable[[Mapping[str, tf.Tensor]], tf.Tensor] = tf.function(function, input_signature=[signature])
    return compiled


def _tensors(batch: Batch) -> dict[str, tf.Tensor]:
    return {name: tf.constant(array) for name, array in batch.items()}
