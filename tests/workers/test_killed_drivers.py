"""Each job is killed in the middle, run again, and then once more for nothing: the tables are those of a quiet run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import shop

from sparkrec import schemas
from sparkrec.pipeline import STAGES

pytestmark = [pytest.mark.workers, pytest.mark.kill]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbs, by the command line."""
    folder = tmp_path_factory.mktemp("quiet")
    conf = shop.configuration(folder, folder / "logs")
    subprocess.run(["sparkrec", "run", "--conf", conf], cwd=shop.HOME, env=shop.environment(), check=True)
    return folder


def kill_in_the_middle(stage: str, conf: Path, chance: random.Random) -> str:
    """Start the job and ``kill -9`` its whole process group after a random line of its progress; what it printed."""
    process = shop.submit(stage, conf)
    assert process.stdout is not None
    printed, lines_until_death = [], chance.randint(1, 3)
    for line in process.stdout:
        printed.append(line)
        lines_until_death -= f"  {stage} " in line
        if not lines_until_death:
            break
    time.sleep(chance.uniform(0, 1.5))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    return "".join(printed)


def test_killed_and_run_again_is_as_never_killed(quiet: Path, tmp_path: Path) -> None:
    chance = random.Random(11)
    conf = shop.configuration(tmp_path, quiet / "logs")
    for stage in STAGES:
        log = kill_in_the_middle(stage, conf, chance)
        assert "  started" in log, f"{stage}: {log}"
        again = shop.submit(stage, conf)
        printed, _ = again.communicate()
        assert again.returncode == 0, printed
    shop.assert_same_tables(quiet / "lake", tmp_path / "lake")


def test_every_job_twice_gives_the_same_tables(quiet: Path, tmp_path: Path) -> None:
    before = {table: shop.rows(quiet / "lake", table) for table in schemas.TABLES if table is not schemas.RUNS}
    conf = shop.configuration(tmp_path / "again", quiet / "logs", lake={"path": str(quiet / "lake")})
    subprocess.run(["sparkrec", "run", "--conf", conf], cwd=shop.HOME, env=shop.environment(), check=True)
    for table, content in before.items():
        assert shop.rows(quiet / "lake", table) == content, table.name
