"""For how long an item that a user has met counts as seen, where ``recommend`` forgets: so that validation forgets too.

Rules are conditions of Spark SQL, and ranks have no Spark: the driver asks gold.items, and leaves the days of each item
beside the plan, 4 bytes an item. A file's name says of what it is, so one that is there is right, whoever left it.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparkrec import columns as c
from sparkrec.training.events import Mark
from sparkrec.training.item_features import check_known
from sparkrec.training.manifest import open_file
from sparkrec.training.plan import Memory, Plan

if TYPE_CHECKING:
    from sparkrec.pipeline import Run

_DAYS, _DAY = "memory_days", 86_400


def write(run: Run, plan: Plan) -> None:
    """The days of all items, for the ranks; nothing where validation does not ask, or nothing is forgotten."""
    from sparkrec import schemas
    from sparkrec.retrieval import item_columns, rules

    if (wanted := _wanted(plan)) is None or (path := _path(plan, wanted)).exists():
        return
    items = run.read(schemas.GOLD_ITEMS)
    days = rules.memory_days(items, run.settings.recommend).cast("float").alias(_DAYS)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    try:
        item_columns.write(items.select(c.ITEM_INDEX, days), temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read(plan: Plan) -> Mark | None:
    """Which events ``recommend`` had forgotten; None where none ever is, or nobody asks."""
    import pyarrow as pa

    if (wanted := _wanted(plan)) is None:
        return None
    with open_file(str(_path(plan, wanted))) as file:
        return forgotten(wanted.moment, pa.ipc.open_stream(file).read_all()[_DAYS].to_numpy())


def forgotten(moment: int, days: np.ndarray) -> Mark:
    """Which events lie more than so many days before ``moment``, unix seconds; ``days`` float32 [items].

    Ages are float32, as ``recommend`` has them: so the same side of the border is remembered.
    """

    def mark(items: np.ndarray, times: np.ndarray) -> np.ndarray:
        check_known("gold.sequences", c.ITEM_INDEX, items, len(days))
        return ~(((moment - times) / _DAY).astype(np.float32) <= days[items])

    return mark


def _wanted(plan: Plan) -> Memory | None:
    return plan.question.memory if plan.settings.select_on_validation else None


def _path(plan: Plan, wanted: Memory) -> Path:
    about = json.dumps([asdict(wanted), plan.items.version])
    return plan.path("memory", f"{hashlib.sha256(about.encode()).hexdigest()[:16]}.arrow")
