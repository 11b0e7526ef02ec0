"""What came in, what was kept, merged and refused: counted in one pass, and conserved."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.clean import bots
from sparkrec.clean.rules import PARSED, Rule
from sparkrec.errors import DataError

if TYPE_CHECKING:
    from sparkrec.pipeline import Run


@dataclass(frozen=True)
class Arrived:
    """What bronze holds."""

    rows: int
    files: int
    newest_ingest: dt.date


@dataclass(frozen=True)
class Tally:
    """What the rules made of one bronze table.

    ``rows`` counts raw rows, ``distinct`` and ``refused`` count rows after exact repeats were merged.
    ``by_rule`` has one entry a rule: ``table``, ``rule``, ``severity``, ``expects``, ``first`` (rows refused for it),
    ``all`` (rows that break it, whatever else they break), an ``example`` and ``max_share`` (or None).
    """

    table: str
    rows: int
    distinct: int
    refused: int
    by_rule: list[dict[str, Any]]
    facts: dict[str, int]

    def noticing(self, noticed: Sequence[tuple[Rule, int, str | None]]) -> Tally:
        """With the rules over many rows that warn, how often they did, and an example."""
        more = [_entry(self.table, rule, 0, n, example) for rule, n, example in noticed]
        return replace(self, by_rule=self.by_rule + more)

    def stop_above(self, max_refused: float) -> None:
        """Raises DataError when more than this share of the distinct rows is refused, or breaks a rule with its own."""
        for rule in self.by_rule:
            limit = rule.get("max_share")
            if limit is not None and rule["all"] > limit * self.distinct:
                raise DataError(
                    f"{rule['all']:,} of {self.distinct:,} distinct rows of {self.table} "
                    f"({rule['all'] / max(self.distinct, 1):.1%}) break the rule '{rule['rule']}', more than "
                    f"clean.rules.{rule['rule']}.max_share allows ({limit:.1%}), for example {rule['example']}. "
                    "Nothing was written. Mend the source or its options, or raise that limit."
                )
        share = self.refused / max(self.distinct, 1)
        if share <= max_refused:
            return
        worst = max(self.by_rule, key=lambda rule: rule["first"])
        raise DataError(
            f"{self.refused:,} of {self.distinct:,} distinct rows of {self.table} ({share:.1%}) break a rule, more "
            f"than clean.max_refused allows ({max_refused:.0%}). Most often '{worst['rule']}': {worst['first']:,} "
            f"rows, for example {worst['example']}. Nothing was written. Mend the source or its options; if these "
            "rows are really to be refused, raise clean.max_refused."
        )


def arrived(bronze: DataFrame) -> Arrived:
    """Raw rows, files, and the day of the newest ingest.

    Raises
    ------
    DataError
        The table is empty.
    """
    row = bronze.agg(F.count("*"), F.count_distinct(c.SOURCE_FILE), F.max(c.INGEST_TIME).cast("date")).first()
    if row is None or not row[0]:
        raise DataError("bronze.events is empty: no log file has been ingested. Run the stage 'ingest' first.")
    return Arrived(*row)


def tally(checked: DataFrame, table: str, rules: Sequence[Rule], facts: dict[str, Column] | None = None) -> Tally:
    """Counts the checked rows by the set of rules that they break, and the raw rows that meet each of ``facts``.

    What comes back to the driver is a row for each set of rules that occurs, and an example of each rule.
    """
    facts = facts or {}
    sums = [F.sum(F.when(condition, F.col(c.COPIES)).otherwise(0)) for condition in facts.values()]
    sets = checked.groupBy(c.RULES, c.NOTES).agg(F.count("*"), F.sum(c.COPIES), *sums).collect()
    first = F.coalesce(c.RULE, F.col(c.NOTES)[0])
    place = F.concat(c.SOURCE_FILE, F.lit(", line "), c.LINE, F.lit(": "), F.coalesce(c.REASON, c.REMARK))
    example = checked.where(first.isNotNull()).groupBy(first).agg(F.min(place))
    examples: dict[str, str] = dict(example.collect())
    by_rule = [
        _entry(
            table,
            rule,
            first=sum(row[2] for row in sets if row[0][:1] == [rule.name]),
            all=sum(row[2] for row in sets if rule.name in row[0] or rule.name in row[1]),
            example=examples.get(rule.name),
        )
        for rule in rules
    ]
    return Tally(
        table=table,
        rows=sum(row[3] for row in sets),
        distinct=sum(row[2] for row in sets),
        refused=sum(row[2] for row in sets if row[0]),
        by_rule=by_rule,
        facts={name: sum(row[4 + i] for row in sets) for i, name in enumerate(facts)},
    )


def _entry(table: str, rule: Rule, first: int, all: int, example: str | None) -> dict[str, Any]:
    return {
        "table": table, "rule": rule.name, "severity": rule.severity, "expects": rule.expects, "first": first,
        "all": all, "example": example, "max_share": rule.max_share,
    }  # fmt: skip


def event_facts() -> dict[str, Column]:
    """What the report says about any log: name → which raw rows count."""
    value, price = F.col(f"{PARSED}.{c.VALUE}"), F.col(f"{PARSED}.{c.PRICE}")
    described = F.coalesce(*[F.trim(name) for name in (c.ITEM_NAME, c.ITEM_BRAND, c.ITEM_CATEGORY)])
    return {
        "cancel_rows": F.col(c.EVENT_TYPE) == c.CANCEL,
        "rows_without_user": F.coalesce(F.trim(c.USER_ID), F.lit("")) == "",
        "negative_values": value < 0,
        "zero_prices": price == 0,
        "negative_prices": price < 0,
        "rows_without_item_name": F.coalesce(described, F.lit("")) == "",
    }


def facts(arrived: Arrived, tally: Tally, kept: int, checked: DataFrame) -> dict[str, int]:
    """Every fact for the report: rows, repeats, those of :func:`event_facts`, and exact numbers of distinct things.

    Clean purchases are the accepted ones, taken back later or not. Of a log that never names its items it is not said
    how many rows lack a name.
    """
    bought = F.col(c.RULE).isNull() & (F.col(c.EVENT_TYPE) == c.PURCHASE)
    row = checked.agg(
        F.count_if(bought).alias("clean_purchases"),
        F.count_distinct(F.when(bought, F.trim(c.USER_ID))).alias("clean_purchase_users"),
        F.count_distinct(F.when(bought, F.trim(c.ITEM_ID))).alias("clean_purchase_items"),
        F.count_distinct(F.trim(c.COUNTRY)).alias("countries"),
    ).first()
    assert row is not None
    counted = {name: n for name, n in tally.facts.items() if name != "rows_without_item_name" or n < tally.rows}
    return {
        "rows": arrived.rows,
        "files": arrived.files,
        "exact_repeats": tally.rows - tally.distinct,
        "near_repeats": tally.distinct - tally.refused - kept,
        **counted,
        **row.asDict(),
    }


def conserve(what: str, came_in: int, accounted: int) -> None:
    """Raises RuntimeError, a defect of ours, when rows were lost or counted twice."""
    if came_in != accounted:
        raise RuntimeError(
            f"Rows of {what} are not conserved: {came_in:,} came in, and {accounted:,} are accounted for as kept, "
            "merged or refused. The run record is not written, so no later stage reads these tables."
        )


def balance(run: Run, events: Tally, items: Tally) -> dict[str, int]:
    """Counts what lies in the tables that the run wrote, and raises RuntimeError unless every row is accounted for.

    Raw rows in bronze = copies over silver + copies over quarantine, for events and for the catalogue; the numbers
    come from the written tables, not from the frames that were to be written.
    """
    refused: dict[str, int] = dict(run.read(schemas.QUARANTINE).groupBy(c.TABLE).agg(F.sum(c.COPIES)).collect())
    row = run.read(schemas.SILVER_EVENTS).agg(
        F.coalesce(F.sum(c.COPIES), F.lit(0)).alias("copies"),
        F.count("*").alias("kept"),
        F.count_if(F.col(c.EVENT_TYPE) == c.CANCEL).alias("cancellations"),
        F.count_if(c.CANCELLED).alias("cancellations_matched"),
    ).first()  # fmt: skip
    item_row = run.read(schemas.SILVER_ITEMS).agg(F.coalesce(F.sum(c.COPIES), F.lit(0)), F.count("*")).first()
    assert row is not None
    assert item_row is not None
    conserve(events.table, events.rows, row["copies"] + refused.get(events.table, 0))
    conserve(items.table, items.rows, item_row[0] + refused.get(items.table, 0))
    kept = row["kept"]
    return {
        "rows_in": events.rows,
        "kept": kept,
        "duplicates": events.rows - kept - events.refused,
        "quarantined": events.refused,
        "items_rows_in": items.rows,
        "items_kept": item_row[1],
        "items_quarantined": items.refused,
        **{name: row[name] for name in ("cancellations", "cancellations_matched")},
    }


def suspects(run: Run) -> dict[str, Any]:
    """How many users behaved as bots, on how many days, why, and their events since: counted, and no ids."""
    days = run.read(schemas.SILVER_SUSPECTS)
    since = F.broadcast(bots.since(days))  # bots are few
    later = F.col(c.EVENT_TIME) >= F.col("since")
    events = run.read(schemas.SILVER_EVENTS).select(c.USER_ID, c.EVENT_TIME).join(since, c.USER_ID).where(later).count()
    users = since.count()
    run.count(suspects=users, suspect_events=events)
    reasons = (
        days.select(c.USER_ID, F.explode(c.REASONS).alias("reason"))
        .groupBy("reason")
        .agg(F.count("*").alias("days"), F.count_distinct(c.USER_ID).alias("users"))
    )
    by_reason = [row.asDict() for row in reasons.orderBy(F.desc("users"), "reason").collect()]
    return {"users": users, "days": days.count(), "events": events, "reasons": by_reason}
