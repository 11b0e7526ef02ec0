import pytest

from sparkrec import columns as c
from sparkrec.clean import bots

pytestmark = pytest.mark.spark


def test_suspect_from_the_first_busy_day_on(spark):
    days = ["bot 1"] + ["bot 2"] * 4 + ["bot 3"] + ["person 1"] * 3 + ["person 2"] * 3
    rows = [(i, *text.split()) for i, text in enumerate(days)]
    events = spark.createDataFrame(rows, "i int, user_id string, day string").selectExpr(
        "*", "CAST(concat('2020-01-0', day) AS DATE) AS event_date"
    )
    suspects = {(r["user_id"], r["day"]) for r in bots.mark(events, 3).collect() if r[c.SUSPECT]}
    assert suspects == {("bot", "2"), ("bot", "3")}
    assert bots.mark(events, 3).count() == len(rows)
