"""maintain: small files → large ones, and old ones removed."""

from sparkrec.cli import run_job
from sparkrec.lake import expiry, upkeep
from sparkrec.pipeline import Run


def maintain(run: Run) -> None:
    """Drops what old and killed runs left, compacts, removes files that nobody needs; says what it did, or would do."""
    dry_run = bool(run.arguments.get("dry_run"))
    gone = expiry.drop(run, dry_run)
    if gone.runs:
        what = "would drop" if dry_run else "dropped"
        run.say(f"{what} what {len(gone.runs):,} old run(s) left: partitions {gone.partitions}, folders {gone.folders}")
    if left := expiry.drop_scratch(run, dry_run):
        run.say(f"{'would remove' if dry_run else 'removed'} what killed trainings left: {', '.join(left)}")
    reports = [upkeep.of_table(run, table, dry_run) for table in upkeep.tables(run)]
    for report in reports:
        run.say(str(report))
    run.detail(tables=[vars(report) for report in reports], dropped=vars(gone), scratch=left, dry_run=dry_run)
    run.count(
        tables=len(reports),
        runs_dropped=0 if dry_run else len(gone.runs),
        scratch_removed=0 if dry_run else len(left),
        partitions_compacted=0 if dry_run else sum(report.crowded for report in reports),
        files_removed=0 if dry_run else sum(report.removable for report in reports),
    )


if __name__ == "__main__":
    run_job(maintain)
