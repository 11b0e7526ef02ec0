"""What is known of a suspect as of a split, at midnight and at noon, of few suspects and of many."""

import datetime as dt

import pytest

from sparkrec import columns as c
from sparkrec.config import Features
from sparkrec.evaluation.splits import Borders
from sparkrec.features import selection

pytestmark = pytest.mark.spark

TEXTS = (c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_ID, c.COUNTRY, c.SPLIT)


def _at(day, hour=0):
    return dt.datetime(2020, 1, day, hour)


def _frames(spark):
    """``bot`` looks around on the 8th and 9th, ``person`` on the 8th; only the 9th of ``bot`` was flagged."""
    rows = [
        {c.USER_ID: user, c.ITEM_ID: "a", c.EVENT_TYPE: "view", c.EVENT_TIME: f"2020-01-{day:02} {hour}:00:00"}
        for user, day, hour in (("person", 8, 10), ("bot", 8, 10), ("bot", 9, 10), ("bot", 9, 14))
    ]
    columns = [f"{name} string" for name in (*TEXTS, c.EVENT_TIME)]
    events = spark.createDataFrame(rows, ", ".join(columns)).selectExpr(
        *TEXTS, "CAST(event_time AS TIMESTAMP) AS event_time", "CAST(event_time AS DATE) AS event_date", "1L AS line",
        "1D AS value", "1D AS price", "CAST(NULL AS TIMESTAMP) AS cancelled_at", "false AS again",
    )  # fmt: skip
    suspects = spark.createDataFrame([("bot", dt.date(2020, 1, 9))], f"{c.USER_ID} string, {c.EVENT_DATE} date")
    items = spark.createDataFrame([("a", True)], f"{c.ITEM_ID} string, {c.FOR_SALE} boolean")
    return events, suspects, items


@pytest.mark.parametrize(
    ("as_of", "left_out"),
    [
        (_at(9), [("bot", 9, 10), ("bot", 9, 14)]),
        # At noon nobody knows what the afternoon will show: what trains stays.
        (_at(9, 12), [("bot", 9, 14)]),
        (_at(10), [("bot", 8, 10), ("bot", 9, 10), ("bot", 9, 14)]),
    ],
)
def test_a_day_tells_of_a_bot_when_it_is_over(spark, as_of, left_out):
    at = Borders(as_of, as_of, as_of, _at(11))
    marked = selection.mark(*_frames(spark), Features(), at).collect()
    found = [(r[c.USER_ID], r[c.EVENT_TIME].day, r[c.EVENT_TIME].hour) for r in marked if r[selection.LEFT_OUT]]
    assert sorted(found) == left_out
    assert {row[selection.LEFT_OUT] for row in marked} == {None, "suspect"}


def test_suspects_are_broadcast_only_while_they_are_few(spark, monkeypatch):
    at = Borders(*[_at(10)] * 3, _at(11))
    frames, found = _frames(spark), {}
    for few in (1, 0):
        monkeypatch.setattr(selection, "_FEW", few)
        marked = selection.mark(*frames, Features(), at)
        plan = marked._jdf.queryExecution().optimizedPlan().toString()
        found[few] = "strategy=broadcast" in plan, sorted(map(str, marked.collect()))
    assert (found[1][0], found[0][0]) == (True, False)
    assert found[1][1] == found[0][1]
