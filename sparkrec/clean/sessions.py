"""Sessions by pauses, and which days hang together over midnight.

A session is a run of a user's events without a pause longer than the gap, over midnight as well. Its id is a hash of
the user and the time of its first event, so it is the same whether all days are computed at once or each by itself.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.clean.duplicates import BEFORE, starts_after_pause
from sparkrec.persistence import persisted

#: A session id that was computed here begins with this; any other is the shop's own.
PREFIX = "gap-"
_DAY = 86_400_000_000  # microseconds


def mark(events: DataFrame, gap_minutes: float | None) -> DataFrame:
    """Gives the events without a session of the shop's own a ``session_id``; the others stay as they are.

    Only the events without one count for its pauses. Rows ``_before`` carry their session in.
    """
    own = F.when(~F.startswith(c.SESSION_ID, F.lit(PREFIX)), F.col(c.SESSION_ID))
    if gap_minutes is None:
        return events.withColumn(c.SESSION_ID, own)
    # Not by "_own" too: rows that lie by user are shuffled for no window over the user.
    in_time = Window.partitionBy(c.USER_ID).orderBy("_own", c.EVENT_TIME, c.EVENT_ID)
    first = F.concat_ws("\x1f", c.USER_ID, F.unix_micros(c.EVENT_TIME).cast("string"))
    begun = F.when(F.col(BEFORE), F.col(c.SESSION_ID)).otherwise(F.concat(F.lit(PREFIX), F.md5(first)))
    found = F.last(F.when(F.col("_starts"), begun), ignorenulls=True).over(in_time)
    return (
        events.withColumn("_own", own.isNotNull())
        .withColumn("_starts", starts_after_pause(in_time, gap_minutes * 60))
        .withColumn(c.SESSION_ID, F.when(F.col("_own"), F.col(c.SESSION_ID)).otherwise(found))
        .drop("_own", "_starts")
    )


def linked_days(changed: DataFrame, events: DataFrame, days: Collection[dt.date], seconds: float) -> set[dt.date]:
    """``days``, and the days after them into which a changed user's events run on without a pause.

    Only what comes first decides (the id of a session, the first of a chain), so a change runs forward. It runs on
    past a whole day only with a user who makes no pause in it, so the rounds are few; only days come to the driver.

    Parameters
    ----------
    changed
        (user_id, event_date) in which events are new.
    events
        user_id, event_time, event_date of all events, old and new.
    """
    found, frontier = set(days), changed
    ends = found
    while ends and seconds > 0:
        linked = persisted(_linked(frontier, events, ends, seconds))
        ends = {row[0] for row in linked.select(c.EVENT_DATE).distinct().collect()}
        found |= ends
        frontier = _without_pause(linked, events, ends, seconds)
    return found


def before(events: DataFrame, days: set[dt.date], seconds: float) -> DataFrame:
    """The events in the last ``seconds`` of each day before one of ``days`` that is not one of them itself."""
    eves = {day - dt.timedelta(days=1) for day in days if day > dt.date.min} - days
    return events.where(on(eves) & (_time_of_day() >= _DAY - int(seconds * 1e6)))


def on(days: Collection[dt.date | None] | None) -> Column:
    """The event lies on one of these days (None among them: it has no readable day); no ``days``: any day.

    A condition that skips the folders of other days.
    """
    if days is None:
        return F.lit(True)
    dated = sorted(day for day in days if day is not None)
    condition = F.col(c.EVENT_DATE).isin(*dated) if dated else F.lit(False)
    return condition | F.col(c.EVENT_DATE).isNull() if None in days else condition


def _linked(changed: DataFrame, events: DataFrame, days: set[dt.date], seconds: float) -> DataFrame:
    """(user_id, event_date) of the days after ``days`` that follow a changed user's day without a pause."""
    pause = int(seconds * 1e6)
    next_days = {day + dt.timedelta(days=1) for day in days}
    micros, tomorrow = F.unix_micros(c.EVENT_TIME), F.date_add(c.EVENT_DATE, 1).alias(c.EVENT_DATE)
    parts = [
        changed.select(c.USER_ID, tomorrow, F.lit(True).alias("_changed")),
        events.where(on(days) & (_time_of_day() >= _DAY - pause)).select(c.USER_ID, tomorrow, micros.alias("_last")),
        events.where(on(next_days) & (_time_of_day() < pause)).select(c.USER_ID, c.EVENT_DATE, micros.alias("_first")),
    ]
    edges = reduce(lambda a, b: a.unionByName(b, allowMissingColumns=True), parts)
    nearest = edges.groupBy(c.USER_ID, c.EVENT_DATE).agg(
        F.max("_changed").alias("_changed"), F.max("_last").alias("_last"), F.min("_first").alias("_first")
    )
    near = F.col("_changed") & (F.col("_first") - F.col("_last") <= pause)
    return nearest.where(near).select(c.USER_ID, c.EVENT_DATE)


def _without_pause(linked: DataFrame, events: DataFrame, days: set[dt.date], seconds: float) -> DataFrame:
    """Those of ``linked`` whose user makes no pause on that day."""
    in_time = Window.partitionBy(c.USER_ID, c.EVENT_DATE).orderBy(c.EVENT_TIME)
    micros = F.unix_micros(c.EVENT_TIME)
    return (
        events.where(on(days))
        .join(linked, [c.USER_ID, c.EVENT_DATE], "left_semi")
        .withColumn("_pause", micros - F.lag(micros).over(in_time))
        .groupBy(c.USER_ID, c.EVENT_DATE)
        .agg(F.coalesce(F.max("_pause"), F.lit(0)).alias("_longest"))
        .where(F.col("_longest") <= int(seconds * 1e6))
        .select(c.USER_ID, c.EVENT_DATE)
    )


def _time_of_day() -> Column:
    return F.pmod(F.unix_micros(c.EVENT_TIME), F.lit(_DAY))
