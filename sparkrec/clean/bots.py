"""Users that no person can be: a score and its reasons for a user's day, from what the user did on that day alone.

Five signs, each from 0 (a person) to 1 (a bot) between the two ends in ``clean.bots``: **rate** (events in the busiest
hour), **regularity** (spread of the logarithm of the gaps; equal gaps have 0, a Poisson process π/√6 = 1.28),
**breadth** (distinct items per view), **no_purchase** (most views in a row without a cart, purchase, rating or the
like) and **around_the_clock** (hours of the day with an event). A sign of strength s and weight w leaves 1 − w s of
the doubt; the score is 1 minus the product of what they leave (a noisy-or; Pearl, 1988, 4.3). So no sign condemns by
itself unless its weight reaches the threshold. All but the number of events look at views, clicks and searches only:
scrapers look, while people also rate or order by the hundred in an hour (MovieLens, wholesale).

The statistics of a (user, day) are counts and sums of whole numbers: exact in any order, and a day that grows is
computed anew without the others.
"""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config.clean import Bots, Signal

TOO_MANY = "too_many_events"
_DAY = (c.USER_ID, c.EVENT_DATE)
_BROWSING = (c.VIEW, c.CLICK, c.SEARCH)
_LOGS, _SQUARES = "_logs", "_squares"
# Two gaps are often equal.
_ENOUGH_GAPS = 30
# Of a gap's logarithm: whole thousandths, whose squares a bigint can add up for 10^10 events.
_UNIT = 1000
# Midnight of a time zone lies on a quarter of an hour of UTC; microseconds.
_QUARTER = 900_000_000


def day_statistics(events: DataFrame, min_events: int) -> DataFrame:
    """A row for each user and day with at least ``min_events`` events: the columns of silver.suspects that are counts.

    A cheap count by user and day finds those days; only their events are sorted.
    """
    busy = events.groupBy(*_DAY).count().where(F.col("count") >= min_events).select(*_DAY)
    in_time = Window.partitionBy(*_DAY).orderBy(c.EVENT_TIME, c.EVENT_ID)
    micros = F.unix_micros(c.EVENT_TIME)
    gap = (micros - F.lag(micros).over(in_time)) / 1e6
    browses = F.col(c.EVENT_TYPE).isin(*_BROWSING)
    acts = F.when(~browses, F.col("_position"))
    viewed = F.col(c.EVENT_TYPE).isin(c.VIEW, c.CLICK)
    hours = [f"_hour_{hour}" for hour in range(24)]
    return (
        events.join(busy, list(_DAY), "left_semi")
        .withColumns({"_position": F.row_number().over(in_time), "_gap": F.when(browses & (gap > 0), gap)})
        .withColumns(
            {
                "_log": F.round(_UNIT * F.log("_gap")).cast("bigint"),
                "_run": F.col("_position") - F.coalesce(F.max(acts).over(in_time), F.lit(0)),
            }
        )
        .groupBy(*_DAY)
        .agg(
            F.count("*").alias(c.N_EVENTS),
            F.count_if(viewed).alias(c.N_VIEWS),
            F.count_distinct(F.when(viewed, F.col(c.ITEM_ID))).alias(c.N_ITEMS),
            *[F.count_if(browses & (F.hour(c.EVENT_TIME) == hour)).alias(name) for hour, name in enumerate(hours)],
            F.count("_log").alias(c.N_GAPS),
            F.sum("_log").alias(_LOGS),
            F.sum(F.col("_log") * F.col("_log")).alias(_SQUARES),
            F.max("_run").cast("bigint").alias(c.LONGEST_BROWSING),
            F.min(micros).alias("_first"),
            F.max(micros).alias("_last"),
        )
        .withColumns(
            {
                c.N_HOURS: reduce(lambda a, b: a + b, [(F.col(name) > 0).cast("int") for name in hours]),
                c.BUSIEST_HOUR: F.when(~_has_date_only(), F.greatest(*hours)),
                c.GAP_SPREAD: _spread(),
            }
        )
        .drop(*hours, _LOGS, _SQUARES, "_first", "_last")
    )


def suspects(events: DataFrame, settings: Bots, has_times: bool = True) -> DataFrame:
    """silver.suspects of these events: the days that reach the threshold, of users who are not on the allow list.

    ``has_times`` : whether the events' times are when they were; by times that are made up all are bots.
    """
    if not (settings.enabled and has_times):
        return events.sparkSession.createDataFrame([], schemas.SILVER_SUSPECTS.struct())
    days = scored(day_statistics(events, settings.min_events), settings)
    flagged = days.where((F.col(c.SCORE) >= settings.threshold) & ~F.col(c.USER_ID).isin(*settings.allow))
    return flagged.select(*schemas.SILVER_SUSPECTS.column_names)


def scored(days: DataFrame, settings: Bots) -> DataFrame:
    """Adds ``score`` and ``reasons`` (the signs at half strength or more, the weightiest first)."""
    signs = {name: (_strength(value, signal), signal.weight) for name, value, signal in _signs(settings)}
    too_many = F.col(c.N_EVENTS) > settings.events_per_day
    doubt = reduce(lambda rest, sign: rest * (1 - sign[0] * sign[1]), signs.values(), F.lit(1.0))
    reasons = [
        F.when(
            (strength >= 0.5) & F.lit(weight > 0),
            F.struct((-strength * weight).alias("order"), F.lit(name).alias("name")),
        )
        for name, (strength, weight) in signs.items()
    ]
    first = F.when(too_many, F.struct(F.lit(-1.0).alias("order"), F.lit(TOO_MANY).alias("name")))
    named = F.transform(F.array_sort(F.array_compact(F.array(first, *reasons))), lambda reason: reason["name"])
    return days.withColumns({c.SCORE: F.when(too_many, 1.0).otherwise(F.round(1 - doubt, 4)), c.REASONS: named})


def since(suspects: DataFrame) -> DataFrame:
    """``user_id``, ``since``: the midnight after the first day on which the user was flagged. One row a suspect.

    A day is judged by all of its events, so nothing is known of it before it has ended.
    """
    return suspects.groupBy(c.USER_ID).agg(F.date_add(F.min(c.EVENT_DATE), 1).cast("timestamp").alias("since"))


def _signs(settings: Bots) -> list[tuple[str, Column, Signal]]:
    views = F.col(c.N_VIEWS)
    return [
        ("rate", F.col(c.BUSIEST_HOUR), settings.rate),
        ("regularity", F.when(F.col(c.N_GAPS) >= _ENOUGH_GAPS, F.col(c.GAP_SPREAD)), settings.regularity),
        # Of a handful of views all items are distinct: that says nothing.
        ("breadth", F.when(views >= settings.min_events, F.col(c.N_ITEMS) / views), settings.breadth),
        ("no_purchase", F.col(c.LONGEST_BROWSING), settings.no_purchase),
        ("around_the_clock", F.col(c.N_HOURS), settings.around_the_clock),
    ]


def _strength(value: Column, signal: Signal) -> Column:
    """0 at ``signal.person`` or on its side of it, 1 at ``signal.bot``; 0 where the value is not known."""
    part = (value - signal.person) / (signal.bot - signal.person)
    # Spark's least and greatest pass over nulls.
    return F.when(part.isNotNull(), F.greatest(F.lit(0.0), F.least(F.lit(1.0), part))).otherwise(0.0)


def _has_date_only() -> Column:
    """All events of the day at one instant that a midnight somewhere is: their time of day is not known."""
    return (F.col("_first") == F.col("_last")) & (F.pmod("_first", F.lit(_QUARTER)) == 0)


def _spread() -> Column:
    """Standard deviation from the sums: √(n Σx² − (Σx)²) / n, in whole numbers up to the root."""
    n = F.col(c.N_GAPS).cast("decimal(12,0)")
    total = F.col(_LOGS).cast("decimal(19,0)")
    variance = (n * F.col(_SQUARES).cast("decimal(19,0)") - total * total).cast("double")
    return F.when(F.col(c.N_GAPS) >= 2, F.sqrt(variance) / F.col(c.N_GAPS) / _UNIT)
