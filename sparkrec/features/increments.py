"""Which users' rows of gold change, and how: what was held of them, with what came.

A training event is new to gold when its day has come into the training part since the last run: it is added to what is
held of its user. To a user whose older events have changed nothing can be added: such users are **rewritten** from all
of silver. They are the users

- of events in days of silver that were written since, if the event came, went, or is another;
- of purchases that were taken back between the two splits;
- of whom it is now known that they are bots, or no longer;
- of items that are no goods any more, or are again.

To compute everything is to begin with nothing held. Rows of users are written by blocks, those that hold one whose rows
change; the others of the block are copied. Lists of users are cut off from the plans that found them, which each of
many uses would carry along.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.clean import bots
from sparkrec.evaluation.splits import Borders, utc
from sparkrec.features import activity, selection
from sparkrec.features.selection import View
from sparkrec.features.state import State
from sparkrec.persistence import persisted
from sparkrec.schemas import Table

if TYPE_CHECKING:
    from sparkrec.pipeline import Run

_SIGN = "_sign"


@dataclass(frozen=True)
class Changed:
    """Whose rows change: ``users`` (user_index), and ``rewritten``, those of whom nothing that is held stays valid.

    ``blocks`` hold them all: block → how many. ``users`` None: everybody's; then nothing is held. ``rewritten`` None:
    nobody's.
    """

    users: DataFrame | None
    rewritten: DataFrame | None
    blocks: Mapping[int, int]

    def added(self, held: DataFrame, came: DataFrame, fold: Callable[[DataFrame], DataFrame]) -> DataFrame:
        """Of the changed users: ``fold`` of what is held and stays valid, and of what came."""
        if self.users is None:
            return came
        own = self.own(held)
        if self.rewritten is not None:
            own = own.join(self.rewritten, c.USER_INDEX, "left_anti")
        return fold(own.select(*came.columns).unionByName(came))

    def own(self, rows: DataFrame) -> DataFrame:
        """The changed users' rows of a table with blocks."""
        if self.users is None:
            return rows
        return self._touched(rows).join(self.users, c.USER_INDEX, "left_semi")

    def others(self, held: DataFrame) -> DataFrame:
        """The rows of the same blocks that stay as they are."""
        assert self.users is not None
        return self._touched(held).join(self.users, c.USER_INDEX, "left_anti")

    @property
    def numbers(self) -> dict[str, int]:
        """For the run record."""
        return {"users": sum(self.blocks.values()), "blocks": len(self.blocks)}

    def _touched(self, rows: DataFrame) -> DataFrame:
        return rows.where(F.col(c.USER_BLOCK).isin(*self.blocks))


def rewritten(run: Run, state: State, now: View) -> DataFrame | None:
    """user_id of those whose older events have changed; None: there are none, or everything is computed."""
    if state.at is None:
        return None
    before = state.view(run)
    causes = [
        *_edited(run, state, before, now),
        *_taken_back(state.at, now),
        *_suspected(run, state, before, now),
        *_no_goods(run, state, before, now),
    ]
    if not causes:
        return None
    users = persisted(reduce(DataFrame.unionByName, causes).distinct())
    return None if users.isEmpty() else users


def to_read(state: State, now: View, rewritten: DataFrame | None) -> DataFrame:
    """The events of silver that this run looks at: since the last split's validation, and all of rewritten users.

    The latter have ``again``.
    """
    if state.at is None:
        return now.events.withColumn(selection.AGAIN, F.lit(False))
    recent = _since(state.at.validation)
    if rewritten is None:
        return now.events.where(recent).withColumn(selection.AGAIN, F.lit(False))
    marked = now.events.join(rewritten.withColumn(selection.AGAIN, F.lit(True)), c.USER_ID, "left")
    return marked.withColumn(selection.AGAIN, F.col(selection.AGAIN).isNotNull()).where(recent | F.col(selection.AGAIN))


def came(state: State, training: DataFrame) -> DataFrame:
    """Training events that gold does not hold."""
    if state.at is None:
        return training
    return training.where((F.col(c.EVENT_TIME) >= utc(state.at.as_of)) | F.col(selection.AGAIN))


def gone(run: Run, state: State, rewritten: DataFrame | None) -> DataFrame | None:
    """Training events of rewritten users, as the last run held them."""
    if rewritten is None:
        return None
    before = state.view(run)
    events = before.events.join(rewritten, c.USER_ID, "left_semi").withColumn(selection.AGAIN, F.lit(True))
    return selection.training(before.parted(events, run.settings))


def found_users(run: Run, state: State, came: DataFrame, rewritten: DataFrame | None) -> DataFrame:
    """All users with training events, as a vocabulary wants them; ``came`` are the sums of the events that came."""
    columns = (c.USER_ID, F.col(c.N_EVENTS).alias(c.COUNT), c.FIRST_SEEN, c.LAST_SEEN)
    found = came.select(*columns)
    if state.full:
        return found
    held = state.held(run, schemas.GOLD_USERS).select(*columns)
    if rewritten is not None:
        held = held.join(rewritten, c.USER_ID, "left_anti")
    return (
        found.unionByName(held)
        .groupBy(c.USER_ID)
        .agg(
            F.sum(c.COUNT).alias(c.COUNT),
            F.min(c.FIRST_SEEN).alias(c.FIRST_SEEN),
            F.max(c.LAST_SEEN).alias(c.LAST_SEEN),
        )
    )


def changed(
    run: Run, state: State, training: DataFrame, came: DataFrame, rewritten: DataFrame | None, at: Borders
) -> Changed:
    """The users with events that came, with events that are no validation any more, and the rewritten ones."""
    if state.at is None:
        return Changed(None, None, {})
    time = F.col(c.EVENT_TIME)
    no_validation = training.where((time >= utc(state.at.validation)) & (time < utc(at.validation)))
    users = came.select(c.USER_ID).unionByName(no_validation.select(c.USER_ID))
    vocabulary = run.read(schemas.VOCABULARY_USERS)
    if rewritten is not None:
        users = users.unionByName(rewritten)
        rewritten = persisted(vocabulary.join(rewritten, c.USER_ID, "left_semi").select(c.USER_INDEX))
    return of_users(run, vocabulary.join(users, c.USER_ID, "left_semi").select(c.USER_INDEX), rewritten)


def with_facts_changed(run: Run, state: State, changed: Changed, facts: Callable[[DataFrame], DataFrame]) -> Changed:
    """Those, and the users who met an item of which gold.items says something else than before."""
    if changed.users is None:
        return changed
    was, now = facts(state.held(run, schemas.GOLD_ITEMS)), facts(run.read(schemas.GOLD_ITEMS))
    told = now.select(c.ITEM_ID, F.struct(*[x for x in now.columns if x != c.ITEM_ID]).alias("_now"))
    others = was.select(c.ITEM_ID, F.struct(*[x for x in was.columns if x != c.ITEM_ID]).alias("_was"))
    # An item that is new has been met by changed users only.
    different = others.join(told, c.ITEM_ID).where(~F.col("_now").eqNullSafe(F.col("_was"))).select(c.ITEM_ID)
    different = persisted(different)
    if different.isEmpty():
        return changed
    met = run.read(schemas.GOLD_PAIRS).join(different, c.ITEM_ID, "left_semi").select(c.USER_INDEX)
    return of_users(run, changed.users.unionByName(met).distinct(), changed.rewritten)


def of_users(run: Run, users: DataFrame, rewritten: DataFrame | None) -> Changed:
    """With the blocks, of which there are few."""
    users = persisted(users)
    found = users.groupBy(block(run.settings.features.block_users)).count().collect()
    return Changed(users, rewritten, {row[0]: row[1] for row in sorted(found)})


def write(run: Run, state: State, table: Table, rows: DataFrame, changed: Changed) -> None:
    """Replaces the changed users' blocks in one commit; ``rows`` are theirs, without their block."""
    rows = rows.withColumn(c.USER_BLOCK, block(run.settings.features.block_users)).select(*table.column_names)
    where = None
    if changed.users is not None:
        if not changed.blocks:
            return run.keep(table, state.bases[table.name])
        rows = rows.unionByName(changed.others(state.held(run, table)))
        where = f"{c.USER_BLOCK} IN ({', '.join(map(str, changed.blocks))})"
    by_block = rows.hint("rebalance", c.USER_BLOCK).sortWithinPartitions(c.USER_BLOCK, c.USER_INDEX)
    run.write(table, by_block, where, state.bases[table.name])


def write_item_days(run: Run, state: State, came: DataFrame, gone: DataFrame | None, at: Borders) -> None:
    """gold.item_days, whole: what was held, with what came, less what is gone."""
    table = schemas.GOLD_ITEM_DAYS
    days = activity.of_item_days(came, at.as_of)
    if not state.full:
        lost = None if gone is None else activity.of_item_days(gone, at.as_of)
        days = activity.added_item_days(days.unionByName(state.held(run, table)), lost)
    run.write(table, days, base=state.bases[table.name])


def block(block_users: int) -> Column:
    """The folder of a user's rows. Users who came together lie together, and those who left are left alone."""
    return F.floor(F.col(c.USER_INDEX) / F.lit(block_users)).cast("int").alias(c.USER_BLOCK)


def _edited(run: Run, state: State, before: View, now: View) -> list[DataFrame]:
    name = schemas.SILVER_EVENTS.name
    versions = state.silver[name], run.pin(schemas.SILVER_EVENTS)
    days = run.lake.changed_partitions(schemas.SILVER_EVENTS, c.EVENT_DATE, *versions)
    old = sorted(day for day in days if day is not None and day < before.at.as_of.date().isoformat())
    if not old:
        return []
    written = F.col(c.EVENT_DATE).isin(*[F.lit(day).cast("date") for day in old])
    content = (*selection.COLUMNS, c.CANCELLED_AT)
    edited = _difference(*[view.events.where(written).select(*content) for view in (before, now)])
    return [edited.select(c.USER_ID)]


def _taken_back(was: Borders, now: View) -> list[DataFrame]:
    if was.as_of == now.at.as_of:
        return []
    at = F.col(c.CANCELLED_AT)
    between = (at >= utc(was.as_of)) & (at < utc(now.at.as_of))
    return [now.events.where(~_since(was.as_of) & between).select(c.USER_ID)]


def _suspected(run: Run, state: State, before: View, now: View) -> list[DataFrame]:
    if before.at.as_of == now.at.as_of and _same(run, state, schemas.SILVER_SUSPECTS):
        return []
    since = [
        bots.since(view.suspects).where(F.col("since") <= utc(view.at.as_of)).select(c.USER_ID)
        for view in (before, now)
    ]
    return [_difference(*since)]


def _no_goods(run: Run, state: State, before: View, now: View) -> list[DataFrame]:
    if before.at.as_of == now.at.as_of and _same(run, state, schemas.SILVER_ITEMS):
        return []
    no_goods = [view.goods.where(~F.col(c.FOR_SALE)).select(c.ITEM_ID) for view in (before, now)]
    old = now.events.where(~_since(before.at.as_of))
    return [old.join(_difference(*no_goods), c.ITEM_ID, "left_semi").select(c.USER_ID)]


def _difference(before: DataFrame, now: DataFrame) -> DataFrame:
    """The rows that one of the two holds more often."""
    both = before.withColumn(_SIGN, F.lit(-1)).unionByName(now.withColumn(_SIGN, F.lit(1)))
    return both.groupBy(*before.columns).agg(F.sum(_SIGN).alias(_SIGN)).where(F.col(_SIGN) != 0).drop(_SIGN)


def _same(run: Run, state: State, table: Table) -> bool:
    return state.silver[table.name] == run.pin(table)


def _since(moment: dt.datetime) -> Column:
    """Events from a moment on; by day first, so that older days are not read."""
    day = F.lit(str(moment.date())).cast("date")
    return (F.col(c.EVENT_DATE) >= day) & (F.col(c.EVENT_TIME) >= utc(moment))
