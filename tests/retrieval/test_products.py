"""Products of the join as arrays; as jobs they are in test_join.py."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from sparkrec import columns as c
from sparkrec.config.recommend import Recommend
from sparkrec.retrieval import catalogue, products, topk
from sparkrec.retrieval.reranking import Policy
from sparkrec.retrieval.similarity import widened


@pytest.mark.unit
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


@pytest.mark.unit
def test_the_nearest_items_are_searched_among_those_that_were_packed_before(monkeypatch):
    """Once for all blocks of a machine: the whole catalogue is in it."""
    wide = widened(np.asarray([[0, 0], [1, 0], [0, 3], [9, 9]], np.float32))
    allowed = np.asarray([True, True, True, False])
    items = SimpleNamespace(
        plan=SimpleNamespace(width=4), model="als", searchable=topk.pack(wide, allowed), vectors=wide, allowed=allowed,
        ids=pa.chunked_array([["a", "b", "c", "d"]]),
    )  # fmt: skip
    monkeypatch.setattr(topk, "pack", pytest.fail)
    queries = pa.RecordBatch.from_pydict({
        c.ITEM_INDEX: pa.array([0, 3], pa.int32()), c.ITEM_ID: ["a", "d"],
        c.VECTOR: pa.array(wide[[0, 3]].tolist(), pa.list_(pa.float32())),
    })  # fmt: skip
    found = products._neighbors(queries, items, "euclidean", 2, None)
    assert list(zip(found[c.ITEM_ID].to_pylist(), found[c.NEIGHBOR_ID].to_pylist(), strict=True)) == [
        ("a", "b"), ("a", "c"), ("d", "c"), ("d", "b"),
    ]  # fmt: skip
    assert found[c.SCORE].to_pylist() == pytest.approx([-1, -3, -np.sqrt(81 + 36), -np.sqrt(64 + 81)])


@pytest.mark.spark
def test_complements_are_ranked_by_the_lower_bound_of_their_lift(spark):
    rows = [
        ("bought", 0, 1, 1, 100, 3.0),  # 3 · (1 − 1.645 / 10) = 2.5065
        ("bought", 0, 2, 2, 4, 10.0),  # 10 · (1 − 1.645 / 2) = 1.775: more lift, less sure
        ("bought", 0, 3, 3, 2, 50.0),  # below nothing: two users are no evidence
        ("bought", 0, 4, 4, 900, 1.0),  # .945: chance
        ("bought", 0, 5, 5, 100, 9.0),  # not offered
        ("seen", 0, 1, 6, 100, 9.0),
    ]
    neighbors = spark.createDataFrame(
        rows,
        f"{c.RELATION} string, {c.ITEM_INDEX} int, {c.RANK} int, {c.NEIGHBOR_INDEX} int, count bigint, lift double",
    )
    shelf = spark.createDataFrame(
        [(n, f"i{n}", n not in (0, 5)) for n in range(7)],
        f"{c.ITEM_INDEX} int, {c.ITEM_ID} string, {catalogue.ALLOWED} boolean",
    )
    found = products.bought_together(neighbors, shelf, 1.0, 3).orderBy(c.RANK).collect()
    assert [(row[c.ITEM_ID], row[c.NEIGHBOR_ID], row[c.LIFT], row[c.COUNT]) for row in found] == [
        ("i0", "i1", 3.0, 100),
        ("i0", "i2", 10.0, 4),
    ]
    assert [row[c.SCORE] for row in found] == [pytest.approx(2.5065), pytest.approx(1.775)]
