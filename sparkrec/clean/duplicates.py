"""Rows that say the same thing become one row, with the number of its copies; near repeats are set aside.

All of it is commutative and associative: rows may come in any order, in any number of batches.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window, WindowSpec
from pyspark.sql import functions as F

from sparkrec import columns as c

#: What an event says. Where the row was found is not part of it.
EVENT_CONTENT = (
    c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIME, c.VALUE, c.PRICE, c.CURRENCY, c.QUERY, c.TEXT, c.SESSION_ID,
    c.ORDER_ID, c.COUNTRY, c.SPLIT, c.ITEM_NAME, c.ITEM_BRAND, c.ITEM_CATEGORY,
)  # fmt: skip
#: On rows of several batches: silver held the row already. On rows of several days: it is there for the context only.
HELD, BEFORE = "_held", "_before"
# Neither occurs in the text of a log.
_SEPARATOR, _NULL = "\x1f", "\x00"


def identified(events: DataFrame) -> DataFrame:
    """Adds ``event_id``, the MD5 of the content (of the raw text, for a row that could not be read), and ``copies``.

    So it does not depend on files, order or runs.
    """
    text = F.concat_ws(_SEPARATOR, *[F.coalesce(F.col(name), F.lit(_NULL)) for name in EVENT_CONTENT])
    key = F.when(F.col(c.MALFORMED).isNull(), text).otherwise(F.concat(F.lit(_NULL * 2), F.col(c.RAW)))
    copies = F.col(c.COPIES) if c.COPIES in events.columns else F.lit(1)
    return events.withColumns({c.EVENT_ID: F.md5(key), c.COPIES: copies})


def merge_exact(rows: DataFrame) -> DataFrame:
    """Typed rows, of one batch or of several → one row an ``event_id``, with the sum of their ``copies``.

    The first by (source file, line) stays, with the newest ingest time of all. Verdicts only ever turn to the better
    (see :mod:`sparkrec.clean.rules`), so a row is good if one of its copies is; of refusals the newest holds. A row
    that silver held stays marked so (``_held``), with its cancellation. One shuffle, by user, which copies have in
    common: so what comes next of a user's events finds them together. One sort and one pass over each partition.
    """
    in_place = Window.partitionBy(c.EVENT_ID, c.USER_ID).orderBy(c.SOURCE_FILE, c.LINE)
    same = in_place.rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)
    verdict = F.struct(c.RULE, c.RULES, c.REASON)
    of_all = {
        "_good": F.bool_or(F.col(c.RULE).isNull()).over(same),
        "_verdict": F.max_by(verdict, F.col(c.INGEST_TIME)).over(same),
        c.COPIES: F.sum(c.COPIES).over(same).cast("int"),
        c.INGEST_TIME: F.max(c.INGEST_TIME).over(same),
        c.CANCELLED_AT: F.max(c.CANCELLED_AT).over(same),
        HELD: F.bool_or(HELD).over(same),
        "_position": F.row_number().over(in_place),
    }
    first = rows.repartition(c.USER_ID).withColumns(of_all).where("_position = 1")
    chosen = {name: F.when(~F.col("_good"), F.col(f"_verdict.{name}")) for name in (c.RULE, c.RULES, c.REASON)}
    chosen[c.RULES] = F.coalesce(chosen[c.RULES], F.array().cast("array<string>"))
    return first.withColumns(chosen).drop("_good", "_verdict", "_position")


def mark_near(events: DataFrame, seconds: float) -> DataFrame:
    """Adds ``merged_into``: null for an event that stands, else the id of the event that it repeats.

    A chain of events of the same user, item, type and query, each within ``seconds`` of the last, repeats its first.
    Rows ``_before`` only carry the chain in: what they say of themselves (``merged_into``) holds.
    """
    if seconds <= 0:
        return events.withColumn(c.MERGED_INTO, F.lit(None).cast("string"))
    in_time = Window.partitionBy(c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.QUERY).orderBy(c.EVENT_TIME, c.EVENT_ID)
    starts = starts_after_pause(in_time, seconds)
    # A repeat at the edge of the context began before it.
    first = F.when(F.col(BEFORE), F.coalesce(c.MERGED_INTO, c.EVENT_ID)).otherwise(F.col(c.EVENT_ID))
    chain = F.last(F.when(F.col("_starts"), first), ignorenulls=True).over(in_time)
    return (
        events.withColumn("_starts", starts)
        .withColumn("_chain", chain)
        .withColumn(c.MERGED_INTO, F.when(F.col("_chain") != F.col(c.EVENT_ID), F.col("_chain")))
        .drop("_starts", "_chain")
    )


def starts_after_pause(in_time: WindowSpec, seconds: float) -> Column:
    """Whether a row is the first of its window, or more than ``seconds`` after the one before."""
    micros = F.unix_micros(c.EVENT_TIME)
    return F.coalesce(micros - F.lag(micros).over(in_time) > int(seconds * 1e6), F.lit(True))
