"""A small training problem without Spark: parquet pieces, plan and ranks that are threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ranks import on_ranks

from sparkrec import columns as c
from sparkrec.config import TwoTower
from sparkrec.training.manifest import Manifest, Piece, deal
from sparkrec.training.plan import Base, Journal, Plan
from sparkrec.training.worker import Training

USERS, ITEMS, FEATURES = 40, 30, 4


def make_plan(folder: Path, **settings: Any) -> Plan:
    """40 users of 2 to 14 events on 30 items, the last event of each held out; 5 row groups."""
    rng = np.random.default_rng(8)
    walks = [rng.integers(ITEMS // 2, size=rng.integers(2, 15)) * 2 + user % 2 for user in range(USERS)]
    sequences = pa.table(
        {
            c.USER_INDEX: pa.array(range(USERS), pa.int32()),
            c.CHUNK: pa.array([0] * USERS, pa.int32()),
            c.ITEM_INDEX: pa.array([walk.tolist() for walk in walks], pa.list_(pa.int32())),
            c.EVENT_TYPE: pa.array([rng.integers(4, size=len(w)).tolist() for w in walks], pa.list_(pa.int8())),
            c.VALIDATION: pa.array([[False] * (len(w) - 1) + [True] for w in walks], pa.list_(pa.bool_())),
        }
    )
    return plan_of(folder, sequences, ITEMS, **settings)


def plan_of(
    folder: Path, sequences: pa.Table, n_items: int, base: Base | None = None, as_of: int = 0, **settings: Any
) -> Plan:
    """The plan of some rows of gold.sequences, in row groups of nine."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    items = pa.table(
        {
            c.ITEM_INDEX: pa.array(range(n_items), pa.int32()),
            c.FEATURES: pa.array([[i % 2, 2 + i % 2] if i % 5 else [] for i in range(n_items)], pa.list_(pa.int32())),
        }
    )
    config = TwoTower.model_validate({"width": 8, "batch": 16, "epochs": 4, "max_history": 6} | settings)
    manifests = []
    for name, table, size in (("gold.sequences", sequences, 9), ("gold.items", items, 100)):
        path = data / f"{name}.parquet"
        pq.write_table(table, path, row_group_size=size)
        pieces = [Piece(str(path), group, 9) for group in range(pq.read_metadata(path).num_row_groups)]
        manifests.append(Manifest(name, 1, deal(pieces, config.ranks)))
    return Plan(
        str(folder / "model"), config.model_dump(mode="json"),
        {"users": len(sequences), "items": n_items, "features": FEATURES}, *manifests, base=base, as_of=as_of,
    )  # fmt: skip


def train(plan: Plan, during: Any = None) -> list[dict[str, Any]]:
    """Every rank's result. ``during(training)`` may change a rank's training before it runs."""

    def rank(collective: Any) -> dict[str, Any]:
        training = Training(plan, collective, Journal(plan, collective.rank))
        if during:
            during(training)
        return training.run()

    return on_ranks(plan.settings.ranks, rank)
