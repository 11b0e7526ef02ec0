"""A hand-made gold lake: what featurize would leave, small, with two tastes that a model can learn."""

from __future__ import annotations

import datetime as dt
from collections.abc import Container
from typing import Any

import handmade
import numpy as np

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import Settings
from sparkrec.pipeline import Run

PURCHASE, VIEW = c.EVENT_TYPES.index(c.PURCHASE), c.EVENT_TYPES.index(c.VIEW)

_2021 = 1609459200


def histories(users: int, items: int, seed: int = 3) -> list[list[int]]:
    """Even users walk over even items and odd over odd ones, 4 to 12 events each."""
    rng = np.random.default_rng(seed)
    return [(rng.integers(items // 2, size=rng.integers(4, 13)) * 2 + user % 2).tolist() for user in range(users)]


def write_gold(
    settings: Settings, users: int = 60, items: int = 40, files: int = 3, run_id: str = "", back: Container[int] = ()
) -> Run:
    """Sequences (every third user in two chunks), items with a feature a taste, vocabularies; recorded as featurize.

    Everything happens in 1970 and gold is as of 2020; users who come ``back`` do in 2021, and gold is as of 2022 then.
    """
    run = Run(settings, "featurize", run_id=run_id)
    rows: list[dict[str, Any]] = []
    for user, walk in enumerate(histories(users, items)):
        late = _2021 if user in back else 0
        parts = [(1, walk[:2]), (0, walk[2:])] if user % 3 == 0 else [(0, walk)]
        for chunk, part in parts:
            rows.append(
                {
                    c.USER_INDEX: user, c.CHUNK: chunk, c.LENGTH: len(part), c.ITEM_INDEX: part,
                    c.EVENT_TYPE: [PURCHASE if i % 4 == 0 else VIEW for i in range(len(part))],
                    c.EVENT_TIME: [i + late * (chunk == 0) for i in range(len(part))],
                    c.VALUE: [float("nan")] * len(part),
                    c.VALIDATION: [chunk == 0 and i == len(part) - 1 for i in range(len(part))],
                    c.USER_BLOCK: 0,
                }
            )  # fmt: skip
    parts = [[row for row in rows if row[c.USER_INDEX] % files == n] for n in range(files)]
    handmade.write(run, schemas.GOLD_SEQUENCES, *parts)
    now = dt.datetime(2022 if back else 2020, 1, 1)
    gold = [{c.ITEM_INDEX: i, c.ITEM_ID: f"i{i}", c.AS_OF: now, c.FEATURES: [i % 2]} for i in range(items)]
    handmade.write(run, schemas.GOLD_ITEMS, gold)
    for table, prefix, n in (
        (schemas.VOCABULARY_USERS, "u", users),
        (schemas.VOCABULARY_ITEMS, "i", items),
        (schemas.VOCABULARY_FEATURES, "f", 2),
    ):
        handmade.write(run, table, [(f"{prefix}{i}", i, 1, now, now) for i in range(n)])
    run.finish()
    return run
