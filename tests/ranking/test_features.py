"""Candidates and their features, worked out by hand and against a slow, plain version."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkrec import columns as c
from sparkrec.ranking import candidates, features
from sparkrec.ranking.histories import Histories, grouped, neighbor_sums
from sparkrec.retrieval.filters import Audience

pytestmark = pytest.mark.unit

M = 6
VIEW, BUY = c.EVENT_TYPES.index(c.VIEW), c.EVENT_TYPES.index(c.PURCHASE)
NAN = np.nan


@dataclass
class Facts:
    events = np.array([9, 1, 3, 0, 1, 1], np.float32)
    recent = np.array([3, 1, 0, 0, 1, 1], np.float32)
    purchases = np.array([3, 0, 3, 0, 0, 0], np.float32)
    age_days = np.array([30, 2, 9, NAN, 1, 1], np.float32)
    price = np.array([1, np.e, NAN, 1, 1, 1], np.float32)
    leaf = np.array([0, 0, 1, 1, -1, 2], np.int32)
    root = np.array([0, 0, 0, 0, -1, 1], np.int32)
    brand = np.array([-1, 5, 5, -1, -1, -1], np.int32)


def histories(n, *events):
    """(user, item, type, days ago), users ascending and oldest first."""
    columns = [np.array(x) for x in zip(*events, strict=True)] if events else [np.zeros(0)] * 4
    return Histories(
        n, columns[0].astype(np.int64), columns[1].astype(np.int64), columns[2].astype(np.int8),
        columns[3].astype(np.float32),
    )  # fmt: skip


def everyone(n, seen=()):
    rows = [[item for user, item in seen if user == row] for row in range(n)]
    indptr = np.cumsum([0, *map(len, rows)])
    empty = np.zeros(n + 1, np.int64), np.zeros(0, np.int64)
    met = indptr, np.array([item for row in rows for item in row], np.int64)
    return Audience(np.zeros((n, 0), np.float32), met, np.zeros(n, np.int64), np.zeros(n, bool), empty)


def test_sources_are_merged_with_the_place_in_each():
    found = candidates.merged({"a": np.array([[4, 2, -1], [0, -1, -1]]), "b": np.array([[2, 5, 4], [-1, -1, -1]])}, M)
    assert list(zip(found.rows.tolist(), found.items.tolist(), strict=True)) == [(0, 2), (0, 4), (0, 5), (1, 0)]
    np.testing.assert_array_equal(found.places["a"], [2, 1, NAN, 1])
    np.testing.assert_array_equal(found.places["b"], [1, 3, 2, NAN])
    assert found.source().tolist() == [1, 0, 1, 0]  # of equals the first


def test_neighbors_are_summed_over_distinct_items_of_the_history():
    near = np.full((M, 2), -1, np.int32)
    cosine = np.zeros((M, 2), np.float32)
    near[0], cosine[0] = [2, 3], [0.5, 0.25]
    near[1, 0], cosine[1, 0] = 2, 0.75
    events = histories(2, (0, 0, VIEW, 9), (0, 0, VIEW, 8), (0, 1, VIEW, 1), (1, 0, VIEW, 4))
    sums = neighbor_sums(events, near, cosine)
    rows, items = np.array([0, 0, 1, 1, 1]), np.array([2, 3, 2, 3, 5])
    assert sums.at("sum", rows, items).tolist() == [1.25, 0.25, 0.5, 0.25, 0]
    assert sums.at("largest", rows, items).tolist() == [0.75, 0.25, 0.5, 0.25, 0]
    assert sums.at("last", rows, items).tolist() == [0.75, 0, 0.5, 0.25, 0]
    allowed = np.ones(M, bool)
    assert candidates.of_neighbors(sums, everyone(2), 2, allowed).tolist() == [[2, 3], [2, 3]]
    assert candidates.of_neighbors(sums, everyone(2, [(0, 2)]), 2, allowed).tolist() == [[3, -1], [2, 3]]


def test_what_was_met_last_comes_first_where_it_may_be_offered():
    events = histories(2, (0, 0, VIEW, 9), (0, 1, VIEW, 5), (0, 0, VIEW, 2), (1, 4, VIEW, 1))
    allowed = np.array([True] * 4 + [False] * 2)
    assert candidates.recently_met(events, everyone(2, [(0, 3)]), 3, allowed).tolist() == [[0, 1, -1], [-1, -1, -1]]


def test_features_by_hand():
    events = histories(2, (0, 0, VIEW, 8), (0, 2, BUY, 4), (0, 0, VIEW, 2), (0, 4, VIEW, 1))
    found = candidates.merged({"als": np.array([[0, 1, 3], [5, -1, -1]], np.int32)}, M)
    nothing = neighbor_sums(events, np.full((M, 0), -1, np.int32), np.zeros((M, 0), np.float32))
    scores = {"als": np.array([0.5, NAN, 2, 1], np.float32)}
    rows = features.matrix(found, events, Facts(), nothing, scores)
    names = features.names(("als",), ("als",))
    assert rows.shape == (4, len(names))
    row = {item: dict(zip(names, values, strict=True)) for item, values in zip(found.items.tolist(), rows, strict=True)}
    near = pytest.approx
    assert row[0]["als_score"] == 0.5
    assert (row[0]["als_place"], row[3]["als_place"]) == (1, 3)
    assert (row[0]["met"], row[0]["met_days"], row[0]["met_bought"]) == (2, 2, 0)
    assert row[1]["met"] == 0
    assert np.isnan(row[1]["met_days"])
    # Three of the user's four events are on items with a category: two on leaf 0, one on leaf 1, all on root 0.
    assert (row[1]["leaf_share"], row[1]["leaf_days"]) == (near(2 / 3), 2)
    assert (row[3]["leaf_share"], row[3]["leaf_days"]) == (near(1 / 3), 4)
    assert row[3]["root_share"] == 1
    # The one event with a brand is on brand 5, which item 1 has; item 0 has none.
    assert (row[1]["brand_share"], row[1]["brand_days"]) == (1, 4)
    assert np.isnan(row[0]["brand_share"])
    assert (row[0]["events"], row[0]["trend"], row[0]["purchases"]) == (near(np.log(10)), near(1 / 3), near(1 / 3))
    assert np.isnan(row[3]["trend"])
    assert (row[0]["history"], row[0]["history_items"], row[0]["idle_days"]) == (near(np.log(5)), near(np.log(4)), 1)
    mean = np.mean(np.log1p([9, 3, 9, 1]))
    assert row[1]["popularity_gap"] == near(np.log(2) - mean)
    assert row[1]["price_gap"] == near(1)  # log prices of the history: 0, unknown, 0, 0
    # A user without a history: nothing is known but the item.
    assert (row[5]["history"], row[5]["events"]) == (0, near(np.log(2)))
    assert np.isnan([row[5][name] for name in ("idle_days", "leaf_share", "popularity_gap", "price_gap")]).all()


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(-9, 9)), max_size=30),
    st.sampled_from([(np.add, sum), (np.minimum, min), (np.maximum, max)]),
)
def test_grouped_is_what_a_dictionary_gives(triples, how):
    plain: dict[tuple[int, int], list[int]] = {}
    for row, item, value in triples:
        plain.setdefault((row, item), []).append(value)
    rows, items, values = (np.array([t[i] for t in triples], np.int64) for i in range(3))
    pairs = grouped(rows, items, 5, {"v": values}, how[0])
    keys = list(zip(pairs.rows.tolist(), pairs.items.tolist(), strict=True))
    assert keys == sorted(plain)
    assert pairs.values["v"].tolist() == [how[1](plain[key]) for key in keys]
    assert pairs.values["count"].tolist() == [len(plain[key]) for key in keys]
    asked = np.arange(20)
    expected = [how[1](plain[r, i]) if (r, i) in plain else -77 for r in range(4) for i in range(5)]
    assert pairs.at("v", asked // 5, asked % 5, -77).tolist() == expected
