"""Which events of silver gold is made of, and why the others are left out.

What is known of an event is taken as of the split: a cancellation, or the end of a user's first day as a bot, after
``as_of`` changes nothing about the events before it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.clean import bots
from sparkrec.config import Features, Settings
from sparkrec.errors import DataError
from sparkrec.evaluation import splits
from sparkrec.evaluation.splits import PART, TRAIN, VALIDATION, Borders, midnight_after, utc

LEFT_OUT = "left_out"
#: Of an event: gold forgets what it holds of the user, so older events count as new.
AGAIN = "again"

# Rows of silver.suspects, of which a user may have several: their ids fit into the memory of every executor, 200 MB.
_FEW = 2_000_000

#: What later steps need of an event; line and event_id only to order events of the same second.
COLUMNS = (
    c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIME, c.LINE, c.EVENT_ID, c.VALUE, c.PRICE, c.COUNTRY, c.SPLIT,
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """Silver as a split with the times ``at`` sees it; ``goods`` is the catalogue as of it."""

    events: DataFrame
    suspects: DataFrame
    goods: DataFrame
    at: Borders

    def parted(self, events: DataFrame, settings: Settings) -> DataFrame:
        """Some of the events, those before the end, by user: with their part, or with why they are left out."""
        marked = mark(events, self.suspects, self.goods, settings.features, self.at)
        return splits.assign(marked.repartition(c.USER_ID), settings.split, self.at, F.col(LEFT_OUT).isNull())


def end_of_log(events: DataFrame, types: tuple[str, ...], date: dt.date | None) -> dt.datetime:
    """The exclusive end of the data: the midnight after ``date``, or after the newest event of these types.

    Raises
    ------
    DataError
        There is no such event (before that midnight).
    """
    wanted = events.where(F.col(c.EVENT_TYPE).isin(*types))
    if date is not None:
        wanted = wanted.where(F.col(c.EVENT_DATE) <= F.lit(str(date)).cast("date"))
        last = None if wanted.limit(1).isEmpty() else date
    else:
        row = wanted.agg(F.max(c.EVENT_DATE)).first()
        last = row[0] if row is not None else None
    if last is None:
        until = f" until {date}" if date else ""
        raise DataError(
            f"silver.events holds no event of the types {', '.join(types)}{until}. Check features.event_types against "
            "the log, and --date against its days."
        )
    return midnight_after(last)


def mark(events: DataFrame, suspects: DataFrame, items: DataFrame, settings: Features, at: Borders) -> DataFrame:
    """Events before ``at.end`` with ``left_out``: the first reason against using them, or null.

    ``suspects`` is silver.suspects; ``items`` is the catalogue as of the split (:func:`sparkrec.features.items.as_of`).
    """
    seen = events.where((F.col(c.EVENT_TIME) < utc(at.end)) & (F.col(c.EVENT_DATE) <= utc(at.end).cast("date")))
    since = bots.since(suspects).withColumnRenamed("since", "_since")
    no_goods = items.where(~F.col(c.FOR_SALE)).select(c.ITEM_ID, F.lit(True).alias("_no_goods"))
    # Bots are few as a rule, and so are the things in a shop that are no goods: no shuffle of the events for them.
    since = F.broadcast(since) if suspects.count() <= _FEW else since
    joined = seen.join(since, c.USER_ID, "left").join(no_goods, c.ITEM_ID, "left")
    return joined.withColumn(LEFT_OUT, _reason(settings, at)).select(*COLUMNS, AGAIN, LEFT_OUT)


@dataclass(frozen=True)
class Tally:
    """How many events a run read; how many of them each part has, and how many each reason left out (rare ones too).

    Where everything is computed, all before the end are read. An increment reads the newest of them, and all of
    rewritten users: its numbers are not those of the log.
    """

    read: int
    parts: Mapping[str, int]
    left_out: Mapping[str, int]

    @property
    def record(self) -> dict[str, Any]:
        """For the run record: what was left out, beside how many it was left out of."""
        return {"events": self.read, "left_out": dict(self.left_out)}


def tally(parted: DataFrame, events: DataFrame, settings: Features) -> Tally:
    """Counts what was read (``parted``) and what is used of it (``events``)."""
    rows = parted.groupBy(PART, LEFT_OUT).count().orderBy(PART, LEFT_OUT).collect()
    parts: dict[str, int] = {part: n for part, _, n in rows if part is not None}
    left_out: dict[str, int] = {reason: n for _, reason, n in rows if reason is not None}
    if settings.min_item_events > 1 or settings.min_user_events > 1:
        kept: dict[str, int] = dict(events.groupBy(PART).count().collect())
        left_out["rare"] = sum(parts.values()) - sum(kept.values())
        parts = kept
    return Tally(sum(n for _, _, n in rows), parts, left_out)


def without_rare(events: DataFrame, settings: Features) -> DataFrame:
    """Training events on items with ``min_item_events``, then those of users with ``min_user_events``; one pass each.

    Counted on training and validation events; the other parts stay as they are. Left-out events are gone.
    """
    events = events.where(F.col(PART).isNotNull()).drop(LEFT_OUT)
    kept = _without_rare(events, c.ITEM_ID, settings.min_item_events)
    return _without_rare(kept, c.USER_ID, settings.min_user_events)


def training(events: DataFrame) -> DataFrame:
    """The events of train and validation."""
    return events.where(F.col(PART).isin(TRAIN, VALIDATION))


def _reason(settings: Features, at: Borders) -> Column:
    as_of = utc(at.as_of)
    horizon = F.when(F.col(c.EVENT_TIME) < as_of, as_of).otherwise(utc(at.end))
    rated = F.col(c.EVENT_TYPE).isin(c.RATING, c.REVIEW)
    reasons = {
        "other_type": ~F.col(c.EVENT_TYPE).isin(*settings.event_types) | F.col(c.ITEM_ID).isNull(),
        "suspect": F.col("_since") <= horizon,
        "cancelled": F.col(c.CANCELLED_AT) < horizon,
        "not_for_sale": F.col("_no_goods"),
    }
    if settings.min_rating is not None:
        reasons["low_rating"] = rated & (F.col(c.VALUE) < settings.min_rating)
    return F.coalesce(*[F.when(condition, name) for name, condition in reasons.items()])


def _without_rare(events: DataFrame, column: str, least: int) -> DataFrame:
    if least <= 1:
        return events
    frequent = training(events).groupBy(column).count().where(F.col("count") >= least)
    of_training = F.col(PART).isin(TRAIN, VALIDATION)
    counted = events.join(frequent.select(column, F.lit(True).alias("_frequent")), column, "left")
    return counted.where(~of_training | F.col("_frequent")).drop("_frequent")
