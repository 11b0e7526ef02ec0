"""Popularity: counts by hand, decay by hand, and every id present. The job is run in tests/retrieval/test_join.py."""

from __future__ import annotations

import pytest

from sparkrec import columns as c
from sparkrec.models import popularity

pytestmark = pytest.mark.spark

DAY = 86_400


@pytest.fixture(scope="module")
def sequences(spark):
    """Two users, the first in two chunks."""
    rows = [(0, 0, [1, 0], [5 * DAY, 10 * DAY]), (0, 1, [0], [0]), (1, 0, [0, 2], [10 * DAY, 10 * DAY])]
    return spark.createDataFrame(
        rows, f"{c.USER_INDEX} int, {c.CHUNK} int, {c.ITEM_INDEX} array<int>, {c.EVENT_TIME} array<bigint>"
    )


def test_scores_are_counts_of_events_over_all_chunks(spark, sequences):
    vocabulary = spark.createDataFrame([(n, f"i{n}") for n in range(4)], f"{c.ITEM_INDEX} int, {c.ITEM_ID} string")
    vectors = popularity.item_vectors(vocabulary, popularity.item_scores(sequences)).orderBy(c.ITEM_INDEX).collect()
    assert [tuple(row) for row in vectors] == [(0, "i0", [3]), (1, "i1", [1]), (2, "i2", [1]), (3, "i3", [0])]


def test_an_event_halves_with_the_half_life(sequences):
    scores = popularity.item_scores(sequences, half_life_days=5)
    # Newest event: day 10. Item 0: ages 10, 0 and 0 days; item 1: 5; item 2: 0.
    assert {row[c.ITEM_INDEX]: row[c.SCORE] for row in scores.collect()} == {0: 2.25, 1: 0.5, 2: 1.0}
