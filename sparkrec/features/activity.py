"""What each user did on each day, and with each item, and what was done with each item on each day: counts and exact
sums, of which all profiles are folds.

They add up: the rows of two disjoint sets of events, added (or the smaller or larger taken), are the rows of their
union. So a fold does not depend on the order in which events came, nor on how many increments brought them.
"""

from __future__ import annotations

import datetime as dt

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.evaluation.splits import utc
from sparkrec.features import exact

_SECONDS_A_DAY = 86_400.0
# A decayed weight is counted in whole numbers of 2⁻²⁰: such sums are the same in any order.
_UNIT = 1 << 20
COUNTS = (c.N_EVENTS, c.N_VIEWS, c.N_CARTS, c.N_PURCHASES, c.N_RATINGS)


def of_user_days(events: DataFrame) -> DataFrame:
    """One row a user and day (UTC): counts by type, sums of prices, spend and stars."""
    spent = F.col(c.PRICE) * F.coalesce(c.VALUE, F.lit(1.0))
    return events.groupBy(c.USER_ID, F.col(c.EVENT_TIME).cast("date").alias(c.EVENT_DATE)).agg(
        *_of_types(),
        exact.sum_of(F.col(c.PRICE)).alias(c.PAID),
        F.count(c.PRICE).alias(c.N_PRICES),
        exact.sum_of(F.when(_is(c.PURCHASE), spent)).alias(c.SPENT),
    )


def of_pairs(events: DataFrame) -> DataFrame:
    """One row a user and item: counts by type, stars, first and last time seen and bought, and which types it was."""
    bought = F.when(_is(c.PURCHASE), F.col(c.EVENT_TIME))
    return events.groupBy(c.USER_ID, c.ITEM_ID).agg(
        *_of_types(),
        F.min(bought).alias(c.FIRST_BOUGHT),
        F.max(bought).alias(c.LAST_BOUGHT),
        F.bit_or(F.coalesce(*[F.when(_is(name), bit(name)) for name in c.EVENT_TYPES])).alias(c.TYPES),
    )


def added_pairs(pairs: DataFrame) -> DataFrame:
    """Rows of :func:`of_pairs` of disjoint sets of events, by user_index → those of their union."""
    return pairs.groupBy(c.USER_INDEX, c.ITEM_ID).agg(
        *counts(),
        F.min(c.FIRST_BOUGHT).alias(c.FIRST_BOUGHT),
        F.max(c.LAST_BOUGHT).alias(c.LAST_BOUGHT),
        F.bit_or(c.TYPES).alias(c.TYPES),
    )


def of_hours(events: DataFrame) -> DataFrame:
    """One row a user: ``hours``, the events from 0, …, 23 o'clock. Not by day first: that would be 24 counts a day."""
    hour = F.hour(c.EVENT_TIME)
    return events.groupBy(c.USER_ID).agg(F.array(*[F.count_if(hour == n) for n in range(24)]).alias(c.HOURS))


def of_countries(events: DataFrame) -> DataFrame:
    """One row a user: the country of the newest event that has one (ties: the last in the alphabet), and its time.

    Apart from the days, and by country first: Spark sorts all rows for an aggregate whose buffer holds a text.
    """
    known = events.where(F.col(c.COUNTRY).isNotNull())
    last = known.groupBy(c.USER_ID, c.COUNTRY).agg(F.max(c.EVENT_TIME).alias(c.LAST_SEEN))
    newest = F.max(F.struct(F.col(c.LAST_SEEN).alias(c.COUNTRY_SEEN), c.COUNTRY)).alias("_newest")
    return last.groupBy(c.USER_ID).agg(newest).select(c.USER_ID, "_newest.*")


def of_items(pairs: DataFrame) -> DataFrame:
    """One row an item: :func:`counts`, its users and those who viewed, carted and bought it."""
    return pairs.groupBy(c.ITEM_ID).agg(*counts(), F.count("*").alias(c.N_USERS), *funnel())


def of_item_days(events: DataFrame, as_of: dt.datetime) -> DataFrame:
    """Rows of gold.item_days: events of an item by day and price.

    A day is one of those that end at the hour of ``as_of``, and holds that moment itself.
    """
    day = F.date_sub(utc(as_of).cast("date"), F.floor(days_before(as_of, F.col(c.EVENT_TIME))).cast("int"))
    return events.groupBy(c.ITEM_ID, day.alias(c.EVENT_DATE), c.PRICE).agg(F.count("*").alias(c.COUNT))


def added_item_days(came: DataFrame, gone: DataFrame | None) -> DataFrame:
    """Rows of :func:`of_item_days` of events that came, less those of events that are ``gone``, if any are."""
    rows = came if gone is None else came.unionByName(gone.withColumn(c.COUNT, -F.col(c.COUNT)))
    total = rows.groupBy(c.ITEM_ID, c.EVENT_DATE, c.PRICE).agg(F.sum(c.COUNT).alias(c.COUNT))
    return total.where(F.col(c.COUNT) != 0)


def over_time(item_days: DataFrame, as_of: dt.datetime, half_life_days: float) -> DataFrame:
    """One row an item: ``popularity`` and ``median_price`` (of the events that have a price) from gold.item_days.

    An event that is t whole days older than ``as_of`` weighs 2^(−t / half-life).
    """
    age = F.datediff(utc(as_of), c.EVENT_DATE)
    weight = F.round(F.pow(F.lit(2.0), -age / F.lit(half_life_days)) * _UNIT).cast("bigint")
    return item_days.groupBy(c.ITEM_ID).agg(
        (F.sum(weight * F.col(c.COUNT)) / F.lit(float(_UNIT))).alias(c.POPULARITY),
        F.percentile(c.PRICE, 0.5, F.col(c.COUNT)).alias(MEDIAN_PRICE),
    )


def bit(event_type: str) -> int:
    """Of ``types``: what says that an event of the type was there."""
    return 1 << c.EVENT_TYPES.index(event_type)


def counts() -> list[Column]:
    """The fold of counts, stars and times over days or pairs, with stars and their number still apart."""
    return [
        *[F.sum(name).alias(name) for name in (*COUNTS, c.N_STARS)],
        exact.fold(c.STARS).alias(c.STARS),
        F.min(c.FIRST_SEEN).alias(c.FIRST_SEEN),
        F.max(c.LAST_SEEN).alias(c.LAST_SEEN),
    ]


def funnel() -> list[Column]:
    """How many pairs went how far: viewed, viewed and carted, carted, carted and bought, viewed and bought."""
    viewed, carted, bought = (F.col(name) > 0 for name in (c.N_VIEWS, c.N_CARTS, c.N_PURCHASES))
    steps = (viewed, viewed & carted, carted, carted & bought, viewed & bought)
    return [F.count_if(step).alias(name) for name, step in zip(FUNNEL, steps, strict=True)]


MEDIAN_PRICE = "median_price"
VIEWED, VIEWED_CARTED, CARTED, CARTED_BOUGHT, VIEWED_BOUGHT = FUNNEL = (
    "_viewed", "_viewed_carted", "_carted", "_carted_bought", "_viewed_bought",
)  # fmt: skip
#: Ratio → (how many went on, of how many).
RATIOS = {
    c.VIEW_TO_CART: (VIEWED_CARTED, VIEWED),
    c.CART_TO_PURCHASE: (CARTED_BOUGHT, CARTED),
    c.VIEW_TO_PURCHASE: (VIEWED_BOUGHT, VIEWED),
}


def days_before(as_of: dt.datetime, time: Column) -> Column:
    """Days, with fractions, from ``time`` to ``as_of``."""
    return (F.unix_micros(utc(as_of)) - F.unix_micros(time)) / (1e6 * _SECONDS_A_DAY)


def _of_types() -> list[Column]:
    stars = F.when(_is(c.RATING, c.REVIEW), F.col(c.VALUE))
    return [
        F.count("*").alias(c.N_EVENTS),
        F.count_if(_is(c.VIEW, c.CLICK)).alias(c.N_VIEWS),
        F.count_if(_is(c.CART)).alias(c.N_CARTS),
        F.count_if(_is(c.PURCHASE)).alias(c.N_PURCHASES),
        F.count_if(_is(c.RATING, c.REVIEW)).alias(c.N_RATINGS),
        exact.sum_of(stars).alias(c.STARS),
        F.count(stars).alias(c.N_STARS),
        F.min(c.EVENT_TIME).alias(c.FIRST_SEEN),
        F.max(c.EVENT_TIME).alias(c.LAST_SEEN),
    ]


def _is(*types: str) -> Column:
    return F.col(c.EVENT_TYPE).isin(*types)
