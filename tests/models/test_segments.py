"""Popularity within segments: names, shrunk shares by hand, and which segments are kept."""

from __future__ import annotations

import pytest
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.config import Settings
from sparkrec.config.popularity import Popularity
from sparkrec.models import popularity, segments

pytestmark = pytest.mark.spark

MONDAY_NOON = 4 * 86_400 + 12 * 3600  # 5 January 1970
SATURDAY_NIGHT = 2 * 86_400


def test_a_moment_and_who_is_nobody(spark):
    told = segments.at(F.col("id"))
    rows = spark.createDataFrame([(MONDAY_NOON,), (SATURDAY_NIGHT,), (SATURDAY_NIGHT - 1,)], "id bigint")
    found = [tuple(row) for row in rows.select(told["weekday"], told["part_of_day"]).collect()]
    assert found == [("Monday", "afternoon"), ("Saturday", "night"), ("Friday", "evening")]
    ids = spark.createDataFrame([("*",), ("*country=A",), ("*star",), ("u1",)], "user_id string")
    assert [row[0] for row in ids.select(segments.person(F.col("user_id"))).collect()] == [False, False, True, True]


def test_shares_are_drawn_towards_those_of_all(spark):
    """Items 0, 1, 2 have 3, 2 and 0 events of A, 0, 0 and 1 of B, and there is one of C, which is too much."""
    events = [(0, [0, 0, 1]), (1, [0, 1]), (2, [2]), (3, [0])]
    sequences = spark.createDataFrame(
        [(user, items, [MONDAY_NOON] * len(items)) for user, items in events],
        f"{c.USER_INDEX} int, {c.ITEM_INDEX} array<int>, {c.EVENT_TIME} array<bigint>",
    )
    users = spark.createDataFrame(
        [(0, "A"), (1, "A"), (2, "B"), (3, "C")], f"{c.USER_INDEX} int, {c.COUNTRY} string"
    )  # fmt: skip
    settings = Popularity(segments=("country",), max_segments=2, segment_prior=7)
    counted = segments.counted(sequences, users, settings)
    found = segments.largest(counted, settings.max_segments)
    assert found == [segments.Segment("*country=A", 5.0), segments.Segment("*country=B", 1.0)]
    vocabulary = spark.createDataFrame([(n, f"i{n}") for n in range(4)], f"{c.ITEM_INDEX} int, {c.ITEM_ID} string")
    items = popularity.item_vectors(vocabulary, popularity.item_scores(sequences))
    vectors = segments.item_vectors(items, counted, found, settings.segment_prior)
    shares = {row[c.ITEM_INDEX]: row[c.VECTOR] for row in vectors.collect()}
    # All: 4, 2, 1 and 0 of 7 events, so the prior of 7 adds just these.
    assert shares[0] == pytest.approx([(3 + 4) / 12, (0 + 4) / 8])
    assert shares[1] == pytest.approx([(2 + 2) / 12, (0 + 2) / 8])
    assert shares[2] == pytest.approx([(0 + 1) / 12, (1 + 1) / 8])
    assert shares[3] == [0.0, 0.0]
    both = segments.user_vectors(items, found).collect()
    assert [tuple(row) for row in both] == [(-1, "*country=A", [1.0, 0.0]), (-2, "*country=B", [0.0, 1.0])]


@pytest.mark.parametrize(
    ("value", "message"), [(["town"], "'country', 'weekday' or 'part_of_day'"), (["country"] * 2, "'country' is there")]
)
def test_what_is_no_dimension_is_refused(value, message):
    source = {"name": "simulator", "path": "logs"}
    with pytest.raises(ValueError, match=message):
        Settings.model_validate({"name": "shop", "source": source, "popularity": {"segments": value}})
