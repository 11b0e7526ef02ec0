"""What users did, and what was done with items: counts and means over training events."""

from __future__ import annotations

import datetime as dt

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.evaluation.splits import utc

_SECONDS_A_DAY = 86_400.0


def of_users(events: DataFrame) -> DataFrame:
    """One row a user: gold.users' numbers, first_seen and last_seen."""
    spent = F.col(c.PRICE) * F.coalesce(c.VALUE, F.lit(1.0))
    newest = F.when(F.col(c.COUNTRY).isNotNull(), F.struct(c.EVENT_TIME, c.LINE, c.EVENT_ID))
    return events.groupBy(c.USER_ID).agg(
        *_counts(),
        F.count_distinct(c.ITEM_ID).alias(c.N_ITEMS),
        F.max_by(c.COUNTRY, newest).alias(c.COUNTRY),
        _mean(F.col(c.PRICE)).alias(c.MEAN_PRICE),
        F.coalesce(_exact_sum(F.when(_is(c.PURCHASE), spent)).cast("double"), F.lit(0.0)).alias(c.SPEND),
    )


def of_items(events: DataFrame) -> DataFrame:
    """One row an item: gold.items' numbers, first_seen, last_seen, and ``median_price`` of the events that have one."""
    return events.groupBy(c.ITEM_ID).agg(
        *_counts(), F.count_distinct(c.USER_ID).alias(c.N_USERS), F.median(c.PRICE).alias("median_price")
    )


def user_profiles(activity: DataFrame, vocabulary: DataFrame, as_of: dt.datetime) -> DataFrame:
    """Rows of gold.users: the users who have training events."""
    indices = vocabulary.select(c.USER_ID, c.USER_INDEX)
    profiles = activity.join(indices, c.USER_ID).withColumns(
        {
            c.AS_OF: utc(as_of),
            c.RECENCY_DAYS: days_before(as_of, F.col(c.LAST_SEEN)),
            c.TENURE_DAYS: days_before(as_of, F.col(c.FIRST_SEEN)),
        }
    )
    return profiles.select(*schemas.GOLD_USERS.column_names)


def days_before(as_of: dt.datetime, time: Column) -> Column:
    """Days, with fractions, from ``time`` to ``as_of``."""
    return (F.unix_micros(utc(as_of)) - F.unix_micros(time)) / (1e6 * _SECONDS_A_DAY)


def _counts() -> list[Column]:
    return [
        F.count("*").alias(c.N_EVENTS),
        F.count_if(_is(c.VIEW, c.CLICK)).alias(c.N_VIEWS),
        F.count_if(_is(c.CART)).alias(c.N_CARTS),
        F.count_if(_is(c.PURCHASE)).alias(c.N_PURCHASES),
        F.count_if(_is(c.RATING, c.REVIEW)).alias(c.N_RATINGS),
        _mean(F.when(_is(c.RATING, c.REVIEW), F.col(c.VALUE))).alias(c.MEAN_RATING),
        F.min(c.EVENT_TIME).alias(c.FIRST_SEEN),
        F.max(c.EVENT_TIME).alias(c.LAST_SEEN),
    ]


def _is(*types: str) -> Column:
    return F.col(c.EVENT_TYPE).isin(*types)


def _mean(value: Column) -> Column:
    return _exact_sum(value).cast("double") / F.count(value)


def _exact_sum(value: Column) -> Column:
    """Sums of doubles depend on the order of the rows; a rerun must give the same bits. Six decimals, exactly."""
    return F.sum(value.cast("decimal(28,6)"))
