"""Cancel events find the purchase that they take back.

The rule: a cancel takes back the latest purchase of the same user and item, at or before it, that is not yet taken
back. It looks three times: (1) in the order that it names; (2) among purchases of exactly its quantity; (3) at the
latest remaining purchase of any order, if its quantity is not smaller. A cancel that finds none changes nothing.

"The latest not yet taken back" is how brackets match: purchases open, cancels close. So the depth of nesting pairs
them by running sums, in windows over (user, item), without a loop over rows.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from sparkrec import columns as c

PAIR = (c.USER_ID, c.ITEM_ID)
#: What matching needs of an event.
COLUMNS = (c.EVENT_ID, *PAIR, c.EVENT_TYPE, c.EVENT_TIME, c.VALUE, c.ORDER_ID)
_IS_CANCEL, _QUANTITY, _PARTNER, _LEVEL, _FREE = "_is_cancel", "_quantity", "_partner", "_level", "_free"
_ORDER = (c.EVENT_TIME, _IS_CANCEL, c.EVENT_ID)


def match(events: DataFrame, pairs: DataFrame | None = None) -> DataFrame:
    """The matches: ``event_id`` of the purchase, ``cancel_id``, ``cancelled_at``. One row a purchase taken back.

    ``pairs`` of user and item are looked at; default: all that have a cancel.
    """
    if pairs is None:
        pairs = events.where(F.col(c.EVENT_TYPE) == c.CANCEL).select(*PAIR).distinct()
    trades = (
        events.where(is_trade())
        .join(pairs, list(PAIR), "left_semi")
        .repartition(*PAIR)
        .select(
            c.EVENT_ID, *PAIR, c.EVENT_TIME,
            (F.col(c.EVENT_TYPE) == c.CANCEL).alias(_IS_CANCEL),
            F.abs(c.VALUE).alias(_QUANTITY),
            F.coalesce(c.ORDER_ID, c.EVENT_ID).alias(c.ORDER_ID),
            F.lit(None).cast("struct<id:string, time:timestamp, quantity:double, is_cancel:boolean>").alias(_PARTNER),
        )
    )  # fmt: skip
    for keys in ((*PAIR, c.ORDER_ID), (*PAIR, _QUANTITY), PAIR):
        trades = _match_latest(trades, keys)
    taken_back = trades.where(F.col(_PARTNER).isNotNull() & ~F.col(_IS_CANCEL))
    return taken_back.select(
        c.EVENT_ID, F.col(f"{_PARTNER}.id").alias("cancel_id"), F.col(f"{_PARTNER}.time").alias(c.CANCELLED_AT)
    )


def is_trade() -> Column:
    """Purchases and cancels."""
    return F.col(c.EVENT_TYPE).isin(c.PURCHASE, c.CANCEL)


def changed_pairs(new: DataFrame, cancels: DataFrame | None) -> DataFrame:
    """The (user, item) whose matches may change by the ``new`` trades: a cancel is new, or a purchase before a cancel.

    A purchase after all cancels of its pair changes nothing, so a day that comes in its order looks at its own cancels
    only. ``cancels`` are all of them, old and new; None where all are new.
    """
    pairs = new.where(F.col(c.EVENT_TYPE) == c.CANCEL).select(*PAIR)
    if cancels is not None:
        last = cancels.groupBy(*PAIR).agg(F.max(c.EVENT_TIME).alias("_last"))
        bought = new.where(F.col(c.EVENT_TYPE) == c.PURCHASE).join(last, list(PAIR))
        pairs = pairs.unionByName(bought.where(F.col(c.EVENT_TIME) <= F.col("_last")).select(*PAIR))
    return pairs.distinct()


def mark(events: DataFrame, matches: DataFrame | None, pairs: DataFrame | None = None) -> DataFrame:
    """Sets ``cancelled_at`` of purchases from ``matches``, and adds ``cancelled``.

    ``matches`` None: nothing has changed. ``pairs``: the matches are of these users and items, the others stay. Only
    purchases are joined: the rest of a log, most of it where there are views, need not be shuffled.
    """
    marked = events
    if matches is not None:
        is_purchase = F.col(c.EVENT_TYPE) == c.PURCHASE
        purchases, at = events.where(is_purchase), F.col("_found")
        if pairs is not None:
            purchases = purchases.join(pairs.withColumn("_looked_at", F.lit(True)), list(PAIR), "left")
            at = F.when(F.col("_looked_at"), at).otherwise(F.col(c.CANCELLED_AT))
        found = matches.select(c.EVENT_ID, F.col(c.CANCELLED_AT).alias("_found"))
        purchases = purchases.join(found, c.EVENT_ID, "left").withColumn(c.CANCELLED_AT, at)
        marked = purchases.select(*events.columns).unionByName(events.where(~is_purchase))
    return marked.withColumn(c.CANCELLED, F.col(c.CANCELLED_AT).isNotNull())


def _match_latest(trades: DataFrame, keys: tuple[str, ...]) -> DataFrame:
    """Pairs free cancels with the latest free purchase before them that has the same ``keys``."""
    group = Window.partitionBy(*keys, _FREE).orderBy(*_ORDER)
    step = F.when(F.col(_IS_CANCEL), -1).otherwise(1)
    level = Window.partitionBy(*keys, _FREE, _LEVEL).orderBy(*_ORDER)
    this = F.struct(
        F.col(c.EVENT_ID).alias("id"), F.col(c.EVENT_TIME).alias("time"),
        F.col(_QUANTITY).alias("quantity"), F.col(_IS_CANCEL).alias("is_cancel"),
    )  # fmt: skip
    other = F.when(F.col(_IS_CANCEL), F.lag(this).over(level)).otherwise(F.lead(this).over(level))
    return (
        trades.withColumn(_FREE, F.col(_PARTNER).isNull())
        .withColumn("_sum", F.sum(step).over(group))
        # A cancel with nothing open would push the sum to a new minimum: there it finds no purchase.
        .withColumn("_floor", F.least(F.lit(0), F.min("_sum").over(group)))
        .withColumn("_floor_before", F.lag("_floor", 1, 0).over(group))
        .withColumn(_LEVEL, _nesting())
        .withColumn("_other", other)
        .withColumn(_PARTNER, F.coalesce(_PARTNER, F.when(F.col(_FREE) & _fits(), F.col("_other"))))
        .drop(_FREE, "_sum", "_floor", "_floor_before", _LEVEL, "_other")
    )


def _nesting() -> Column:
    """How many purchases are open, counting this one; null for a cancel that finds none."""
    depth = F.col("_sum") - F.col("_floor")
    finds = F.col("_floor") == F.col("_floor_before")
    return F.when(~F.col(_IS_CANCEL), depth).when(finds, depth + 1)


def _fits() -> Column:
    """The neighbour on this level is of the other kind, and the purchase is not smaller than the cancel."""
    mine, theirs = F.col(_QUANTITY), F.col("_other.quantity")
    enough = F.when(F.col(_IS_CANCEL), theirs >= mine).otherwise(mine >= theirs)
    opposite = F.col("_other.is_cancel") != F.col(_IS_CANCEL)
    return F.col(_LEVEL).isNotNull() & opposite & F.coalesce(enough, F.lit(True))
