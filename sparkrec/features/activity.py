"""What each user did on each day, and with each item: counts and exact sums, of which all profiles are folds.

Both tables add up: the rows of two disjoint sets of events, added (or the smaller or larger taken), are the rows of
their union. So a fold does not depend on the order in which events came.
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

STARS, N_STARS = "_stars", "_n_stars"
PAID, N_PRICES, SPENT = "_paid", "_n_prices", "_spent"
WEIGHT = "_weight"
FIRST_BOUGHT, LAST_BOUGHT = "_first_bought", "_last_bought"
COUNTS = (c.N_EVENTS, c.N_VIEWS, c.N_CARTS, c.N_PURCHASES, c.N_RATINGS)


def of_user_days(events: DataFrame) -> DataFrame:
    """One row a user and day (UTC): counts by type, sums of prices, spend and stars."""
    spent = F.col(c.PRICE) * F.coalesce(c.VALUE, F.lit(1.0))
    return events.groupBy(c.USER_ID, F.col(c.EVENT_TIME).cast("date").alias(c.EVENT_DATE)).agg(
        *_of_types(),
        exact.sum_of(F.col(c.PRICE)).alias(PAID),
        F.count(c.PRICE).alias(N_PRICES),
        exact.sum_of(F.when(_is(c.PURCHASE), spent)).alias(SPENT),
    )


def of_pairs(events: DataFrame, as_of: dt.datetime, half_life_days: float) -> DataFrame:
    """One row a user and item: counts by type, stars, first and last time bought, and the decayed weight.

    An event that is t whole days older than ``as_of`` weighs 2^(−t / half-life).
    """
    bought = F.when(_is(c.PURCHASE), F.col(c.EVENT_TIME))
    weight = F.pow(F.lit(2.0), -F.floor(days_before(as_of, F.col(c.EVENT_TIME))) / F.lit(half_life_days))
    return events.groupBy(c.USER_ID, c.ITEM_ID).agg(
        *_of_types(),
        F.min(bought).alias(FIRST_BOUGHT),
        F.max(bought).alias(LAST_BOUGHT),
        F.sum(F.round(weight * _UNIT).cast("bigint")).alias(WEIGHT),
    )


def of_hours(events: DataFrame) -> DataFrame:
    """One row a user: ``hours``, the events from 0, …, 23 o'clock. Not by day first: that would be 24 counts a day."""
    hour = F.hour(c.EVENT_TIME)
    return events.groupBy(c.USER_ID).agg(F.array(*[F.count_if(hour == n) for n in range(24)]).alias(c.HOURS))


def of_countries(events: DataFrame) -> DataFrame:
    """One row a user: the country of the newest event that has one (ties: the last in the alphabet).

    Apart from the days, and by country first: Spark sorts all rows for an aggregate whose buffer holds a text.
    """
    known = events.where(F.col(c.COUNTRY).isNotNull())
    last = known.groupBy(c.USER_ID, c.COUNTRY).agg(F.max(c.EVENT_TIME).alias(c.LAST_SEEN))
    newest = F.max(F.struct(c.LAST_SEEN, c.COUNTRY)).getField(c.COUNTRY)
    return last.groupBy(c.USER_ID).agg(newest.alias(c.COUNTRY))


def of_items(pairs: DataFrame) -> DataFrame:
    """One row an item: :func:`counts`, its users and those who viewed, carted and bought it, and its popularity."""
    return pairs.groupBy(c.ITEM_ID).agg(
        *counts(),
        F.count("*").alias(c.N_USERS),
        *funnel(),
        (F.sum(WEIGHT) / F.lit(float(_UNIT))).alias(c.POPULARITY),
    )


def median_prices(events: DataFrame, priced: DataFrame) -> DataFrame:
    """item_id and ``median_price`` of the events of each item that has any and is not among the ``priced`` ones.

    Counted by distinct price first: the shuffle carries those, and not the events.
    """
    prices = events.where(F.col(c.PRICE).isNotNull()).groupBy(c.ITEM_ID, c.PRICE).count()
    wanted = prices.join(priced.select(c.ITEM_ID), c.ITEM_ID, "left_anti")
    return wanted.groupBy(c.ITEM_ID).agg(F.percentile(c.PRICE, 0.5, F.col("count")).alias("median_price"))


def counts() -> list[Column]:
    """The fold of counts, stars and times over days or pairs, with :data:`STARS` and :data:`N_STARS` still apart."""
    return [
        *[F.sum(name).alias(name) for name in (*COUNTS, N_STARS)],
        exact.fold(STARS).alias(STARS),
        F.min(c.FIRST_SEEN).alias(c.FIRST_SEEN),
        F.max(c.LAST_SEEN).alias(c.LAST_SEEN),
    ]


def funnel() -> list[Column]:
    """How many pairs went how far: viewed, viewed and carted, carted, carted and bought, viewed and bought."""
    viewed, carted, bought = (F.col(name) > 0 for name in (c.N_VIEWS, c.N_CARTS, c.N_PURCHASES))
    steps = (viewed, viewed & carted, carted, carted & bought, viewed & bought)
    return [F.count_if(step).alias(name) for name, step in zip(FUNNEL, steps, strict=True)]


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
        exact.sum_of(stars).alias(STARS),
        F.count(stars).alias(N_STARS),
        F.min(c.EVENT_TIME).alias(c.FIRST_SEEN),
        F.max(c.EVENT_TIME).alias(c.LAST_SEEN),
    ]


def _is(*types: str) -> Column:
    return F.col(c.EVENT_TYPE).isin(*types)
