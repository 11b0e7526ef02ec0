"""maintain: small files → large ones, and old ones removed."""

from sparkrec.cli import run_job
from sparkrec.lake import upkeep
from sparkrec.pipeline import Run


def maintain(run: Run) -> None:
    """Compacts the tables, removes files that nobody needs any more, and says what it did, or would do."""
    dry_run = bool(run.arguments.get("dry_run"))
    reports = [upkeep.of_table(run, table, dry_run) for table in upkeep.tables(run)]
    for report in reports:
        run.say(str(report))
    run.detail(tables=[vars(report) for report in reports], dry_run=dry_run)
    run.count(
        tables=len(reports),
        partitions_compacted=0 if dry_run else sum(report.crowded for report in reports),
        files_removed=0 if dry_run else sum(report.removable for report in reports),
    )


if __name__ == "__main__":
    run_job(maintain)
