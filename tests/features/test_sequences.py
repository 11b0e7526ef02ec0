import datetime as dt
import math

import pytest
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.evaluation.splits import Borders
from sparkrec.features import sequences

pytestmark = pytest.mark.spark


#: Validation of what is held begins at the fifth second, so none of that is any more.
AT = Borders(*[dt.datetime(1970, 1, 1, second=second) for second in (5, 10, 10, 20)])


@pytest.fixture(scope="module", params=["at once", "in increments"])
def rows(spark, request):
    # user a: seven events, chunks of three; two events of one second in the order of their lines; user b: one event
    log = [
        ("a", "x", "view", 7, 1, None, "train"), ("a", "y", "purchase", 3, 2, 2.0, "train"),
        ("a", "z", "view", 1, 3, None, "train"), ("a", "y", "cart", 5, 9, None, "train"),
        ("a", "x", "view", 5, 4, None, "train"), ("a", "z", "rating", 9, 5, 4.5, "validation"),
        ("a", "x", "view", 8, 6, None, "train"), ("b", "z", "view", 6, 1, None, "validation"),
    ]  # fmt: skip
    events = spark.createDataFrame(
        log, "user_id string, item_id string, event_type string, at long, line long, value double, part string"
    ).selectExpr("*", "timestamp_millis(at * 1000 + 900) AS event_time")
    users = spark.createDataFrame([("a", 4), ("b", 2), ("gone", 0)], "user_id string, user_index int")
    items = spark.createDataFrame([("x", 10), ("y", 11), ("z", 12)], "item_id string, item_index int")

    def pieces(some):
        return sequences.of_events(some, items).join(users, c.USER_ID).drop(c.USER_ID)

    if request.param == "at once":
        found = sequences.rows(pieces(events), 3)
    else:  # first those before a time, validation from the fifth second on, then the others
        early = sequences.rows(pieces(events.where("at < 5").withColumn("part", F.lit("validation"))), 3)
        held = sequences.of_chunks(early.withColumn(c.USER_BLOCK, F.lit(0)), AT).drop(c.USER_BLOCK)
        found = sequences.rows(sequences.added(pieces(events.where("at >= 5")).unionByName(held)), 3)
    return {(row[c.USER_INDEX], row[c.CHUNK]): row for row in found.collect()}


def test_chunk_zero_is_the_newest_and_none_is_lost(rows):
    assert {key: row[c.ITEM_INDEX] for key, row in rows.items()} == {
        (4, 0): [10, 10, 12], (4, 1): [11, 10, 11], (4, 2): [12], (2, 0): [12],
    }  # fmt: skip
    assert {key: row[c.EVENT_TIME] for key, row in rows.items()} == {
        (4, 0): [7, 8, 9], (4, 1): [3, 5, 5], (4, 2): [1], (2, 0): [6],
    }  # fmt: skip
    assert {key: row[c.LENGTH] for key, row in rows.items()} == {(4, 0): 3, (4, 1): 3, (4, 2): 1, (2, 0): 1}


def test_types_values_and_validation_lie_beside_the_items(rows):
    # positions in columns.EVENT_TYPES: view 0, cart 2, purchase 3, rating 5
    assert rows[4, 0][c.EVENT_TYPE] == [0, 0, 5]
    assert rows[4, 1][c.EVENT_TYPE] == [3, 0, 2]
    assert rows[4, 0][c.VALIDATION] == [False, False, True]
    assert rows[4, 1][c.VALIDATION] == [False, False, False]
    values = rows[4, 1][c.VALUE]
    assert values[0] == 2.0
    assert all(math.isnan(value) for value in values[1:])
