"""``kill -9`` in the middle of an erasure, at seeded moments; the last run finishes, and nobody is left.

Here ids lie in the lake as the log has them; pseudonyms in test_erase.py.
"""

from __future__ import annotations

from pathlib import Path

import drivers
import pytest
import yaml
from deltalake import DeltaTable
from people_lake import GONE, USERS, build

from sparkrec.privacy import scan
from sparkrec.privacy.scan import Needles

pytestmark = [pytest.mark.workers, pytest.mark.slow]

#: A run prints "started", "erasing", "removed" a report, "deleted", and a line for each table that it purged.
MOMENTS = drivers.moments(18, (2, 3, 4, 6, 13), seconds=4)


def test_killed_again_and_again_it_finishes(spark: object, tmp_path: Path) -> None:
    settings = build(tmp_path, pseudonymize=False)
    conf = tmp_path / "small.yaml"
    conf.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude={"tracking": {"password", "token"}})))
    erase = ("sparkrec", "erase", "--conf", conf, "--users", ",".join(GONE))
    for lines, later in MOMENTS:
        printed = drivers.kill(drivers.start(*erase), lines, later, "erase")
        assert "erase" in printed, printed
        assert "none of them is left" not in printed, "killed too late"
    assert "none of them is left" in drivers.finish(drivers.start(*erase))

    lake = tmp_path / "lake"
    needles = Needles.of(GONE)
    found = [path for path in lake.rglob("*") if path.is_file() and scan.in_file(str(path), needles)[1]]
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
