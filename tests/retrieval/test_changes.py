"""How far lists are from those of the run before, by hand; as part of the job it is in test_join.py."""

from __future__ import annotations

import pytest

from sparkrec.config.recommend import Recommend
from sparkrec.retrieval import changes

pytestmark = pytest.mark.spark


def test_changes_against_the_run_before_by_hand(spark):
    def lists(model, **users):
        rows = [(model, u, rank, f"i{i}") for u, items in users.items() for rank, i in enumerate(items, 1)]
        return spark.createDataFrame(rows, "model string, user_id string, rank int, item_id string")

    now = lists("als", a=[1, 2, 3, 9], b=[4, 5], d=[7]).unionByName(lists("new", a=[1]))
    then = lists("als", a=[1, 3, 4, 9], b=[5, 4, 6], e=[8])
    found = changes.against(now, then, 3)
    # a: {1, 3} of 3 and the first stayed; b: {4, 5} of 3 and it did not; d is new, e is gone.
    assert found["als"] == {
        "overlap": pytest.approx(2 / 3, abs=1e-6), "churn": pytest.approx(1 / 3, abs=1e-6), "same_first": 0.5,
        "churn_all": pytest.approx((1 / 3 + 1 / 3 + 1 + 1) / 4, abs=1e-6), "users": 2, "users_new": 1, "users_gone": 1,
    }  # fmt: skip
    assert found["new"]["users_new"] == 1


def test_what_each_run_draws_anew_is_no_change(spark):
    """One item of two stayed; the third place is the lot's, drawn once and the list's own once."""

    def lists(*items):
        rows = [("als", "a", rank, f"i{i}", p) for rank, (i, p) in enumerate(items, 1)]
        return spark.createDataFrame(rows, "model string, user_id string, rank int, item_id string, propensity double")

    now, then = lists((1, 1.0), (2, None), (9, 0.05)), lists((1, 1.0), (3, 1.0), (8, 0.5))
    found = changes.told(now, then, Recommend(k=3, exploration={"places": 1}))
    assert found["models"]["als"]["churn"] == 0.5
    assert found["with_lots"]["als"]["churn"] == pytest.approx(2 / 3, abs=1e-6)
    assert set(changes.told(now, then, Recommend(k=3))) == {"models"}
