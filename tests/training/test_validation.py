"""Validation's arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sparkrec.training.events import Events
from sparkrec.training.validation import difference, distinct_pairs, recall_and_ndcg

pytestmark = pytest.mark.unit


def test_recall_and_ndcg_by_hand():
    lists = np.asarray([[7, 3, 5], [1, 0, -1]])
    indptr, asked = np.asarray([0, 2, 6]), np.asarray([3, 9, 0, 4, 5, 6])
    found = recall_and_ndcg(lists, indptr, asked)
    # User 0: one of two, at rank 2. User 1: one of four, at rank 2, with an ideal of three.
    half = 1 / np.log2(3)
    np.testing.assert_allclose(found, [[1 / 2, half / (1 + half)], [1 / 4, half / (1 + half + 1 / 2)]])


def test_a_missing_place_in_a_list_is_no_hit():
    assert recall_and_ndcg(np.asarray([[-1, -1]]), np.asarray([0, 1]), np.asarray([0])).tolist() == [[0.0, 0.0]]


def test_what_was_met_before_is_not_asked_for():
    n = 6
    events = Events(
        np.asarray([4, 8], np.int32), np.asarray([4, n]), np.asarray([2, 1, 2, 5, 1, 1], np.int32),
        np.zeros(n, np.int8), np.zeros(n, bool),
    )  # fmt: skip
    indptr, items = distinct_pairs(events)
    assert (indptr.tolist(), items.tolist()) == ([0, 3, 4], [1, 2, 5, 1])
    asked = np.asarray([0, 2, 4]), np.asarray([2, 3, 1, 0], np.int32)
    left, rest = difference(asked, (indptr, items), 6)
    assert (left.tolist(), rest.tolist()) == ([0, 1, 2], [3, 0])
