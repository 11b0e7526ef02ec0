"""Rows of ``runs``: when one was written, and which version of a table it names."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from sparkrec import columns as c
from sparkrec.schemas import Table

#: Commands on a lake, not on a run: their records say nothing of which runs are still in use.
UPKEEP = ("maintain", "erase", "export")


def finished(record: Any) -> dt.datetime:
    """When a run record was written. A stage that began earlier may have read, and written, later.

    In UTC: Spark gives times of the clock here, which in one night of the year shows an hour twice.
    """
    started: dt.datetime = record[c.STARTED]
    return started.astimezone(dt.UTC) + dt.timedelta(seconds=record[c.SECONDS] or 0)


def recorded(records: Sequence[Any], table: Table) -> int:
    """The version of a table that the newest of the records which wrote it names."""
    return next(int(row[c.OUTPUTS][table.name]) for row in reversed(records) if table.name in row[c.OUTPUTS])
