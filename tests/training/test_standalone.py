"""The job by spark-submit on a standalone master with two workers, a made-up GPU each; killed executors and workers."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile

import pytest
from gold_job import GoldJob
from shop import HOME, environment
from standalone import standalone

from sparkrec.training.supervisor import TOKEN, carriers

pytestmark = [pytest.mark.workers, pytest.mark.slow]

GPUS = {"left": ["3"], "right": ["5"]}
ONE_EACH = {"spark.executor.resource.gpu.amount": "1", "spark.task.resource.gpu.amount": "1"}


class Job(GoldJob):
    """The job submitted to whichever master."""

    def submit(self, master: str, spark: dict[str, str], *options: str, **more: str) -> subprocess.Popen[str]:
        conf = {"spark.driver.memory": "1g", "spark.executor.memory": "512m", "spark.driver.host": "127.0.0.1"} | spark
        listed = [part for key, value in conf.items() for part in ("--conf", f"{key}={value}")]
        return subprocess.Popen(
            ["spark-submit", "--master", master, *listed, "jobs/train_two_tower.py", "--conf", self.conf, *options],
            cwd=HOME, env=environment() | more, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def finish(self, job: subprocess.Popen[str]) -> tuple[str, dict[str, bytes]]:
        """What was said, and the files of the model."""
        said = job.communicate()[0]
        assert job.returncode == 0, said
        files = {path.name: path.read_bytes() for path in (self.model / "model").iterdir() if path.suffix == ".npy"}
        return said, files


@pytest.fixture(scope="module")
def job(spark, tmp_path_factory):
    return Job(tmp_path_factory.mktemp("job"), restarts=2)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with standalone(tmp_path_factory.mktemp("cluster"), **GPUS) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def local(job):
    return job.finish(job.submit("local[2]", {}))


def given(said: str) -> dict[int, str]:
    """Rank → the GPU that Spark gave to its task, as the ranks said it last."""
    return {
        int(rank): gpu
        for rank, gpu in re.findall(r"rank (\d) on \S+ computes on the CPU; Spark gave it GPU (\w+)", said)
    }


def test_two_workers_learn_what_local_mode_learns_bit_for_bit(job, local, cluster, tmp_path):
    """With a Python that is shipped, as on a cluster, and exactly the slots and GPUs that two ranks need."""
    python, archive = tmp_path / "python", tmp_path / "env.tar.gz"
    python.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/started\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with tarfile.open(archive, "w:gz") as file:
        file.add(python, "bin/python")
    shipped = {"spark.archives": f"{archive}#env"}
    pythons = {"PYSPARK_PYTHON": "./env/bin/python", "PYSPARK_DRIVER_PYTHON": sys.executable}
    said, files = job.finish(job.submit(cluster.url, ONE_EACH | shipped, **pythons))
    assert files == local[1]
    assert len(files) > 3
    assert sorted(given(said).values()) == ["3", "5"]
    assert given(local[0]) == {}
    assert (tmp_path / "started").read_text().count("horovod.spark.task.gloo_exec_fn") == 2


def test_a_killed_executor_and_a_killed_worker_change_nothing(job, local, cluster):
    running = job.submit(cluster.url, ONE_EACH)
    tokens, checkpoint = [], 0
    for kind in ("executor", "worker"):
        rank, logged, checkpoint = job.rank_in_the_middle(running, 1, checkpoint)
        tokens.append(rank.environ()[TOKEN])
        name, worker, executor = cluster.worker_of(rank)
        assert GPUS[name] == [given(logged)[1]]
        (executor if kind == "executor" else worker).kill()
        rank.wait()  # then the next one is its successor
    cluster.add_workers(spare=["7"])
    said, files = job.finish(running)
    for restart in (1, 2):
        assert f"Starting again from the last checkpoint ({restart} of 2)" in said
    assert said.count("resumed from the checkpoint") == 2
    assert "7" in given(said).values()
    assert files == local[1]
    assert not [process for token in tokens for process in carriers(token)]


def test_too_few_gpus_are_named_before_the_launch(job, cluster):
    few = ("two_tower.ranks=3", "two_tower.start_timeout_seconds=30")
    refused = job.submit(cluster.url, ONE_EACH, *(part for one in few for part in ("--set", one)))
    said = refused.communicate()[0]
    assert refused.returncode == 2, said
    assert f"two_tower.ranks=3 needs 3 Spark slots at once, and {cluster.url} has 2 for this job" in said
    assert "a slot is 1 core(s) and 1 GPU(s)" in said
