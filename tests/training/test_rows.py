"""Places among touched rows lead back to the global indices, and no row is named twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkrec.config import TwoTower
from sparkrec.models.two_tower.towers import ItemFeatures
from sparkrec.training.rows import Rows, distinct

pytestmark = pytest.mark.unit

# Item i has features i % 3 and, if odd, 3.
ENDS = np.cumsum([1 + i % 2 for i in range(10)])
FEATURES = ItemFeatures(ENDS, np.asarray([f for i in range(10) for f in ([i % 3, 3] if i % 2 else [i % 3])], np.int32))
SIZES = {"item_id": 10, "item_feature": 4, "user_id": 6, "history_item": 10}


@given(st.lists(st.integers(0, 20)))
def test_distinct_against_a_set(index):
    scratch = np.random.default_rng(len(index)).integers(-5, 99, 21).astype(np.int32)  # any content
    index = np.asarray(index, np.int32)
    rows, places = distinct(index, scratch)
    assert sorted(rows.tolist()) == sorted(set(index.tolist()))
    np.testing.assert_array_equal(rows[places], index)


def part(users, history, targets):
    return {
        "users": np.asarray(users, np.int32), "history_items": np.asarray(history, np.int32),
        "target_items": np.asarray(targets, np.int32),
    }  # fmt: skip


PARTS = [part([5, 2], [7, 7, 1], [3, 7]), part([2], [], [9])]
COLUMNS, BIAS = np.asarray([4, 3], np.int32), np.asarray([0.5, 0.0], np.float32)


@pytest.mark.parametrize("whole", [(), ("item_id",), ("item_id", "item_feature", "user_id", "history_item")])
@pytest.mark.parametrize("history", ["none", "mean", "recency"])
def test_places_lead_back(history, whole):
    settings = TwoTower(history=history)
    sizes = {name: size for name, size in SIZES.items() if history == "mean" or name != "history_item"}
    tables = [name for name in whole if name in sizes]
    touched, local = Rows(settings, sizes, tables, FEATURES).local(PARTS, COLUMNS, BIAS, 1)
    assert set(touched) == set(sizes)
    for name, rows in touched.items():
        assert len(set(rows.tolist())) == len(rows)
        if name in whole:
            np.testing.assert_array_equal(rows, np.arange(sizes[name]))
    items = touched["item_id"]
    for given_, found in zip(PARTS, local, strict=True):
        np.testing.assert_array_equal(items[found["target_items"]], given_["target_items"])
        np.testing.assert_array_equal(touched["user_id"][found["users"]], given_["users"])
        np.testing.assert_array_equal(items[found["columns"]], COLUMNS)
        assert found["column_bias"] is BIAS
        if history == "mean":
            np.testing.assert_array_equal(touched["history_item"][found["history_rows"]], given_["history_items"])
        if history == "recency":
            np.testing.assert_array_equal(items[found["history_items"]], given_["history_items"])
    if "item_id" not in whole:
        expected = {3, 4, 7, 9} | ({1, 7} if history == "recency" else set())
        assert set(items.tolist()) == expected


def test_features_are_those_of_the_touched_items():
    touched, (local, _) = Rows(TwoTower(), SIZES, (), FEATURES).local(PARTS, COLUMNS, BIAS, 1)
    pairs = {}
    for item, row in zip(local["feature_item"], local["feature_row"], strict=True):
        pairs.setdefault(int(touched["item_id"][item]), []).append(int(touched["item_feature"][row]))
    assert pairs == {3: [0, 3], 4: [1], 7: [1, 3], 9: [0, 3]}
    assert (np.diff(local["feature_item"]) >= 0).all()
