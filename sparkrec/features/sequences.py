"""gold.sequences: each user's training events in time order, once, as arrays in chunks."""

from __future__ import annotations

import datetime as dt

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.evaluation.splits import PART, VALIDATION, Borders

_EVENTS = "_events"
_ORDER = "_order"
#: Of an event, in the order of the arrays.
_FIELDS = (c.ITEM_INDEX, c.EVENT_TYPE, c.EVENT_TIME, c.VALUE, c.VALIDATION)
_NEWER_THAN_ANY_CHUNK = 1


def of_events(events: DataFrame, items: DataFrame) -> DataFrame:
    """Training events → a piece a user: user_id, their events in order. ``items`` is the vocabulary.

    Events are ordered by (event_time, line in their file, item index, type): deterministic up to events that are the
    same in all that is stored. One shuffle by user, which they may have behind them; the sort is of each user's own.
    """
    codes = {name: code for code, name in enumerate(c.EVENT_TYPES)}
    code = F.coalesce(*[F.when(F.col(c.EVENT_TYPE) == name, code) for name, code in codes.items()]).cast("tinyint")
    event = F.struct(
        F.col(c.EVENT_TIME),
        F.col(c.LINE),
        F.col(c.ITEM_INDEX),
        code.alias(c.EVENT_TYPE),
        F.coalesce(F.col(c.VALUE).cast("float"), F.lit(float("nan"))).alias(c.VALUE),
        (F.col(PART) == VALIDATION).alias(c.VALIDATION),
    )

    def stored(e: Column) -> Column:
        times = F.unix_seconds(e[c.EVENT_TIME]).alias(c.EVENT_TIME)
        return F.struct(*[times if name == c.EVENT_TIME else e[name].alias(name) for name in _FIELDS])

    known = events.join(items.select(c.ITEM_ID, c.ITEM_INDEX), c.ITEM_ID)
    in_order = F.transform(F.sort_array(F.collect_list(event)), stored)
    by_user = known.groupBy(c.USER_ID).agg(in_order.alias(_EVENTS))
    return by_user.withColumn(_ORDER, F.lit(_NEWER_THAN_ANY_CHUNK))


def of_chunks(held: DataFrame, at: Borders | None) -> DataFrame:
    """Rows of gold.sequences → a piece each, by user_index, and their block.

    ``at`` are the times of a split by time, which says anew what is validation; None: that stays what it was.
    """
    events = F.arrays_zip(*_FIELDS)
    if at is not None:
        begin = int(at.validation.replace(tzinfo=dt.UTC).timestamp())

        def judged(e: Column) -> Column:
            late = (e[c.EVENT_TIME] >= begin).alias(c.VALIDATION)
            return F.struct(*[late if name == c.VALIDATION else e[name].alias(name) for name in _FIELDS])

        events = F.transform(events, judged)
    return held.select(c.USER_BLOCK, c.USER_INDEX, events.alias(_EVENTS), (-F.col(c.CHUNK)).alias(_ORDER))


def added(pieces: DataFrame) -> DataFrame:
    """Pieces of users, by user_index, each piece's events later than those of a lower order → a piece a user."""
    in_order = F.sort_array(F.collect_list(F.struct(_ORDER, _EVENTS))).getField(_EVENTS)
    return pieces.groupBy(c.USER_INDEX).agg(F.flatten(in_order).alias(_EVENTS))


def rows(pieces: DataFrame, max_length: int) -> DataFrame:
    """A piece a user → rows of gold.sequences, without their block."""
    return pieces.select(c.USER_INDEX, F.explode(_chunks(max_length)).alias("_piece")).select(
        c.USER_INDEX,
        F.col(f"_piece.{c.CHUNK}").alias(c.CHUNK),
        F.size(f"_piece.{_EVENTS}").alias(c.LENGTH),
        *[F.col(f"_piece.{_EVENTS}.{name}").alias(name) for name in _FIELDS],
    )


def without_validation(sequences: DataFrame) -> DataFrame:
    """Rows of gold.sequences less the events that are held out for validation: what was known before them."""
    kept = F.filter(F.arrays_zip(*_FIELDS), lambda event: ~event[c.VALIDATION])
    rows = sequences.withColumn(_EVENTS, kept).where(F.size(_EVENTS) > 0)
    fields = {name: F.col(f"{_EVENTS}.{name}") for name in _FIELDS}
    return rows.withColumns({c.LENGTH: F.size(_EVENTS), **fields}).drop(_EVENTS)


def counts(written: DataFrame) -> dict[str, int]:
    """Of gold.sequences: the events of the parts train and validation."""
    validation = F.aggregate(c.VALIDATION, F.lit(0), lambda n, held_out: n + held_out.cast("int"))
    row = written.agg(F.sum(c.LENGTH), F.sum(validation)).first()
    length, held_out = (row[0] or 0, row[1] or 0) if row is not None else (0, 0)
    return {"events_train": length - held_out, "events_validation": held_out}


def _chunks(max_length: int) -> Column:
    """The array ``_events`` cut from its end: chunk 0 holds the newest ``max_length``, 1 those before, …"""
    total = F.size(_EVENTS)
    last = F.floor((total - 1) / max_length).cast("int")

    def piece(chunk: Column) -> Column:
        stop = total - chunk * max_length
        start = F.greatest(stop - max_length, F.lit(0))
        return F.struct(chunk.alias(c.CHUNK), F.slice(_EVENTS, start + 1, stop - start).alias(_EVENTS))

    return F.transform(F.sequence(F.lit(0), last), piece)
