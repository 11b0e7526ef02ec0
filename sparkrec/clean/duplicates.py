"""Rows that say the same thing become one row, with the number of its copies."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark import StorageLevel
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from sparkrec import columns as c

#: What an event says. Where the row was found is not part of it.
EVENT_CONTENT = (
    c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIME, c.VALUE, c.PRICE, c.CURRENCY, c.QUERY, c.TEXT, c.SESSION_ID,
    c.ORDER_ID, c.COUNTRY, c.SPLIT, c.ITEM_NAME, c.ITEM_BRAND, c.ITEM_CATEGORY,
)  # fmt: skip
# Neither occurs in the text of a log.
_SEPARATOR, _NULL = "\x1f", "\x00"


def merge_exact(frame: DataFrame, content: Sequence[str] = EVENT_CONTENT) -> DataFrame:
    """One row for each distinct content, in whatever file; adds ``event_id`` and ``copies``.

    The id is the MD5 of the content (of the raw text, for a row that could not be read), so it does not depend on
    files, order or runs. The first row by (source file, line) stays. One shuffle by id and a sort within partitions.
    """
    text = F.concat_ws(_SEPARATOR, *[F.coalesce(F.col(name), F.lit(_NULL)) for name in content])
    key = F.when(F.col(c.MALFORMED).isNull(), text).otherwise(F.concat(F.lit(_NULL * 2), F.col(c.RAW)))
    same = Window.partitionBy(c.EVENT_ID)
    return (
        frame.withColumn(c.EVENT_ID, F.md5(key))
        .withColumn("_position", F.row_number().over(same.orderBy(c.SOURCE_FILE, c.LINE)))
        .withColumn(c.COPIES, F.count("*").over(same).cast("int"))
        .where(F.col("_position") == 1)
        .drop("_position")
    )


def merge_near(events: DataFrame, seconds: float) -> DataFrame:
    """One event for a chain of events of the same user, item, type and query, each within ``seconds`` of the last.

    The first of the chain stays, and its ``copies`` become the sum. ``seconds`` 0 leaves everything as it is. The
    result is kept (persisted): cancellations, bots and the table all read it.
    """
    if seconds <= 0:
        return events
    same = Window.partitionBy(c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.QUERY)
    in_time = same.orderBy(c.EVENT_TIME, c.EVENT_ID)
    gap = F.unix_micros(c.EVENT_TIME) - F.lag(F.unix_micros(c.EVENT_TIME)).over(in_time)
    starts = F.coalesce(gap > int(seconds * 1e6), F.lit(True))
    chain = Window.partitionBy(c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.QUERY, "_chain")
    return (
        events.withColumn("_starts", starts)
        .withColumn("_chain", F.sum(F.col("_starts").cast("int")).over(in_time))
        .withColumn(c.COPIES, F.sum(c.COPIES).over(chain).cast("int"))
        .where("_starts")
        .drop("_starts", "_chain")
        .persist(StorageLevel.MEMORY_AND_DISK)
    )
