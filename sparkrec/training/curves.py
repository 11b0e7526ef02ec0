"""TensorBoard's curves of one phase, written by one rank; a resumed training draws on as if it had never stopped.

step/…     loss, learning_rate, examples_per_second (float16: loss_scale), by the steps done; some 1,000 a phase
epoch/…    loss, examples_per_second, recall, ndcg, by the epochs done: the rows of the result's curve
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from sparkrec.training.loop import Place

_POINTS = 1000
_OF_EPOCHS = ("loss", "examples_per_second", "recall", "ndcg")


class Curves:
    """What an earlier start wrote past ``place`` is dropped.

    Parameters
    ----------
    folder : of the phase; None: nothing is written.
    place : where the phase begins or goes on.
    steps_per_epoch, epochs : of the phase.
    """

    def __init__(self, folder: Path | None, place: Place, steps_per_epoch: int, epochs: int) -> None:
        self._every = max(1, steps_per_epoch * epochs // _POINTS)
        self._last = place.loss, place.weight
        self._since = time.monotonic(), place.examples
        if folder is None:
            self._writer = tf.summary.create_noop_writer()
            return
        done = {"step": place.epoch * steps_per_epoch + place.step, "epoch": place.epoch}
        old = sorted(folder.glob("events.out.tfevents.*"))
        kept = [point for path in old for point in points(path) if point[1] <= done[point[0].split("/")[0]]]
        self._writer = tf.summary.create_file_writer(str(folder))
        for tag, step, value in kept:
            self._write(tag, value, step)
        self.flush()
        for path in old:
            path.unlink()

    def step(self, place: Place, done: int, **more: float) -> None:
        """After step ``done``; its own loss is what the epoch's sums grew by. ``more`` : name → value."""
        (loss, weight), self._last = self._last, (place.loss, place.weight)
        if done % self._every or place.weight <= weight:
            return
        (before, examples), self._since = self._since, (time.monotonic(), place.examples)
        rate = (place.examples - examples) / max(self._since[0] - before, 1e-9)
        own = {"loss": (place.loss - loss) / (place.weight - weight), "examples_per_second": rate}
        for name, value in (own | more).items():
            self._write(f"step/{name}", value, done)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """A row of the result's curve; another epoch begins."""
        for name in _OF_EPOCHS:
            if name in row:
                self._write(f"epoch/{name}", row[name], row["epoch"])
        self._last, self._since = (0.0, 0.0), (time.monotonic(), 0.0)

    def flush(self) -> None:
        """Before a checkpoint: what it counts as done must lie on the disk."""
        self._writer.flush()

    def _write(self, tag: str, value: float, step: int) -> None:
        with self._writer.as_default():
            tf.summary.scalar(tag, value, step)


def points(path: Path) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value of every point in an event file, up to where a killed process broke off."""
    try:
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                yield value.tag, event.step, float(tf.make_ndarray(value.tensor))
    except tf.errors.DataLossError:
        return
