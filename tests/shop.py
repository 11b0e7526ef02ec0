"""A small simulated shop for the tests that start real processes, and how two lakes are compared."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from deltalake import DeltaTable

from sparkrec import columns as c
from sparkrec import schemas

HOME = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

#: What differs between two equal runs: clocks, and the versions and names of the runs themselves.
CLOCKS = {c.INGEST_TIME, c.STARTED, c.SECONDS}


#: What happened, not what came out of it.
HISTORY = (schemas.RUNS, schemas.AUDIT, schemas.SUPPRESSED)
#: What commands beside the pipeline write.
ASIDE = (schemas.SIMILAR_ITEMS, schemas.AUDIENCES)
#: What the pipeline writes, and must write the same whenever it is run.
PIPELINE = tuple(table for table in schemas.TABLES if table not in (*HISTORY, *ASIDE))


def configuration(folder: Path, logs: Path, **sections: Any) -> Path:
    """A configuration of a small shop: its lake below ``folder``, its logs in ``logs``."""
    content = {
        "name": "small",
        "lake": {"path": str(folder / "lake")},
        "source": {
            "name": "simulator",
            "path": str(logs),
            "options": {"users": 200, "items": 120, "days": 30, "events": 8000},
        },
        "spark": {"driver_memory": "1g", "shuffle_partitions": 2},
        "split": {"test_days": 5, "validation_days": 5},
        "features": {"neighbors": 5},
        "als": {"rank": 8, "iterations": 3, "blocks": 2},
        "two_tower": {"epochs": 2, "width": 16, "batch": 64},
        "evaluate": {"tradeoff_users": 0, "newcomers": 0},
        "tracking": {"enabled": False},
        **sections,
    }
    path = folder / "small.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


def environment() -> dict[str, str]:
    """The environment a user has after ``source .venv/bin/activate``."""
    return os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}


def submit(driver: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    """``spark-submit DRIVER`` in a process group of its own; Spark puts a job's stderr on its own stdout."""
    return subprocess.Popen(
        ["spark-submit", "--master", "local[2]", "--driver-memory", "1g", driver, *arguments],
        cwd=HOME, env=environment(), text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def rows(lake: Path, table: schemas.Table, version: int | None = None) -> list[str]:
    """A version (default: the newest) of a table as sorted text, without its clocks."""
    data = DeltaTable(str(lake / table.name.replace(".", "/")), version).to_pyarrow_table()
    keep = [name for name in data.column_names if name not in CLOCKS]
    return sorted(repr(row) for row in data.select(keep).to_pylist())


def assert_same_tables(one: Path, other: Path, tables: tuple[schemas.Table, ...] = PIPELINE) -> None:
    """Every table equal, row by row and bit for bit."""
    for table in tables:
        assert rows(one, table) == rows(other, table), f"{table.name} differs"
