"""Which events train, which validate, which test: a column ``part`` beside each event.

The kinds (``split.kind``):

- ``time``: the log's end is a midnight. The newest ``test_days`` before it are the test part, the ``gap_days`` before
  those are nobody's, everything earlier trains, and the newest ``validation_days`` of that are validation.
- ``leave_one_out``: of each user's events in time order the last is the test, the last but one validation. Users
  with fewer than three events train only. This is the protocol of published next-item numbers.
- ``given``: the source's own train and test (rows with neither train); validation is a share of each user's items.
- ``none``: everything trains; validation as in ``given``. There is nothing to test on.

Validation events train too, once epochs and settings have been chosen on them; they are marked, not removed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.config import Split
from sparkrec.errors import DataError

PART = "part"
TRAIN, VALIDATION, TEST, UNUSED = "train", "validation", "test", "unused"
_RESOLUTION = 1_000_000


@dataclass(frozen=True)
class Borders:
    """The times of a split, UTC. Training events lie strictly before ``as_of``, test events strictly before ``end``.

    For ``time``: validation starts at ``validation``, and the test at ``test``. The other kinds do not cut by time, so
    there ``validation``, ``as_of`` and ``test`` are all ``end``.
    """

    validation: dt.datetime
    as_of: dt.datetime
    test: dt.datetime
    end: dt.datetime


def borders(split: Split, end: dt.datetime) -> Borders:
    """The times of a split of a log that ends (exclusively) at ``end``."""
    if split.kind != "time":
        return Borders(end, end, end, end)
    test = end - dt.timedelta(days=split.test_days)
    as_of = test - dt.timedelta(days=split.gap_days)
    return Borders(as_of - dt.timedelta(days=split.validation_days), as_of, test, end)


def midnight_after(moment: dt.date | dt.datetime) -> dt.datetime:
    """The first midnight after a day or a moment of it: the exclusive end of that day."""
    return dt.datetime(moment.year, moment.month, moment.day) + dt.timedelta(days=1)


def assign(events: DataFrame, split: Split, at: Borders, counts: Column | None = None) -> DataFrame:
    """Adds ``part``: train, validation, test or unused; null where ``counts`` (default: everywhere true) is false.

    ``events`` has user_id, item_id, event_time and split; leave_one_out needs line and event_id too, which order
    events of the same second (by line in their file, then by id).
    """
    counts = F.lit(True) if counts is None else counts
    if split.kind == "leave_one_out":
        return _leave_one_out(events, counts)
    if split.kind == "time":
        return events.withColumn(PART, F.when(counts, _by_time(at)))
    part = F.when(_drawn(split.validation_fraction), VALIDATION).otherwise(TRAIN)
    if split.kind == "given":
        part = F.when(F.col(c.SPLIT) == c.TEST, TEST).otherwise(part)
    return events.withColumn(PART, F.when(counts, part))


def require_training_events(parts: Mapping[str, int], split: Split, at: Borders) -> None:
    """Raises DataError when nothing is left to train on; ``parts`` are the events of each."""
    if parts.get(TRAIN):
        return
    if split.kind == "time" and parts.get(VALIDATION):
        raise DataError(
            f"No event is left to train on: all of those before {at.as_of:%Y-%m-%d %H:%M} UTC are validation, which "
            f"begins at {at.validation:%Y-%m-%d %H:%M}. Lower split.validation_days ({split.validation_days:g}) or "
            f"split.test_days ({split.test_days:g}), so that together they are less than the log."
        )
    raise DataError(
        f"No event is left to train on: split.kind is {split.kind}, and training events must lie before "
        f"{at.as_of:%Y-%m-%d %H:%M} UTC (the log is taken to end at {at.end:%Y-%m-%d %H:%M}). Lower "
        "split.test_days and split.gap_days, pass a later --date, or check features.event_types and "
        "features.min_*_events: the run record of clean says how many events silver holds."
    )


def utc(moment: dt.datetime) -> Column:
    """A naive UTC datetime as a timestamp literal. ``F.lit`` of a datetime would read it in the driver's time zone."""
    return F.lit(moment.isoformat(sep=" ")).cast("timestamp")


def _by_time(at: Borders) -> Column:
    time = F.col(c.EVENT_TIME)
    return (
        F.when(time < utc(at.validation), TRAIN)
        .when(time < utc(at.as_of), VALIDATION)
        .when(time < utc(at.test), UNUSED)
        .when(time < utc(at.end), TEST)
        .otherwise(UNUSED)
    )


def _leave_one_out(events: DataFrame, counts: Column) -> DataFrame:
    user = Window.partitionBy(c.USER_ID, "_counts")
    newest_first = user.orderBy(F.desc(c.EVENT_TIME), F.desc(c.LINE), F.desc(c.EVENT_ID))
    position, enough = F.col("_position"), F.col("_total") >= 3
    part = F.when((position == 1) & enough, TEST).when((position == 2) & enough, VALIDATION).otherwise(TRAIN)
    return (
        events.withColumn("_counts", counts)
        .withColumn("_position", F.row_number().over(newest_first))
        .withColumn("_total", F.count("*").over(user))
        .withColumn(PART, F.when(F.col("_counts"), part))
        .drop("_counts", "_position", "_total")
    )


def _drawn(fraction: float) -> Column:
    """A draw that depends on user and item only: the same in every run, and for every event of the pair."""
    draw = F.pmod(F.xxhash64(c.USER_ID, c.ITEM_ID), F.lit(_RESOLUTION))
    return draw < round(fraction * _RESOLUTION)
