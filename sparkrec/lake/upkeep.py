"""What ``sparkrec maintain`` does to each table, and which old versions it must leave alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.lake import maintenance
from sparkrec.lake.records import UPKEEP, finished
from sparkrec.schemas import Table

if TYPE_CHECKING:
    from sparkrec.pipeline import Run

_SMALL = 0.5
_MARGIN_HOURS = 1.0


@dataclass(frozen=True)
class Upkeep:
    """Of one table: its files before and after, the partitions with many small files, and the files removed."""

    table: str
    before: str
    after: str
    crowded: int
    removable: int
    hours: float
    dry_run: bool

    def __str__(self) -> str:
        what = "would compact" if self.dry_run else "compacted"
        gone = "would remove" if self.dry_run else "removed"
        return (
            f"{self.table}: {self.before}; {what} {self.crowded:,} partition(s), {gone} {self.removable:,} old file(s) "
            f"that nothing of the last {self.hours:,.0f} h needs; now {self.after}"
        )


def tables(run: Run) -> list[Table]:
    """All that the lake has."""
    return [table for table in schemas.TABLES if run.lake.exists(table)]


def of_table(run: Run, table: Table, dry_run: bool) -> Upkeep:
    """Compact and vacuum one table. Doing it again does nothing."""
    settings, lake = run.settings.maintenance, run.lake
    file_bytes = settings.file_mb << 20
    small = int(_SMALL * file_bytes)
    before = maintenance.files(lake, table, small)
    crowded = maintenance.crowded(lake, table, small, settings.min_small_files)
    if not dry_run:  # before anything is committed: see retain
        maintenance.retain(lake, table, needed_hours(run, table), settings.log_retention_days)
    if crowded and not dry_run:
        maintenance.compact(lake, table, crowded, file_bytes)
    hours = needed_hours(run, table)  # after the compaction, which may have made what runs read an older version
    removable = maintenance.removable(lake, table, hours)
    if removable and not dry_run:
        maintenance.vacuum(lake, table, hours)
    after = before if dry_run else maintenance.files(lake, table, small)
    return Upkeep(table.name, str(before), str(after), len(crowded), removable, hours, dry_run)


def needed_hours(run: Run, table: Table) -> float:
    """Retention of a table: the configured one, or longer, where one of the newest runs still reads an older version.

    A run needs what the newest record of each of its stages read or wrote. ``maintenance.keep_runs`` says how many runs
    count; of the others, versions live as long as ``retention_hours`` says. The newest runs of clean and of featurize
    always count.
    """
    from pyspark.sql import functions as F

    wanted = run.settings.maintenance.retention_hours
    if not run.lake.exists(schemas.RUNS):
        return wanted
    records = run.lake.read(schemas.RUNS).where(~F.col(c.STAGE).isin(*UPKEEP))
    rows = sorted(records.collect(), key=finished, reverse=True)
    kept = list(dict.fromkeys(row[c.RUN_ID] for row in rows))[: run.settings.maintenance.keep_runs]
    newest = {(row[c.RUN_ID], row[c.STAGE]): row for row in reversed(rows) if row[c.RUN_ID] in kept}
    # Whatever its run: the next one goes on from there.
    newest |= {("", row[c.STAGE]): row for row in reversed(rows) if row[c.STAGE] in ("clean", "featurize")}
    versions = [
        version[table.name]
        for row in newest.values()
        for version in (row[c.INPUTS] or {}, row[c.OUTPUTS] or {})
        if table.name in version
    ]
    if not versions:
        return wanted
    hours = maintenance.hours_since_left(run.lake, table, min(versions))
    return wanted if hours is None else max(wanted, hours + _MARGIN_HOURS)
