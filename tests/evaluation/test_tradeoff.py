"""The price of diversity, by hand."""

from __future__ import annotations

from math import log, log2

import numpy as np
import pytest

from sparkrec.evaluation import tradeoff
from sparkrec.evaluation.tradeoff import Lists, Tastes, divergence, intra_list_diversity, summary

pytestmark = pytest.mark.unit
# Items 0 and 1 share one of three features, 2 shares none with them, 3 and 4 have none at all.
FEATURES = (np.array([0, 2, 4, 5, 5, 5]), np.array([7, 8, 8, 9, 3]))


def test_intra_list_diversity_by_hand(monkeypatch):
    lists = np.array([[0, 1, 2], [1, 0, -1], [2, -1, -1], [-1, -1, -1], [3, 4, -1], [3, 0, -1]])
    expected = [(2 / 3 + 1 + 1) / 3, 2 / 3, 0, 0, 0, 1]
    assert intra_list_diversity(lists, FEATURES) == pytest.approx(expected)
    monkeypatch.setattr(tradeoff, "_CELLS", 1)
    assert intra_list_diversity(lists, FEATURES) == pytest.approx(expected), "in blocks of one"


def test_one_half_chooses_and_the_other_confirms():
    # Users 0 and 2 choose; at .5 they lose nothing, at .8 all. User 1 loses at .5 already; one hit was never shown.
    relevant = [[0], [1, -1], [0]]
    lists = [
        Lists(0.0, np.array([[0, 1], [1, 0], [0, 1]])),
        Lists(0.5, np.array([[0, 2], [2, 1], [0, 2]])),
        Lists(0.8, np.array([[2, 3], [2, 3], [2, 3]])),
    ]
    found = summary(lists, relevant, FEATURES, 5)
    ideal = 1 + 1 / log2(3)
    first, second, third = found["points"]
    assert first["ndcg"] == pytest.approx((1 + 1 / ideal + 1) / 3)
    assert second["ndcg"] == pytest.approx((1 + 1 / log2(3) / ideal + 1) / 3)
    assert third["ndcg"] == 0
    assert [point["coverage"] for point in found["points"]] == [2 / 5, 3 / 5, 2 / 5]
    assert [point["diversity"] for point in found["points"]] == [pytest.approx(2 / 3), 1, 1]
    assert found["chosen"] == 0.5
    assert found["confirmed"] == {
        "users": 1, "ndcg": pytest.approx(1 / log2(3) / ideal), "ndcg_before": pytest.approx(1 / ideal),
        "diversity": 1, "diversity_before": pytest.approx(2 / 3),
    }  # fmt: skip


def test_divergence_from_a_taste_by_hand():
    # Kinds of the items: 4, 4, 9, none, 9. A list of 4, 4, 9, 9 has just the taste; of 4 alone it is half of it; a list
    # of which a third has no kind; nothing in common; no list; no taste.
    codes, shares = np.array([[4, 9]] * 5 + [[-1, -1]]), np.array([[0.5, 0.5]] * 5 + [[0, 0]])
    tastes = Tastes(codes, shares, np.array([4, 4, 9, -1, 9]))
    lists = np.array([[0, 1, 2, 4], [0, 1, -1, -1], [0, 3, 2, -1], [3, -1, -1, -1], [-1, -1, -1, -1], [0, 1, 2, 4]])
    # (½, ½) against (1, 0): the middle is (¾, ¼).
    half = (0.5 * log(0.5 / 0.75) + 0.5 * log(0.5 / 0.25) + log(1 / 0.75)) / 2
    # (½, ½, 0) against (⅓, ⅓, ⅓): the middle is (5/12, 5/12, 1/6).
    third = (log(0.5 / (5 / 12)) + 2 / 3 * log((1 / 3) / (5 / 12)) + 1 / 3 * log((1 / 3) / (1 / 6))) / 2
    assert divergence(lists, tastes) == pytest.approx([0, half, third, log(2), log(2), log(2)])


def test_calibrated_lists_are_measured_by_it_too():
    tastes = Tastes(np.array([[4], [4]]), np.array([[1.0], [1.0]]), np.array([4, 4, 9, 9, 9]))
    lists = [Lists(0.0, np.array([[0, 1], [2, 3]])), Lists(0.5, np.array([[0, 1], [0, 1]]))]
    found = summary(lists, [[0], [0]], FEATURES, 5, tastes)
    assert [point["miscalibration"] for point in found["points"]] == [pytest.approx(log(2) / 2), 0]
    confirmed = found["confirmed"]
    assert (confirmed["miscalibration_before"], confirmed["miscalibration"]) == (pytest.approx(log(2)), 0)
    assert summary(lists, [[0], [0]], FEATURES, 5)["points"][0]["miscalibration"] is None


def test_one_user_cannot_choose_and_confirm():
    assert "chosen" not in summary([Lists(0.0, np.array([[0]]))], [[0]], FEATURES, 5)
