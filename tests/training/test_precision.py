"""Half precision: close to float32, equal on all ranks, a step that overflows has not been, resumed exactly.

u is the largest relative error of a rounding: 2^-9 in bfloat16, 2^-11 in float16.
"""

from __future__ import annotations

import numpy as np
import pytest
from few import everywhere, make, run, variables
from ranks import on_ranks
from small import make_plan, train

from sparkrec.config import TwoTower
from sparkrec.errors import ConfigError
from sparkrec.training import precision
from sparkrec.training.collective import SingleProcess

pytestmark = pytest.mark.workers

U = {"bfloat16": 2**-9, "float16": 2**-11}
TAU = 0.16
RECIPES = {
    "full, mean": {"history": "mean", "item_mlp": True},
    "sampled, recency by position": {"history": "recency", "mode": "position", "negatives": 8},
    "in batch, attention": {"history": "attention", "in_batch": True},
    "lstm by position": {"history": "lstm", "mode": "position", "negatives": 8, "layers": 1},
    "bpr, cnn": {"history": "cnn", "loss": "bpr", "negatives": 8, "layers": 1},
}


def settings(kind, **more):
    shape = {"width": 4, "batch": 10, "max_history": 5, "ranks": 1, "history_keep": 1.0, "precision": kind}
    return TwoTower.model_validate({**shape, **more})


def gradient(kind, recipe):
    """Mean loss of the first step, and its whole gradient, all tables dense and the loss's scale taken out."""
    trainer, loader = make(settings(kind, **recipe), SingleProcess())
    flat = np.asarray(trainer._computed(trainer.prepare(loader.step(0, 0)))[0], np.float64)
    loss, weight, targets, probe = flat[-4:]
    assert targets > 10
    assert probe == 0
    return loss / weight, flat[:-4] / trainer.scaling.scale


@pytest.mark.parametrize("recipe", RECIPES)
def test_loss_and_gradient_are_those_of_float32_to_a_few_roundings(recipe):
    loss, exact = gradient("float32", RECIPES[recipe])
    for kind, u in U.items():
        found, rounded = gradient(kind, RECIPES[recipe])
        # A score is at most 1/τ, with a rounding of each factor, of the product, and some in the towers.
        assert abs(found - loss) < 8 * u / TAU, kind
        # A softmax's shares are off by the scores' errors, up to 3 u/τ, about 20 u; the towers' add to them.
        error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
        assert u / 100 < error < 40 * u, kind


@pytest.mark.parametrize("kind", U)
def test_ranks_stay_equal_and_learn_as_in_float32(kind):
    """``run`` compares the variables of both ranks, bit by bit."""
    recipe = {
        "placement": everywhere("mixed"), "history": "recency", "in_batch": True, "learning_rate": 0.003,
        "history_keep": 1.0,
    }  # fmt: skip
    exact, _, _ = run(1, 9, **recipe)
    found, weights, trainer = run(2, 9, precision=kind, **recipe)
    assert trainer.scaling.skipped == 0
    assert {weight.dtype for weight in weights.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(found[:, 1], exact[:, 1], rtol=1e-6)
    np.testing.assert_allclose(found[:, 0] / found[:, 1], exact[:, 0] / exact[:, 1], atol=8 * U[kind] / TAU)
    again = run(2, 9, precision=kind, **recipe)
    np.testing.assert_array_equal(found, again[0])


def overflows(step):
    """The same step with user weights that a half cannot hold."""
    for part in step.parts:
        part["user_weight"] = part["user_weight"] * np.float32(1e12)
    return step


@pytest.mark.parametrize("placement", ["replicated_dense", "sharded", "replicated_sparse"])
def test_an_overflow_on_one_rank_is_a_step_that_has_not_been_on_any(placement):
    """Without a history and with sharded tables nothing is dense: only the probe tells the other rank."""
    config = settings(
        "float16", ranks=2, history="none", item_features=False, average=0.9, clip_norm=0.1,
        placement={"item_id": placement, "user_id": placement},
    )  # fmt: skip

    def rank(collective):
        trainer, loader = make(config, collective)
        trainer.step(trainer.prepare(loader.step(0, 0)), 0, 9)
        state = [block.copy() for part in (*trainer.replicated(), *trainer.shards()) for block in part.blocks]
        before, scale = variables(trainer), trainer.scaling.scale
        step = loader.step(0, 1)
        loss, _, _ = trainer.step(trainer.prepare(overflows(step) if collective.rank == 1 else step), 1, 9)
        assert np.isfinite(loss)
        trainer.check_equal("after the overflow")
        assert (trainer.scaling.scale, trainer.scaling.skipped) == (scale / 2, 1)
        after = [block for part in (*trainer.replicated(), *trainer.shards()) for block in part.blocks]
        changed = [a for a, b in zip(state, after, strict=True) if not np.array_equal(a, b)]
        assert [len(a) for a in changed] == [4]  # of all state, only the loss scale's
        for name, value in variables(trainer).items():
            np.testing.assert_array_equal(value, before[name], err_msg=name)
        trainer.step(trainer.prepare(loader.step(0, 2)), 2, 9)
        assert not np.array_equal(variables(trainer)["item_id"], before["item_id"])

    on_ranks(2, rank)


def test_the_steps_after_one_that_was_left_out_are_those_without_it():
    """Also for Adam's bias correction and the moving average. A power of two changes no bits."""
    config = settings("float16", average=0.9, placement=everywhere("mixed"))
    clean, loader = make(config, SingleProcess())
    clean.step(clean.prepare(loader.step(0, 0)), 0, 9)
    clean.step(clean.prepare(loader.step(0, 1)), 1, 9)
    halved, loader = make(config, SingleProcess())
    halved.step(halved.prepare(loader.step(0, 0)), 0, 9)
    halved.step(halved.prepare(overflows(loader.step(0, 1))), 1, 9)
    halved.scaling._state.assign([2.0**7, 0, 0, 1])
    halved.step(halved.prepare(loader.step(0, 1)), 2, 9)
    for name, value in variables(clean).items():
        np.testing.assert_array_equal(value, variables(halved)[name], err_msg=name)


def test_the_scale_grows_after_good_steps_and_a_gradient_that_stays_infinite_ends_the_training(monkeypatch):
    monkeypatch.setattr(precision, "_GROWS_AFTER", 3)
    trainer, loader = make(settings("float16"), SingleProcess())
    scales = []
    for number in range(7):
        step = loader.step(0, 0)
        trainer.step(trainer.prepare(overflows(step) if number == 4 else step), number, 99)
        scales.append(np.log2(trainer.scaling.scale))
    assert scales == [7, 7, 8, 8, 7, 7, 7]
    for number in range(7, 26):
        trainer.step(trainer.prepare(overflows(loader.step(0, 0))), number, 99)
    with pytest.raises(ConfigError, match=r"20 steps in a row.*learning_rate.*bfloat16"):
        trainer.step(trainer.prepare(overflows(loader.step(0, 0))), 26, 99)


def test_the_step_after_which_the_scale_grows_is_as_long_as_any(monkeypatch):
    """A power of two changes no bits. The second step tells: the first is as long for any scale of its gradient."""

    def after_two_steps(grows_after):
        monkeypatch.setattr(precision, "_GROWS_AFTER", grows_after)
        trainer, loader = make(settings("float16", placement=everywhere("mixed")), SingleProcess())
        for number in range(2):
            trainer.step(trainer.prepare(loader.step(0, number)), number, 9)
        return trainer.scaling.scale, variables(trainer)

    (before, steady), (after, grown) = after_two_steps(3), after_two_steps(2)
    assert after == 2 * before
    for name, value in steady.items():
        np.testing.assert_array_equal(value, grown[name], err_msg=name)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_a_loss_that_is_no_number_ends_the_training_at_once(kind):
    trainer, loader = make(settings(kind), SingleProcess())
    rows = trainer.optimizer.variables["item_id"]
    rows.assign(rows * float("nan"))
    with pytest.raises(ConfigError, match=r"loss became nan at step 1\b.*learning_rate"):
        trainer.step(trainer.prepare(loader.step(0, 0)), 0, 9)


class Stop(Exception):
    """What kills the training."""


def test_resumed_is_uninterrupted(tmp_path, monkeypatch):
    """With a first scale so large that some steps are left out, and grown again soon: before and after the stop."""
    monkeypatch.setattr(precision, "_FIRST", 2.0**28)
    monkeypatch.setattr(precision, "_GROWS_AFTER", 2)
    chosen = {"ranks": 2, "precision": "float16", "checkpoint_steps": 2, "epochs": 2, "average": 0.9}

    def of(folder, stop_at=0):
        plan = make_plan(tmp_path / folder, **chosen)
        skipped = []

        def during(training):
            done, original = [], training._progress

            def after_step(*now):
                done.append(1)
                original(*now)
                if len(done) == stop_at:
                    raise Stop

            training._progress = after_step
            save = training._save

            def note(trainer, *arguments):
                skipped.append(trainer.scaling.skipped)
                save(trainer, *arguments)

            training._save = note

        if stop_at:
            with pytest.raises(Stop):
                train(plan, during)
        return train(plan, None if stop_at else during)[0], skipped

    whole, skipped = of("whole")
    resumed, before = of("stopped", 4)
    assert 0 < max(before) < max(skipped)
    assert resumed["hash"] == whole["hash"]


def test_a_device_that_does_not_multiply_in_the_type_is_named():
    cpuinfo = "processor : 0\nflags : fpu avx512f avx512_bf16 sse2\n"
    assert precision.doubt_of_cpu("bfloat16", cpuinfo) == ""
    assert precision.doubt("float32") == ""
    assert "this processor does not multiply in it" in precision.doubt_of_cpu("float16", cpuinfo)
    assert precision.doubt_of_gpu("bfloat16", (8, 0)) == precision.doubt_of_gpu("float16", (7, 5)) == ""
    assert precision.doubt_of_gpu("bfloat16", None) == ""
    assert "compute capability 7.5" in precision.doubt_of_gpu("bfloat16", (7, 5))
