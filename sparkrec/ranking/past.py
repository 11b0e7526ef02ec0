"""Gold as it was before the validation events: what rules, promotions and segments ask of users and items.

Made from silver by the code of featurize. Asked of today, it would tell the ranker who came to buy and what sold. Only
what bears no time is of today: the lists of ``recommend.lists``, the features of items and, under splits other than by
time, where the past is no moment, the catalogue.
"""

from __future__ import annotations

import datetime as dt
from functools import cached_property
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import Settings
from sparkrec.errors import DataError
from sparkrec.evaluation import splits
from sparkrec.evaluation.splits import Borders, utc
from sparkrec.features import activity, increments, items, prices, selection, state, users
from sparkrec.persistence import persisted
from sparkrec.retrieval import rules

if TYPE_CHECKING:
    from sparkrec.pipeline import Run

_EVENT = (c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIME, c.VALUE, c.PRICE, c.COUNTRY)


def as_of(run: Run) -> float:
    """The time of gold, in unix seconds.

    Raises
    ------
    DataError
        gold.items is empty.
    """
    moment = rules.as_of(run.read(schemas.GOLD_ITEMS))
    if moment is None:
        raise DataError("gold.items is empty: there is nothing to rank. Run featurize on a log that has items.")
    return moment


def of_today(settings: Settings) -> list[str]:
    """What the past is not known of and today's stands for, in words, for the run record."""
    found = [f"the list '{given.name}' of recommend.lists" for given in settings.recommend.lists]
    if settings.split.kind != "time":
        found.append("the catalogue (for sale, stock, price)")
    return found


class Past:
    """The past of a run. Each part is made when it is first asked for.

    ``some`` (user_index): the users whose profiles are wanted.
    """

    def __init__(self, run: Run, some: DataFrame) -> None:
        self._run, self._some = run, some

    @cached_property
    def at(self) -> Borders:
        """The split of gold: the past ends at its ``validation``."""
        split = self._run.settings.split
        days = split.gap_days + split.test_days if split.kind == "time" else 0
        now = dt.datetime.fromtimestamp(as_of(self._run), dt.UTC).replace(tzinfo=None)
        return splits.borders(split, now + dt.timedelta(days=days))

    @property
    def moment(self) -> float:
        """Unix seconds."""
        return self.at.validation.replace(tzinfo=dt.UTC).timestamp()

    @cached_property
    def shelf(self) -> DataFrame:
        """Of :attr:`items` what recommendation asks for.

        Without rules and reranking that is what is for sale, and its stock. The catalogue says it, and of an item that
        it does not know gold.sequences, whether it had been met: silver's events are not read for that.
        """
        run, settings = self._run, self._run.settings.recommend
        if settings.rules or rules.needs_traits(settings):
            return self.items
        event = F.explode(F.arrays_zip(c.ITEM_INDEX, c.VALIDATION)).alias("event")
        events = run.read(schemas.GOLD_SEQUENCES).select(event).select("event.*").where(~F.col(c.VALIDATION))
        met = events.select(c.ITEM_INDEX).distinct().withColumn("_met", F.lit(True))
        goods = items.as_of(run.read(schemas.SILVER_ITEMS), self.at.validation).select(c.ITEM_ID, c.FOR_SALE, c.STOCK)
        known = run.read(schemas.VOCABULARY_ITEMS).join(goods, c.ITEM_ID, "left").join(met, c.ITEM_INDEX, "left")
        for_sale = F.coalesce(c.FOR_SALE, "_met", F.lit(False))
        return persisted(known.select(c.ITEM_INDEX, c.ITEM_ID, for_sale.alias(c.FOR_SALE), c.STOCK))

    @property
    def profiles(self) -> DataFrame | None:
        """:attr:`users`, where a rule asks for them."""
        return self.users if any(rule.concerns_some for rule in self._run.settings.recommend.rules) else None

    @cached_property
    def items(self) -> DataFrame:
        """Rows of gold.items, with the features of today. An item that came later is not for sale."""
        settings, moment = self._run.settings.features, self.at.validation
        days = activity.of_item_days(self._events, moment)
        over_time = activity.over_time(days, moment, settings.half_life_days)
        goods = items.as_of(self._run.read(schemas.SILVER_ITEMS), moment)
        by_item = activity.of_items(activity.of_pairs(self._events))
        members = persisted(items.members(by_item, over_time, goods))
        everything = items.overall(members)
        told = (c.ITEM_ID, c.FEATURES, c.CONTENT, c.BRAND_CODE, c.CATEGORY_CODES)
        lists = self._run.read(schemas.GOLD_ITEMS).select(*told)
        ids = self._run.read(schemas.VOCABULARY_ITEMS).select(c.ITEM_ID, c.ITEM_INDEX)
        ids = ids.join(members.select(c.ITEM_ID, c.FIRST_SEEN), c.ITEM_ID, "left")
        bucketed = prices.with_bucket(members, everything.prices)
        return persisted(items.rows(bucketed, lists, ids, everything, settings, moment))

    @cached_property
    def users(self) -> DataFrame:
        """Rows of gold.users, of those of the users who had any training event."""
        settings = self._run.settings.features
        index = self._users.join(F.broadcast(self._some.select(c.USER_INDEX)), c.USER_INDEX, "left_semi")
        own = self._events.join(F.broadcast(index.select(c.USER_ID)), c.USER_ID, "left_semi")
        pairs = activity.of_pairs(own).join(index, c.USER_ID).drop(c.USER_ID)
        rows = users.rows(users.sums(own).join(index, c.USER_ID), pairs, self.items, settings.tastes)
        block = increments.block(settings.block_users)
        return rows.withColumn(c.USER_BLOCK, block).select(*schemas.GOLD_USERS.column_names)

    @cached_property
    def countries(self) -> DataFrame:
        """user_index and country of everyone; null where none was known."""
        found = self._users.join(activity.of_countries(self._events), c.USER_ID, "left")
        return persisted(found.select(c.USER_INDEX, c.COUNTRY))

    @cached_property
    def _users(self) -> DataFrame:
        return self._run.read(schemas.VOCABULARY_USERS).select(c.USER_ID, c.USER_INDEX)

    @cached_property
    def _events(self) -> DataFrame:
        """The training events that are not held out for validation, by user."""
        run, settings = self._run, self._run.settings
        seen = state.known(run, self.at)
        events = seen.events.where(F.col(c.EVENT_TIME) < utc(self.at.as_of)).withColumn(selection.AGAIN, F.lit(False))
        kept = selection.without_rare(seen.parted(events, settings), settings.features)
        return persisted(kept.where(F.col(splits.PART) == splits.TRAIN).select(*_EVENT))
