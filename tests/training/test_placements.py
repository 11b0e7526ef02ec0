"""W ranks with their parts of a batch make the steps of one rank with all of it, wherever the tables lie."""

from __future__ import annotations

from itertools import cycle
from typing import get_args

import numpy as np
import pytest
from few import everywhere, make, run
from ranks import on_ranks
from recording import Recording

from sparkrec.config import TwoTower
from sparkrec.training.placement import Placement

pytestmark = pytest.mark.workers

PLACEMENTS = (*get_args(Placement), "mixed")
LOSSES = {
    "full": {},
    "sampled": {"negatives": 8},
    "in batch": {"in_batch": True},
    "both": {"in_batch": True, "negatives": 8},
    "uncorrected": {"in_batch": True, "log_q": False},
    "bilateral": {"loss": "bilateral", "negatives": 8},
    "bpr": {"loss": "bpr", "negatives": 8},
    "mse": {"loss": "mse", "weights": {"rating": 1.0}},
}
HISTORIES = get_args(TwoTower.model_fields["history"].annotation)


def recipe(placement, loss, history, mode="user", **more):
    # A small rate: Adam makes steps of rounding errors, and layers pass them on.
    return {
        "placement": everywhere(placement), "history": history, "mode": mode, "learning_rate": 0.003, **LOSSES[loss],
        **more,
    }  # fmt: skip


def assert_same(one, other):
    np.testing.assert_allclose(one[0], other[0], rtol=1e-5, atol=1e-5)
    assert set(one[1]) == set(other[1])
    for name, value in one[1].items():
        np.testing.assert_allclose(value, other[1][name], atol=1e-5, err_msg=name)


#: Every placement, loss, mode, optimizer and history at least once.
FEW = {
    "dense, full": recipe("replicated_dense", "full", "mean"),
    "sparse, sampled": recipe("replicated_sparse", "sampled", "mean", average=0.9),
    "sharded, in batch": recipe("sharded", "in batch", "mean", clip_norm=0.05),
    "mixed, both": recipe("mixed", "both", "recency", accumulate=2, dropout=0.2, average=0.9),
    "sharded, uncorrected": recipe("sharded", "uncorrected", "none", table_optimizer="sgd", weight_decay=0.1),
    "sparse, bilateral": recipe("replicated_sparse", "bilateral", "none", table_optimizer="lazy_adam"),
    "mixed, bpr": recipe("mixed", "bpr", "mean", warmup_steps=9, table_learning_rate=0.1),
    "sharded, mse": recipe("sharded", "mse", "mean", table_optimizer="lazy_adam", clip_norm=0.05, average=0.9),
    "sharded, ids dropped": recipe("sharded", "both", "mean", id_dropout=0.3, item_mlp=True),
    "sharded, full": recipe("sharded", "full", "recency"),
    "sharded, position": recipe("sharded", "both", "recency", "position", user_id=False),
}  # fmt: skip


@pytest.mark.parametrize(("name", "ranks"), zip(FEW, cycle((2, 4)), strict=False))
def test_ranks_learn_what_one_learns(name, ranks):
    one = run(1, 50, **FEW[name])
    assert_same(one, run(ranks, 50, **FEW[name]))
    assert len({tuple(row) for row in one[0]}) > 5  # something was learned


#: Each placement, loss and history; modes take turns.
MANY = [
    (placement, loss, history, "user" if loss == "bilateral" else mode)
    for placement, loss, history, mode in zip(
        cycle(PLACEMENTS), LOSSES, cycle(HISTORIES), cycle(["user", "position", "position"]), strict=False
    )
]


@pytest.mark.slow
@pytest.mark.parametrize(("placement", "loss", "history", "mode"), MANY)
def test_200_steps_of_many(placement, loss, history, mode):
    settings = recipe(placement, loss, history, mode, layers=1, learning_rate=0.001)
    one = run(1, 200, **settings)
    assert_same(one, run(2, 200, **settings))
    assert_same(one, run(4, 200, **settings))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_same_bytes_when_repeated(placement):
    settings = recipe(placement, "both", "mean", average=0.9)
    first, second = run(3, 12, **settings), run(3, 12, **settings)
    np.testing.assert_array_equal(first[0], second[0])
    for name, value in first[1].items():
        np.testing.assert_array_equal(value, second[1][name])


def test_sparse_tables_learn_what_a_sharded_one_learns_and_sgd_what_dense_sgd_would():
    """Where the rows lie is no part of the mathematics."""
    settings = {"in_batch": True, "table_optimizer": "sgd"}
    sparse = run(1, 20, placement=everywhere("replicated_sparse"), **settings)
    assert_same(sparse, run(1, 20, placement=everywhere("sharded"), **settings))


def test_ranks_without_users_take_every_step():
    settings = recipe("mixed", "in batch", "mean", batch=2)
    assert_same(run(1, 13, **settings), run(5, 13, **settings))


@pytest.mark.parametrize("mode", ["user", "position"])
def test_a_step_in_parts_is_the_step(mode):
    settings = recipe("mixed", "both", "recency", mode)
    assert_same(run(2, 20, **settings), run(2, 20, accumulate=3, **settings))


@pytest.mark.parametrize(("placement", "messages"), [("sharded", 2), ("replicated_sparse", 1)])
def test_rows_travel_as_halves_in_a_step_and_as_they_are_when_they_are_shipped(placement, messages):
    """Rows and their gradients go through an alltoall each, gradients of replicated rows through an allgather."""
    config = TwoTower.model_validate(
        recipe(placement, "sampled", "mean") | {"width": 4, "batch": 10, "ranks": 2, "fp16_rows": True}
    )

    def rank(collective):
        recording = Recording(collective)
        trainer, loader = make(config, recording)
        for number in range(loader.steps_per_epoch):  # after which no user's row is what it began as
            recording.sent.clear()
            trainer.step(trainer.prepare(loader.step(0, number)), number, 9)
        in_step = recording.rows()
        recording.sent.clear()
        shipped = {name: np.concatenate([rows for _, rows in trainer.table_blocks(name)]) for name in trainer.tables}
        in_shipping = recording.rows()
        whole = {name: collective.allgather(rows) for name, rows in shipped.items()}
        store = trainer.embeddings.sharded or trainer.embeddings.replicated
        for name in trainer.tables:  # of one block: rank 0 has gathered all of it
            own = np.concatenate(list(store.read(name, "weights")))
            np.testing.assert_array_equal(whole[name][store.rank :: store.size], own, err_msg=name)
        return in_step, in_shipping

    for in_step, in_shipping in on_ranks(2, rank):
        # Four halves, and a whole number over them.
        assert in_step == [("int16", 4 + 2)] * messages
        assert set(in_shipping) <= {("float32", 4)}


def test_half_precision_on_the_wire_is_near_and_costs_half():
    settings = recipe("sharded", "sampled", "mean")
    whole, half = run(2, 20, **settings), run(2, 20, fp16_rows=True, **settings)
    np.testing.assert_allclose(half[0], whole[0], rtol=1e-2)
    assert np.any(half[0] != whole[0])
    sent = [sum(r[2].exchange.bytes[name] for name in settings["placement"]) for r in (whole, half)]
    # Width 4: index 4, row and gradient 16 each; or 2 · 4 + 4 each.
    assert sent[1] / sent[0] == pytest.approx(28 / 36)
