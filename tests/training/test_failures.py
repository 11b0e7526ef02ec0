"""What can happen to a training, to real ranks: each ends in a clear error or goes on, and leaves no process behind."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import small
from standalone import standalone

from sparkrec.errors import ConfigError, RetryableError, SparkrecError
from sparkrec.models.two_tower import exported
from sparkrec.training import driver, supervisor
from sparkrec.training.plan import Plan

pytestmark = [pytest.mark.workers, pytest.mark.slow]

HERE = Path(__file__).parent
#: Tables of each kind; 36 steps to choose the epochs, a checkpoint after each second and each third of them.
SETTINGS = {
    "ranks": 2, "epochs": 12, "patience": 12, "checkpoint_steps": 2, "average": 0.9, "restarts": 1,
    "placement": {"user_id": "sharded", "history_item": "replicated_sparse"},
}  # fmt: skip
#: Long enough that a slow machine comes to disturb it before it ends: 360 steps, a checkpoint after each tenth.
LONG = SETTINGS | {"epochs": 60, "patience": 60, "checkpoint_steps": 10, "checkpoint_epochs": 60}


def by_threads(folder: Path, settings: dict[str, Any]) -> Any:
    """The result and the model of two ranks that are threads: two processes compute the same bits."""
    plan = small.make_plan(folder, **settings)
    return small.train(plan)[0], exported.load(plan.path("model")).weights


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return by_threads(tmp_path_factory.mktemp("undisturbed"), SETTINGS)


@pytest.fixture(scope="module")
def undisturbed_long(tmp_path_factory):
    return by_threads(tmp_path_factory.mktemp("undisturbed_long"), LONG)


def assert_same(plan: Plan, undisturbed: Any) -> None:
    result, expected = json.loads(plan.path("result.json").read_text()), undisturbed[0]
    assert result["hash"] == expected["hash"]
    assert [(row["phase"], row["loss"]) for row in result["curve"]] == [
        (row["phase"], row["loss"]) for row in expected["curve"]
    ]


class Trained:
    """A training under the real supervisor: what was ``said`` by it and ``noted`` by ranks, and what is left of it.

    ``disturb(pids)`` is called once, with the ranks' process ids, as soon as there is a checkpoint.
    """

    def __init__(self, plan: Plan, monkeypatch, disturb: Callable[[list[int]], None] | None, *launcher: str) -> None:
        self.plan, self._disturb, self.said, self.noted = plan, disturb, [], []
        self.tokens: list[str] = []
        popen = subprocess.Popen

        def start(command, **options):
            self.tokens.append(options["env"][supervisor.TOKEN])
            return popen([command[0], *(launcher or command[1:-1]), command[-1]], **options)

        with monkeypatch.context() as patched:
            patched.setattr(supervisor.subprocess, "Popen", start)
            try:
                self.error, self.result = None, supervisor.train(plan, self._listen, self.said.append)
            except (SparkrecError, RuntimeError) as error:
                self.error = error
        self.left = [process for token in self.tokens for process in supervisor.carriers(token)]

    def _listen(self, event: dict[str, Any]) -> None:
        self.noted.append(driver.describe(event))
        if self._disturb and list(self.plan.path("checkpoints").glob("[0-9]*")):
            logs = sorted(self.plan.path("ranks").glob("*/*.jsonl"))
            disturb, self._disturb = self._disturb, None
            disturb([json.loads(log.read_text().splitlines()[0])["pid"] for log in logs])


def on_spark(plan: Plan, master: str = "local[2]", **conf: str) -> Plan:
    return dataclasses.replace(plan, spark_conf=driver.launch_conf({"spark.master": master} | conf))


def test_twelve_kills_anywhere_change_nothing(tmp_path, undisturbed):
    """Each rank in turn, before a seeded step or in the middle of writing a checkpoint; the next attempt goes on.

    It goes on from the newest checkpoint that there is, and none that there was is lost.

    The ranks are real Horovod processes that are killed with SIGKILL, but forked, not started by Spark, which would
    take minutes. Ranks of Spark are killed in test_train_two_tower_job.py.
    """
    plan = small.make_plan(tmp_path, **SETTINGS)
    command = [sys.executable, str(HERE / "forked_ranks.py"), str(plan.save()), "7", "12"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *kills, end = json.loads(done.stdout)
    assert Counter((kill["rank"], kill["kind"]) for kill in kills) == dict.fromkeys(
        [(rank, kind) for rank in (0, 1) for kind in ("at_a_step", "in_a_checkpoint")], 3
    )
    for kill in kills:
        assert kill["codes"][kill["rank"]] == -signal.SIGKILL, kill
        assert kill["codes"][1 - kill["rank"]] == 1, kill  # it noticed
        assert kill["said"] == ["error", "lost"], kill  # so it is worth another try: a defect is not
    half_written = [kill for kill in kills if any(name.endswith(".tmp") for name in kill["checkpoints"])]
    assert {kill["rank"] for kill in half_written} == {0, 1}
    assert end["codes"] == [0, 0]
    for attempt in (*kills, end):
        (number, place), (left, _) = attempt["found"], attempt["left"]
        assert left >= number, attempt
        assert attempt["resumed"] == ([place] if number else []), attempt
    assert end["found"][0] > kills[0]["left"][0], "worth asking"
    assert_same(plan, undisturbed)


def test_a_hung_rank_is_killed_and_the_training_goes_on(tmp_path, monkeypatch, undisturbed_long):
    plan = on_spark(small.make_plan(tmp_path, heartbeat_seconds=20, **LONG))
    trained = Trained(plan, monkeypatch, lambda pids: os.kill(pids[1], signal.SIGSTOP))
    assert trained.error is None
    assert len(trained.said) == 1
    assert re.search(r"heard for \d+ s \(two_tower.heartbeat_seconds=20\)", trained.said[0])
    assert "Starting again from the last checkpoint (1 of 1)" in trained.said[0]
    assert any(note.startswith("resumed from the checkpoint at") for note in trained.noted)
    assert not trained.left
    assert_same(plan, undisturbed_long)


def test_a_loss_that_is_no_number_is_a_bad_configuration_and_not_tried_again(tmp_path, monkeypatch):
    plan = small.make_plan(tmp_path, **SETTINGS, learning_rate=1e30)
    trained = Trained(plan, monkeypatch, None, str(HERE / "forked_ranks.py"))
    assert isinstance(trained.error, ConfigError)
    assert trained.error.exit_code == 2
    assert "loss became nan at step 2" in str(trained.error)
    assert "lower two_tower.learning_rate (now 1e+30)" in str(trained.error)
    assert len(trained.tokens) == 1
    assert not trained.left


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 700 kB."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        message = f"needs the right to mount a file system: {mounted.stderr.decode().strip()}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_a_full_disk_is_named_and_once_there_is_room_the_training_goes_on(small_disk, monkeypatch, undisturbed):
    plan = small.make_plan(small_disk, **SETTINGS)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(300_000))  # leaves room for two checkpoints of some 100 kB, and each rank needs three
    trained = Trained(plan, monkeypatch, None, str(HERE / "forked_ranks.py"))
    assert isinstance(trained.error, RetryableError)
    assert "failed 2 time(s)" in str(trained.error)
    assert "No space left on device" in str(trained.error)
    assert "Make room" in str(trained.error)
    assert len(trained.tokens) == 2
    assert not trained.left
    assert not list(plan.path("checkpoints").glob(".*"))  # nothing half-written takes room
    ballast.unlink()
    trained = Trained(plan, monkeypatch, None, str(HERE / "forked_ranks.py"))
    assert trained.error is None
    assert any(note.startswith("resumed from the checkpoint at") for note in trained.noted)
    assert_same(plan, undisturbed)


def test_slots_that_do_not_come_are_named(tmp_path, monkeypatch):
    """As after the loss of a machine: the job found enough, and the ranks' application does not get them."""
    elastic = {"elastic": True, "min_ranks": 2, "start_timeout_seconds": 1}
    plan = on_spark(small.make_plan(tmp_path, **SETTINGS | elastic | {"ranks": 3, "restarts": 0}), "local[1]")
    trained = Trained(plan, monkeypatch, None)
    assert isinstance(trained.error, RetryableError)
    assert "2 rank(s) need a Spark slot each at once, and local[1] has given 1 slot(s)" in str(trained.error)
    assert not trained.left


def test_an_elastic_training_goes_on_with_the_ranks_that_there_is_room_for(tmp_path, monkeypatch, undisturbed_long):
    """A machine of a real cluster is lost for good: its worker, its executor and its rank are killed."""

    def lose(pids: list[int]) -> None:
        _, worker, _ = cluster.worker_of(psutil.Process(pids[1]))
        supervisor.kill([worker, *worker.children(recursive=True)])

    with standalone(tmp_path, left=[], right=[]) as cluster:
        plan = small.make_plan(
            tmp_path, **LONG, elastic=True, start_timeout_seconds=100, network_interface="lo",
            environment={"PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])},
        )  # fmt: skip
        conf = {"spark.executor.memory": "512m", "spark.driver.host": "127.0.0.1"}
        trained = Trained(on_spark(plan, cluster.url, **conf), monkeypatch, lose)
    assert trained.error is None
    assert "Starting again from the last checkpoint (1 of 1)" in trained.said[0]
    assert "trains on 1 of 2 ranks: there are no slots for more" in trained.noted
    assert len(trained.result["ranks"]) == 1
    expected, weights = undisturbed_long
    losses = [[row["loss"] for row in result["curve"]] for result in (trained.result, expected)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    for name, weight in exported.load(plan.path("model")).weights.items():
        np.testing.assert_allclose(weight, weights[name], atol=1e-5, err_msg=name)
