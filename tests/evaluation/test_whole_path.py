"""From raw files to metrics, through silver, gold and lists: what a few lines of Python make of the same files."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from shop import HOME

from sparkrec import columns as c
from sparkrec import config, schemas
from sparkrec.jobs.clean import clean
from sparkrec.jobs.evaluate import evaluate
from sparkrec.jobs.featurize import featurize
from sparkrec.jobs.ingest import ingest
from sparkrec.jobs.recommend import recommend
from sparkrec.jobs.train_popularity import train_popularity
from sparkrec.pipeline import Run, execute

pytestmark = [pytest.mark.spark, pytest.mark.slow]

USERS, K = 300, 20
QUICK = ("bootstrap=100", "sample_users=5", "tradeoff_users=0", "newcomers=0")


def test_most_popular_on_a_part_of_movielens_1m(spark: Any, data: Path, tmp_path: Path) -> None:
    """Nobody is lost and nothing is counted twice. Of all users it is a published number: bench/quality.py."""
    train = few(data / "movielens-1m-lcfn" / "train.txt", tmp_path)
    test = few(data / "movielens-1m-lcfn" / "test.txt", tmp_path, {item for items in train.values() for item in items})
    settings = config.load(
        [HOME / "conf" / "movielens_1m_lcfn.yaml"],
        [
            f"lake.path={tmp_path / 'lake'}", f"source.path={tmp_path}", "tracking.enabled=false",
            "recommend.models=[popularity]", *(f"evaluate.{setting}" for setting in QUICK),
        ],
    )  # fmt: skip
    for job in (ingest, clean, featurize, train_popularity, recommend, evaluate):
        run = Run(settings, job.__name__)
        execute(job, run)
    place = {row[c.ITEM_ID]: row[c.ITEM_INDEX] for row in run.read(schemas.VOCABULARY_ITEMS).collect()}
    rows = run.read(schemas.METRICS).where(f"{c.K} = {K} AND {c.SEGMENT} = 'all'").collect()
    found = {row[c.METRIC]: row[c.VALUE] for row in rows}
    expected = most_popular(train, test, place)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def few(path: Path, to: Path, known: set[str] | None = None) -> dict[str, list[str]]:
    """The first users of a file, written to a folder, with what they had of the known items."""
    rows = [line.split() for line in path.read_text().splitlines()[:USERS]]
    had = {user: [item for item in items if known is None or item in known] for user, *items in rows}
    (to / path.name).write_text("".join(" ".join([user, *items]) + "\n" for user, items in had.items()))
    return had


def most_popular(train: dict[str, list[str]], test: dict[str, list[str]], place: dict[str, int]) -> dict[str, float]:
    """Mean recall, NDCG and hit rate of the most frequent items that a user has not had; ties to the lower place."""
    times = Counter(item for items in train.values() for item in items)
    ranked = sorted(times, key=lambda item: (-times[item], place[item]))
    sums, users = Counter[str](), 0
    for user, items in test.items():
        if not items:
            continue
        listed = [item for item in ranked if item not in set(train[user])][:K]
        gains = [1 / math.log2(position + 2) for position, item in enumerate(listed) if item in set(items)]
        ideal = sum(1 / math.log2(position + 2) for position in range(min(K, len(items))))
        sums.update(recall=len(gains) / len(items), ndcg=sum(gains) / ideal, hit_rate=bool(gains))
        users += 1
    return {name: total / users for name, total in sums.items()}
