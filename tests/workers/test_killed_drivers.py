"""Each job is killed in the middle and run again; each is submitted alone once more: the tables are a quiet run's."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import shop

from sparkrec import schemas
from sparkrec.pipeline import STAGES

pytestmark = [pytest.mark.workers, pytest.mark.slow]


def run(conf: Path, *more: str) -> subprocess.Popen[str]:
    """``sparkrec run`` in a process group of its own."""
    return subprocess.Popen(
        ["sparkrec", "run", "--conf", conf, *more], cwd=shop.HOME, env=shop.environment(), text=True,
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("quiet")
    process = run(shop.configuration(folder, folder / "logs"))
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    return folder


def kill_in_the_middle(process: subprocess.Popen[str], stage: str, chance: random.Random) -> str:
    """``kill -9`` the process group after a random line of the stage's progress; what was printed until then."""
    assert process.stdout is not None
    later = tuple(f"  {name} " for name in STAGES[STAGES.index(stage) + 1 :])
    printed, lines_until_death = [], chance.randint(1, 3)
    for line in process.stdout:
        printed.append(line)
        lines_until_death -= f"  {stage} " in line
        if not lines_until_death or any(name in line for name in later):
            break
    time.sleep(chance.uniform(0, 1.5))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    return "".join(printed)


def test_killed_and_run_again_is_as_never_killed(quiet: Path, tmp_path: Path) -> None:
    """Each run goes on where the one before was killed, and is killed one stage later."""
    chance = random.Random(11)
    conf = shop.configuration(tmp_path, quiet / "logs")
    first = STAGES[0]
    for stage in STAGES:
        log = kill_in_the_middle(run(conf, "--from", first), stage, chance)
        assert re.search(rf"  {stage} .*started", log), f"{stage}: {log}"
        first = stage
    last = run(conf, "--from", first)
    printed, _ = last.communicate()
    assert last.returncode == 0, printed
    shop.assert_same_tables(quiet / "lake", tmp_path / "lake")


def test_every_job_submitted_alone_once_more_gives_the_same_tables(quiet: Path, tmp_path: Path) -> None:
    before = {table: shop.rows(quiet / "lake", table) for table in schemas.TABLES if table not in shop.HISTORY}
    conf = shop.configuration(tmp_path / "again", quiet / "logs", lake={"path": str(quiet / "lake")})
    for stage in STAGES:
        job = shop.submit(stage, conf)
        printed, _ = job.communicate()
        assert job.returncode == 0, printed
    for table, content in before.items():
        assert shop.rows(quiet / "lake", table) == content, table.name
