"""What runs leave besides records and metrics, which nothing else removes.

Old ones their lists, vectors, models and reports; those that were killed, what they worked with.
"""

from __future__ import annotations

import datetime as dt
import re
import shutil
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.lake import maintenance
from sparkrec.lake.place import CLAIM
from sparkrec.lake.records import UPKEEP, finished

if TYPE_CHECKING:
    from sparkrec.pipeline import Run

#: Tables with a partition for each run. What a run measured stays: it is small, and is what runs are compared by.
_TABLES = (
    schemas.VECTORS_USERS,
    schemas.VECTORS_ITEMS,
    schemas.RECOMMENDATIONS,
    schemas.SIMILAR_ITEMS,
    schemas.AUDIENCES,
)
#: Folders below ``lake.files`` that have one for each run.
_FOLDERS = (("models", "two_tower"), ("models", "ranker"), ("reports",))
#: Where ALS keeps its checkpoints, those of each training in a folder that Spark names.
_SCRATCH = ("checkpoints", "als")
#: Within which a training writes a checkpoint, at the least.
_LIVING_HOURS = 24
_OF_SPARK = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Expired:
    """``runs`` : of which something was left; ``partitions`` : table → how many of them it had rows of; ``folders`` :
    theirs, below the lake.
    """

    runs: list[str]
    partitions: dict[str, int]
    folders: list[str]


def expired(records: Sequence[Any], days: float, keep: int, now: dt.datetime) -> set[str]:
    """Ids of runs whose last stage was recorded more than so many days ago.

    Never those of the newest ``keep`` runs, nor of the run in which a stage was done last: a warm start begins with its
    model, and new lists are compared with its lists.
    """
    newest = sorted((row for row in records if row[c.STAGE] not in UPKEEP), key=finished, reverse=True)
    last = {row[c.RUN_ID]: finished(row) for row in reversed(newest)}
    kept = set(list(dict.fromkeys(row[c.RUN_ID] for row in newest))[:keep])
    kept |= set({row[c.STAGE]: row[c.RUN_ID] for row in reversed(newest)}.values())
    return {run_id for run_id, ended in last.items() if now - ended > dt.timedelta(days=days)} - kept


def drop(run: Run, dry_run: bool) -> Expired:
    """Remove what the expired runs have left, or (``dry_run``) only say what that is."""
    settings = run.settings.maintenance
    if settings.drop_runs_after_days is None or not run.lake.exists(schemas.RUNS):
        return Expired([], {}, [])
    records = run.lake.read(schemas.RUNS).select(c.RUN_ID, c.STAGE, c.STARTED, c.SECONDS).collect()
    old = expired(records, settings.drop_runs_after_days, settings.keep_runs, run.started)
    old = {name for name in old if not _is_trained(run, name)}
    partitions, runs = {}, set()
    for table in filter(run.lake.exists, _TABLES):
        there = sorted(maintenance.partitions(run.lake, table, c.RUN_ID) & old)
        if there and not dry_run:
            maintenance.delete_partitions(run.lake, table, c.RUN_ID, there)
        partitions[table.name] = len(there)
        runs |= set(there)
    folders = _folders(run, old, dry_run)
    return Expired(sorted(runs | {folder.rpartition("/")[2] for folder in folders}), partitions, folders)


def _is_trained(run: Run, name: str) -> bool:
    """Whether an old run is trained anew at this moment: nothing is recorded before that has ended."""
    claim = run.folder("models", "two_tower", name, CLAIM)
    if not claim.exists():
        return False
    touched = dt.datetime.fromtimestamp(claim.stat().st_mtime, dt.UTC)
    return run.started - touched < dt.timedelta(hours=_LIVING_HOURS)


def remove_scratch(run: Run) -> None:
    """Remove all of what trainings work with, for an erasure: while it runs, no training does."""
    root, system = _hadoop(run, run.path(_SCRATCH[0]))
    system.delete(root, True)


def drop_scratch(run: Run, dry_run: bool) -> list[str]:
    """Remove the checkpoints that killed trainings left, or (``dry_run``) only say which: their folders below the lake.

    Into those of a living one something was written within ``maintenance.retention_hours``, or a day if that is more:
    VACUUM too takes what is older for left behind. A folder of one's own (``als.checkpoint_dir``) others may use as
    well, so it is left alone.
    """
    hours = dt.timedelta(hours=max(run.settings.maintenance.retention_hours, _LIVING_HOURS))
    root, system = _hadoop(run, run.path(*_SCRATCH))
    found = []
    for status in system.listStatus(root) if system.exists(root) else ():
        name = status.getPath().getName()
        if status.isDirectory() and _OF_SPARK.fullmatch(name) and run.started - _written(system, status) > hours:
            found.append("/".join([*_SCRATCH, name]))
            if not dry_run:
                system.delete(status.getPath(), True)
    return sorted(found)


def _written(system: Any, folder: Any) -> dt.datetime:
    """When the newest file of a folder was written, or an empty one made. (Folders of object stores have no time.)"""
    found, times = system.listFiles(folder.getPath(), True), []
    while found.hasNext():
        times.append(found.next().getModificationTime())
    return dt.datetime.fromtimestamp(max(times, default=folder.getModificationTime()) / 1000, dt.UTC)


def _folders(run: Run, old: AbstractSet[str], dry_run: bool) -> list[str]:
    found = []
    for parts in _FOLDERS:
        root = run.folder(*parts)
        for name in old & {place.name for place in root.iterdir() if place.is_dir()} if root.is_dir() else ():
            found.append("/".join([*parts, name]))
            if not dry_run and (root / name).is_symlink():
                (root / name).unlink()
            elif not dry_run:
                shutil.rmtree(root / name)
    return sorted(found)


def _hadoop(run: Run, place: str) -> tuple[Any, Any]:
    """A place as Hadoop's path, and its file system."""
    jvm: Any = run.spark._jvm
    path = jvm.org.apache.hadoop.fs.Path(place)
    return path, path.getFileSystem(run.spark._jsc.hadoopConfiguration())
