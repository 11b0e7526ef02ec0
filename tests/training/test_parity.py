"""W ranks with their parts of a batch do what one rank does with the whole."""

from __future__ import annotations

import json

import numpy as np
import pytest
from small import make_plan, train

from sparkrec.models.two_tower import exported

pytestmark = pytest.mark.workers

RECIPES = {
    "user, full softmax": {"mode": "user", "history": "mean"},
    "user, drawn negatives": {"mode": "user", "history": "none", "negatives": 12, "average": 0.9},
    "user, recency": {"mode": "user", "history": "recency", "user_id": False, "dropout": 0.3},
    "position, recency": {
        "mode": "position", "history": "recency", "negatives": 12, "dropout": 0.3, "user_id": False,
        "learning_rate_decay": "linear",
    },
    "user, sharded": {
        "placement": {"user_id": "sharded", "history_item": "sharded", "item_id": "replicated_sparse"}, "average": 0.9,
        "in_batch": True, "clip_norm": 1.0, "warmup_steps": 5,
    },
    "position, all sharded": {
        "mode": "position", "history": "recency", "negatives": 12, "table_optimizer": "lazy_adam",
        "placement": {"user_id": "sharded", "item_id": "sharded", "item_feature": "sharded"},
    },
    "position, mean": {"mode": "position", "history": "mean", "item_features": False},
}  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
def test_ranks_do_not_change_what_is_learned(recipe, tmp_path):
    outcome = {}
    for ranks in (1, 3):
        plan = make_plan(tmp_path / str(ranks), ranks=ranks, **RECIPES[recipe])
        results = train(plan)
        assert len({result["hash"] for result in results}) == 1
        assert sum(rank["rows"] for rank in results[0]["ranks"]) == plan.sequences.rows
        outcome[ranks] = results[0]["curve"], exported.load(plan.path("model")).weights
    one, three = outcome[1], outcome[3]
    assert len(one[0]) >= 5  # both phases
    for a, b in zip(one[0], three[0], strict=True):
        for name in ("loss", "recall", "ndcg"):
            assert a.get(name, 0) == pytest.approx(b.get(name, 0), rel=1e-5), (name, a["epoch"])
    assert set(one[1]) == set(three[1])
    for name, weight in one[1].items():
        np.testing.assert_allclose(weight, three[1][name], atol=1e-5, err_msg=name)


def test_the_plan_of_the_tables_is_told_and_kept_with_the_bytes_that_it_costs(tmp_path):
    plan = make_plan(tmp_path, ranks=2, epochs=1, placement={"user_id": "sharded", "item_id": "sharded"})
    result = train(plan)[0]
    tables = {"item_id", "item_feature", "history_item", "user_id"}
    assert result["placement"] == dict.fromkeys(tables, "replicated_dense") | dict.fromkeys(
        ("user_id", "item_id"), "sharded"
    )
    said = [json.loads(line) for line in plan.path("ranks", "0.jsonl").read_text().splitlines()]
    (planned,) = [event["tables"] for event in said if event["event"] == "placement"]
    assert {row["table"]: row["placement"] for row in planned} == result["placement"]
    assert {row["table"] for row in planned if "set by two_tower.placement" in row["reason"]} == {"user_id", "item_id"}
    assert [event["sent"] for event in said if event["event"] == "bytes"] == [result["bytes_a_step"]]
    # A dense table of 30 rows of 8: half of it to the other rank, and half of the sum back.
    assert result["bytes_a_step"]["history_item"] == 30 * 8 * 4
    # All 30 items are touched (full softmax), and half of them lie on the other rank: index, row and gradient.
    assert result["bytes_a_step"]["item_id"] == 15 * (4 + 2 * 32)
    # A user's row lies where the user's events are.
    assert result["bytes_a_step"]["user_id"] == 0


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    plans = [make_plan(tmp_path / str(i), ranks=2, seed=seed) for i, seed in enumerate((1, 1, 2))]
    first, second, other = (train(plan)[0]["hash"] for plan in plans)
    assert first == second
    assert first != other


def test_the_loss_falls_and_the_two_tastes_are_found(tmp_path):
    """Even users only ever meet even items: after training their best items are even."""
    plan = make_plan(tmp_path, ranks=1, epochs=12, history="none", select_on_validation=False)
    curve = train(plan)[0]["curve"]
    assert curve[-1]["loss"] < 0.6 * curve[0]["loss"]
    model = exported.load(plan.path("model"))
    scores = model.weights["user_id"] @ model.item_vectors.T
    even = scores[:, ::2].mean(axis=1) > scores[:, 1::2].mean(axis=1)
    assert even.tolist() == [user % 2 == 0 for user in range(len(even))]
