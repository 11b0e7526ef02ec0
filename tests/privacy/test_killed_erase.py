"""``kill -9`` in the middle of an erasure, at seeded moments; the last run finishes, and nobody is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import shop
import yaml
from deltalake import DeltaTable
from people_lake import GONE, USERS, build

from sparkrec.privacy import scan
from sparkrec.privacy.scan import Needles

pytestmark = [pytest.mark.workers, pytest.mark.slow]

KILLS = 5


def start(conf: Path) -> subprocess.Popen[str]:
    """``sparkrec erase`` in a process group of its own."""
    return subprocess.Popen(
        ["sparkrec", "erase", "--conf", conf, "--users", ",".join(GONE)], cwd=shop.HOME, env=shop.environment(),
        text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_killed_again_and_again_it_finishes(spark: object, tmp_path: Path) -> None:
    """Each run is killed some lines of progress later than the one before could be."""
    settings = build(tmp_path, pseudonymize=False)
    conf = tmp_path / "small.yaml"
    conf.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude={"tracking": {"password", "token"}})))
    chance = random.Random(5)
    for number in range(KILLS):
        process = start(conf)
        assert process.stdout is not None
        lines = chance.randint(1, 3 + 2 * number)
        for line in process.stdout:
            lines -= "  erase " in line
            if not lines:
                break
        time.sleep(chance.uniform(0, 2))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    last = start(conf)
    printed, _ = last.communicate()
    assert last.returncode == 0, printed
    assert "none of them is left" in printed

    lake = tmp_path / "lake"
    needles = Needles.of(GONE)
    found = [path for path in lake.rglob("*") if path.is_file() and scan.in_file(path.as_uri(), needles)[1]]
    assert found == []
    for table, per_user in (
        ("silver/events", 6),
        ("gold/users", 2),
        ("gold/vocabulary_users", 1),
        ("recommendations", 4),
    ):
        users = DeltaTable(str(lake / table)).to_pyarrow_table().column("user_id").to_pylist()
        assert sorted(users) == sorted(user for user in USERS if user not in GONE for _ in range(per_user)), table
    records = DeltaTable(str(lake / "runs")).to_pyarrow_table().to_pylist()
    newest = DeltaTable(str(lake / "gold/users")).version()
    outputs = [dict(row["outputs"]) for row in records if row["run_id"] == "second"]
    assert [row["gold.users"] for row in outputs] == [newest], "the run goes on with what is left"
