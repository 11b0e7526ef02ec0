"""How many lists are short, and why, by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sparkrec import columns as c
from sparkrec.retrieval import shortfall
from sparkrec.retrieval.filters import Audience
from sparkrec.retrieval.reranking import Policy
from sparkrec.retrieval.shortfall import REASONS, because


def csr(lists):
    return np.cumsum([0, *map(len, lists)]).astype(np.int64), np.array([i for x in lists for i in x], np.int32)


class Traits:
    hidden = np.array([1, 1, 1, 1, 0, 0, 0, 0])


@pytest.mark.unit
def test_the_first_reason_that_suffices_is_named():
    allowed = np.arange(8) != 7  # seven may be offered
    rows = [  # seen, barred, subset
        ([0, 1, 7], 0, None),  # five are left: it must be the caps
        ([0, 1, 1, 2, 3, 4], 0, None),  # two are left
        ([], 1, None),  # three are offered
        ([], 0, [4, 5, 6, 7, 7]),  # three
        ([4], 0, [3, 4, 5, 6]),  # four, and three unseen
        ([0, 4], 0, [2, 3, 4, 5, 6]),  # four unseen
    ]
    own = np.array([subset is not None for *_, subset in rows])
    users = Audience(
        np.zeros((6, 0), np.float32), csr([x[0] for x in rows]), np.array([x[1] for x in rows]), own,
        csr([x[2] or [] for x in rows]),
    )  # fmt: skip
    found = [REASONS[n] for n in because(users, allowed, 4, Policy(None, Traits()))]
    assert found == ["caps", "most_seen", "few_offered", "few_offered", "most_seen", "caps"]


@pytest.mark.spark
def test_a_model_that_wrote_nothing_is_counted(spark):
    rows = [("als", "u1", 1, "als"), ("als", "u1", 2, "als"), ("als", "u2", 1, "popularity"), ("als", "*", 1, "als")]
    rows.append(("newcomers", "u7", 1, "two_tower"))  # another job's, of the same run
    frame = spark.createDataFrame(rows, f"{c.MODEL} string, {c.USER_ID} string, {c.RANK} int, {c.SOURCE} string")
    counts = {"users": 3}
    run = SimpleNamespace(
        settings=SimpleNamespace(recommend=SimpleNamespace(k=2, models=("als", "two_tower"))), counts=counts,
        run_id="r", read=lambda table, where: frame, count=lambda **numbers: counts.update(numbers),
    )  # fmt: skip
    assert shortfall.counted(run, {"als": 4}) == {
        "als": {"rows": 4, "lists": 2, "fallback_users": 1, "short_lists": 2},
        "two_tower": {"rows": 0, "lists": 0, "fallback_users": 0, "short_lists": 3},
    }
    assert counts == {"users": 3, "lists": 2, "rows": 4, "fallback_users": 1, "short_lists": 5}
