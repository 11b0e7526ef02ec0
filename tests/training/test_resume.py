"""Stopped anywhere and started again: the same bytes as without the stop."""

from __future__ import annotations

from errno import EIO

import numpy as np
import pytest
from small import make_plan, train

from sparkrec.errors import ConfigError, DataError, RetryableError
from sparkrec.models.two_tower import exported
from sparkrec.training import checkpoint, loop, tables, worker
from sparkrec.training.collective import SingleProcess
from sparkrec.training.pace import Pace
from sparkrec.training.plan import Follower, Journal
from sparkrec.training.supervisor import _prepare
from sparkrec.training.validation import Validation, best_epoch, given_up
from sparkrec.training.worker import Training

pytestmark = pytest.mark.workers

#: Six steps an epoch of three; a checkpoint after each second step and each epoch.
SETTINGS = {
    "ranks": 2, "checkpoint_steps": 2, "epochs": 3, "average": 0.9,
    "placement": {"user_id": "sharded", "history_item": "replicated_sparse"},
}  # fmt: skip


class Stop(Exception):
    """What kills the training."""


def die_after(steps):
    def during(training):
        done = []

        def after_step(*_):
            done.append(1)
            if len(done) == steps:
                raise Stop

        training._progress = after_step

    return during


def stopped(plan, steps):
    with pytest.raises(Stop):
        train(plan, die_after(steps))


def timeless(curve):
    return [{name: value for name, value in row.items() if name != "examples_per_second"} for row in curve]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    plan = make_plan(tmp_path_factory.mktemp("whole"), **SETTINGS)
    return train(plan)[0] | {"model": exported.load(plan.path("model")).weights}


@pytest.mark.parametrize("steps", [1, 3, 4, 6, 10, 13, 17])
def test_resumed_is_uninterrupted(tmp_path, undisturbed, steps):
    plan = make_plan(tmp_path, **SETTINGS)
    stopped(plan, steps)
    result = train(plan)[0]
    assert result["hash"] == undisturbed["hash"]
    assert timeless(result["curve"]) == timeless(undisturbed["curve"])


@pytest.mark.parametrize("ranks", [1, 3])
def test_another_number_of_ranks_goes_on_where_two_were(tmp_path, undisturbed, ranks):
    """In the middle of an epoch, with rows of users dealt out anew."""
    stopped(make_plan(tmp_path, **SETTINGS), 14)
    plan = make_plan(tmp_path, **SETTINGS | {"ranks": ranks})
    _prepare(plan, print)
    notes = []
    result = train(plan, lambda training: setattr(training, "_warn", notes.append))[0]
    assert any("resumed from the checkpoint" in note for note in notes)
    assert len(result["curve"]) == len(undisturbed["curve"])
    for row, expected in zip(result["curve"], undisturbed["curve"], strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    model, expected = exported.load(plan.path("model")), undisturbed["model"]
    for name, weight in model.weights.items():
        np.testing.assert_allclose(weight, expected[name], atol=1e-4, err_msg=name)


def test_fewer_ranks_than_were_asked_for_plan_with_the_memory_that_they_need(tmp_path):
    plan = make_plan(tmp_path, ranks=2, elastic=True, placement={"user_id": "sharded"}).on(1)
    Training(plan, SingleProcess(), Journal(plan, 0))._placement({})
    (event,) = Follower(plan).new()
    planned = {table["table"]: table["gb"] for table in event["tables"]}
    assert planned["user_id"] == 40 * 4 * (8 + 1) / 1e9


def test_it_does_resume(tmp_path):
    plan = make_plan(tmp_path, **SETTINGS)
    stopped(plan, 12)
    _prepare(plan, print)
    notes = []
    train(plan, lambda training: setattr(training, "_warn", notes.append))
    assert any("resumed from the checkpoint" in note for note in notes)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, undisturbed):
    plan = make_plan(tmp_path, **SETTINGS)
    stopped(plan, 15)
    newest = sorted(plan.path("checkpoints").iterdir())[-1]
    array = newest / "weights.item_id.npy"
    array.write_bytes(array.read_bytes()[:-100])
    notes = []
    result = train(plan, lambda training: setattr(training, "_warn", notes.append))
    assert any(f"{newest} is damaged: the checksum of weights.item_id.npy" in note for note in notes)
    assert any("resumed from the checkpoint" in note for note in notes)
    assert result[0]["hash"] == undisturbed["hash"]


def test_a_finished_training_starts_again_and_another_plan_does_not_resume(tmp_path):
    plan = make_plan(tmp_path, **SETTINGS)
    train(plan)
    assert plan.path("checkpoints").is_dir()
    _prepare(plan, print)
    assert not plan.path("checkpoints").exists()
    stopped(plan, 12)
    said = []
    _prepare(plan, said.append)
    assert not said
    other = make_plan(tmp_path, **SETTINGS, seed=99)
    _prepare(other, said.append)
    assert not plan.path("checkpoints").exists()
    assert len(said) == 1
    assert "are removed: they are of other settings or tables" in said[0]


def test_where_every_checkpoint_is_damaged_it_is_said_that_all_is_done_again(tmp_path):
    plan = make_plan(tmp_path, **SETTINGS)
    stopped(plan, 3)
    (only,) = plan.path("checkpoints").iterdir()
    (only / "manifest.json").unlink()
    said = []
    _prepare(plan, said.append)
    folder = plan.path("checkpoints")
    assert said == [
        f"the training begins anew, and the checkpoints in {folder} are removed: the checkpoint {only} is damaged: "
        "it has no manifest.json"
    ]
    assert not only.exists()


def test_a_training_killed_after_a_damaged_checkpoint_goes_on_from_its_own(tmp_path):
    """One checkpoint is kept, and that of step 8 is damaged; the next training is killed after step 5."""
    plan = make_plan(tmp_path, **SETTINGS, keep_checkpoints=1, select_on_validation=False)
    stopped(plan, 9)
    (newest,) = plan.path("checkpoints").iterdir()
    (newest / "manifest.json").unlink()
    notes = []

    def note(training):
        training._warn = notes.append
        die_after(5)(training)

    with pytest.raises(Stop):
        train(plan, note)
    assert "no checkpoint is whole, so the training begins anew" in notes
    notes.clear()
    train(plan, lambda training: setattr(training, "_warn", notes.append))
    assert any("resumed from the checkpoint at phase final, epoch 2, step 1" in note for note in notes)


def test_a_store_that_is_away_for_a_while_costs_no_checkpoint(tmp_path, monkeypatch):
    plan = make_plan(tmp_path, **SETTINGS)
    stopped(plan, 15)
    before = sorted(plan.path("checkpoints").rglob("*"))

    def away(path, alive):
        raise OSError(EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "checksum", away)
        with pytest.raises(RetryableError, match=r"could not be read.*\.npy: Input/output error"):
            _prepare(plan, pytest.fail)
    assert sorted(plan.path("checkpoints").rglob("*")) == before
    _prepare(plan, pytest.fail)
    assert sorted(plan.path("checkpoints").rglob("*")) == before


def test_a_resumed_training_says_what_is_so(tmp_path, monkeypatch):
    """No epoch was to be chosen, so none was in vain; and it is as fast as since it has gone on."""
    plan = make_plan(tmp_path, **SETTINGS | {"select_on_validation": False})
    stopped(plan, 9)
    notes, paces = [], []
    monkeypatch.setattr(worker, "Pace", lambda *done: paces.append(done) or Pace(*done))
    train(plan, lambda training: setattr(training, "_warn", notes.append))
    assert any("resumed from the checkpoint at phase final, epoch 3, step 2" in note for note in notes)
    assert not [note for note in notes if "validation" in note]
    begun = {done for done in paces if done}
    assert [step for step, _ in begun] == [2]
    assert min(examples for _, examples in begun) > 0


def test_a_diverged_loss_names_what_to_change(tmp_path, monkeypatch):
    plan = make_plan(tmp_path, ranks=1)

    original = worker.Trainer

    def poisoned(*arguments):
        trainer = original(*arguments)
        rows = trainer.optimizer.variables["item_id"]
        rows.assign(rows * float("nan"))
        return trainer

    monkeypatch.setattr(worker, "Trainer", poisoned)
    with pytest.raises(ConfigError, match=r"step 1\b.*learning_rate"):
        train(plan)


def test_ranks_that_differ_are_stopped(tmp_path, monkeypatch):
    plan = make_plan(tmp_path, ranks=2)

    original = worker.Trainer

    def by_rank(settings, sizes, features, collective, *more):
        return original(settings.model_copy(update={"seed": collective.rank}), sizes, features, collective, *more)

    monkeypatch.setattr(worker, "Trainer", by_rank)
    with pytest.raises(RetryableError, match=r"variables differ after the first"):
        train(plan)


def test_indices_that_the_vocabulary_does_not_know(tmp_path):
    plan = make_plan(tmp_path, ranks=1)
    plan.sizes["items"] = 10
    with pytest.raises(DataError, match=r"item_index 0 to 29.*0 to 9.*featurize"):
        train(plan)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weights": {"review": 1}}, r"no target of type review\. .*Those there are: none.*select_on_validation=false"),
        ({"weights": {"review": 1}, "mode": "position"}, r"of type review.*follows another event of its user"),
        ({"weights": {"review": 1}, "select_on_validation": False}, r"gold\.sequences holds no target.*occurs\.$"),
        ({"weights": {"view": 1, "review": 2}, "head": "review"}, r"of type review.*Those there are: \{'view': \d+\}"),
    ],
)
def test_where_nothing_could_be_learned_nothing_is_exported(tmp_path, settings, words):
    plan = make_plan(tmp_path, ranks=2, **settings)
    with pytest.raises(DataError, match=words):
        train(plan)
    assert not plan.path("model").exists()


def test_what_goes_through_all_rows_says_that_it_is_alive(tmp_path, monkeypatch):
    """A block at a time, here of 16 rows: the first rows, restored, scored and shipped ones."""
    monkeypatch.setattr(tables, "BLOCK", 16)
    monkeypatch.setattr(loop, "_BLOCK", 16)
    plan = make_plan(tmp_path, ranks=1, placement={"user_id": "sharded", "item_id": "sharded"})
    beats = []

    def look(training):
        training.journal.beat = lambda: beats.append(1)
        train_phase = training._train

        def heard(trainer, *more):
            before = [len(beats)]
            validation = Validation(training.events, trainer, plan.question)
            state = {
                part.name: np.concatenate(list(part.blocks)) for part in (*trainer.replicated(), *trainer.shards())
            }
            shards = [part.name for part in trainer.shards()]
            hashed = sum(3 if name.endswith("user_id") else 2 for name in shards) + len(list(trainer.replicated()))
            for act in (
                trainer.reset,
                lambda: trainer.restore(lambda name, rows: state[name] if rows is None else state[name][rows], 0),
                validation.score,
                lambda: list(trainer.table_blocks("user_id")),
                lambda: trainer.hash_of_all(trainer.hash()),
            ):
                act()
                before.append(len(beats))
            # 40 users and 30 items: five blocks, again five, two of items and one of users, three.
            assert np.diff(before).tolist() == [5, 5, 3, 3, hashed]
            train_phase(trainer, *more)

        training._train = heard

    train(plan, look)
    assert beats


def test_the_best_epoch_and_patience():
    curve = [{"epoch": e, "ndcg": n} for e, n in enumerate([0.1, 0.3, 0.2, 0.3, 0.1], start=1)]
    assert best_epoch(curve) == 2
    assert best_epoch([{"epoch": 1}]) == 0
    assert best_epoch([{"epoch": 1, "ndcg": 0.0}, {"epoch": 2, "ndcg": 0.0}]) == 0, "nothing was ever found"
    assert given_up(curve, 3)
    assert not given_up(curve, 4)
    assert not given_up([], 1)
