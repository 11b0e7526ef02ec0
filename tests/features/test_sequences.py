import math

import pytest

from sparkrec import columns as c
from sparkrec.features.sequences import sequences

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def rows(spark):
    # user a: seven events, chunks of three; two events of one second in the order of their lines; user b: one event
    log = [
        ("a", "x", "view", 7, 1, None, "train"), ("a", "y", "purchase", 3, 2, 2.0, "train"),
        ("a", "z", "view", 1, 3, None, "train"), ("a", "y", "cart", 5, 9, None, "train"),
        ("a", "x", "view", 5, 4, None, "train"), ("a", "z", "rating", 9, 5, 4.5, "validation"),
        ("a", "x", "view", 8, 6, None, "train"), ("b", "z", "view", 1, 1, None, "validation"),
    ]  # fmt: skip
    events = spark.createDataFrame(
        log, "user_id string, item_id string, event_type string, at long, line long, value double, part string"
    ).selectExpr("*", "timestamp_millis(at * 1000 + 900) AS event_time")
    users = spark.createDataFrame([("a", 4), ("b", 2), ("gone", 0)], "user_id string, user_index int")
    items = spark.createDataFrame([("x", 10), ("y", 11), ("z", 12)], "item_id string, item_index int")
    found = sequences(events, users, items, 3).collect()
    return {(row[c.USER_INDEX], row[c.CHUNK]): row for row in found}


def test_chunk_zero_is_the_newest_and_none_is_lost(rows):
    assert {key: row[c.ITEM_INDEX] for key, row in rows.items()} == {
        (4, 0): [10, 10, 12], (4, 1): [11, 10, 11], (4, 2): [12], (2, 0): [12],
    }  # fmt: skip
    assert {key: row[c.EVENT_TIME] for key, row in rows.items()} == {
        (4, 0): [7, 8, 9], (4, 1): [3, 5, 5], (4, 2): [1], (2, 0): [1],
    }  # fmt: skip
    assert {key: row[c.LENGTH] for key, row in rows.items()} == {(4, 0): 3, (4, 1): 3, (4, 2): 1, (2, 0): 1}


def test_types_values_and_validation_lie_beside_the_items(rows):
    # positions in columns.EVENT_TYPES: view 0, cart 2, purchase 3, rating 5
    assert rows[4, 0][c.EVENT_TYPE] == [0, 0, 5]
    assert rows[4, 1][c.EVENT_TYPE] == [3, 0, 2]
    assert rows[4, 0][c.VALIDATION] == [False, False, True]
    values = rows[4, 1][c.VALUE]
    assert values[0] == 2.0
    assert all(math.isnan(value) for value in values[1:])
