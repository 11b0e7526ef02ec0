"""The real files, ingested whole, against counts made without sparkrec. Online Retail: clean/test_clean_job.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.ingest import sources
from sparkrec.jobs.ingest import ingest
from sparkrec.pipeline import Run

pytestmark = [pytest.mark.spark, pytest.mark.slow]


def ingested(make_run: Callable[..., Run], name: str, path: Path, **options: Any) -> tuple[Any, Any]:
    run = make_run("ingest", source={"name": name, "path": str(path), "options": options})
    ingest(run)
    source = sources.get(run.settings.source)
    return source.events(run.read(schemas.BRONZE_EVENTS)), source.items(run.read(schemas.BRONZE_ITEMS))


@pytest.mark.parametrize(
    ("name", "folder", "options", "events", "users", "items", "catalogue"),
    [
        ("movielens_100k", "movielens-100k", {}, 100_000, 943, 1_682, 1_682),
        ("movielens_1m", "movielens-1m", {"ratings": "sequences"}, 999_611, 6_040, 3_416, 0),
        ("sequences", "amazon-beauty",
         {"files": "Beauty.txt", "attributes": "Beauty_item2attributes.json"}, 198_502, 22_363, 12_101, 12_101),
        ("retailrocket", "retailrocket-sample", {}, 9_385, 5_000, 6_610, 0),
        ("amazon_reviews", "amazon-musical-instruments", {}, 10_261, 1_429, 900, 0),
    ],
)  # fmt: skip
def test_public_files(
    make_run: Callable[..., Run], data: Path, name: str, folder: str, options: dict[str, Any],
    events: int, users: int, items: int, catalogue: int,
) -> None:  # fmt: skip
    found, found_items = ingested(make_run, name, data / folder, **options)
    row = found.agg(
        F.count("*"), F.count_distinct(c.USER_ID), F.count_distinct(c.ITEM_ID), F.count(c.MALFORMED)
    ).first()
    assert tuple(row) == (events, users, items, 0)
    assert found_items.where(F.col(c.ITEM_ID).isNotNull() & F.col(c.MALFORMED).isNull()).count() == catalogue


def test_a_given_split(make_run: Callable[..., Run], data: Path) -> None:
    events, _ = ingested(make_run, "sequences", data / "movielens-1m-lcfn", files="{train,test}.txt")
    counts = {row[c.SPLIT]: row["count"] for row in events.groupBy(c.SPLIT).count().collect()}
    assert counts == {c.TRAIN: 796_244, c.TEST: 99_455}
