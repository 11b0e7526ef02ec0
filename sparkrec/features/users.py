"""User profiles as of the split: folds of what each user did by day and by item."""

from __future__ import annotations

import datetime as dt

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.evaluation.splits import utc
from sparkrec.features import activity, exact
from sparkrec.features.activity import days_before

_DAYS_A_MONTH = 30
_TASTES = {c.BRANDS: c.BRAND_SHARES, c.CATEGORIES: c.CATEGORY_SHARES}


def of_days(user_days: DataFrame) -> DataFrame:
    """One row a user: the profile's columns that days tell, and first_seen and last_seen."""
    bought = F.col(c.N_PURCHASES) > 0
    day = F.when(bought, F.col(c.EVENT_DATE))
    weekday = F.weekday(c.EVENT_DATE)
    totals = user_days.groupBy(c.USER_ID).agg(
        *activity.counts(),
        *[exact.fold(name).alias(name) for name in (activity.PAID, activity.SPENT)],
        F.sum(activity.N_PRICES).alias(activity.N_PRICES),
        F.count("*").alias(c.ACTIVE_DAYS),
        F.count(day).alias(c.PURCHASE_DAYS),
        F.datediff(F.max(day), F.min(day)).alias("_span"),
        F.array(*[_total(F.when(weekday == n, F.col(c.N_EVENTS))) for n in range(7)]).alias(c.WEEKDAYS),
    )
    spend = F.coalesce(exact.total(activity.SPENT), F.lit(0.0))
    return totals.withColumns(
        {
            c.MEAN_RATING: exact.total(activity.STARS) / F.col(activity.N_STARS),
            c.MEAN_PRICE: exact.total(activity.PAID) / F.col(activity.N_PRICES),
            c.SPEND: spend,
            c.MEAN_ORDER: spend / F.col(c.PURCHASE_DAYS),
            # n days with a purchase have n − 1 gaps between them
            c.PURCHASE_GAP_DAYS: F.col("_span") / (F.col(c.PURCHASE_DAYS) - 1),
        }
    )


def of_pairs(pairs: DataFrame) -> DataFrame:
    """One row a user: the profile's columns that items tell. ``pairs`` know their item's price percentile."""
    bought = F.count(activity.FIRST_BOUGHT)
    again = F.count_if(F.col(activity.LAST_BOUGHT).cast("date") > F.col(activity.FIRST_BOUGHT).cast("date"))
    level = F.col(c.PRICE_PERCENTILE)
    priced = F.sum(F.when(level.isNotNull(), F.col(c.N_EVENTS)))
    totals = pairs.groupBy(c.USER_ID).agg(
        F.count("*").alias(c.N_ITEMS),
        (again / bought).alias(c.REPEAT_RATE),
        (exact.total(exact.sum_of(level * F.col(c.N_EVENTS))) / priced).alias(c.PRICE_LEVEL),
        *activity.funnel(),
    )
    return totals.withColumns({name: F.col(some) / F.col(of) for name, (some, of) in activity.RATIOS.items()})


def tastes(pairs: DataFrame, most: int) -> DataFrame:
    """One row a user: the ``most`` brands and categories of most events (ties: the lower code), with their shares.

    ``pairs`` know their item's brand_code and category_codes; of the path the whole counts, its last code. A share is
    of all the user's events on items with a brand (a category), also of those whose brand is not among the most.
    """
    codes = {c.BRANDS: F.col(c.BRAND_CODE), c.CATEGORIES: F.element_at(c.CATEGORY_CODES, -1)}
    kinds = F.array(*[F.struct(F.lit(kind).alias("_kind"), code.alias("_code")) for kind, code in codes.items()])
    met = pairs.select(c.USER_ID, c.N_EVENTS, F.inline(kinds)).where(F.col("_code").isNotNull())
    totals = met.groupBy(c.USER_ID, "_kind", "_code").agg(F.sum(c.N_EVENTS).alias("_n"))
    best: list[Column] = []
    for kind in codes:
        own = F.when(F.col("_kind") == kind, F.struct((-F.col("_n")).alias("_n"), "_code"))
        best += [
            F.slice(F.sort_array(F.collect_list(own)), 1, most).alias(f"_{kind}"),
            F.sum(F.when(F.col("_kind") == kind, F.col("_n"))).alias(f"_n_{kind}"),
        ]
    lists = totals.groupBy(c.USER_ID).agg(*best)

    def shares(kind: str) -> Column:
        return F.transform(f"_{kind}", lambda entry: (-entry["_n"] / F.col(f"_n_{kind}")).cast("float"))

    columns = [F.col(f"_{kind}._code").alias(kind) for kind in _TASTES]
    return lists.select(c.USER_ID, *columns, *[shares(kind).alias(name) for kind, name in _TASTES.items()])


def rows(
    by_day: DataFrame,
    habits: DataFrame,
    pairs: DataFrame,
    items: DataFrame,
    vocabulary: DataFrame,
    as_of: dt.datetime,
    most: int,
) -> DataFrame:
    """Rows of gold.users: the users who have training events.

    ``by_day`` is :func:`of_days`, ``habits`` the users' hours and country, ``items`` gold.items,
    and ``most`` the brands and categories of a taste.
    """
    facts = items.select(c.ITEM_ID, c.BRAND_CODE, c.CATEGORY_CODES, c.PRICE_PERCENTILE)
    met = pairs.join(facts, c.ITEM_ID)
    joined = (
        by_day.join(of_pairs(met), c.USER_ID)
        .join(habits, c.USER_ID)
        .join(tastes(met, most), c.USER_ID, "left")
        .join(vocabulary.select(c.USER_ID, c.USER_INDEX), c.USER_ID)
    )
    # The calendar days from the first event to the last moment before as_of.
    days = F.datediff(utc(as_of - dt.timedelta(microseconds=1)), c.FIRST_SEEN) + 1
    nothing = dict.fromkeys(_TASTES, "array<int>") | dict.fromkeys(_TASTES.values(), "array<float>")
    complete = joined.withColumns(
        {
            c.AS_OF: utc(as_of),
            c.RECENCY_DAYS: days_before(as_of, F.col(c.LAST_SEEN)),
            c.TENURE_DAYS: days_before(as_of, F.col(c.FIRST_SEEN)),
            c.FREQUENCY: F.col(c.ACTIVE_DAYS) / days,
            c.PURCHASE_RATE: _DAYS_A_MONTH * F.col(c.PURCHASE_DAYS) / days,
            **{name: F.coalesce(name, F.array().cast(kind)) for name, kind in nothing.items()},
        }
    )
    return complete.select(*schemas.GOLD_USERS.column_names)


def _total(value: Column) -> Column:
    return F.coalesce(F.sum(value), F.lit(0))
