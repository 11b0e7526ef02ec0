"""Event files, read back with TensorBoard's own reader, against the training's result."""

from __future__ import annotations

import numpy as np
import pytest
from small import make_plan, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from sparkrec.training.curves import Curves, points
from sparkrec.training.loop import Place

pytestmark = pytest.mark.workers

#: Three steps an epoch; at most two epochs in each phase.
SETTINGS = {
    "ranks": 2, "checkpoint_steps": 2, "epochs": 2, "learning_rate": 1e-2, "learning_rate_decay": "linear",
    "history_keep": 1.0,
}  # fmt: skip


class Stop(Exception):
    """What kills the training."""


def curves(plan, phase):
    """Tag → [(step, value)] as TensorBoard reads them; files are read one after the other, so it sees doubles."""
    everything = {"tensors": 0}
    reader = EventAccumulator(str(plan.path("tensorboard", phase)), everything, purge_orphaned_data=False)
    reader.Reload()
    return {
        tag: [(event.step, float(make_ndarray(event.tensor_proto))) for event in reader.Tensors(tag)]
        for tag in reader.Tags()["tensors"]
    }


def timeless(drawn):
    return {tag: values for tag, values in drawn.items() if "examples_per_second" not in tag}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    plan = make_plan(tmp_path_factory.mktemp("whole"), **SETTINGS)
    return plan, train(plan)[0]


@pytest.mark.parametrize("phase", ["choose", "final"])
def test_epochs_are_those_of_the_result(undisturbed, phase):
    plan, result = undisturbed
    drawn = curves(plan, phase)
    rows = [row for row in result["curve"] if row["phase"] == phase]
    assert rows
    for name in set(rows[0]) - {"phase", "epoch"}:
        expected = [(row["epoch"], pytest.approx(row[name], rel=1e-6)) for row in rows]
        assert drawn[f"epoch/{name}"] == expected, name
    assert ("epoch/ndcg" in drawn) == (phase == "choose")


def test_steps_have_their_own_loss_and_learning_rate(undisturbed):
    plan, result = undisturbed
    drawn = curves(plan, "choose")
    rates = [(step, pytest.approx(1e-2 * (1 - (step - 1) / 6), rel=1e-6)) for step in range(1, 7)]
    assert drawn["step/learning_rate"] == rates
    # An epoch's loss lies between those of its steps, of which it is a weighted mean; they are not all the same.
    losses = np.asarray([value for _, value in drawn["step/loss"]]).reshape(2, 3)
    assert np.ptp(losses, axis=1).min() > 1e-4
    for own, row in zip(losses, result["curve"], strict=False):
        assert own.min() < row["loss"] < own.max()
    assert all(value > 0 for _, value in drawn["step/examples_per_second"])


@pytest.mark.parametrize(("save", "torn"), [(1, False), (2, True), (5, False), (7, False)])
def test_a_resumed_training_goes_on_with_the_same_curves(tmp_path, undisturbed, save, torn):
    """Killed before a checkpoint was written: the points since the one before are on the disk, and are drawn once."""
    plan = make_plan(tmp_path, **SETTINGS)

    def during(training):
        saves, original = [], training._save

        def stop_at_one(*arguments):
            saves.append(1)
            if len(saves) == save:
                raise Stop
            original(*arguments)

        training._save = stop_at_one

    with pytest.raises(Stop):
        train(plan, during)
    (file,) = plan.path("tensorboard", "final" if save == 7 else "choose").iterdir()
    assert list(points(file))
    if torn:
        file.write_bytes(file.read_bytes() + file.read_bytes()[:20])
    train(plan)
    for phase in ("choose", "final"):
        assert timeless(curves(plan, phase)) == timeless(curves(undisturbed[0], phase))


def test_what_is_past_the_place_is_dropped_and_other_phases_are_left_alone(tmp_path):
    place = Place()
    drawn = Curves(tmp_path, place, steps_per_epoch=2, epochs=5)
    for done in range(1, 5):
        place.step, place.loss, place.weight = place.step + 1, place.loss + done, place.weight + 2
        drawn.step(place, done, learning_rate=0.5)
        if done % 2 == 0:
            drawn.epoch({"epoch": done // 2, "loss": place.mean_loss, "examples_per_second": 1.0})
            place = Place(epoch=done // 2)
    drawn.flush()
    Curves(tmp_path, Place(epoch=1, step=1), steps_per_epoch=2, epochs=5)
    (file,) = tmp_path.iterdir()
    found = [(tag, step, value) for tag, step, value in points(file) if tag.endswith("loss")]
    assert found == [("step/loss", 1, 0.5), ("step/loss", 2, 1.0), ("epoch/loss", 1, 0.75), ("step/loss", 3, 1.5)]


def test_a_long_phase_has_a_thousand_points_and_other_ranks_write_nothing(tmp_path):
    for folder in (tmp_path, None):
        place, drawn = Place(), Curves(folder, Place(), steps_per_epoch=1001, epochs=2)
        for done in range(1, 1001):
            place.weight += 1
            drawn.step(place, done, learning_rate=0.1)
        drawn.flush()
    (file,) = tmp_path.iterdir()
    assert [step for tag, step, _ in points(file) if tag == "step/loss"] == list(range(2, 1001, 2))
