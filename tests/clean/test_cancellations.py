import random

import pytest
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.clean import cancellations

pytestmark = pytest.mark.spark
SCHEMA = "event_id string, user_id string, item_id string, event_type string, at long, value double, order_id string"


def _match(spark, rows):
    """rows: (id, user, type, time, quantity, order), all on one item → {purchase: cancel}."""
    full = [(name, user, "a", kind, at, quantity, order) for name, user, kind, at, quantity, order in rows]
    frame = spark.createDataFrame(full, SCHEMA).selectExpr("*", "timestamp_seconds(at) AS event_time")
    return {row[c.EVENT_ID]: row["cancel_id"] for row in cancellations.match(frame).collect()}


def test_worked_by_hand(spark):
    rows = [
        # user 1: the equal quantity wins over the later purchase
        ("p1", "1", "purchase", 1, 6.0, "o1"), ("p2", "1", "purchase", 2, 12.0, "o2"),
        ("c1", "1", "cancel", 3, 6.0, "C1"),
        # user 2: among equal quantities the latest before the cancel, then the one before it
        ("p3", "2", "purchase", 1, 1.0, "o3"), ("p4", "2", "purchase", 2, 1.0, "o4"),
        ("c2", "2", "cancel", 3, 1.0, "C2"),
        ("p5", "2", "purchase", 4, 1.0, "o5"), ("c3", "2", "cancel", 4, 1.0, "C3"), ("c4", "2", "cancel", 5, 1.0, "C4"),
        ("c5", "2", "cancel", 6, 1.0, "C5"),
        # user 3: a part of a larger purchase; a larger cancel finds nothing; a cancel before the purchase neither
        ("p6", "3", "purchase", 1, 10.0, "o6"), ("c6", "3", "cancel", 2, 4.0, "C6"),
        ("p7", "4", "purchase", 1, 3.0, "o7"), ("c7", "4", "cancel", 2, 4.0, "C7"),
        ("c8", "5", "cancel", 1, 1.0, "C8"), ("p8", "5", "purchase", 2, 1.0, "o8"),
        # user 6: the order that the cancel names wins over the equal quantity; no quantity at all is no obstacle
        ("p9", "6", "purchase", 1, 5.0, "o9"), ("p10", "6", "purchase", 2, 2.0, "o10"),
        ("c9", "6", "cancel", 3, 2.0, "o9"),
        ("p11", "7", "purchase", 1, None, None), ("c10", "7", "cancel", 2, None, None),
        # same second: the purchase comes first
        ("p12", "8", "purchase", 1, 1.0, "o12"), ("c11", "8", "cancel", 1, 1.0, "C11"),
    ]  # fmt: skip
    assert _match(spark, rows) == {
        "p1": "c1", "p4": "c2", "p5": "c3", "p3": "c4", "p6": "c6", "p9": "c9", "p11": "c10", "p12": "c11",
    }  # fmt: skip


def test_other_users_and_items_are_left_alone_and_marked_false(spark):
    rows = [("p1", "1", "a", "purchase", 1, 1.0, "o"), ("c1", "2", "a", "cancel", 2, 1.0, "o"),
            ("c2", "1", "b", "cancel", 2, 1.0, "o"), ("v", "1", "a", "view", 1, None, None)]  # fmt: skip
    events = spark.createDataFrame(rows, SCHEMA).selectExpr("*", "timestamp_seconds(at) AS event_time")
    for matches in (cancellations.match(events), None):
        marked = cancellations.mark(events.withColumn(c.CANCELLED_AT, F.lit(None)), matches).collect()
        assert len(marked) == 4
        assert not any(row[c.CANCELLED] for row in marked)
        assert all(row[c.CANCELLED_AT] is None for row in marked)


def _by_hand(rows):
    """The rule as a loop: three looks, in each the cancels in time order take the latest free purchase."""
    ordered = sorted(rows, key=lambda r: (r[3], r[2] == "cancel", r[0]))
    taken, used = {}, set()
    looks = [
        lambda p, k: p[5] == k[5],
        lambda p, k: p[4] == k[4],
        lambda p, k: True,
    ]
    for look, same in enumerate(looks):
        groups = {}
        for row in ordered:
            key = (row[1], row[5] if look == 0 else row[4] if look == 1 else None)
            if row[0] in taken or row[0] in used:
                continue
            stack = groups.setdefault(key, [])
            if row[2] == "purchase":
                stack.append(row)
            elif stack:
                purchase = stack.pop()
                assert same(purchase, row)
                if purchase[4] >= row[4]:
                    taken[purchase[0]] = row[0]
                    used.add(row[0])
    return taken


def test_agrees_with_a_loop_on_random_logs(spark):
    draw = random.Random(5)
    rows = [
        (f"e{i:03d}", str(draw.randrange(12)), draw.choice(["purchase", "purchase", "cancel"]), draw.randrange(40),
         float(draw.choice([1, 2, 6])), draw.choice(["o1", "o2", f"x{i}"]))
        for i in range(400)
    ]  # fmt: skip
    expected = _by_hand(rows)
    assert len(expected) > 60
    assert _match(spark, rows) == expected
