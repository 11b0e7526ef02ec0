"""One rank, from its row groups to the exported model: choose the epochs on validation, then train on everything."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from sparkrec import columns as c
from sparkrec.errors import UNUSABLE, DataError, SparkrecError
from sparkrec.models import folders
from sparkrec.models.two_tower import towers
from sparkrec.models.two_tower.towers import Sizes
from sparkrec.training import checkpoint, grown, memory, placement
from sparkrec.training.collective import Collective, Disconnected, Horovod, SingleProcess, tell
from sparkrec.training.curves import Curves
from sparkrec.training.device import use_gpu
from sparkrec.training.events import read_events, without_validation
from sparkrec.training.export import export
from sparkrec.training.item_features import check_known, read_item_features
from sparkrec.training.loader import Loader
from sparkrec.training.loop import Place, Trainer, finish_epoch
from sparkrec.training.optimizer import learning_rate
from sparkrec.training.pace import Pace
from sparkrec.training.placement import Placement
from sparkrec.training.plan import CHOSEN, Base, Journal, Plan
from sparkrec.training.precision import doubt
from sparkrec.training.validation import Validation, best_epoch, given_up

_CHOOSE, _FINAL = "choose", "final"
_PROGRESS_SECONDS = 3.0
_STAYS = "as in the training that this one starts from"


def main(plan_path: str, gpus: Sequence[str]) -> str:
    """The function that every process runs; returns where the result lies, never the weights.

    ``gpus`` : Spark's addresses of those that it gave to this process, if it gave any.
    """
    plan = Plan.load(plan_path)
    configure_tensorflow(plan.settings.threads)
    collective: Collective = Horovod() if plan.settings.ranks > 1 else SingleProcess()
    journal = Journal(plan, collective.rank)
    journal.beat()
    try:
        gpu = use_gpu(plan.settings.device, collective, gpus)
        if gpu or gpus:
            given = f"Spark gave it GPU {', '.join(gpus)}" if gpus else "Spark gave it none"
            where = f"GPU {gpu}" if gpu else "the CPU"
            text = f"rank {collective.rank} on {socket.gethostname()} computes on {where}; {given}"
            journal.write("note", text=text)
        said = doubt(plan.settings.precision)
        if said and collective.rank == 0:
            journal.write("note", text=said)
        Training(plan, collective, journal).run()
    except Exception as error:
        lost = isinstance(error, Disconnected) or "Horovod" in f"{type(error).__name__} {error}"
        kind = type(error).__name__ if isinstance(error, SparkrecError) else "lost" if lost else "defect"
        text = str(error) if isinstance(error, SparkrecError) else traceback.format_exc(limit=-6)
        if isinstance(error, OSError):
            kind, text = "RetryableError", f"On {socket.gethostname()} the file system failed: {error}."
            if error.errno in UNUSABLE:
                kind, text = "ConfigError", f"{text} Look at lake.path and lake.files, and at who owns them there."
        journal.write("error", kind=kind, text=text)
        raise
    return str(plan.path("result.json"))


def configure_tensorflow(threads: int) -> None:
    """Threads and determinism; both must be set before TensorFlow's first operation."""
    import tensorflow as tf

    # With determinism a scatter on a GPU copies the whole table to the CPU and back. Ours never name a row twice with
    # different values, so their order does not matter.
    os.environ.setdefault("TF_DISABLE_SCATTER_OP_DETERMINISM", "1")
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()


class Training:
    """One rank's training, resumed from the newest checkpoint of the same plan if there is one."""

    def __init__(self, plan: Plan, collective: Collective, journal: Journal) -> None:
        self.plan, self.collective, self.journal = plan, collective, journal
        self.settings, self.sizes = plan.settings, Sizes(**plan.sizes)
        self.features = read_item_features(plan.items, self.sizes, journal.beat)
        since, own = plan.base.since if plan.base else None, plan.sequences.ranks[collective.rank]
        stars, forgotten = self.settings.loss == "mse", memory.read(plan)
        self.events = read_events(own, collective, stars, since, journal.beat, forgotten)
        self._check_input()
        self.curve: list[dict[str, Any]] = []
        self._warm: dict[str, Any] = {}
        self._said = time.monotonic()
        self._pace = Pace()

    def run(self) -> dict[str, Any]:
        """Both phases; the model in ``model/`` and the result in ``result.json``, by rank 0."""
        self.journal.write("rows", host=socket.gethostname(), pid=os.getpid(), **self._rows())
        folder, alive = self.plan.path("checkpoints"), self.journal.beat
        saved = checkpoint.newest(folder, self.plan.fingerprint, self.collective, self._warn, alive)
        phase = _CHOOSE if self._chooses() else _FINAL
        kept = self._placement(saved.state["placement"] if saved else {})
        place = Place()
        trainer = Trainer(self.settings, self.sizes, self.features, self.collective, kept, self.journal.beat)
        if self.plan.ranks < self.settings.ranks:
            self._warn(f"trains on {self.plan.ranks} of {self.settings.ranks} ranks: there are no slots for more")
        if self.plan.base:
            self._begin(trainer, self.plan.base)
        if saved:
            phase, self.curve, place = saved.state["phase"], saved.state["curve"], Place(**saved.state["place"])
            trainer.restore(saved.read, saved.state["steps"])
            self._warn(f"resumed from the checkpoint at phase {phase}, epoch {place.epoch + 1}, step {place.step}")
        elif self.collective.rank == 0:
            if checkpoint.any_in(folder):  # of this plan: the supervisor has removed others
                self._warn("no checkpoint is whole, so the training begins anew")
            shutil.rmtree(self.plan.path("tensorboard"), ignore_errors=True)
        self._warn(f"curves: tensorboard --logdir {self.plan.path('tensorboard')}")
        if phase == _CHOOSE:
            self._train(trainer, _CHOOSE, place, self.settings.epochs)
            if self.plan.keep_chosen:
                self._export_chosen(trainer)
            place = Place()
            trainer.reset()
        epochs = best_epoch(self.curve) or self.settings.epochs
        if any(row["phase"] == _CHOOSE for row in self.curve) and not best_epoch(self.curve):
            self._warn(f"no validation event was ever among the best 20: {epochs} epochs, as configured")
        self._train(trainer, _FINAL, place, epochs)
        return self._finish(trainer, place.epoch)

    def _begin(self, trainer: Trainer, base: Base) -> None:
        """With the earlier training's variables, in tables that have grown since."""
        earlier = grown.earlier(base, self.collective, self._warn, self.journal.beat)
        trainer.begin(grown.reader(earlier, self.settings, trainer.tables), base.steps)
        self._warm = {
            "run": base.run_id, "full": base.full, "times": base.times, "since": base.since,
            "new_rows": grown.new_rows(earlier, trainer.tables),
        }  # fmt: skip

    def _train(self, trainer: Trainer, phase: str, place: Place, epochs: int) -> None:
        choosing = phase == _CHOOSE
        events = without_validation(self.events) if choosing else self.events
        batches = Loader(events, self.sizes.users, self.sizes.items, self.settings, self.collective, trainer.begun)
        self._assert_equal_steps(batches.steps_per_epoch)
        if self.plan.base:
            epochs = self._asked(batches, epochs)
        else:
            self._check_targets(batches, phase)
        trainer.columns.count(batches.target_counts())
        trainer.meet(batches.events.items)
        validation = Validation(self.events, trainer, self.plan.question) if choosing else None
        folder = None if self.collective.rank else self.plan.path("tensorboard", phase)
        curves = Curves(folder, place, batches.steps_per_epoch, epochs)
        planned = batches.steps_per_epoch * self.settings.epochs
        self._pace = Pace(place.step, place.examples)

        def after_step(now: Place, done: int) -> None:
            self.journal.beat()
            if done == 1:
                trainer.check_equal("after the first step")
            self._progress(phase, now, epochs, batches.steps_per_epoch)
            scale = {"loss_scale": trainer.scaling.scale} if trainer.scaling.on else {}
            curves.step(now, done, learning_rate=learning_rate(self.settings, done - 1, planned), **scale)
            if self.settings.checkpoint_steps and done % self.settings.checkpoint_steps == 0:
                curves.flush()
                self._save(trainer, phase, now, done)

        while place.epoch < epochs and not (choosing and given_up(self.curve, self.settings.patience)):
            finish_epoch(trainer, batches, place, after_step)
            rate = self._pace.rate(place.examples)
            row = {"phase": phase, "epoch": place.epoch + 1, "loss": place.mean_loss, "examples_per_second": rate}
            self.curve.append(row | (validation.score() if validation else {}))
            self.journal.write("epoch", **self.curve[-1])
            curves.epoch(self.curve[-1])
            place.epoch, place.step, place.loss, place.weight, place.examples = place.epoch + 1, 0, 0.0, 0.0, 0.0
            curves.flush()
            last = not choosing and place.epoch == epochs  # what a warm start begins with
            best = choosing and self.plan.keep_chosen and best_epoch(self.curve) == place.epoch
            if last or best or place.epoch % self.settings.checkpoint_epochs == 0:
                self._save(trainer, phase, place, place.epoch * batches.steps_per_epoch)
            self._pace = Pace()
        if not epochs:
            self._save(trainer, phase, place, 0)

    def _export_chosen(self, trainer: Trainer) -> None:
        """The model of the best epoch, whose checkpoint is kept until the training is done; of the last if none is."""
        best, folder = best_epoch(self.curve), self.plan.path("checkpoints")
        if best:
            saved = checkpoint.best(folder, self.plan.fingerprint, self.collective, self.journal.beat)
            if saved is None or saved.state["place"]["epoch"] != best:
                raise DataError(
                    f"Validation chose epoch {best}, whose model the ranker needs, and its checkpoint in {folder} is "
                    "damaged or gone. Remove that folder and run this job again: it trains anew."
                )
            trainer.restore(saved.read, saved.state["steps"])
        about = {"tables": self.plan.versions, "epochs": best or self.curve[-1]["epoch"]}
        export(trainer, self.plan.path(CHOSEN), about)

    def _save(self, trainer: Trainer, phase: str, place: Place, done: int) -> None:
        """Compare the ranks, then write; the final phase numbers after the first."""
        trainer.check_equal(f"at the checkpoint after step {done}")
        scored = phase == _CHOOSE and place.step == 0 and self.curve
        state = {
            "fingerprint": self.plan.fingerprint, "phase": phase, "place": dataclasses.asdict(place),
            "curve": self.curve, "two_tower": self.plan.two_tower, "tables": self.plan.versions,
            "placement": trainer.placement, "steps": trainer.steps, "rows": trainer.tables,
            "score": self.curve[-1].get("ndcg") if scored else None,
        }  # fmt: skip
        number = done + (10**9 if phase == _FINAL else 0)
        checkpoint.save(
            self.plan.path("checkpoints"), number, self._heard(trainer.replicated()), self._heard(trainer.shards()),
            state, self.settings.keep_checkpoints, self.collective,
        )  # fmt: skip
        self.journal.beat()

    def _heard(self, parts: Iterable[checkpoint.Part]) -> Iterator[checkpoint.Part]:
        """The same parts; each block that is written says that this rank is alive: a large table takes its time."""

        def blocks(part: checkpoint.Part) -> Iterator[np.ndarray]:
            for block in part.blocks:
                self.journal.beat()
                yield block

        for part in parts:
            yield part._replace(blocks=blocks(part))

    def _finish(self, trainer: Trainer, epochs: int) -> dict[str, Any]:
        digest = trainer.hash_of_all(trainer.check_equal("after the last step"))
        self.journal.write("equal", hash=digest, ranks=self.collective.size)
        mine = {"rank": self.collective.rank, "host": socket.gethostname(), "hash": digest, **self._rows()}
        result = {
            "ranks": tell(self.collective, mine), "curve": self.curve, "epochs": epochs, "hash": digest,
            "parameters": trainer.parameters, "placement": trainer.placement, "bytes_a_step": self._sent(trainer),
            "steps": trainer.steps, "as_of": self.plan.as_of, "warm_start": self._warm or None,
            "fingerprint": self.plan.fingerprint, "attempt": self.plan.attempt,
        }  # fmt: skip
        about = {"tables": self.plan.versions, "epochs": epochs, "hash": digest, "warm_start": self._warm or None}
        export(trainer, self.plan.path("model"), about)
        if self.collective.rank == 0:
            folders.write_json(self.plan.path("result.json"), result)
        self.collective.barrier()
        return result

    def _asked(self, batches: Loader, epochs: int) -> int:
        """The epochs of a warm start: none, where no event is new. Notes what is trained on."""
        epochs = epochs if batches.new_users else 0
        new, replayed = self.collective.allreduce(np.asarray(batches.trained(epochs), np.float64)).tolist()
        self._warm |= {"new_users": batches.new_users, "new_targets": int(new), "replayed_targets": int(replayed)}
        self._warn(
            f"warm start: {batches.new_users:,} users with new events; {int(new):,} new and {int(replayed):,} replayed "
            f"targets in {epochs} epochs"
        )
        return epochs

    def _placement(self, kept: dict[str, Placement]) -> dict[str, Placement]:
        """Where each table is kept; the same on all ranks, because it is made from sums over them.

        ``kept`` : where the checkpoint has them, which is where they stay. A warm start too leaves them where they
        were, unless told otherwise: the optimizer's state belongs to the place.
        """
        settings, lengths = self.settings, self.events.lengths
        earlier = self.plan.base.placement if self.plan.base else {}
        stay = set(kept or earlier.keys() - settings.placement.keys())
        settings = settings.model_copy(update={"placement": earlier | settings.placement | kept})
        tokens = np.minimum(lengths, settings.max_history) if settings.mode == "user" else lengths
        sums = np.asarray([np.count_nonzero(lengths), tokens.sum(), lengths.sum()], np.float64)
        users, tokens, targets = self.collective.allreduce(sums).tolist()
        tables = towers.tables(settings, self.sizes)
        touched = placement.touched_rows(settings, tables, int(users), tokens, targets)
        planned = placement.plan(settings, tables, touched, self.collective.size)
        reason = "as the checkpoint has it" if kept else _STAYS
        planned = [dataclasses.replace(table, reason=reason) if table.table in stay else table for table in planned]
        if self.collective.rank == 0:
            self.journal.write("placement", tables=[dataclasses.asdict(table) for table in planned])
        return {table.table: table.placement for table in planned}

    def _sent(self, trainer: Trainer) -> dict[str, int]:
        """Bytes that a rank sends in a step, for each variable; since the start of this process."""
        names = sorted(trainer.exchange.bytes)
        sums = self.collective.allreduce(np.asarray([trainer.exchange.bytes[n] for n in names], np.float64))
        steps = max(trainer.exchange.steps, 1) * self.collective.size
        sent = {name: int(total / steps) for name, total in zip(names, sums.tolist(), strict=True)}
        if self.collective.rank == 0 and sent:
            self.journal.write("bytes", sent=sent)
        return sent

    def _chooses(self) -> bool:
        """Whether epochs are chosen on validation: asked for, and some rank holds a validation event."""
        flagged = self.collective.allreduce(np.asarray([self.events.validation.sum()], np.float64))[0]
        if self.settings.select_on_validation and not flagged:
            self._warn(f"no event is held out for validation: {self.settings.epochs} epochs, as configured")
        return bool(self.settings.select_on_validation and flagged)

    def _check_input(self) -> None:
        if not self.collective.allreduce(np.asarray([len(self.events.items)], np.float64))[0]:
            raise DataError(
                "gold.sequences holds no event, so there is nothing to train on. Look at featurize's counts."
            )
        check_known("gold.sequences", c.USER_INDEX, self.events.users, self.sizes.users)
        check_known("gold.sequences", c.ITEM_INDEX, self.events.items, self.sizes.items)

    def _check_targets(self, batches: Loader, phase: str) -> None:
        """What nothing is asked of learns nothing, and nobody would see it: the loss would be 0."""
        counts = self.collective.allreduce(batches.targets_by_type()).tolist()
        found = {name: count for name, count in zip(c.EVENT_TYPES, counts, strict=True) if count}
        served, settings = self.settings.head, self.settings
        if served in found if served else found:
            return
        wanted = served or " or ".join(name for name, weight in settings.weights.items() if weight > 0) or "any type"
        stars = ", with stars (loss: mse)" if settings.loss == "mse" else ""
        follows = ""
        if settings.mode == "position":
            follows = ", that follows another event of its user and, without repeats, is the first such on its item"
        without, instead = "", ""
        if phase == _CHOOSE:
            without = " without the events that are held out for validation"
            instead = ", or set two_tower.select_on_validation=false"
        raise DataError(
            f"There is nothing that the two-tower model could learn to serve: gold.sequences{without} holds no target "
            f"of type {wanted}. A target is an event of a type with a weight in two_tower.weights{stars}{follows}. "
            f"Those there are: {found or 'none'}. Look at featurize's counts and features.event_types, and give a "
            f"weight (with heads, the one that is served) to a type that occurs{instead}."
        )

    def _assert_equal_steps(self, steps: int) -> None:
        """A rank with a step more than the others would wait for them for ever."""
        every = self.collective.allgather(np.asarray([steps], np.int64))
        if len(set(every.tolist())) > 1:
            raise AssertionError(f"ranks plan different numbers of steps: {every.tolist()}")

    def _rows(self) -> dict[str, int]:
        pieces = self.plan.sequences.ranks[self.collective.rank]
        return {
            "rows": sum(piece.rows for piece in pieces), "row_groups": len(pieces), "users": len(self.events.users),
            "events": len(self.events.items), "bytes": self.events.nbytes,
        }  # fmt: skip

    def _progress(self, phase: str, place: Place, epochs: int, steps: int) -> None:
        now = time.monotonic()
        if self.collective.rank or now - self._said < _PROGRESS_SECONDS:
            return
        left = (epochs - place.epoch) * steps - place.step
        self._said = now
        self.journal.write(
            "step", phase=phase, epoch=place.epoch + 1, epochs=epochs, step=place.step, steps=steps,
            loss=place.mean_loss, examples_per_second=self._pace.rate(place.examples),
            seconds_left=self._pace.seconds_left(place.step, left),
        )  # fmt: skip

    def _warn(self, text: str) -> None:
        if self.collective.rank == 0:
            self.journal.write("note", text=text)
