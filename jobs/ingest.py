"""ingest: log files → bronze."""

from sparkrec import schemas
from sparkrec.cli import run_job
from sparkrec.ingest import bronze, sources
from sparkrec.pipeline import Run


def ingest(run: Run) -> None:
    """Log and catalogue files → bronze.events and bronze.items, each file once."""
    source = sources.of(run)
    source.prepare(run)
    events = bronze.append(run, schemas.BRONZE_EVENTS, source.event_files)
    items = bronze.append(run, schemas.BRONZE_ITEMS, source.item_files)
    run.count(**{name: events[name] + items[name] for name in events})


if __name__ == "__main__":
    run_job(ingest)
