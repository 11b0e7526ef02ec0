"""train_two_tower submitted on a gold lake, long enough to be disturbed: 240 steps, a checkpoint after each tenth."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml
from drivers import INTERPRETED
from gold_lake import write_gold
from shop import HOME, environment

from sparkrec.config import Settings


class Job:
    """Its settings, their file, and the folder of its training."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings.model_validate(
            {
                "name": "test",
                "lake": {"path": str(folder / "lake")},
                "source": {"name": "simulator", "path": str(folder)},
                "spark": {"driver_memory": "1g", "shuffle_partitions": 2},
                "tracking": {"enabled": False},
                "two_tower": {
                    "width": 8, "batch": 16, "epochs": 60, "select_on_validation": False, "checkpoint_steps": 10,
                    "checkpoint_epochs": 1000, "restarts": 2,
                },
            }
        )  # fmt: skip
        self.conf = folder / "conf.yaml"
        self.conf.write_text(yaml.safe_dump(self.settings.dump()))
        self.model = folder / "lake" / "models" / "two_tower" / "test-all"
        write_gold(self.settings)

    def submit(
        self, *options: str, master: str = "local[2]", spark: dict[str, str] | None = None, **more: str
    ) -> subprocess.Popen[str]:
        conf = {"spark.driver.memory": "1g", "spark.executor.memory": "512m", "spark.driver.host": "127.0.0.1"}
        conf |= INTERPRETED
        listed = [part for key, value in (conf | (spark or {})).items() for part in ("--conf", f"{key}={value}")]
        return subprocess.Popen(
            ["spark-submit", "--master", master, *listed, "jobs/train_two_tower.py", "--conf", self.conf, *options],
            cwd=HOME, env=environment() | more, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def finish(self, job: subprocess.Popen[str]) -> str:
        """What was said."""
        said = job.communicate()[0]
        assert job.returncode == 0, said
        return said

    def result(self):
        return json.loads((self.model / "result.json").read_text())

    def files(self) -> dict[str, bytes]:
        """Of the model."""
        return {path.name: path.read_bytes() for path in (self.model / "model").iterdir() if path.suffix == ".npy"}

    def rank_in_the_middle(
        self, job: subprocess.Popen[str], rank: int, after: int = 0
    ) -> tuple[psutil.Process, str, int]:
        """Once there is a checkpoint newer than ``after``: the rank's process, what it logged, and that checkpoint."""
        logs, checkpoints = self.model / "ranks", self.model / "checkpoints"
        while job.poll() is None:
            newest = max((int(path.name) for path in checkpoints.glob("[0-9]*")), default=0)
            log = next(logs.glob(f"*/{rank}.jsonl"), None)  # of the attempt that runs
            if newest > after and log and not (self.model / "result.json").exists():
                said = log.read_text()
                pids = [int(pid) for pid in re.findall(r'"pid": (\d+)', said)]
                if pids and psutil.pid_exists(pids[0]):
                    return psutil.Process(pids[0]), said, newest
            time.sleep(0.005)
        pytest.fail(f"the job ended before it could be disturbed: {job.communicate()}")
