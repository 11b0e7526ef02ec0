"""Days that are ingested and cleaned by real processes, killed again and again, or two at once, on one lake."""

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

pytestmark = [pytest.mark.workers, pytest.mark.slow]

SILVER = (
    schemas.SILVER_EVENTS, schemas.SILVER_REPEATS, schemas.SILVER_ITEM_DAYS, schemas.SILVER_ITEMS, schemas.QUARANTINE,
)  # fmt: skip
START, DAYS, KILLS = "2026-01-05", 4, 6
OPTIONS = {"users": 40, "items": 40, "days": DAYS, "events": 900, "start": START}


def configuration(folder: Path, logs: Path) -> Path:
    return shop.configuration(
        folder, logs, source={"name": "simulator", "path": str(logs), "options": OPTIONS},
        clean={"near_duplicate_seconds": 20},
    )  # fmt: skip


def sparkrec(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["sparkrec", *map(str, arguments)], cwd=shop.HOME, env=shop.environment(), text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything at once, and nobody disturbs it."""
    folder = tmp_path_factory.mktemp("quiet")
    process = sparkrec("run", "--conf", configuration(folder, folder / "logs"), "--until", "clean")
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    return folder


def test_day_by_day_and_killed_is_as_at_once_and_quiet(quiet: Path, tmp_path: Path) -> None:
    chance = random.Random(29)
    conf = configuration(tmp_path, quiet / "logs")
    days = ("--from-date", START, "--to-date", f"2026-01-{5 + DAYS - 1:02}")
    for _ in range(KILLS):
        process = sparkrec("backfill", "--conf", conf, *days)
        assert process.stdout is not None
        lines = chance.randint(1, 14)  # of progress; a day has about that many
        for line in process.stdout:
            lines -= "  clean " in line or "  ingest " in line
            if lines <= 0:
                break
        time.sleep(chance.uniform(0, 1.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    process = sparkrec("backfill", "--conf", conf, *days)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    shop.assert_same_tables(quiet / "lake", tmp_path / "lake", SILVER)


def test_two_at_once_both_finish_or_one_says_why_not(quiet: Path) -> None:
    conf = configuration(quiet / "again", quiet / "logs")
    arguments = ("clean", "--conf", conf, "--set", f"lake.path={quiet / 'lake'}", "--set", "clean.full=true")
    before = {table: shop.rows(quiet / "lake", table) for table in SILVER}
    both = [sparkrec(*arguments), sparkrec(*arguments)]
    results = [(process.communicate()[0], process.returncode) for process in both]
    assert 0 in [code for _, code in results], results
    for printed, code in results:
        assert code == 0 or (code == 4 and "worth a retry" in printed), printed
    last = sparkrec(*arguments[:-2])
    printed, _ = last.communicate()
    assert last.returncode == 0, printed
    for table, rows in before.items():
        assert shop.rows(quiet / "lake", table) == rows, table.name
