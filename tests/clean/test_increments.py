"""Batches of a dirty log, in any order and of any size, give the tables that all of them at once give."""

from __future__ import annotations

import datetime as dt
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from batches import TABLES, append, cleaned, content, dirty_log, record, settings
from hypothesis import HealthCheck, Phase, example, given
from hypothesis import settings as how
from hypothesis import strategies as st

from sparkrec import schemas

pytestmark = [pytest.mark.spark, pytest.mark.slow]

#: An order takes two minutes: one besides the growing catalogue, the same in each run of the tests; SPARKREC_ORDERS=20
#: tries twenty. To shrink one that fails would take hours; its seed says all.
FEW = how(
    max_examples=int(os.environ.get("SPARKREC_ORDERS", "1")), derandomize=True, database=None, deadline=None,
    phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck),
)  # fmt: skip


@FEW
@given(st.integers(0, 2**32), st.just(False))
@example(6, True)
def test_any_order_of_batches_is_as_all_at_once(spark: Any, seed: int, with_catalogue: bool) -> None:
    chance = random.Random(seed)
    lines = dirty_log(chance, 200)
    cuts = sorted(chance.sample(range(20, len(lines) - 20), 2))
    parts = [lines[: cuts[0]], lines[cuts[0] : cuts[1]], lines[cuts[1] :]]
    chance.shuffle(parts)
    batches = [
        (dt.datetime(2026, 3, 4 + day, 23, tzinfo=dt.UTC), [(f"{day}.jsonl", n, raw) for n, raw in enumerate(part, 1)])
        for day, part in enumerate(parts)
    ]
    # Item c is not in the catalogue at first: its events wait in quarantine.
    items = [[("items1.json", 1, '{"item": "a", "name": "Lamp"}'), ("items1.json", 2, '{"item": "b", "name": "Mug"}')],
             [], [("items2.json", 1, '{"item": "c", "name": "Late"}')]]  # fmt: skip
    catalogue = [(batches[0][0], rows) for rows in items] if with_catalogue else [(batches[0][0], [])] * 3

    with tempfile.TemporaryDirectory() as folder:
        by_batch, at_once = settings(Path(folder, "by_batch")), settings(Path(folder, "at_once"))
        increments = []
        for batch, more in zip(batches, catalogue, strict=True):
            append(by_batch, [batch], [more])
            increments.append(cleaned(by_batch))
        append(at_once, chance.sample(batches, 3), catalogue)
        whole = cleaned(at_once)

        assert [run.details["increment"]["why_full"] is None for run in increments] == [False, True, True]
        found, expected = content(increments[-1]), content(whole)
    for name, rows in expected.items():
        assert found[name] == rows, name
    assert record(increments[-1]) == record(whole)
    unused = schemas.SILVER_ITEM_DAYS if with_catalogue else None
    assert all(expected[table.name] for table in TABLES if table is not unused), "worth comparing"
