"""gold.sequences: each user's training events in time order, once, as arrays in chunks."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.evaluation.splits import PART, VALIDATION

_EVENTS = "_events"


def sequences(events: DataFrame, users: DataFrame, items: DataFrame, max_length: int) -> DataFrame:
    """Rows of gold.sequences from training events and the two vocabularies.

    Events are ordered by (event_time, line in their file, item index, type): deterministic up to events that are the
    same in all that is stored. One shuffle by user; the sort is of each user's own array.
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
    of_user = (
        events.join(items.select(c.ITEM_ID, c.ITEM_INDEX), c.ITEM_ID)
        .groupBy(c.USER_ID)
        .agg(F.sort_array(F.collect_list(event)).alias(_EVENTS))
        .join(users.select(c.USER_ID, c.USER_INDEX), c.USER_ID)
    )
    return (
        of_user.select(c.USER_INDEX, F.explode(_chunks(max_length)).alias("_piece"))
        .select(
            c.USER_INDEX,
            F.col(f"_piece.{c.CHUNK}").alias(c.CHUNK),
            F.size(f"_piece.{_EVENTS}").alias(c.LENGTH),
            *[F.col(f"_piece.{_EVENTS}.{name}").alias(name) for name in (c.ITEM_INDEX, c.EVENT_TYPE)],
            F.transform(f"_piece.{_EVENTS}", lambda e: F.unix_seconds(e[c.EVENT_TIME])).alias(c.EVENT_TIME),
            *[F.col(f"_piece.{_EVENTS}.{name}").alias(name) for name in (c.VALUE, c.VALIDATION)],
        )
        .select(*schemas.GOLD_SEQUENCES.column_names)
    )


def _chunks(max_length: int) -> Column:
    """The array ``_events`` cut from its end: chunk 0 holds the newest ``max_length``, 1 those before, …"""
    total = F.size(_EVENTS)
    last = F.floor((total - 1) / max_length).cast("int")

    def piece(chunk: Column) -> Column:
        stop = total - chunk * max_length
        start = F.greatest(stop - max_length, F.lit(0))
        return F.struct(chunk.alias(c.CHUNK), F.slice(_EVENTS, start + 1, stop - start).alias(_EVENTS))

    return F.transform(F.sequence(F.lit(0), last), piece)
