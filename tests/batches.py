"""A lake of bronze batches without files: a dirty log, what ingest would write of it, and what clean made of it."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparkrec import schemas
from sparkrec.config import Settings
from sparkrec.jobs.clean import clean
from sparkrec.lake.tables import ABSENT
from sparkrec.pipeline import Run, execute

TABLES = (
    schemas.SILVER_EVENTS, schemas.SILVER_REPEATS, schemas.SILVER_ITEM_DAYS, schemas.SILVER_ITEMS, schemas.QUARANTINE,
)  # fmt: skip
FIELDS = ("user_id", "item_id", "event_type", "event_time", "value", "session_id", "order_id", "item_name")
OPTIONS = {
    "events": {"files": "*.jsonl", "format": "json", "columns": {name: name for name in FIELDS}},
    "items": {"files": "items*.json", "format": "json", "columns": {"item_id": "item", "name": "name"}},
}
#: Chains within ten seconds, sessions within half an hour.
CLEAN = {"near_duplicate_seconds": 10, "session_gap_minutes": 30, "max_refused": 1}
MIDNIGHT = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)

Batch = tuple[dt.datetime, list[tuple[str, int, str]]]  # time of ingest; file, line, raw


def dirty_log(chance: random.Random, rows: int) -> list[str]:
    """Lines around three midnights: bursts of one user that run over them, repeats, trades, and things to refuse."""
    lines: list[str] = []
    time = MIDNIGHT
    for number in range(rows):
        if chance.random() < 0.15:
            time = MIDNIGHT + dt.timedelta(days=chance.randrange(3), minutes=chance.choice([-45, -5, -1, 0, 3, 600]))
        time += dt.timedelta(seconds=chance.choice([0, 1, 8, 11, 120, 1700, 1801]))
        kind = chance.choice(["view", "view", "purchase", "purchase", "cancel"])
        event: dict[str, Any] = {
            "user_id": chance.choice("uvw"), "item_id": chance.choice("ab"), "event_type": kind,
            "event_time": f"{time:%Y-%m-%d %H:%M:%S}", "value": str(chance.choice([1, 1, 2])),
            "item_name": chance.choice(["Lamp", "lamp", None]),
        }  # fmt: skip
        if chance.random() < 0.1:
            event["session_id"] = "of the shop"
        if chance.random() < 0.2:
            event["order_id"] = f"o{chance.randrange(4)}"
        if chance.random() < 0.2:
            event |= chance.choice([
                {"user_id": None}, {"event_time": "soon"}, {"event_time": "2026-03-06 00:00:01"}, {"value": "many"},
                {"event_type": "wish"}, {"event_time": "1001-01-01"}, {"event_time": "9999-12-31"}, {"item_id": "c"},
                {"event_time": "9999-12-31T23:00:00-05:00"},
            ])  # fmt: skip
        lines.append(json.dumps(event) if chance.random() < 0.97 else f"{{broken {number % 2}")
        if lines and chance.random() < 0.15:
            lines.append(chance.choice(lines))  # an exact repeat, in this batch or another
    return lines


def settings(folder: Path, **sections: Any) -> Settings:
    return Settings.model_validate({
        "name": "dirty", "lake": {"path": str(folder)}, "tracking": {"enabled": False}, "clean": CLEAN,
        "source": {"name": "generic", "path": "unused", "options": OPTIONS}, "spark": {"shuffle_partitions": 2},
    } | sections)  # fmt: skip


def append(to: Settings, events: Sequence[Batch], items: Sequence[Batch] = ()) -> None:
    """What ingest does with files; the time of ingest is given."""

    def ingest(run: Run) -> None:
        for table, batches in ((schemas.BRONZE_EVENTS, events), (schemas.BRONZE_ITEMS, items)):
            rows = [(file, line, None, raw, 0, time, "r") for time, lines in batches for file, line, raw in lines]
            base = run.lake.prepare(table)
            if rows or base == ABSENT:
                run.append(table, run.spark.createDataFrame(rows, table.struct()), base)
            else:
                run.keep(table)

    execute(ingest, Run(to, "ingest"))


def cleaned(to: Settings) -> Run:
    run = Run(to, "clean")
    execute(clean, run)
    return run


def content(run: Run) -> dict[str, list[str]]:
    return {table.name: sorted(map(str, run.read(table).collect())) for table in TABLES}


def record(run: Run) -> dict[str, Any]:
    """What the report says, but for what is of one run only (rules over many rows warn of the rows of one run)."""
    counts = {name: n for name, n in run.counts.items() if name != "rows_new"}
    rules = [rule for rule in run.details["rules"] if rule["severity"] == "quarantine"]
    return {"counts": counts, "rules": rules} | {name: run.details[name] for name in ("facts", "noted", "suspects")}
