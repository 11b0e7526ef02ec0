"""The job itself: two real ranks, Horovod on Spark, from a Delta lake; killed ranks, a killed job."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from gold_job import GoldJob
from small import train

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.models.two_tower import exported
from sparkrec.pipeline import Run, execute
from sparkrec.training.manifest import Manifest
from sparkrec.training.plan import Plan
from sparkrec.training.supervisor import TOKEN, carriers

pytestmark = [pytest.mark.workers, pytest.mark.slow]

STEPS = 4 * 60


class Shop(GoldJob):
    """The job run in a process of its own."""

    def start(self, *options: str) -> subprocess.Popen[str]:
        job = Path(__file__).parents[2] / "jobs" / "train_two_tower.py"
        python_path = os.pathsep.join([str(job.parents[1]), os.environ.get("PYTHONPATH", "")])
        return subprocess.Popen(
            [sys.executable, str(job), "--conf", str(self.conf), *options],
            env=os.environ | {"PYTHONPATH": python_path}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def result(self):
        return json.loads((self.model / "result.json").read_text())


@pytest.fixture(scope="module")
def shop(spark, tmp_path_factory):
    return Shop(tmp_path_factory.mktemp("shop"), restarts=1)


@pytest.fixture(scope="module")
def undisturbed(shop):
    """Exit code, what was said, result and model of a training that nobody disturbs."""
    job = shop.start()
    said = job.communicate()[1]
    assert job.returncode == 0, said
    weights = {name: np.asarray(array) for name, array in exported.load(shop.model / "model").weights.items()}
    return said, shop.result(), weights


def test_both_ranks_read_rows_and_end_with_equal_variables(shop, undisturbed):
    said, result, _ = undisturbed
    assert [rank["rank"] for rank in result["ranks"]] == [0, 1]
    assert sum(rank["rows"] for rank in result["ranks"]) == 80  # 60 users, every third in two chunks
    assert all(rank["rows"] > 0 and rank["users"] == 30 for rank in result["ranks"])
    assert {rank["hash"] for rank in result["ranks"]} == {result["hash"]}
    for rank in (0, 1):
        assert f"rank {rank} on" in said
    assert f"variables are equal on all 2 ranks after the last step: {result['hash']}" in said


def test_two_horovod_ranks_learn_what_a_single_process_learns(shop, undisturbed, tmp_path):
    _, result, weights = undisturbed
    plan = Plan.load(shop.model / "plan.json")
    together = Manifest(plan.sequences.table, plan.sequences.version, (sum(plan.sequences.ranks, ()),))
    alone = dataclasses.replace(plan, folder=str(tmp_path), two_tower=plan.two_tower | {"ranks": 1}, sequences=together)
    single = train(alone)[0]
    losses = [[row["loss"] for row in x["curve"]] for x in (result, single)]
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)
    for name, array in exported.load(tmp_path / "model").weights.items():
        np.testing.assert_allclose(weights[name], array, atol=1e-4, err_msg=name)


def test_a_killed_rank_is_started_again_from_the_checkpoint_and_nothing_changes(shop, undisturbed):
    job = shop.start()
    shop.rank_in_the_middle(job, 1)[0].kill()
    said = job.communicate()[1]
    assert job.returncode == 0, said
    assert "Starting again from the last checkpoint (1 of 1)" in said
    assert "resumed from the checkpoint" in said
    assert shop.result()["hash"] == undisturbed[1]["hash"]


def test_a_killed_job_leaves_no_process_not_even_one_that_hangs_and_goes_on_where_it_was(shop, undisturbed):
    job = shop.start()
    rank, *_ = shop.rank_in_the_middle(job, 0)
    token = rank.environ()[TOKEN]
    rank.suspend()
    job.kill()
    job.communicate()
    while list(carriers(token)):
        time.sleep(0.1)  # ends only if they all do
    job = shop.start()
    said = job.communicate()[1]
    assert job.returncode == 0, said
    assert "resumed from the checkpoint" in said
    assert shop.result()["hash"] == undisturbed[1]["hash"]


def test_too_few_slots_end_at_once_with_the_code_of_a_bad_configuration(shop):
    job = shop.start("--set", "two_tower.ranks=3")
    said = job.communicate()[1]
    assert job.returncode == 2
    assert "two_tower.ranks=3 needs 3 Spark slots at once, and local[2] has 2" in said


def test_embed_gives_every_user_with_events_and_every_item_the_vector_of_the_model(shop, undisturbed):
    """In the shared session: the towers on the executors against the same towers here."""
    from sparkrec.jobs.embed import embed
    from sparkrec.retrieval.embed import item_vectors

    run = Run(shop.settings, "embed")
    execute(embed, run)
    assert run.counts == {"users": 60, "items": 40}
    model = exported.load(shop.model / "model")
    items = {row[c.ITEM_INDEX]: row for row in run.read(schemas.VECTORS_ITEMS).collect()}
    found = np.asarray([items[i][c.VECTOR] for i in range(40)], np.float32)
    np.testing.assert_allclose(found, model.item_vectors, atol=1e-6)
    assert items[7][c.ITEM_ID] == "i7"
    np.testing.assert_allclose(
        item_vectors(model, np.asarray([7]), np.asarray([1]), np.asarray([1], np.int32)), found[7:8], atol=1e-6
    )
    users = run.read(schemas.VECTORS_USERS).collect()
    assert {row[c.USER_ID] for row in users} == {f"u{i}" for i in range(60)}
    assert np.linalg.norm([row[c.VECTOR] for row in users], axis=1) == pytest.approx(1, abs=1e-5)
