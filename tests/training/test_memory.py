"""What validation has forgotten is what recommend would have: by hand, and from a gold lake."""

from __future__ import annotations

import dataclasses
import datetime as dt

import numpy as np
import pytest
from gold_lake import write_gold
from small import train

from sparkrec import schemas
from sparkrec.errors import DataError
from sparkrec.pipeline import Run
from sparkrec.retrieval import filters
from sparkrec.training import driver, memory

DAY = 86_400


@pytest.mark.unit
def test_a_meeting_is_forgotten_as_soon_as_it_is_longer_ago_than_its_item_counts():
    moment, days = 100 * DAY, np.asarray([5, 30, np.inf], np.float32)
    items = np.asarray([0, 0, 1, 1, 2, 0])
    ages = np.asarray([5 * DAY, 5 * DAY + 1, 30 * DAY, 30 * DAY + 1, 100 * DAY, -DAY])
    mark = memory.forgotten(moment, days)
    assert mark(items, moment - ages).tolist() == [False, True, False, True, False, False]
    # Nowhere else than recommend does, whatever float32 makes of the border.
    rng = np.random.default_rng(5)
    items, ages = rng.integers(3, size=5000), rng.integers(-3, 4, 5000) + DAY * rng.choice([5, 30], 5000)
    rows = np.append(np.arange(5000), 5000), items
    kept = np.diff(filters.recent(rows, (ages / DAY).astype(np.float32), days)[0]) > 0
    np.testing.assert_array_equal(mark(items, moment - ages), ~kept)
    with pytest.raises(DataError, match=r"item_index 0 to 3.*knows 0 to 2"):
        mark(np.asarray([0, 3]), np.asarray([0, 0]))


@pytest.mark.workers
def test_ranks_are_told_by_the_rules_of_recommend(spark, make_settings):
    """All was met in 1970, and gold is as of 2020: no memory reaches back so far where there is one."""
    rule = {"name": "used up", "items": "item_index % 4 = 0", "again_after_days": 5}
    settings = make_settings(
        recommend={"seen_days": 20_000, "rules": [rule]}, two_tower={"ranks": 1, "width": 8, "batch": 16, "epochs": 2}
    )
    write_gold(settings)
    run = Run(settings, "train_two_tower")
    versions = {table: run.pin(table) for table in (schemas.GOLD_SEQUENCES, schemas.GOLD_ITEMS)}
    plan = driver.make_plan(run, versions)
    as_of = int(dt.datetime(2020, 1, 1, tzinfo=dt.UTC).timestamp())
    assert plan.question.memory == driver.Memory(as_of - 7 * DAY, 20_000, (("item_index % 4 = 0", 5.0),))
    moment, asked = as_of - 7 * DAY, np.arange(40)
    mark = memory.read(plan)
    for age, expected in ((4, asked < 0), (6, asked % 4 == 0), (19_999, asked % 4 == 0), (20_001, asked >= 0)):
        np.testing.assert_array_equal(mark(asked, np.full(40, moment - age * DAY)), expected)
    (file,) = plan.path("memory").iterdir()
    before = file.stat().st_mtime_ns
    assert driver.make_plan(run, versions) == plan
    assert file.stat().st_mtime_ns == before, "what is there is right"

    def look(training):
        training.journal.beat = lambda: None
        np.testing.assert_array_equal(training.events.forgotten, training.events.items % 4 == 0)

    assert "ndcg" in train(plan, look)[0]["curve"][0]

    unasked = dataclasses.replace(plan, two_tower=plan.two_tower | {"select_on_validation": False})
    assert memory.read(unasked) is None
