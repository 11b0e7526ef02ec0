"""The job as a whole: from lists and held-out events to the metrics table, the page and the screen; twice."""

from __future__ import annotations

from pathlib import Path

import handmade
import pytest

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.jobs.evaluate import evaluate
from sparkrec.pipeline import Run, execute

pytestmark = pytest.mark.spark

N_ITEMS = 12
EVENTS = [[(0, c.VIEW, 1), (1, c.PURCHASE, 2)], [(n, c.VIEW, n) for n in range(6)], []]
HOLDOUT = [("u0", "i4"), ("u0", "unheard"), ("u1", "i7"), ("stranger", "i0")]
LISTS = {
    ("popularity", "*"): ["i0", "i1"],
    ("popularity", "u0"): ["i2", "i3"],
    ("popularity", "u1"): ["i6", "i7"],
    ("als", "*"): ["i0", "i1"],
    ("als", "u0"): ["i4", "i3"],
    ("als", "u1"): ["i7", "i8"],
}


@pytest.fixture(scope="module")
def done(spark, tmp_path_factory):
    quick = {"bootstrap": 100, "sample_users": 5, "tradeoff_users": 0, "newcomers": 0}
    settings = handmade.settings(
        tmp_path_factory.mktemp("evaluate"),
        "shop",
        recommend={"k": 2, "models": ["popularity", "als"]},
        evaluate={"ks": [1, 2], "primary": "recall@2", **quick},
    )
    gold = Run(settings, "featurize")
    tables = (schemas.GOLD_SEQUENCES, schemas.GOLD_ITEMS, schemas.GOLD_USERS, schemas.GOLD_HOLDOUT)
    handmade.gold(gold, EVENTS, N_ITEMS, holdout=HOLDOUT, only=tables)
    gold.detail(split={"kind": "leave_one_out"})
    gold.finish()
    lists = Run(settings, "recommend")
    rows = [
        {
            c.RUN_ID: lists.run_id, c.MODEL: model, c.USER_ID: user, c.RANK: rank, c.ITEM_ID: item,
            c.SCORE: 1.0 / rank, c.SOURCE: model, c.REASON: "a reason",
        }
        for (model, user), items in LISTS.items()
        for rank, item in enumerate(items, start=1)
    ]  # fmt: skip
    handmade.write(lists, schemas.RECOMMENDATIONS, rows)
    lists.finish()
    runs = [Run(settings, "evaluate") for _ in range(2)]
    for run in runs:
        execute(evaluate, run)
    return runs


def rows(run):
    found = run.lake.read(schemas.METRICS, run.outputs["metrics"]).collect()
    return {(r[c.MODEL], r[c.METRIC], r[c.K], r[c.SEGMENT]): r for r in found}


def test_metrics_worked_by_hand(done):
    found = rows(done[0])
    # Three users. ALS: u0 has one of two (the other was unheard of), u1 and the stranger all.
    assert found["als", "recall", 2, "all"][c.VALUE] == pytest.approx((1 / 2 + 1 + 1) / 3, abs=1e-8)
    assert found["popularity", "recall", 2, "all"][c.VALUE] == pytest.approx((0 + 1 + 1) / 3, abs=1e-8)
    assert found["popularity", "mrr", 2, "all"][c.VALUE] == pytest.approx((0 + 1 / 2 + 1) / 3, abs=1e-8)
    assert found["als", "recall", 2, "all"][c.N_USERS] == 3
    assert found["als", "hit_rate", 1, "new"][c.N_USERS] == 1
    assert found["als", "coverage", 2, "all"][c.VALUE] == pytest.approx(4 / N_ITEMS)
    assert {found[key][name] for key in found for name in (c.LOW, c.HIGH)} == {None}, "three users have no interval"


def test_twice_is_the_same_to_the_bit(done):
    assert rows(done[0]) == rows(done[1])


def test_what_was_counted(done):
    assert done[0].counts == {"test_users": 3, "test_pairs": 4, "test_pairs_unknown": 1}
    assert (
        done[0]
        .details["headline"]
        .startswith("ALS has the best lists: Recall@2 is 0.8333 (too few users for an interval: 3).")
    )


def test_the_page_is_written_with_histories_and_lists(done):
    page = Path(done[0].details["report"]).read_text(encoding="utf-8")
    assert done[0].details["report"] == done[0].path("reports", "shop-all", "report.html")
    for text in (
        "ALS has the best lists",
        "User u0",
        "User u1",
        "Item 4 ✓",
        "Item 1 <span",
        "unheard",
        "published next-item",
    ):
        assert text in page, text
    assert "stranger" not in page  # nobody without a history is shown
