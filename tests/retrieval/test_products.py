"""Products of the join as arrays; as jobs they are in test_join.py."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from sparkrec import columns as c
from sparkrec.config.recommend import Recommend
from sparkrec.retrieval import products
from sparkrec.retrieval.reranking import Policy

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("order", [[5, 3, 4, 9], [9, 5, 4, 3], [3, 4, 5, 9]])
def test_of_users_alike_those_of_the_lower_index_are_the_audience(order, n):
    """Wherever they stand in the batch; 9, whom the item suits better, comes first."""
    vectors = [[2.0, 0.0] if user == 9 else [1.0, 1.0] for user in order]
    users = pa.RecordBatch.from_pydict({
        c.USER_INDEX: pa.array(order, pa.int32()), c.USER_ID: [f"u{user}" for user in order],
        c.VECTOR: pa.array(vectors, pa.list_(pa.float32())), "seen": pa.array([[]] * 4, pa.list_(pa.int32())),
    })  # fmt: skip
    matrix = SimpleNamespace(
        plan=SimpleNamespace(width=2), model="als", vectors=np.asarray([[0, 1], [1, 0]], np.float32)
    )
    found = products._suited(users, np.asarray([1]), matrix, n, Policy(Recommend()))
    assert found.column(c.USER_INDEX).to_pylist() == [9, 3, 4][:n]
    assert found.column(c.USER_ID).to_pylist() == ["u9", "u3", "u4"][:n]
