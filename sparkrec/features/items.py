"""Items as of the split: what the catalogue said then, what had been done with them, and their features."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import Features
from sparkrec.evaluation.splits import utc
from sparkrec.features import activity, exact, prices
from sparkrec.features.activity import days_before

_STATE = (c.NAME, c.BRAND, c.CATEGORY, c.PRICE, c.PROMOTION, c.STOCK, c.TEXT, c.FOR_SALE, c.ATTRIBUTES)
_NUMBERS = (*activity.COUNTS, c.N_USERS, c.POPULARITY, c.N_STARS, *activity.FUNNEL)


@dataclass(frozen=True)
class Overall:
    """What is true of all items together: one row, brought to the driver.

    ``ratios`` are the shares of users who went on, over all items; ``mean_rating`` is of all stars. None: there are
    none.
    """

    items: int
    prices: prices.Borders
    ratios: dict[str, float | None]
    mean_rating: float | None

    @property
    def prices_filled(self) -> int:
        """Items whose price is their category's median, or that of all."""
        return self.items - self.prices.priced if self.prices.priced else 0


def as_of(items: DataFrame, moment: dt.datetime) -> DataFrame:
    """Each item's row of silver.items that holds at ``moment``; items that begin later are not there."""
    known = items.where(F.col(c.VALID_FROM) <= utc(moment))
    latest = known.groupBy(c.ITEM_ID).agg(F.max_by(F.struct(*_STATE), c.VALID_FROM).alias("_state"))
    return latest.select(c.ITEM_ID, "_state.*")


def members(by_item: DataFrame, over_time: DataFrame, state: DataFrame) -> DataFrame:
    """The items that models know: with training events, or for sale without any (new items).

    ``by_item`` and ``over_time`` are what :mod:`~sparkrec.features.activity` makes of gold.pairs and gold.item_days.
    One row an item: numbers, catalogue columns, ``count``, and ``price`` with its source, which is the catalogue's or
    else the median of the item's training events.
    """
    joined = by_item.join(state, c.ITEM_ID, "full").where(F.col(c.N_EVENTS).isNotNull() | F.col(c.FOR_SALE))
    found = joined.join(over_time, c.ITEM_ID, "left").withColumns(
        {
            **{name: F.coalesce(name, F.lit(0)) for name in _NUMBERS},
            # The log knows an item that the catalogue does not: it was sold, so it may be recommended.
            c.FOR_SALE: F.coalesce(c.FOR_SALE, F.lit(True)),
            c.COUNT: F.coalesce(c.N_EVENTS, F.lit(0)),
        }
    )
    return prices.known(found)


def overall(members: DataFrame) -> Overall:
    """One pass over the members."""
    sums = [F.sum(name).alias(name) for name in (c.N_STARS, *activity.FUNNEL)]
    stars = exact.total(exact.fold(c.STARS)).alias(c.STARS)
    row = members.agg(F.count("*").alias("items"), stars, *sums, *prices.borders()).first()
    assert row is not None
    ratios = {name: row[some] / row[of] if row[of] else None for name, (some, of) in activity.RATIOS.items()}
    rating = row[c.STARS] / row[c.N_STARS] if row[c.N_STARS] else None
    return Overall(row["items"], prices.Borders.of(row), ratios, rating)


def rows(
    members: DataFrame, lists: DataFrame, vocabulary: DataFrame, all_items: Overall, settings: Features, at: dt.datetime
) -> DataFrame:
    """Rows of gold.items: every item of the vocabulary.

    ``members`` have their price bucket, and ``lists`` has item_id, features, brand_code and category_codes. Items that
    left keep their row, with nothing in it, and are not for sale.
    """
    known = prices.filled(members, all_items.prices).drop(c.COUNT, c.FIRST_SEEN, c.LAST_SEEN)
    stars, n_stars = exact.total(c.STARS), F.col(c.N_STARS)
    known = known.withColumns(
        {
            c.MEAN_RATING: stars / n_stars,
            c.BAYES_RATING: smoothed(stars, n_stars, all_items.mean_rating, settings.rating_prior),
            **{
                name: smoothed(F.col(some), F.col(of), all_items.ratios[name], settings.conversion_prior)
                for name, (some, of) in activity.RATIOS.items()
            },
        }
    )
    joined = vocabulary.join(known, c.ITEM_ID, "left").join(lists, c.ITEM_ID, "left")
    counts = (*activity.COUNTS, c.N_USERS)
    complete = joined.withColumns(
        {
            **{name: F.coalesce(name, F.lit(0)) for name in counts},
            **{name: F.coalesce(name, F.array().cast("array<int>")) for name in (c.FEATURES, c.CATEGORY_CODES)},
            c.AS_OF: utc(at),
            c.FOR_SALE: F.coalesce(c.FOR_SALE, F.lit(False)),
            c.AGE_DAYS: days_before(at, F.col(c.FIRST_SEEN)),
        }
    )
    return complete.select(*schemas.GOLD_ITEMS.column_names)


def smoothed(total: Column, number: Column, of_all: float | None, prior: float) -> Column:
    """(total + prior × mean of all) / (number + prior): the mean as if ``prior`` more had been like all.

    The mean of a Beta (ratios) or normal (stars) posterior whose prior has that mean and that weight: Gelman et al.,
    Bayesian Data Analysis, chapter 2; for stars also the weighted rating of IMDb's Top 250. Null where nothing is known
    of any item, or ``number`` and ``prior`` are 0.
    """
    if of_all is None:
        return F.lit(None).cast("double")
    return (F.coalesce(total.cast("double"), F.lit(0.0)) + prior * of_all) / (number + F.lit(prior))
