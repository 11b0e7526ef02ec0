"""Rows that say the same thing become one row, with the number of its copies; near repeats are set aside.

All of it is commutative and associative: rows may come in any order, in any number of batches.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def merge_exact(frame: DataFrame, content: Sequence[str] = EVENT_CONTENT) -> DataFrame:
    """One row for each distinct content, in whatever file; adds ``event_id`` and ``copies`` (or sums them).

    The id is the MD5 of the content (of the raw text, for a row that could not be read), so it does not depend on
    files, order or runs. The first row by (source file, line) stays, with the newest ingest time of all. One shuffle
    by id, and one sort and one pass over each partition.
    """
    text = F.concat_ws(_SEPARATOR, *[F.coalesce(F.col(name), F.lit(_NULL)) for name in content])
    key = F.when(F.col(c.MALFORMED).isNull(), text).otherwise(F.concat(F.lit(_NULL * 2), F.col(c.RAW)))
    copies = F.col(c.COPIES) if c.COPIES in frame.columns else F.lit(1)
    same = _all_in_place()
    of_all = {c.COPIES: F.sum(copies).over(same).cast("int")}
    if c.INGEST_TIME in frame.columns:
        of_all[c.INGEST_TIME] = F.max(c.INGEST_TIME).over(same)
    return _first_in_place(frame.withColumn(c.EVENT_ID, F.md5(key)), of_all)


def merge_batches(rows: DataFrame) -> DataFrame:
    """The typed rows of several batches, each without repeats → one row an ``event_id``, as from one batch.

    A row that silver held stays marked so (``_held``), with its cancellation. Verdicts only ever turn to the better
    (see :mod:`sparkrec.clean.rules`), so a row is good if one of its copies is; of refusals the newest holds.
    """
    same, verdict = _all_in_place(), F.struct(c.RULE, c.RULES, c.REASON)
    of_all = {
        "_good": F.bool_or(F.col(c.RULE).isNull()).over(same),
        "_verdict": F.max_by(verdict, F.col(c.INGEST_TIME)).over(same),
        c.COPIES: F.sum(c.COPIES).over(same).cast("int"),
        c.INGEST_TIME: F.max(c.INGEST_TIME).over(same),
        c.CANCELLED_AT: F.max(c.CANCELLED_AT).over(same),
        HELD: F.bool_or(HELD).over(same),
    }
    chosen = {name: F.when(~F.col("_good"), F.col(f"_verdict.{name}")) for name in (c.RULE, c.RULES, c.REASON)}
    return _first_in_place(rows, of_all).withColumns(chosen).drop("_good", "_verdict")


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


def _in_place() -> WindowSpec:
    """One order for all that is asked of the rows of one id, so that they are sorted, and gone through, once."""
    return Window.partitionBy(c.EVENT_ID).orderBy(c.SOURCE_FILE, c.LINE)


def _all_in_place() -> WindowSpec:
    return _in_place().rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)


def _first_in_place(frame: DataFrame, of_all: dict[str, Column]) -> DataFrame:
    """The first row of each id, with what is said ``of_all`` of them."""
    placed = frame.withColumns(of_all | {"_position": F.row_number().over(_in_place())})
    return placed.where("_position = 1").drop("_position")
