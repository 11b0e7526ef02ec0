"""The job itself: two real ranks, Horovod on Spark, from a Delta lake, in local mode and on a standalone cluster.

The cluster's two workers have a made-up GPU each. Ranks, jobs, executors and workers are killed.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import tarfile
import time

import numpy as np
import pytest
from gold_job import Job
from small import train
from standalone import standalone

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.models.two_tower import exported
from sparkrec.pipeline import Run, execute
from sparkrec.training.manifest import Manifest
from sparkrec.training.plan import Plan
from sparkrec.training.supervisor import TOKEN, carriers

pytestmark = [pytest.mark.workers, pytest.mark.slow]

GPUS = {"left": ["3"], "right": ["5"]}
ONE_EACH = {"spark.executor.resource.gpu.amount": "1", "spark.task.resource.gpu.amount": "1"}


@pytest.fixture(scope="module")
def job(spark, tmp_path_factory):
    return Job(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def undisturbed(job):
    """In local mode, and nobody disturbs it: what was said, the result, the model and its files."""
    said = job.finish(job.submit())
    weights = {name: np.asarray(array) for name, array in exported.load(job.model / "model").weights.items()}
    return said, job.result(), weights, job.files()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with standalone(tmp_path_factory.mktemp("cluster"), **GPUS) as cluster:
        yield cluster


def given(said: str) -> dict[int, str]:
    """Rank → the GPU that Spark gave to its task, as the ranks said it last."""
    return {
        int(rank): gpu
        for rank, gpu in re.findall(r"rank (\d) on \S+ computes on the CPU; Spark gave it GPU (\w+)", said)
    }


def test_both_ranks_read_rows_and_end_with_equal_variables(job, undisturbed):
    said, result, *_ = undisturbed
    assert [rank["rank"] for rank in result["ranks"]] == [0, 1]
    assert sum(rank["rows"] for rank in result["ranks"]) == 80  # 60 users, every third in two chunks
    assert all(rank["rows"] > 0 and rank["users"] == 30 for rank in result["ranks"])
    assert {rank["hash"] for rank in result["ranks"]} == {result["hash"]}
    for rank in (0, 1):
        assert f"rank {rank} on" in said
    assert f"variables are equal on all 2 ranks after the last step: {result['hash']}" in said


def test_two_horovod_ranks_learn_what_a_single_process_learns(job, undisturbed, tmp_path):
    _, result, weights, _ = undisturbed
    plan = Plan.load(job.model / "plan.json")
    together = Manifest(plan.sequences.table, plan.sequences.version, (sum(plan.sequences.ranks, ()),))
    alone = dataclasses.replace(plan, folder=str(tmp_path), two_tower=plan.two_tower | {"ranks": 1}, sequences=together)
    single = train(alone)[0]
    losses = [[row["loss"] for row in x["curve"]] for x in (result, single)]
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)
    for name, array in exported.load(tmp_path / "model").weights.items():
        np.testing.assert_allclose(weights[name], array, atol=1e-4, err_msg=name)


def test_after_a_killed_rank_and_a_killed_job_it_goes_on_where_it_was_and_nothing_changes(job, undisturbed):
    """The killed job leaves no process, not even a rank that hangs."""
    running = job.submit()
    rank, _, checkpoint = job.rank_in_the_middle(running, 1)
    rank.kill()
    rank.wait()  # then the next one is its successor
    rank, *_ = job.rank_in_the_middle(running, 1, checkpoint)
    token = rank.environ()[TOKEN]
    rank.suspend()
    running.kill()
    said = running.communicate()[0]
    assert "Starting again from the last checkpoint (1 of 2)" in said
    assert "resumed from the checkpoint" in said
    while list(carriers(token)):
        time.sleep(0.1)  # ends only if they all do
    said = job.finish(job.submit())
    assert "resumed from the checkpoint" in said
    assert job.result()["hash"] == undisturbed[1]["hash"]


def test_too_few_slots_end_at_once_with_the_code_of_a_bad_configuration(job):
    refused = job.submit("--set", "two_tower.ranks=3")
    said = refused.communicate()[0]
    assert refused.returncode == 2, said
    assert "two_tower.ranks=3 needs 3 Spark slots at once, and local[2] has 2" in said


def test_embed_gives_every_user_with_events_and_every_item_the_vector_of_the_model(job, undisturbed):
    """In the shared session: the towers on the executors against the same towers here."""
    from sparkrec.jobs.embed import embed
    from sparkrec.retrieval.embed import item_vectors

    run = Run(job.settings, "embed")
    execute(embed, run)
    assert run.counts == {"users": 60, "items": 40}
    model = exported.load(job.model / "model")
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


def test_two_workers_learn_what_local_mode_learns_whichever_of_them_is_killed(job, undisturbed, cluster, tmp_path):
    """Bit for bit, with a Python that is shipped, as on a cluster, and exactly the slots and GPUs of two ranks.

    An executor is killed, then a worker.
    """
    python, archive = tmp_path / "python", tmp_path / "env.tar.gz"
    python.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/started\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with tarfile.open(archive, "w:gz") as file:
        file.add(python, "bin/python")
    shipped = {"spark.archives": f"{archive}#env"}
    pythons = {"PYSPARK_PYTHON": "./env/bin/python", "PYSPARK_DRIVER_PYTHON": sys.executable}
    running = job.submit(master=cluster.url, spark=ONE_EACH | shipped, **pythons)
    tokens, checkpoint = [], 0
    for kind in ("executor", "worker"):
        rank, logged, checkpoint = job.rank_in_the_middle(running, 1, checkpoint)
        tokens.append(rank.environ()[TOKEN])
        name, worker, executor = cluster.worker_of(rank)
        assert GPUS[name] == [given(logged)[1]]
        (executor if kind == "executor" else worker).kill()
        rank.wait()  # then the next one is its successor
    cluster.add_workers(spare=["7"])
    said = job.finish(running)
    for restart in (1, 2):
        assert f"Starting again from the last checkpoint ({restart} of 2)" in said
    assert said.count("resumed from the checkpoint") == 2
    assert "7" in given(said).values()
    assert given(undisturbed[0]) == {}
    assert job.files() == undisturbed[-1]
    assert len(job.files()) > 3
    assert (tmp_path / "started").read_text().count("horovod.spark.task.gloo_exec_fn") == 6
    assert not [process for token in tokens for process in carriers(token)]


def test_too_few_gpus_are_named_before_the_launch(job, cluster):
    few = ("two_tower.ranks=3", "two_tower.start_timeout_seconds=30")
    refused = job.submit(*(part for one in few for part in ("--set", one)), master=cluster.url, spark=ONE_EACH)
    said = refused.communicate()[0]
    assert refused.returncode == 4, said
    assert f"two_tower.ranks=3 needs 3 Spark slots at once, and {cluster.url} has 2 for this job" in said
    assert "a slot is 1 core(s) and 1 GPU(s)" in said
