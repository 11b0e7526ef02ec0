"""The days that new rows touch, computed anew from the new rows and from what silver holds of those days.

An increment is the same work as computing everything, on fewer days; to compute everything is to begin with nothing.
Identical rows have the same day, so repeats, and quarantine, stay within the days of the new rows. Chains of near
repeats and sessions may run on over midnight, and a cancel may take back a purchase of any day: those days follow.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.clean import cancellations, catalogue, duplicates, rules, sessions, silver
from sparkrec.clean.duplicates import HELD
from sparkrec.clean.sessions import on
from sparkrec.clean.state import Days, State
from sparkrec.persistence import persisted
from sparkrec.schemas import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from sparkrec.config import Clean
    from sparkrec.pipeline import Run

ALL = Days(None, None)


def held(run: Run, state: State) -> DataFrame:
    """All the distinct valid events that silver holds, as typed rows."""
    return silver.held(state.held(run, schemas.SILVER_EVENTS), state.held(run, schemas.SILVER_REPEATS))


def notes_hold(run: Run, state: State, known: DataFrame | None, settings: Clean) -> bool:
    """Whether no kept row is noted for an item that the catalogue did not have, and now has.

    Where that only warns. A refused row is judged again; of a kept one silver has no raw text.
    """
    own = settings.rules.get(rules.UNKNOWN_ITEM)
    if own is None or own.severity != "warn" or known is None or state.full or not state.items_changed(run):
        return True
    noted = held(run, state).where(F.array_contains(c.NOTES, rules.UNKNOWN_ITEM))
    return noted.join(_came(run, state, known), c.ITEM_ID, "left_semi").isEmpty()


def touched(
    run: Run, state: State, new: DataFrame, known: DataFrame | None, again: Callable[[DataFrame], DataFrame]
) -> Days:
    """The days that the ``new`` typed rows change.

    ``known`` is the catalogue, where it decides which items there are: where it has grown, the days of the rows that
    waited for an item are judged again.
    """
    if state.full:
        return ALL
    judged: set[dt.date | None] = {row[0] for row in new.select(c.EVENT_DATE).distinct().collect()}
    who = (c.USER_ID, c.EVENT_TIME, c.EVENT_DATE)
    events = silver.accepted(new).select(*who)
    if known is not None and state.items_changed(run):
        waiting = state.held(run, schemas.QUARANTINE).where(F.array_contains(c.RULES, rules.UNKNOWN_ITEM))
        known_now = waiting.join(_came(run, state, known), c.ITEM_ID, "left_semi")
        judged |= {row[0] for row in known_now.select(c.EVENT_DATE).distinct().collect()}
        events = events.unionByName(silver.accepted(again(known_now)).select(*who))
    days = {day for day in judged if day is not None}
    changed = events.select(c.USER_ID, c.EVENT_DATE).distinct()
    both = events.unionByName(held(run, state).select(*who))
    linked = sessions.linked_days(changed, both, days, longest_pause(run.settings.clean))
    return Days(frozenset(judged), frozenset(linked))


def merged(run: Run, state: State, days: Days, new: DataFrame, again: Callable[[DataFrame], DataFrame]) -> DataFrame:
    """The new rows, their days' rows of quarantine (judged ``again``), the events of ``days``: each distinct once."""
    if days.judged is None or days.linked is None:
        return new
    refused = state.held(run, schemas.QUARANTINE).where(on(days.judged))
    rows = new.unionByName(again(refused)).unionByName(held(run, state).where(on(days.linked)))
    return persisted(duplicates.merge_exact(rows))


def context(run: Run, state: State, days: Days) -> DataFrame | None:
    """The events of the evenings before ``days``, which sessions and chains come from."""
    if days.linked is None:
        return None
    return sessions.before(held(run, state), set(days.linked), longest_pause(run.settings.clean))


def with_cancellations(
    run: Run, state: State, days: Days, linked: DataFrame, any_cancels: bool
) -> tuple[DataFrame, Days]:
    """The events that stand with their cancellations, and the days that hold them.

    Of other days than ``days`` they are those on which a purchase is now taken back, or is no longer.
    """
    kept = linked.where(F.col(c.MERGED_INTO).isNull())
    if not any_cancels:
        return cancellations.mark(kept, None), days
    if days.linked is None:
        return cancellations.mark(kept, cancellations.match(kept)), days
    stored = state.held(run, schemas.SILVER_EVENTS)
    outside = stored.where(~on(days.linked))
    since = outside.where(F.col(c.EVENT_DATE) >= F.lit(str(min(days.linked))).cast("date")) if days.linked else outside
    is_trade, columns = cancellations.is_trade(), cancellations.COLUMNS
    here = persisted(linked.where(is_trade).select(*columns, c.MERGED_INTO, HELD))
    stands = here.where(F.col(c.MERGED_INTO).isNull()).select(*columns)
    cancels = stands.unionByName(since.where(is_trade).select(*columns)).where(F.col(c.EVENT_TYPE) == c.CANCEL)
    pairs = persisted(cancellations.changed_pairs(here.where(~F.col(HELD)), cancels))
    if pairs.isEmpty():
        return cancellations.mark(kept, None), days
    others = outside.where(is_trade).join(pairs, list(cancellations.PAIR), "left_semi")
    others = persisted(others.select(*columns, c.EVENT_DATE, c.CANCELLED_AT))
    matches = persisted(cancellations.match(stands.unionByName(others.select(*columns)), pairs))
    was = others.where(F.col(c.EVENT_TYPE) == c.PURCHASE).withColumnRenamed(c.CANCELLED_AT, "_was")
    marked = was.join(matches.select(c.EVENT_ID, c.CANCELLED_AT), c.EVENT_ID, "left")
    changed = marked.where(~F.col("_was").eqNullSafe(F.col(c.CANCELLED_AT)))
    elsewhere = frozenset(row[0] for row in changed.select(c.EVENT_DATE).distinct().collect())
    rows = cancellations.mark(kept, matches, pairs)
    if elsewhere:
        more = cancellations.mark(stored.where(on(elsewhere)), matches, pairs)
        rows = rows.unionByName(more, allowMissingColumns=True)
    return rows, Days(days.judged, days.linked | elsewhere)


def item_days(run: Run, state: State, days: Days, linked: DataFrame, items: catalogue.Catalogue) -> DataFrame:
    """silver.item_days of ``days``: what was held, and the events that came; none if a catalogue rules."""
    if items.strict:
        return run.spark.createDataFrame([], schemas.SILVER_ITEM_DAYS.struct())
    held_days = None if state.full else state.held(run, schemas.SILVER_ITEM_DAYS).where(on(days.linked))
    return catalogue.item_days(linked.where(~F.col(HELD)), held_days)


def longest_pause(settings: Clean) -> float:
    """Seconds over which one event can matter to the next."""
    return max(settings.near_duplicate_seconds, 60 * (settings.session_gap_minutes or 0))


def write(run: Run, state: State, table: Table, rows: DataFrame, days: Days) -> None:
    """Replaces ``days`` of a continued table in one commit: of quarantine the judged ones, of others the linked."""
    where = None
    if days.judged is not None and days.linked is not None:
        where = _condition(days.linked)
        if table is schemas.QUARANTINE:
            tables = {schemas.BRONZE_EVENTS: _condition(days.judged)}
            tables |= {schemas.BRONZE_ITEMS: "true"} if state.items_changed(run) else {}
            where = " OR ".join(f"({c.TABLE} = '{t.name}' AND ({sql}))" for t, sql in tables.items() if sql)
    if where == "":
        run.keep(table, state.bases[table.name])
    else:
        run.write(table, rows, where, state.bases[table.name])


def _came(run: Run, state: State, known: DataFrame) -> DataFrame:
    """The items that the catalogue has and had not when the last run looked."""
    before = run.lake.read(schemas.SILVER_ITEMS, state.versions[schemas.SILVER_ITEMS.name])
    return known.select(c.ITEM_ID).distinct().join(before, c.ITEM_ID, "left_anti")


def _condition(days: frozenset[dt.date | None] | frozenset[dt.date]) -> str:
    """The days as SQL, for a commit that replaces them; empty for none."""
    dates = ", ".join(f"DATE'{day}'" for day in sorted(day for day in days if day is not None))
    parts = [f"{c.EVENT_DATE} IN ({dates})"] if dates else []
    return " OR ".join([*parts, f"{c.EVENT_DATE} IS NULL"] if None in days else parts)
