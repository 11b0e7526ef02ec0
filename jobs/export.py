"""export: all that is held of one person."""

from pathlib import Path

from sparkrec.cli import run_job
from sparkrec.ingest import sources
from sparkrec.pipeline import Run
from sparkrec.privacy import export as files
from sparkrec.privacy import persons, protect


def export(run: Run) -> None:
    """Writes all that the lake holds of one user: JSON lines a table, and a summary that a person reads."""
    source, folder = sources.of(run), Path(run.arguments["to"])
    who = persons.find(run, (run.arguments["user"],))
    if held := protect.held_key(run):
        run.audit.update(digest=persons.key_of(run, held).digest("request", who.stored[0]))
    rows = files.write(run, who, source, folder, run.arguments["classes"])
    run.audit.update(users=1, rows=rows, classes=list(run.arguments["classes"]))
    run.count(tables=sum(n > 0 for n in rows.values()), rows=sum(rows.values()))
    run.say(f"wrote {folder}: only you may read it")


if __name__ == "__main__":
    run_job(export)
