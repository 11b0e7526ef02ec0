"""User profiles: folds of what each user did by day and by item.

A row of gold.users has what adds up over days, and what follows from it. Nothing in it depends on the time at which it
is read, so users without new events keep their rows; :func:`as_of` adds what does.
"""

from __future__ import annotations

import datetime as dt

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.evaluation.splits import utc
from sparkrec.features import activity, exact
from sparkrec.features.activity import days_before

_DAYS_A_MONTH = 30
_TASTES = {c.BRANDS: c.BRAND_SHARES, c.CATEGORIES: c.CATEGORY_SHARES}


def sums(events: DataFrame) -> DataFrame:
    """One row a user: what adds up over days (:func:`added`). ``events`` lie together by user, so none is shuffled."""
    bought = F.col(c.N_PURCHASES) > 0
    day = F.when(bought, F.col(c.EVENT_DATE))
    weekday = F.weekday(c.EVENT_DATE)
    by_day = (
        activity.of_user_days(events)
        .groupBy(c.USER_ID)
        .agg(
            *activity.counts(),
            *[exact.fold(name).alias(name) for name in (c.PAID, c.SPENT)],
            F.sum(c.N_PRICES).alias(c.N_PRICES),
            F.count("*").alias(c.ACTIVE_DAYS),
            F.count(day).alias(c.PURCHASE_DAYS),
            F.min(day).alias(c.FIRST_BOUGHT),
            F.max(day).alias(c.LAST_BOUGHT),
            F.array(*[_total(F.when(weekday == n, F.col(c.N_EVENTS))) for n in range(7)]).alias(c.WEEKDAYS),
        )
    )
    return by_day.join(activity.of_hours(events), c.USER_ID).join(activity.of_countries(events), c.USER_ID, "left")


def added(rows: DataFrame) -> DataFrame:
    """Rows of :func:`sums` of events on different days, by user_index → those of all these events."""
    totals = (c.N_PRICES, c.ACTIVE_DAYS, c.PURCHASE_DAYS)
    newest = F.max(F.struct(c.COUNTRY_SEEN, c.COUNTRY)).alias("_newest")
    found = rows.groupBy(c.USER_INDEX, c.USER_ID).agg(
        *activity.counts(),
        *[exact.fold(name).alias(name) for name in (c.PAID, c.SPENT)],
        *[F.sum(name).alias(name) for name in totals],
        F.min(c.FIRST_BOUGHT).alias(c.FIRST_BOUGHT),
        F.max(c.LAST_BOUGHT).alias(c.LAST_BOUGHT),
        *[
            F.array(*[F.sum(F.col(name)[n]) for n in range(length)]).alias(name)
            for name, length in ((c.WEEKDAYS, 7), (c.HOURS, 24))
        ],
        newest,
    )
    return found.select("*", "_newest.*").drop("_newest")


def as_of(users: DataFrame, moment: dt.datetime) -> DataFrame:
    """gold.users with what depends on a moment, which is later than all their events: the split's, say.

    ``as_of``; ``recency_days`` and ``tenure_days``, the days from the last and the first event until then;
    ``frequency``, the active days / the calendar days from the first event until then; ``purchase_rate``, the days with
    a purchase, per 30 of those.
    """
    # The calendar days from the first event to the last moment before as_of.
    days = F.datediff(utc(moment - dt.timedelta(microseconds=1)), c.FIRST_SEEN) + 1
    return users.withColumns(
        {
            c.AS_OF: utc(moment),
            c.RECENCY_DAYS: days_before(moment, F.col(c.LAST_SEEN)),
            c.TENURE_DAYS: days_before(moment, F.col(c.FIRST_SEEN)),
            c.FREQUENCY: F.col(c.ACTIVE_DAYS) / days,
            c.PURCHASE_RATE: _DAYS_A_MONTH * F.col(c.PURCHASE_DAYS) / days,
        }
    )


def of_pairs(pairs: DataFrame) -> DataFrame:
    """One row a user: the profile's columns that items tell. ``pairs`` know their item's price percentile."""
    bought = F.count(c.FIRST_BOUGHT)
    again = F.count_if(F.col(c.LAST_BOUGHT).cast("date") > F.col(c.FIRST_BOUGHT).cast("date"))
    level = F.col(c.PRICE_PERCENTILE)
    priced = F.sum(F.when(level.isNotNull(), F.col(c.N_EVENTS)))
    totals = pairs.groupBy(c.USER_INDEX).agg(
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
    met = pairs.select(c.USER_INDEX, c.N_EVENTS, F.inline(kinds)).where(F.col("_code").isNotNull())
    totals = met.groupBy(c.USER_INDEX, "_kind", "_code").agg(F.sum(c.N_EVENTS).alias("_n"))
    best: list[Column] = []
    for kind in codes:
        own = F.when(F.col("_kind") == kind, F.struct((-F.col("_n")).alias("_n"), "_code"))
        best += [
            F.slice(F.sort_array(F.collect_list(own)), 1, most).alias(f"_{kind}"),
            F.sum(F.when(F.col("_kind") == kind, F.col("_n"))).alias(f"_n_{kind}"),
        ]
    lists = totals.groupBy(c.USER_INDEX).agg(*best)

    def shares(kind: str) -> Column:
        return F.transform(f"_{kind}", lambda entry: (-entry["_n"] / F.col(f"_n_{kind}")).cast("float"))

    columns = [F.col(f"_{kind}._code").alias(kind) for kind in _TASTES]
    return lists.select(c.USER_INDEX, *columns, *[shares(kind).alias(name) for kind, name in _TASTES.items()])


def rows(own: DataFrame, pairs: DataFrame, items: DataFrame, most: int) -> DataFrame:
    """Rows of gold.users, without their block.

    ``own`` is :func:`sums` with the users' indices, ``pairs`` theirs of gold.pairs, ``items`` gold.items, and ``most``
    the brands and categories of a taste.
    """
    met = pairs.join(facts(items), c.ITEM_ID)
    joined = own.join(of_pairs(met), c.USER_INDEX).join(tastes(met, most), c.USER_INDEX, "left")
    nothing = dict.fromkeys(_TASTES, "array<int>") | dict.fromkeys(_TASTES.values(), "array<float>")
    spend = F.coalesce(exact.total(c.SPENT), F.lit(0.0))
    return joined.withColumns(
        {
            c.MEAN_RATING: exact.total(c.STARS) / F.col(c.N_STARS),
            c.MEAN_PRICE: exact.total(c.PAID) / F.col(c.N_PRICES),
            c.SPEND: spend,
            c.MEAN_ORDER: spend / F.col(c.PURCHASE_DAYS),
            # n days with a purchase have n − 1 gaps between them
            c.PURCHASE_GAP_DAYS: F.datediff(c.LAST_BOUGHT, c.FIRST_BOUGHT) / (F.col(c.PURCHASE_DAYS) - 1),
            **{name: F.coalesce(name, F.array().cast(kind)) for name, kind in nothing.items()},
        }
    ).drop(*activity.FUNNEL)


def facts(items: DataFrame) -> DataFrame:
    """What of gold.items a profile depends on."""
    return items.select(c.ITEM_ID, c.BRAND_CODE, c.CATEGORY_CODES, c.PRICE_PERCENTILE)


def _total(value: Column) -> Column:
    return F.coalesce(F.sum(value), F.lit(0))
