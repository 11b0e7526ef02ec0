"""The train step and the epochs around it: rows looked up, a local gradient, one exchange, an update."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from sparkrec.config import TwoTower
from sparkrec.errors import ConfigError, RetryableError
from sparkrec.models.two_tower import objective, towers
from sparkrec.models.two_tower.towers import ItemFeatures, Sizes
from sparkrec.training.checkpoint import Part
from sparkrec.training.collective import Collective
from sparkrec.training.embeddings import Embeddings
from sparkrec.training.exchange import Exchange, Merge, Route
from sparkrec.training.loader import Batch, Loader, Step
from sparkrec.training.negatives import Columns
from sparkrec.training.optimizer import AdamW, Decay, learning_rate
from sparkrec.training.placement import DENSE, Placement
from sparkrec.training.precision import LossScale
from sparkrec.training.prefetch import ahead
from sparkrec.training.rows import Rows, Touched
from sparkrec.training.tables import Store, moved

#: Items in one pass through the item tower.
_BLOCK = 1 << 14
#: What stands at the end of the dense buffer: the loss, the weight, the targets, the probe of the rows' gradients.
_SUMS = 4


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


@dataclass(frozen=True)
class Prepared:
    """A step up to what depends on the model: the rows it touches, their ways, the batches in places among them."""

    touched: Touched
    parts: list[Batch]
    routes: dict[Store, Route]
    merges: dict[Store, Merge]


class Trainer:
    """One rank's part of the model, kept in step with the others' by exchanging every step's gradients.

    The loss and the gradient are sums over the rank's examples; the sums over all ranks are divided by the weight of
    the whole batch. So W ranks with their parts of a batch make the step that one rank makes with all of it.

    Parameters
    ----------
    placement : table → where it is kept; a table that is not named is dense on every rank.
    alive : called between blocks of whatever goes through all rows: the first ones, restored, compared, evaluated,
        exported.

    ``steps`` counts all steps behind the variables, for the optimizer; ``begun`` of them were an earlier training's.
    """

    def __init__(
        self,
        settings: TwoTower,
        sizes: Sizes,
        features: ItemFeatures | None,
        collective: Collective,
        placement: Mapping[str, Placement] | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings, self.sizes, self.collective, self.alive = settings, sizes, collective, alive
        decay = Decay(settings.average) if settings.average else None
        self.exchange = Exchange(collective, settings.fp16_rows)
        self.tables = towers.tables(settings, sizes)
        self.placement = {name: (placement or {}).get(name, DENSE) for name in self.tables}
        self.embeddings = Embeddings(settings, self.tables, self.placement, decay, self.exchange, alive)
        self.columns = Columns(settings, sizes.items, collective)
        self._dense = [name for name, kept in self.placement.items() if kept == DENSE]
        # All rows of a dense table are updated in any case; item vectors are computed for touched items only.
        whole = {name for name in self._dense if name != "item_id"} | ({"item_id"} if self.columns.whole else set())
        self._features = features if "item_feature" in self.tables else None
        self._rows = Rows(settings, self.tables, whole, self._features)
        self.optimizer = AdamW(self._untrained(), decay, settings.weight_decay)
        self.scaling = LossScale(settings.precision)
        self._cold: np.ndarray | None = None
        self._part: Callable[..., tuple[tf.Tensor, dict[str, tf.Tensor]]] | None = None
        self.steps = self.begun = 0

    def prepare(self, step: Step) -> Prepared:
        """All ranks call it for the same steps in the same order; for one at a time, while others are computed."""
        columns, bias = self.columns.of(step.parts, step.negatives)
        touched, parts = self._rows.local(step.parts, columns, bias, step.key)
        routes = self.embeddings.routes(touched, ahead=True)
        return Prepared(touched, parts, routes, self.embeddings.merges(touched, routes))

    def ahead(self, steps: Iterable[Step]) -> Generator[Prepared, None, None]:
        """The steps, the next prepared on a thread while one is used. Never more than one: so ranks that end early,
        at the same step, have sent the same messages, and none waits for what nobody sends.
        """
        return ahead(map(self.prepare, steps), min(self.settings.prefetch, 1))

    def step(self, step: Prepared, number: int, steps: int) -> tuple[float, float, float]:
        """One step on all ranks; ``number`` counts from 0. Returns Σ weight · loss, Σ weight, targets of all ranks.

        Raises
        ------
        ConfigError
            The loss is not a number; or, with float16, the gradient for many steps.
        """
        flat, gradients = self._computed(step)
        loss, weight, examples = np.asarray(flat[-_SUMS:]).tolist()[:3]
        if not np.isfinite(loss):
            raise ConfigError(
                f"The two-tower loss became {loss} at step {number + 1}. The training has diverged: lower "
                f"two_tower.learning_rate (now {self.settings.learning_rate}) or raise two_tower.temperature "
                f"(now {self.settings.temperature})."
            )
        # For the optimizers, a step that is left out has not been.
        self.steps = self.begun + number - self.scaling.skipped
        scaled = self.scaling.scale  # this step's: a good step may make the next one's larger
        if self.scaling.skips(flat):
            return loss, weight, examples
        updates = self.embeddings.collect(step.touched, step.routes, step.merges, gradients)
        if weight > 0:
            rate, own = learning_rate(self.settings, number, steps), self.settings.table_learning_rate
            scale = self._clipped(flat[:-_SUMS], updates, 1 / (weight * scaled))
            self.optimizer.apply(flat[:-_SUMS], scale, rate, self.steps)
            of_rows = (own or self.settings.learning_rate) / self.settings.learning_rate
            self.embeddings.apply(updates, scale, rate * of_rows, self.steps)
        self.steps += 1
        return loss, weight, examples

    def loss(self, step: Prepared) -> tuple[float, float]:
        """Σ weight · loss and Σ weight of all ranks, without an update."""
        loss, weight, *_ = np.asarray(self._computed(step)[0][-_SUMS:]).tolist()
        return loss, weight

    def meet(self, items: np.ndarray) -> None:
        """Learns from this rank's events and the others' which items nobody has met.

        Their id rows have learned nothing but to be nobody's: they were negatives only. With ``id_dropout`` or
        ``new_items_by_features`` they are served without, if they have features.
        """
        if (self.settings.id_dropout or self.settings.new_items_by_features) and self._features:
            met = np.bincount(items, minlength=self.sizes.items) > 0
            unmet = self.collective.allreduce(met.astype(np.int32)) == 0
            self._cold = unmet & (np.diff(self._features.ends, prepend=0) > 0)

    @property
    def parameters(self) -> int:
        """Numbers that are learned, on all ranks together."""
        tables = sum(self.tables.values()) * self.settings.width
        return tables + sum(size for name, size in self._elements().items() if name not in self.tables)

    def own_items(self) -> tuple[np.ndarray, np.ndarray]:
        """This rank's items, int32 [m] ascending, and their vectors from the shipped weights, float32 [m, d].

        Each item is one rank's, and all ranks have about as many; all call it together.
        """
        own, vectors = zip(*self.item_blocks(), strict=True)
        return np.concatenate(own), np.concatenate(vectors)

    def item_blocks(self) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """This rank's items and their vectors, block by block; every rank must take all its blocks."""
        for start in range(0, self.sizes.items, _BLOCK):
            self.alive()
            block = np.arange(start, min(start + _BLOCK, self.sizes.items))
            own = np.array_split(block, self.collective.size)[self.collective.rank].astype(np.int32)
            yield own, self._item_vectors(own)

    def table_blocks(self, name: str) -> Iterable[tuple[int, np.ndarray]]:
        """A table's shipped rows in contiguous blocks, of which each rank gets its own: the first row, and the rows.

        Every rank must take all its blocks.
        """
        for start in range(0, self.tables[name], _BLOCK * self.collective.size):
            self.alive()
            first = start + _BLOCK * self.collective.rank
            rows = np.arange(first, max(first, min(first + _BLOCK, self.tables[name])), dtype=np.int32)
            yield first, np.asarray(self.shipped({name: rows})[name])

    def user_vectors(self, batch: Batch) -> np.ndarray:
        """float32 [n, d] from the shipped weights and whole histories; every rank calls it, with or without users."""
        touched, local = self._rows.of_users(batch)
        vectors = np.zeros((0, self.settings.width), np.float32)
        if self._rows.reads_items:
            met, places = np.unique(batch["history_items"], return_inverse=True)
            vectors, local["history_items"] = self._item_vectors(met), places.astype(np.int32)
        return np.asarray(
            towers.user_vectors(self.shipped(touched), self.settings, _tensors(local), tf.constant(vectors))
        )

    def _item_vectors(self, items: np.ndarray) -> np.ndarray:
        """float32 [n, d] of distinct items from the shipped weights; every rank calls it, with or without items."""
        touched, batch = self._rows.of_items(items)
        return np.asarray(towers.item_rows(self.shipped(touched), batch))

    def shipped(self, touched: Touched) -> dict[str, Any]:
        """What is evaluated and served: the dense weights, and of each table the rows asked for."""
        tables = self.embeddings.lookup(touched, self.embeddings.routes(touched), shipped_after=self.steps)
        for name in set(touched).intersection(self._dense):
            tables[name] = self._dense_rows(self.optimizer.shipped, name, touched[name])
        if self._cold is not None and "item_id" in touched:
            tables["item_id"] = tf.where(self._cold[touched["item_id"], None], 0.0, tables["item_id"])
        if self.settings.history != "none" and "user_id" in touched:
            tables["user_id"] = moved(self.settings.seed, "user_id", touched["user_id"], tables["user_id"])
        return {**self.optimizer.shipped, **tables}

    def hash(self) -> str:
        """Of the bytes of every replicated variable, 16 hex digits."""
        return _digest(self.replicated(), self.alive)

    def check_equal(self, where: str) -> str:
        """The hash of what is replicated, the same on all ranks.

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

    def hash_of_all(self, replicated: str) -> str:
        """The hash of what all ranks hold alike, and with it, where there are shards, the hashes of theirs."""
        if self.embeddings.sharded is None:
            return replicated
        shard = _digest(self.shards(), self.alive)
        every = self.collective.allgather(np.frombuffer(bytes.fromhex(replicated + shard), np.uint8))
        return hashlib.sha256(every.tobytes()).hexdigest()[:16]

    def replicated(self) -> Iterator[Part]:
        """Every array of a checkpoint that all ranks hold alike; ``kind/name``."""
        for name, variable in self.optimizer.state.items():
            yield Part(name, variable.shape[0], tuple(variable.shape), (variable.numpy(),))
        yield from self.embeddings.state(sharded=False)
        yield from self.scaling.state()

    def shards(self) -> Iterator[Part]:
        """Every array of which this rank holds the rows rank, rank + W, …; ``kind/table``."""
        return self.embeddings.state(sharded=True)

    def restore(self, read: Callable[[str, np.ndarray | None], np.ndarray], steps: int) -> None:
        """``read(name, rows)`` gives an array, or some rows of it (None: all); ``steps`` were done before."""
        self._variables_from(read)
        self.scaling.restore(read)
        self.steps = steps

    def begin(self, read: Callable[[str, np.ndarray | None], np.ndarray], steps: int) -> None:
        """From an earlier training's variables, as ``restore``: its ``steps`` count on, its loss scale does not."""
        self._variables_from(read)
        self.steps = self.begun = steps

    def reset(self) -> None:
        """Untrained again."""
        first = self._untrained()
        for name, variable in self.optimizer.state.items():
            group, weight = name.split("/", 1)
            variable.assign(first[weight] if group in ("weights", "average") else tf.zeros_like(variable))
        self.embeddings.reset()
        self.scaling.reset()
        self.steps = self.begun = 0

    def _variables_from(self, read: Callable[[str, np.ndarray | None], np.ndarray]) -> None:
        for name, variable in self.optimizer.state.items():
            variable.assign(read(name, None))
        self.embeddings.restore(read)

    def _untrained(self) -> dict[str, np.ndarray]:
        """First values of all that is updated whole."""
        return towers.initial(self.settings) | {name: self.embeddings.initial(name) for name in self._dense}

    def _elements(self) -> dict[str, int]:
        return {name: int(np.prod(variable.shape)) for name, variable in self.optimizer.variables.items()}

    def _dense_rows(self, weights: Mapping[str, tf.Variable], name: str, rows: np.ndarray) -> tf.Tensor:
        whole = self._rows.is_whole(name, rows)
        return tf.convert_to_tensor(weights[name]) if whole else tf.gather(weights[name], rows)

    def _computed(self, step: Prepared) -> tuple[Any, dict[str, tf.Tensor]]:
        """The dense gradient of all ranks, and this rank's of the touched rows."""
        values, variables = self.embeddings.lookup(step.touched, step.routes), self.optimizer.variables
        values |= {name: self._dense_rows(variables, name, step.touched[name]) for name in self._dense}
        flat, gradients = self._gradients(values, step.touched, step.parts)
        return self.exchange.dense(flat, self._elements()), gradients

    def _gradients(
        self, values: dict[str, tf.Tensor], touched: Touched, parts: Sequence[Batch]
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Sums over the parts: the dense gradient, flat, with loss, weight and targets; [u, d] of each other table."""
        rows = {name: touched[name] for name in self._dense if name not in self._rows.whole}
        if self._part is None:
            self._part = tf.function(
                self._gradient_of_part,
                input_signature=[
                    {name: tf.TensorSpec([None, self.settings.width], tf.float32) for name in values},
                    {name: tf.TensorSpec([None], tf.int32) for name in rows},
                    {name: tf.TensorSpec([None], array.dtype) for name, array in parts[0].items()},
                ],
                autograph=False,  # no step branches on a tensor, and to translate the source takes half of the tracing
            )
        flat, gradients = self._part(values, _tensors(rows), _tensors(parts[0]))
        for part in parts[1:]:
            more, others = self._part(values, _tensors(rows), _tensors(part))
            flat, gradients = flat + more, {name: gradients[name] + others[name] for name in gradients}
        return flat, gradients

    def _gradient_of_part(
        self, values: dict[str, tf.Tensor], rows: dict[str, tf.Tensor], batch: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        variables = {k: v for k, v in self.optimizer.variables.items() if k not in values}
        with tf.GradientTape() as tape:
            tape.watch(values)
            loss, weight = objective.loss({**variables, **values}, self.settings, batch)
        of_values, of_variables = tape.gradient(
            loss, (values, variables), self.scaling.factor(), unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        tables = {name: tf.convert_to_tensor(gradient) for name, gradient in of_values.items()}
        for name, places in rows.items():
            tables[name] = tf.math.unsorted_segment_sum(tables[name], places, self.tables[name])
        whole = {**of_variables, **tables}
        flat = [tf.reshape(tf.convert_to_tensor(whole[name]), [-1]) for name in self.optimizer.variables]
        rest = {name: gradient for name, gradient in tables.items() if name not in self._dense}
        targets, probe = tf.cast(tf.size(batch["target_items"]), tf.float32), self.scaling.probe(list(rest.values()))
        return tf.concat([*flat, tf.stack([loss, weight, targets, probe])], axis=0), rest

    def _clipped(self, flat: Any, updates: Any, scale: float) -> float:
        """``scale``, smaller where the whole gradient, of dense variables and tables, is longer than ``clip_norm``."""
        if not self.settings.clip_norm:
            return scale
        norm = scale * float(np.sqrt(_square(flat) + self.embeddings.squares(updates)))
        return scale * min(1.0, self.settings.clip_norm / max(norm, 1e-12))


def finish_epoch(trainer: Trainer, loader: Loader, place: Place, after_step: Callable[[Place, int], None]) -> None:
    """The steps of ``place.epoch`` from ``place.step`` on; ``place`` is moved along and ends at the epoch's end.

    ``after_step`` is called with it and the number of steps done in all.
    """
    planned = loader.steps_per_epoch * trainer.settings.epochs
    steps = (loader.step(place.epoch, step) for step in range(place.step, loader.steps_per_epoch))
    with closing(ahead(steps, trainer.settings.prefetch)) as cut, closing(trainer.ahead(cut)) as prepared:
        for step in prepared:
            number = place.epoch * loader.steps_per_epoch + place.step
            loss, weight, examples = trainer.step(step, number, planned)
            place.step, place.loss = place.step + 1, place.loss + loss
            place.weight, place.examples = place.weight + weight, place.examples + examples
            after_step(place, number + 1)


def _digest(parts: Iterable[Part], alive: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for block in part.blocks:
            alive()
            digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()[:16]


def _square(array: Any) -> float:
    """The sum of squares."""
    return float(tf.reduce_sum(tf.square(array)))


def _tensors(batch: Mapping[str, np.ndarray]) -> dict[str, tf.Tensor]:
    return {name: tf.constant(array) for name, array in batch.items()}
