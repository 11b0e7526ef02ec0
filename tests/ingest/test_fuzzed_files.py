"""Any bytes in a log file: each line is in bronze and comes out again, readable or called malformed; none is lost."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.ingest import sources
from sparkrec.jobs.ingest import ingest
from sparkrec.pipeline import Run

pytestmark = pytest.mark.spark

EVENT = b'{"user": "u%d", "sku": "i", "what": "view", "at": "2024-05-05"}'
ITEM = b'i%d,"Red ""mug"", small"'
OPTIONS = {
    "events": {
        "files": "events/*.json", "format": "json",
        "columns": {"user_id": "user", "item_id": "sku", "event_type": "what", "event_time": "at"},
    },
    "items": {"files": "items/*.csv", "format": "csv", "columns": {"item_id": "sku", "name": "title"}},
}  # fmt: skip


def damaged(line: bytes, chance: random.Random) -> list[bytes]:
    """Good lines between lines of every kind of damage. None of them holds a line break of its own."""
    noise = bytes(b for b in (chance.randrange(256) for _ in range(200)) if b not in b"\r\n")
    cut = line % 1
    bad = [
        noise, b"\x00" * 50, cut[: len(cut) // 2], cut + b"\x00", b"\xff\xfe" + cut.decode().encode("utf-16-le"),
        cut.replace(b"i", "é".encode("latin-1")), b"x" * 300_000, b'"' * 999, b"{" * 5_000, b"[1, 2]", b"null",
        b'{"a": ', "\u2028\u202e🦄".encode(), b"," * 40, b"\\" * 7, cut + cut, b'{"user": {"a": [1, {"b": null}]}}',
    ]  # fmt: skip
    chance.shuffle(bad)
    return [part for n, other in enumerate(bad) for part in (line % n, other)]


def test_every_line_is_accounted_for(make_run: Callable[..., Run], tmp_path: Path) -> None:
    chance, lines = random.Random(3), {"events": 0, "items": 0}
    for what, line, header in (("events", EVENT, b""), ("items", ITEM, b"sku,title\n")):
        (tmp_path / what).mkdir()
        for number in range(3):
            made = damaged(line, chance)
            lines[what] += len(made)
            name = tmp_path / what / f"{number}.{'json' if what == 'events' else 'csv'}"
            name.write_bytes(header + b"\n".join(made) + (b"\n" if number else b""))
    run: Any = make_run("ingest", source={"name": "generic", "path": str(tmp_path), "options": OPTIONS})
    ingest(run)
    source = sources.get(run.settings.source)
    for what, good in (("events", source.events), ("items", source.items)):
        table = schemas.BRONZE_EVENTS if what == "events" else schemas.BRONZE_ITEMS
        rows = good(run.read(table)).select(c.SOURCE_FILE, c.LINE, c.RAW, c.MALFORMED, c.ITEM_ID).collect()
        assert len(rows) == lines[what]
        assert len({(row[c.SOURCE_FILE], row[c.LINE]) for row in rows}) == len(rows)
        readable = [row for row in rows if row[c.MALFORMED] is None]
        assert len(rows) / 2 <= len(readable) < len(rows)
        assert all(row[c.MALFORMED] for row in rows if row not in readable)
        # Of two events on a line none is read and the other lost.
        double = [row for row in rows if "}{" in row[c.RAW]]
        assert len(double) == (3 if what == "events" else 0)
        assert all(row[c.MALFORMED] for row in double)
