"""The planner's rules at sizes from both sides of each."""

from __future__ import annotations

import numpy as np
import pytest

from sparkrec.config import TwoTower
from sparkrec.errors import ConfigError, RetryableError
from sparkrec.training.placement import DENSE, SHARDED, SPARSE, plan, report, rows_gb, touched_rows

pytestmark = pytest.mark.unit

LARGE = {"item_id": 100_000, "user_id": 1_000_000}


def kinds(tables, touched, **settings):
    return {table.table: table.placement for table in plan(TwoTower(**settings), tables, touched)}


def test_small_tables_are_dense_whatever_is_touched():
    tables = {"item_id": 12_000, "history_item": 12_000, "user_id": 22_000}
    assert set(kinds(tables, dict.fromkeys(tables, 10)).values()) == {DENSE}


def test_large_tables_are_sparse_unless_half_is_touched():
    assert kinds(LARGE, {"item_id": 49_999, "user_id": 256}, ranks=1) == {"item_id": SPARSE, "user_id": SPARSE}
    assert kinds(LARGE, {"item_id": 50_000, "user_id": 256}, ranks=1) == {"item_id": DENSE, "user_id": SPARSE}


def test_users_are_sharded_as_soon_as_there_are_ranks():
    assert kinds(LARGE, {"item_id": 5000, "user_id": 256}, ranks=2) == {"item_id": SPARSE, "user_id": SHARDED}


def test_what_does_not_fit_is_sharded_the_largest_first():
    tables = {"item_id": 100_000, "history_item": 1_000_000}
    touched = {"item_id": 5000, "history_item": 256}
    # A sparse row of 64 with one accumulator is 260 bytes: 26 MB and 260 MB, 130 MB on each of two.
    assert kinds(tables, touched, memory_gb=0.287) == {"item_id": SPARSE, "history_item": SPARSE}
    assert kinds(tables, touched, memory_gb=0.285) == {"item_id": SPARSE, "history_item": SHARDED}
    with pytest.raises(ConfigError, match=r"0\.16 GB on each of 2 rank.*memory_gb allows 0\.15.*more ranks"):
        kinds(tables, touched, memory_gb=0.15)
    assert kinds(tables, touched, memory_gb=0.15, ranks=4)["history_item"] == SHARDED


def test_on_fewer_ranks_tables_stay_where_they_are_and_need_more_memory():
    tables = {"item_id": 1_000_000, "history_item": 500_000}  # 260 and 130 MB
    settings = TwoTower(ranks=4, elastic=True, memory_gb=0.2, placement={"item_id": "sharded"})

    def planned(ranks):
        found = plan(settings, tables, dict.fromkeys(tables, 256), ranks)
        return [(table.placement, pytest.approx(table.gb)) for table in found]

    assert planned(None) == planned(4) == [(SHARDED, 0.065), (SPARSE, 0.13)]
    why = r"0\.26 GB on each of 2 rank.*: item_id .*sharded.*, history_item .*sparse.*min_ranks"
    with pytest.raises(RetryableError, match=why):  # more may be there soon
        planned(2)
    small = settings.model_copy(update={"memory_gb": 0.05})
    with pytest.raises(ConfigError, match=r"on each of 2 rank"):
        plan(small, tables, dict.fromkeys(tables, 256), 2)


def test_settings_have_the_last_word():
    touched = {"item_id": 5000, "user_id": 256}
    assert kinds(LARGE, touched, placement={"item_id": "sharded"}) == {"item_id": SHARDED, "user_id": SHARDED}
    with pytest.raises(ConfigError, match="names items, and this model's tables are item_id, user_id"):
        kinds(LARGE, touched, placement={"items": "sharded"})


def test_memory_of_a_row_by_hand():
    thousand = 1000 / 1e9
    assert rows_gb(TwoTower(width=8), 1000, DENSE) == pytest.approx(4 * 32 * thousand)
    assert rows_gb(TwoTower(width=8, average=0.9), 1000, DENSE) == pytest.approx(5 * 32 * thousand)
    assert rows_gb(TwoTower(width=8), 1000, SPARSE) == pytest.approx(36 * thousand)
    assert rows_gb(TwoTower(width=8, average=0.9, ranks=2), 1000, SHARDED) == pytest.approx((36 + 36) / 2 * thousand)
    assert rows_gb(TwoTower(width=8, table_optimizer="lazy_adam"), 1000, SPARSE) == pytest.approx(100 * thousand)


def test_touched_rows_are_those_of_as_many_draws():
    """1,000 users of 20 events, 100 a step on two ranks: 1,000 history tokens on each."""
    tables = {"item_id": 500, "history_item": 500, "user_id": 1000}
    settings = TwoTower(ranks=2, batch=100, history_keep=1, negatives=50)
    found = touched_rows(settings, tables, 1000, tokens=20_000, targets=4000)
    rng = np.random.default_rng(0)
    draws = {"item_id": 50 + 200, "history_item": 1000, "user_id": 50}
    for name, n in draws.items():
        seen = np.mean([len(set(rng.integers(tables[name], size=n).tolist())) for _ in range(50)])
        assert found[name] == pytest.approx(seen, rel=0.03), name
    assert touched_rows(settings.model_copy(update={"negatives": 0}), tables, 1000, 0, 0)["item_id"] == 500


def test_stars_have_no_negatives_so_that_a_step_touches_its_targets_only():
    tables = {"item_id": 1_000_000, "item_feature": 500_000}
    settings = TwoTower(loss="mse", weights={"rating": 1.0}, ranks=1, batch=100)
    found = touched_rows(settings, tables, 1000, tokens=20_000, targets=4000)
    assert found == {"item_id": 400, "item_feature": 200}


def test_the_report_says_where_and_why():
    lines = report(plan(TwoTower(), LARGE, {"item_id": 60_000, "user_id": 256}))
    assert lines[0].split() == ["table", "rows", "touched", "GB", "placement", "why"]
    assert lines[1].split(maxsplit=5) == [
        "item_id", "100,000", "60,000", "0.102", "replicated_dense", "a step touches 60% of it",
    ]  # fmt: skip
