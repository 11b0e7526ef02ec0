"""Days that no person has, worked by hand; and the simulated shop's bots."""

import datetime as dt
import math

import pytest

from sparkrec import columns as c
from sparkrec.clean import bots
from sparkrec.config.clean import Bots, Signal
from sparkrec.ingest.simulator import Dirt, SimulatorOptions, behaviour, rows, truth

pytestmark = pytest.mark.spark

MIDNIGHT = 1_700_006_400  # 2023-11-15, by `date -u -d`


def frame(spark, events):
    """(user, item, type, seconds since the midnight) → events as silver has them."""
    made = [(f"e{n:04d}", *event[:3], MIDNIGHT + event[3]) for n, event in enumerate(events)]
    schema = "event_id string, user_id string, item_id string, event_type string, at double"
    return spark.createDataFrame(made, schema).selectExpr(
        "*", "timestamp_micros(CAST(at * 1e6 AS BIGINT)) AS event_time",
        "CAST(timestamp_seconds(at) AS DATE) AS event_date",
    )  # fmt: skip


def test_the_statistics_of_a_day_by_hand(spark):
    events = [
        ("u", "a", "view", 0.0), ("u", "b", "view", 10.0), ("u", "a", "view", 110.0), ("u", None, "search", 110.0),
        ("u", "a", "purchase", 3700.0), ("u", "b", "click", 3710.0),
        ("u", "a", "view", 86_400.0),  # the next day, too few
        ("v", "a", "view", 0.0),
    ]  # fmt: skip
    found = [row.asDict() for row in bots.day_statistics(frame(spark, events), min_events=2).collect()]
    gaps = [10, 100, 10]  # two events of one time have no gap; the purchase is no browsing
    logs = [round(1000 * math.log(gap)) / 1000 for gap in gaps]
    mean = sum(logs) / 3
    spread = math.sqrt(sum((x - mean) ** 2 for x in logs) / 3)
    assert len(found) == 1
    assert found[0].pop(c.GAP_SPREAD) == pytest.approx(spread, abs=1e-9)
    assert found[0] == {
        c.USER_ID: "u", c.EVENT_DATE: dt.date(2023, 11, 15), c.N_EVENTS: 6, c.N_VIEWS: 4, c.N_ITEMS: 2, c.N_HOURS: 2,
        c.BUSIEST_HOUR: 4, c.N_GAPS: 3, c.LONGEST_BROWSING: 4,
    }  # fmt: skip


@pytest.mark.parametrize(("at", "known"), [(0.0, False), (66_600.0, False), (66_600.5, True), (45_296.0, True)])
def test_a_log_of_dates_has_no_busiest_hour(spark, at, known):
    """Midnight of UTC and of India; half a second later a time is a time."""
    events = [("u", f"i{n % 90}", "view", at) for n in range(200)]
    found = bots.day_statistics(frame(spark, events), min_events=50).collect()
    assert [row[c.BUSIEST_HOUR] for row in found] == [200 if known else None]
    settings = Bots(no_purchase=Signal(person=40, bot=100, weight=0))
    scored = bots.scored(bots.day_statistics(frame(spark, events), min_events=50), settings)
    assert [row[c.REASONS] for row in scored.collect()] == [["rate"] if known else []]


def test_score_reasons_threshold_and_allow_list(spark):
    counts = (c.N_EVENTS, c.N_VIEWS, c.N_ITEMS, c.N_HOURS, c.BUSIEST_HOUR, c.N_GAPS)
    columns = (
        f"{c.USER_ID} string, {' bigint, '.join(counts)} bigint, {c.GAP_SPREAD} double, {c.LONGEST_BROWSING} bigint"
    )
    one = Signal(person=0, bot=1, weight=0)
    settings = Bots(
        min_events=50, events_per_day=500, breadth=one, around_the_clock=one, no_purchase=one,
        rate=Signal(person=100, bot=300, weight=0.5), regularity=Signal(person=1.0, bot=0.5, weight=0.8),
    )  # fmt: skip
    days = [
        ("half", 400, 0, 0, 1, 200, 399, 0.75, 0),  # rate ½, regularity ½: 1 − (1 − ¼)(1 − 0.4) = 0.55
        ("full", 400, 0, 0, 1, 900, 399, 0.1, 0),  # 1 − ½ × 0.2 = 0.9
        ("few gaps", 400, 0, 0, 1, 900, 29, 0.1, 0),  # ½: of 29 gaps the spread says nothing
        ("person", 400, 0, 0, 1, 10, 399, 1.5, 0),
        ("very busy", 501, 0, 0, 1, 10, 399, 1.5, 0),
    ]
    scored = bots.scored(spark.createDataFrame(days, columns), settings).collect()
    assert {row[c.USER_ID]: (row[c.SCORE], row[c.REASONS]) for row in scored} == {
        "half": (0.55, ["regularity", "rate"]),
        "full": (0.9, ["regularity", "rate"]),
        "few gaps": (0.5, ["rate"]),
        "person": (0.0, []),
        "very busy": (1.0, ["too_many_events"]),
    }


def test_a_day_does_not_depend_on_later_ones_and_the_allow_list_holds(spark):
    def day(user, number, gap, items):
        return [(user, f"i{n % items}", "view", 86_400.0 * number + gap * n) for n in range(200)]

    first = day("bot", 1, 2.0, 200) + day("tester", 1, 2.0, 200) + [("bot", "a", "view", 5.0)]
    later = day("bot", 3, 1.0, 200) + day("late", 2, 2.0, 200)
    settings = Bots(allow=("tester",))
    once = bots.suspects(frame(spark, first), settings).collect()
    assert [(row[c.USER_ID], row[c.EVENT_DATE].day) for row in once] == [("bot", 16)]
    both = bots.suspects(frame(spark, first + later), settings).persist()
    assert [row for row in both.collect() if row[c.EVENT_DATE].day == 16] == once
    since = {row[c.USER_ID]: row["since"].day for row in bots.since(both).collect()}
    assert since == {"bot": 17, "late": 18}, "the midnight after the first day"
    assert bots.suspects(frame(spark, first), Bots(enabled=False)).isEmpty()
    assert bots.suspects(frame(spark, first), settings, has_times=False).isEmpty()


def test_bots_of_the_simulated_shop_are_found_and_people_are_not(spark):
    """One small seed, not one of those of bench/bots.py; there are more, and real logs."""
    from pyspark.sql import functions as F

    options = SimulatorOptions(users=300, items=400, days=12, events=20_000, seed=21, dirt=Dirt(bots=0.1))
    names = [c.VIEW, c.CART, c.PURCHASE, c.SEARCH, c.RATING, c.REVIEW, c.REMOVE, c.CANCEL]
    assert names[behaviour.SEARCH] == c.SEARCH
    time = F.timestamp_millis("time")
    events = rows.event_rows(spark, options).where("dirt = 0").select(
        rows.user_id().alias(c.USER_ID), rows.sku().alias(c.ITEM_ID),
        rows.name(F.col("type"), names).alias(c.EVENT_TYPE), time.alias(c.EVENT_TIME),
        time.cast("date").alias(c.EVENT_DATE), rows.event_id().alias(c.EVENT_ID),
    )  # fmt: skip
    flagged = {row[c.USER_ID] for row in bots.since(bots.suspects(events, Bots())).collect()}
    users = truth.true_users(spark, options).collect()
    real = {row[c.USER_ID] for row in users if row["is_bot"]}
    assert len(real) > 20
    assert {row["bot"] for row in users if row["is_bot"]} == set(behaviour.BOTS)
    assert len(flagged & real) >= 0.9 * len(real)
    assert len(flagged - real) <= 0.05 * len(flagged)
