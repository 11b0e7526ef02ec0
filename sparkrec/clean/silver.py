"""Checked rows in the shape of silver.events and quarantine, and back again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.clean import accounting, duplicates, outliers, parsing, rules, sessions
from sparkrec.clean.duplicates import BEFORE, HELD
from sparkrec.config import Clean
from sparkrec.schemas import Table

_TEXTS = (c.ITEM_ID, c.CURRENCY, c.QUERY, c.TEXT, c.SESSION_ID, c.ORDER_ID, c.COUNTRY, c.SPLIT)
_DESCRIPTION = (c.ITEM_NAME, c.ITEM_BRAND, c.ITEM_CATEGORY)
# What links events; the rest of a row.
_LINKING = (c.EVENT_ID, c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIME, c.QUERY, c.SESSION_ID, c.MERGED_INTO, BEFORE)
_REST = "_rest"
# What is needed of a row until it is accepted, or in quarantine.
_REFUSAL = {c.HEADER: "string", c.RAW: "string", c.INGEST_TIME: "timestamp", c.RULE: "string",
            c.RULES: "array<string>", c.REASON: "string", c.REMARK: "string", accounting.FACTS: "int"}  # fmt: skip


@dataclass(frozen=True)
class Judge:
    """How raw rows are judged in one run: by a source's canonical events, the items there are, and the settings.

    ``few_items``: their ids fit into the memory of every executor, whatever Spark makes of their number beforehand.
    """

    events: Callable[[DataFrame], DataFrame]
    known_items: DataFrame | None
    settings: Clean
    few_items: bool = True

    def typed(self, bronze: DataFrame) -> DataFrame:
        """One typed row a distinct content, with its copies and its verdict.

        Judged before they are merged: so no raw text is shuffled but that of refused rows, which quarantine keeps.
        """
        rows = typed(checked(self.events(bronze), self.known_items, self.settings, self.few_items))
        if not outliers.refusing(self.settings):
            rows = without_raw(rows)
        return without_raw(outliers.refuse(duplicates.merge_exact(rows), self.known_items, self.settings))

    def again(self, quarantine: DataFrame) -> DataFrame:
        """Rows of quarantine, judged anew by what each of them says. What was an outlier beside the rows that it came
        with stays one: beside other refused rows it would not be.

        They are distinct. They are merged all the same, as Spark infers nothing through a merge: of a filter by the
        verdict it would infer so many constraints that a driver's memory does not hold them.
        """
        events = self.events(as_raw(quarantine))
        rows = typed(checked(events, self.known_items, self.settings, self.few_items))
        return without_raw(outliers.kept(duplicates.merge_exact(rows), quarantine, self.settings))


def checked(events: DataFrame, known_items: DataFrame | None, settings: Clean, few_items: bool = True) -> DataFrame:
    """Canonical events with their id, typed values, and the rules they break, one for one.

    ``known_items`` holds the catalogue's item ids; None where every item is welcome. With ``few_items`` nothing of the
    events is shuffled to look them up: it would be the raw text as well.
    """
    rows = duplicates.identified(events)
    if known_items is None:
        rows = rows.withColumn(rules.KNOWN_ITEM, F.lit(True))
    else:
        ids = known_items.select(c.ITEM_ID).distinct().withColumn(rules.KNOWN_ITEM, F.lit(True))
        ids = F.broadcast(ids) if few_items else ids
        rows = rows.withColumn(c.ITEM_ID, parsing.present(F.col(c.ITEM_ID))).join(ids, c.ITEM_ID, "left")
        rows = rows.withColumn(rules.KNOWN_ITEM, F.coalesce(rules.KNOWN_ITEM, F.lit(False)))
    declared = rules.event_rules(settings, settings.latest)
    result = rules.check(rules.parse_events(rows, settings), declared)
    day = F.col(f"{rules.PARSED}.{c.EVENT_TIME}").cast("date")
    if any(rule.name == rules.IMPOSSIBLE_TIME and rule.severity == "quarantine" for rule in declared):
        # The day is a folder: no folders for impossible days of long ago.
        day = F.when(day >= F.lit(str(settings.earliest)).cast("date"), day)
    return result.withColumns({
        c.EVENT_DATE: day,
        accounting.FACTS: accounting.marked(accounting.event_facts()),
    })  # fmt: skip


def without_raw(rows: DataFrame) -> DataFrame:
    """The raw text is kept for refused rows only."""
    return rows.withColumns({name: F.when(F.col(c.RULE).isNotNull(), F.col(name)) for name in (c.HEADER, c.RAW)})


def typed(checked_events: DataFrame) -> DataFrame:
    """Checked rows with silver's columns but for what other events decide, the log's item columns, and the verdict.

    Flat, and a third less than what it is made of: this is persisted. A cancel's quantity loses its sign. A price of
    zero, where it is allowed, is no price. A row without a user, which is refused, gets its own id for one: rows are
    shuffled by user, and where half a log has none they would all meet in one task.
    """
    value, price, time, user = (F.col(f"{rules.PARSED}.{n}") for n in (c.VALUE, c.PRICE, c.EVENT_TIME, c.USER_ID))
    values: dict[str, Column] = {
        c.USER_ID: F.coalesce(F.when(F.col(c.MALFORMED).isNull(), user), c.EVENT_ID),
        c.EVENT_TIME: time,
        c.VALUE: F.when(F.col(c.EVENT_TYPE) == c.CANCEL, F.abs(value)).otherwise(value),
        c.PRICE: F.when(price > 0, price),
    }
    return checked_events.select(
        c.EVENT_ID,
        c.EVENT_TYPE,
        c.EVENT_DATE,
        *[F.col(f"{rules.PARSED}.{name}").alias(name) for name in (*_TEXTS, *_DESCRIPTION)],
        *[column.alias(name) for name, column in values.items()],
        c.NOTES,
        c.COPIES,
        c.SOURCE_FILE,
        c.LINE,
        *_REFUSAL,
        F.lit(None).cast("timestamp").alias(c.CANCELLED_AT),
        F.lit(None).cast("string").alias(c.MERGED_INTO),
        F.lit(False).alias(HELD),
    )


def held(events: DataFrame, repeats: DataFrame) -> DataFrame:
    """silver.events and silver.repeats as rows of :func:`typed`: all the distinct valid events that silver holds."""
    nothing = {name: F.lit(None).cast("string") for name in _DESCRIPTION}
    nothing |= {name: F.lit(None).cast(type_) for name, type_ in _REFUSAL.items()}
    both = events.withColumn(c.MERGED_INTO, F.lit(None).cast("string")).unionByName(repeats, allowMissingColumns=True)
    return both.withColumns(nothing | {HELD: F.lit(True)}).drop(c.CANCELLED)


def accepted(rows: DataFrame) -> DataFrame:
    """The good ones, of which nothing more is to be said."""
    return rows.where(F.col(c.RULE).isNull()).drop(*_REFUSAL)


def linked(rows: DataFrame, context: DataFrame | None, settings: Clean) -> DataFrame:
    """Good rows with ``merged_into`` and ``session_id``; ``context`` are the events of the evenings before."""
    events = rows.withColumn(BEFORE, F.lit(False))
    if context is not None:
        events = events.unionByName(context.drop(*_REFUSAL).withColumn(BEFORE, F.lit(True)))
    # As one value the rest of a row is copied in one piece by each sort and window: a quarter less of both.
    rest = F.struct(*[name for name in events.columns if name not in _LINKING])
    events = events.select(*_LINKING, rest.alias(_REST))
    # Sessions first: they need a user's events together, if the rows do not lie so already, and chains find them so.
    marked = sessions.mark(events, settings.session_gap_minutes)
    marked = duplicates.mark_near(marked, settings.near_duplicate_seconds).where(~F.col(BEFORE))
    return marked.select("*", f"{_REST}.*").drop(BEFORE, _REST)


def standing(linked_rows: DataFrame) -> DataFrame:
    """The rows that repeat no other."""
    return linked_rows.where(F.col(c.MERGED_INTO).isNull())


def finished(events: DataFrame) -> DataFrame:
    """Events with their cancellations → silver.events: a day's rows together, by user."""
    return _by_day(events, schemas.SILVER_EVENTS)


def repeats(linked_rows: DataFrame) -> DataFrame:
    """The rows that repeat another → silver.repeats."""
    return _by_day(linked_rows.where(F.col(c.MERGED_INTO).isNotNull()), schemas.SILVER_REPEATS)


def quarantined(events: DataFrame, items: DataFrame | None, stage: str) -> DataFrame:
    """The refused of typed event rows, and of checked catalogue rows, as rows of quarantine."""
    refused = _quarantined(events, schemas.BRONZE_EVENTS, stage)
    return refused if items is None else refused.unionByName(_quarantined(items, schemas.BRONZE_ITEMS, stage))


def _quarantined(rows: DataFrame, table: Table, stage: str) -> DataFrame:
    origin = {c.TABLE: F.lit(table.name), c.STAGE: F.lit(stage)}
    lacking = {x.name: F.lit(None).cast(x.type) for x in schemas.QUARANTINE.columns if x.name not in rows.columns}
    return rows.where(F.col(c.RULE).isNotNull()).withColumns(lacking | origin).select(*schemas.QUARANTINE.column_names)


def as_raw(quarantine: DataFrame) -> DataFrame:
    """Rows of quarantine as rows of bronze, with their copies: to be judged again."""
    names = (c.SOURCE_FILE, c.LINE, c.HEADER, c.RAW, c.INGEST_TIME, c.COPIES)
    return quarantine.where(F.col(c.TABLE) == schemas.BRONZE_EVENTS.name).select(*names)


def _by_day(rows: DataFrame, table: Table) -> DataFrame:
    chosen = rows.select(*table.column_names).hint("rebalance", c.EVENT_DATE)
    return chosen.sortWithinPartitions(c.EVENT_DATE, c.USER_ID, c.EVENT_TIME, c.EVENT_ID)
