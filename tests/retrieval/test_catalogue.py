"""A published catalogue: the same lists in any parts and partitions, approximate where asked, refused where wrong."""

from __future__ import annotations

import numpy as np
import pytest

from sparkrec import columns as c
from sparkrec.config.recommend import Faiss, Recommend
from sparkrec.errors import DataError
from sparkrec.retrieval import catalogue, join, recall
from sparkrec.retrieval.reranking import Policy

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def toy(spark):
    """200 users who have seen two items each, beside 300 items: published whole, in three parts, and in cells."""
    random = np.random.default_rng(6)
    vectors = [(n, random.normal(size=16).astype(np.float32).tolist()) for n in range(300)]
    named = f"{c.ITEM_INDEX} int, {c.VECTOR} array<float>"
    shelf = spark.createDataFrame(
        [(n, f"i{n}", True) for n in range(300)], f"{c.ITEM_INDEX} int, {c.ITEM_ID} string, {catalogue.ALLOWED} boolean"
    )
    users = spark.createDataFrame(
        [(n, f"u{n}", [n, n + 1]) for n in range(200)],
        f"{c.USER_INDEX} int, {c.USER_ID} string, {join.SEEN} array<int>",
    )
    tastes = spark.createDataFrame(vectors[:200][::-1], f"{c.USER_INDEX} int, {c.VECTOR} array<float>")
    items = [
        catalogue.publish(catalogue.stocked(shelf), spark.createDataFrame(vectors, named), "toy", *how)
        for how in ((), (0.019,), (1, 1), (0.015, 0, Faiss(index="SQ8", candidates=1)))
    ]
    return join.with_vectors(users, tastes).persist(), items


def rows(frame):
    return sorted(map(tuple, frame.collect()))


def test_any_partitions_blocks_and_parts_give_the_same_to_the_bit(toy):
    frame, (whole, parts, *_) = toy
    assert [whole.plan.parts, parts.plan.parts] == [1, 3]
    results = [
        rows(join.similarity_join(frame.repartition(number), items, items, 10, block).rows())
        for items, number, block in ((whole, 2, 4096), (whole, 50, 3), (parts, 2, 70))
    ]
    assert len(results[0]) == 2000
    assert results[0] == results[1] == results[2]


def test_an_approximate_search_is_measured_and_refused_when_it_finds_too_little(toy):
    frame, (whole, _, cells, _) = toy
    assert (cells.plan.cells, cells.plan.probes) == (4, 1)
    found = rows(join.similarity_join(frame, cells, cells, 10, 4096).rows())
    wanted = set(rows(join.similarity_join(frame, whole, whole, 10, 4096).rows()))
    places = {(row[0], row[2]) for row in wanted}
    share = sum((row[0], row[2]) in places for row in found) / len(wanted)
    assert 0.2 < share < 0.9
    policy = Policy(Recommend())
    assert recall.measured(frame, cells, 10, 0.2, policy) == pytest.approx(share)
    with pytest.raises(
        DataError, match=r"'toy' finds 0\.\d+ of the 10 .* used 1 of 4 cells\. Raise recommend\.probes,"
    ):
        recall.measured(frame, cells, 10, 0.99, policy)


def test_an_index_of_each_part_proposes_and_the_lists_are_scored_exactly(toy):
    frame, (whole, _, _, codes) = toy
    assert codes.plan.parts == 3
    assert "in 3 parts, one after the other, approximate: faiss's SQ8, 1 × k candidates" in str(codes.plan)
    exact = rows(join.similarity_join(frame, whole, whole, 10, 4096).rows())
    assert rows(join.similarity_join(frame, codes, codes, 10, 70).rows()) == exact, "16 by codes of 8 bits hold the 10"
    assert recall.measured(frame, codes, 10, 1.0, Policy(Recommend())) == 1.0


def test_vectors_of_two_widths_are_refused(spark):
    shelf = spark.createDataFrame(
        [(0, "i0", True), (1, "i1", True)], f"{c.ITEM_INDEX} int, {c.ITEM_ID} string, {catalogue.ALLOWED} boolean"
    )
    vectors = spark.createDataFrame([(0, [1.0]), (1, [1.0, 2.0])], f"{c.ITEM_INDEX} int, {c.VECTOR} array<float>")
    with pytest.raises(DataError, match="different widths"):
        catalogue.publish(catalogue.stocked(shelf), vectors, "toy")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(0, [1.0]), (0, [2.0])], "2 vectors of 1 items, so some item has two"),
        ([(2, [1.0])], "item_index 2, and gold.items holds 2 items"),
        ([(-1, [1.0])], "different runs"),
    ],
)
def test_vectors_that_are_not_one_of_each_item_are_refused(spark, rows, said):
    shelf = spark.createDataFrame(
        [(0, "i0", True), (1, "i1", True)], f"{c.ITEM_INDEX} int, {c.ITEM_ID} string, {catalogue.ALLOWED} boolean"
    )
    vectors = spark.createDataFrame(rows, f"{c.ITEM_INDEX} int, {c.VECTOR} array<float>")
    with pytest.raises(DataError, match=said):
        catalogue.publish(catalogue.stocked(shelf), vectors, "toy")


def test_a_gap_in_the_item_indices_is_refused(spark):
    shelf = spark.createDataFrame(
        [(0, "i0", True), (2, "i2", True)], f"{c.ITEM_INDEX} int, {c.ITEM_ID} string, {catalogue.ALLOWED} boolean"
    )
    vectors = spark.createDataFrame([(0, [1.0])], f"{c.ITEM_INDEX} int, {c.VECTOR} array<float>")
    with pytest.raises(DataError, match=r"every item index from 0 on once: after 0 rows come \[0, 2\]"):
        catalogue.publish(catalogue.stocked(shelf), vectors, "toy")
