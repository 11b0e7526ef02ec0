"""Batches of a dirty log, in any order, give the tables that all of them at once give."""

from __future__ import annotations

import datetime as dt
import random
from pathlib import Path
from typing import Any

import pytest
from batches import TABLES, append, cleaned, content, dirty_log, record, settings

from sparkrec import schemas

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.mark.parametrize("with_catalogue", [False])
def test_any_order_of_batches_is_as_all_at_once(spark: Any, tmp_path: Path, with_catalogue: bool) -> None:
    chance = random.Random(5 + with_catalogue)
    lines = dirty_log(chance, 200)
    third = len(lines) // 3
    parts = [lines[:third], lines[third : 2 * third], lines[2 * third :]]
    chance.shuffle(parts)
    batches = [
        (dt.datetime(2026, 3, 4 + day, 23, tzinfo=dt.UTC), [(f"{day}.jsonl", n, raw) for n, raw in enumerate(part, 1)])
        for day, part in enumerate(parts)
    ]
    # Item c is not in the catalogue at first: its events wait in quarantine.
    items = [[("items1.json", 1, '{"item": "a", "name": "Lamp"}'), ("items1.json", 2, '{"item": "b", "name": "Mug"}')],
             [], [("items2.json", 1, '{"item": "c", "name": "Late"}')]]  # fmt: skip
    catalogue = [(batches[0][0], rows) for rows in items] if with_catalogue else [(batches[0][0], [])] * 3

    by_batch, at_once = settings(tmp_path / "by_batch"), settings(tmp_path / "at_once")
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
    assert all(expected[table.name] for table in TABLES if table is not schemas.SILVER_ITEM_DAYS), "worth comparing"
