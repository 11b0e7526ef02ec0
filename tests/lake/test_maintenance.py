"""Small files become large ones, what runs read stays, and doing it again does nothing."""

from __future__ import annotations

import datetime as dt
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparkrec import cli, schemas
from sparkrec import columns as c
from sparkrec.errors import DataError
from sparkrec.jobs.maintain import maintain
from sparkrec.lake import maintenance, upkeep
from sparkrec.models import als
from sparkrec.pipeline import Run

pytestmark = pytest.mark.spark
TABLE, LISTS = schemas.VOCABULARY_USERS, schemas.RECOMMENDATIONS


def users(run: Run, first: int, last: int) -> Any:
    rows = [(f"u{i}", i, 1, None, None) for i in range(first, last)]
    return run.spark.createDataFrame(rows, TABLE.struct())


def test_compacted_once_and_what_the_newest_runs_read_stays(make_run: Callable[..., Run]) -> None:
    """One lake through the whole story: dry run, upkeep, upkeep again, and a run that nobody keeps any more."""
    settings = {"maintenance": {"retention_hours": 0, "keep_runs": 1}}
    old = make_run("featurize", **settings)
    old.run_id = "old"
    old.write(TABLE, users(old, 0, 3))
    old.finish()
    new = make_run("featurize", **settings)
    new.run_id = "new"
    for k in range(6):
        new.append(TABLE, users(new, 10 * k, 10 * k + 2), new.lake.prepare(TABLE))
    new.finish()
    pinned = new.outputs[TABLE.name]

    def upkept(**arguments: Any) -> upkeep.Upkeep:
        run = make_run("maintain", **settings)
        run.arguments = arguments
        maintain(run)
        return next(upkeep.Upkeep(**row) for row in run.details["tables"] if row["table"] == TABLE.name)

    def rows(run_id: str) -> int:
        run = make_run("train_als", **settings)
        run.run_id = run_id
        return run.read(TABLE).count()

    dry = upkept(dry_run=True)
    assert new.lake.version(TABLE) == pinned, "a dry run writes nothing"
    assert dry.crowded == 1
    assert "would compact 1 partition" in str(dry)
    first = upkept()
    assert first.crowded == 1
    assert first.before != first.after
    assert first.after.startswith("1 files")
    assert rows("new") == 15, "OPTIMIZE came after what the run pinned, and nothing it needs was removed"
    assert first.hours > 0, "so the retention was made longer than the configured 0 hours"
    version = new.lake.version(TABLE)
    second = upkept()
    assert (second.crowded, second.removable) == (0, 0)
    assert new.lake.version(TABLE) == version, "the second time there is nothing to do"


def test_what_no_kept_run_needs_is_removed_and_its_run_says_so(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_MARGIN_HOURS", 0)
    settings = {"maintenance": {"retention_hours": 0, "keep_runs": 1, "log_retention_days": 9}}
    runs = []
    for name, first in (("old", 0), ("new", 5)):
        run = make_run("featurize", **settings)
        run.run_id = name
        run.write(TABLE, users(run, first, first + 3))
        run.finish()
        runs.append(run)
    lake = runs[-1].lake
    first, second = (set(lake.read(TABLE, run.outputs[TABLE.name]).inputFiles()) for run in runs)
    run = make_run("maintain", **settings)
    maintain(run)
    done = next(upkeep.Upkeep(**row) for row in run.details["tables"] if row["table"] == TABLE.name)
    assert done.removable == len(first)
    there = {path.name for path in Path(lake.path(TABLE)).glob("*.parquet")}
    assert there == {name.rsplit("/", 1)[-1] for name in second}
    found = {row.key: row.value for row in lake.spark.sql(f"SHOW TBLPROPERTIES delta.`{lake.path(TABLE)}`").collect()}
    assert found["delta.deletedFileRetentionDuration"] == found["delta.logRetentionDuration"] == "interval 21 days"
    reading = make_run("train_als", **settings)
    reading.run_id = "new"
    assert reading.read(TABLE).count() == 3
    reading = make_run("train_als", **settings)
    reading.run_id = "old"
    with pytest.raises(Exception, match="FILE_NOT_EXIST") as raised:
        reading.read(TABLE).orderBy(c.USER_ID).collect()
    said = cli._from_spark(raised.value)
    assert isinstance(said, DataError)
    assert "is gone" in str(said)
    assert "with the same --run-id" in str(said)


def test_purge_leaves_the_newest_version_alone_on_the_disk(make_run: Callable[..., Run]) -> None:
    run = make_run("featurize")
    run.write(TABLE, users(run, 0, 3))
    run.write(TABLE, users(run, 5, 9))
    before = run.lake.read(TABLE).orderBy(c.USER_INDEX).collect()
    maintenance.purge(run.lake, TABLE)
    maintenance.purge(run.lake, TABLE)
    assert run.lake.read(TABLE).orderBy(c.USER_INDEX).collect() == before
    folder = Path(run.lake.path(TABLE))
    log = sorted(path.name for path in (folder / "_delta_log").iterdir() if path.is_file())
    newest = run.lake.version(TABLE)
    assert all(int(name.lstrip(".")[:20]) >= newest - 1 for name in log if name.lstrip(".")[:1].isdigit()), log
    text = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"u0" not in text
    assert b"u8" in text
    live = {path.name for path in folder.glob("*.parquet")}
    assert live == {name.rsplit("/", 1)[-1] for name in run.lake.read(TABLE).inputFiles()}
    with pytest.raises(DataError, match=r"Version 1 of gold\.vocabulary_users.* is gone"):
        run.lake.read(TABLE, 1)
    run.write(TABLE, users(run, 0, 3))
    assert run.lake.read(TABLE).count() == 3, "and the table can be written again"


def test_sweep_takes_what_no_version_refers_to_and_nothing_else(make_run: Callable[..., Run]) -> None:
    """Of a table with partitions: older versions stay readable, and so does what is not a file of rows."""
    table, run = schemas.RECOMMENDATIONS, make_run("recommend")
    partition = {c.RUN_ID: "a b/ü%", c.MODEL: "als"}

    def of(user: str) -> Any:
        rows = [(*partition.values(), user, 1, "item", 0.5, "als", None, 1.0)]
        return run.spark.createDataFrame(rows, table.struct())

    for user in ("u1", "u2"):
        run.write(table, of(user), partition)
    assert maintenance.sweep(run.lake, table) == 0
    folder = Path(run.lake.path(table))
    inside = next(folder.rglob("part-*.parquet")).parent
    left = [inside / "part-00000-half.c000.snappy.parquet", folder / "part-00001-half.c000.zstd.parquet"]
    for path in left:
        path.write_bytes(b"")
    (folder / "notes.parquet").write_bytes(b"somebody's")
    assert maintenance.sweep(run.lake, table) == 2
    assert not any(path.exists() for path in left)
    assert (folder / "notes.parquet").exists()
    newest = run.lake.version(table)
    assert [run.lake.read(table, version).first()[c.USER_ID] for version in (newest - 1, newest)] == ["u1", "u2"]


def test_what_killed_trainings_left_is_removed_when_no_living_one_can_own_it(
    make_run: Callable[..., Run],
) -> None:
    """A day is the least: two folders are older, of one a file within is younger, one is somebody's."""

    def upkept(**arguments: Any) -> Run:
        run = make_run("maintain", maintenance={"retention_hours": 2})
        run.arguments = arguments
        maintain(run)
        return run

    assert upkept().details["scratch"] == [], "there is no such folder yet"
    root = Path(make_run("x").path("checkpoints", "als"))
    with als.checkpoints(make_run("train_als").spark, str(root)):
        (killed,) = (path.name for path in root.iterdir())
    empty, living = (str(uuid.uuid4()) for _ in range(2))
    for name, hours in ((killed, 25), (living, 23), ("notes", 25)):
        file = root / name / "rdd-7" / "part-00000"
        file.parent.mkdir(parents=True)
        file.write_text("")
        age(file, hours)
    (root / empty).mkdir()
    for path in root.iterdir():
        age(path, 25)
    dry = upkept(dry_run=True)
    assert dry.details["scratch"] == sorted(f"checkpoints/als/{name}" for name in (killed, empty))
    assert {path.name for path in root.iterdir()} == {killed, empty, living, "notes"}
    assert upkept().counts["scratch_removed"] == 2
    assert {path.name for path in root.iterdir()} == {living, "notes"}
    assert upkept().counts["scratch_removed"] == 0


def age(path: Path, hours: float) -> None:
    os.utime(path, times=(time.time() - 3600 * hours,) * 2)


def test_what_old_runs_left_is_dropped_and_nothing_else(make_run: Callable[..., Run]) -> None:
    """Runs of 40, 20 and 1 days ago, and one of 50 whose model a warm start would begin with."""
    settings = {"maintenance": {"drop_runs_after_days": 10, "keep_runs": 1}}
    ages = {
        "a-40": (40, "recommend"), "b's-20": (20, "recommend"), "c-1": (1, "recommend"),
        "d-50": (50, "train_two_tower"),
    }  # fmt: skip
    for run_id, (days, stage) in ages.items():
        run = make_run(stage, **settings)
        run.run_id = run_id
        run.started -= dt.timedelta(days=days)
        rows = run.spark.createDataFrame([(run_id, "als", "u", 1, "i", 0.5, "als", None, 1.0)], LISTS.struct())
        run.write(LISTS, rows, {c.RUN_ID: run_id, c.MODEL: "als"})
        run.finish()
        for folder in (f"models/two_tower/{run_id}", f"reports/{run_id}", "models/two_tower/nobody"):
            Path(run.path(folder)).mkdir(parents=True, exist_ok=True)

    def upkept(**arguments: Any) -> Run:
        run = make_run("maintain", **settings)
        run.arguments = arguments
        maintain(run)
        return run

    def left(run: Run) -> tuple[set[str], set[str], set[str]]:
        names = [{path.name for path in Path(run.path(folder)).iterdir()} for folder in ("models/two_tower", "reports")]
        return {row[c.RUN_ID] for row in run.lake.read(LISTS).collect()}, *names

    claim = Path(run.path("models/two_tower/a-40/trained_by.json"))
    claim.touch()
    assert "a-40" not in upkept(dry_run=True).details["dropped"]["runs"], "it is trained anew at this moment"
    age(claim, hours=25)
    everything = left(dry := upkept(dry_run=True))
    assert everything == ({*ages}, {*ages, "nobody"}, {*ages})
    assert dry.details["dropped"]["partitions"] == {"recommendations": 2}
    run = upkept()
    assert run.counts["runs_dropped"] == 2
    assert left(run) == ({"c-1", "d-50"}, {"c-1", "d-50", "nobody"}, {"c-1", "d-50"})
    assert run.details["dropped"]["folders"] == [
        "models/two_tower/a-40", "models/two_tower/b's-20", "reports/a-40", "reports/b's-20",
    ]  # fmt: skip
    version = run.lake.version(LISTS)
    assert left(again := upkept()) == left(run)
    assert again.counts["runs_dropped"] == 0
    assert run.lake.version(LISTS) == version, "the second time there is nothing to do"
    assert run.lake.read(schemas.RUNS).count() == 4, "what ran is remembered"
