"""train_two_tower on a gold lake, long enough to be disturbed: 240 steps, a checkpoint after each tenth."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml
from gold_lake import write_gold

from sparkrec.config import Settings


class GoldJob:
    """Its settings, their file, and the folder of its training."""

    def __init__(self, folder: Path, restarts: int) -> None:
        self.settings = Settings.model_validate(
            {
                "name": "test",
                "lake": {"path": str(folder / "lake")},
                "source": {"name": "simulator", "path": str(folder)},
                "spark": {"driver_memory": "1g", "shuffle_partitions": 2},
                "tracking": {"enabled": False},
                "two_tower": {
                    "width": 8, "batch": 16, "epochs": 60, "select_on_validation": False, "checkpoint_steps": 10,
                    "checkpoint_epochs": 1000, "restarts": restarts,
                },
            }
        )  # fmt: skip
        self.conf = folder / "conf.yaml"
        self.conf.write_text(yaml.safe_dump(self.settings.dump()))
        self.model = folder / "lake" / "models" / "two_tower" / "test-all"
        write_gold(self.settings)

    def rank_in_the_middle(
        self, job: subprocess.Popen[str], rank: int, after: int = 0
    ) -> tuple[psutil.Process, str, int]:
        """Once there is a checkpoint newer than ``after``: the rank's process, what it logged, and that checkpoint."""
        log, checkpoints = self.model / "ranks" / f"{rank}.jsonl", self.model / "checkpoints"
        while job.poll() is None:
            newest = max((int(path.name) for path in checkpoints.glob("[0-9]*")), default=0)
            if newest > after and log.exists() and not (self.model / "result.json").exists():
                said = log.read_text()
                pids = [int(pid) for pid in re.findall(r'"pid": (\d+)', said)]
                if pids and psutil.pid_exists(pids[0]):
                    return psutil.Process(pids[0]), said, newest
            time.sleep(0.005)
        pytest.fail(f"the job ended before it could be disturbed: {job.communicate()}")
