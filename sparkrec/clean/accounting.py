"""What came in, what was kept, merged and refused: counted in one pass, and conserved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.clean.rules import PARSED, Rule
from sparkrec.clean.sessions import on
from sparkrec.errors import DataError

if TYPE_CHECKING:
    from sparkrec.clean.increments import Days
    from sparkrec.clean.state import State
    from sparkrec.pipeline import Run

_MOST_COUNTRIES = 1000
# What is counted, where a table has it.
_COUNTED = (c.EVENT_TYPE, c.CANCELLED, c.SUSPECT, c.COPIES)


@dataclass(frozen=True)
class Arrived:
    """What bronze holds that is new."""

    rows: int
    files: int


@dataclass(frozen=True)
class Tally:
    """What the rules made of one bronze table.

    ``rows`` counts raw rows, ``distinct`` and ``refused`` count rows after exact repeats were merged.
    ``by_rule`` has one entry a rule: ``table``, ``rule``, ``expects``, ``first`` (rows refused for it),
    ``all`` (rows that break it, whatever else they break) and an ``example``.
    """

    table: str
    rows: int
    distinct: int
    refused: int
    by_rule: list[dict[str, Any]]
    facts: dict[str, int]

    def stop_above(self, max_refused: float) -> None:
        """Raises DataError when more than this share of the distinct rows is refused."""
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


def arrived(bronze: DataFrame, full: bool) -> Arrived:
    """Raw rows and files; ``full``: of the whole table.

    Raises
    ------
    DataError
        The whole table is empty.
    """
    row = bronze.agg(F.count("*"), F.count_distinct(c.SOURCE_FILE)).first()
    if row is None or (full and not row[0]):
        raise DataError("bronze.events is empty: no log file has been ingested. Run the stage 'ingest' first.")
    return Arrived(*row)


def tally(checked: DataFrame, table: str, rules: Sequence[Rule], facts: dict[str, Column] | None = None) -> Tally:
    """Counts the checked rows by the set of rules that they break, and the raw rows that meet each of ``facts``.

    What comes back to the driver is a row for each set of rules that occurs, and an example of each rule.
    """
    facts = facts or {}
    sums = [F.sum(F.when(condition, F.col(c.COPIES)).otherwise(0)) for condition in facts.values()]
    place = F.concat(c.SOURCE_FILE, F.lit(", line "), c.LINE, F.lit(": "), c.REASON)
    sets = checked.groupBy(c.RULES).agg(F.count("*"), F.sum(c.COPIES), *sums, F.min(place)).collect()
    examples: dict[str, str] = {}
    for row in sets:
        if row[0]:
            examples[row[0][0]] = min(row[-1], examples.get(row[0][0], row[-1]))
    by_rule = [
        {
            "table": table,
            "rule": rule.name,
            "expects": rule.expects,
            "first": sum(row[1] for row in sets if row[0][:1] == [rule.name]),
            "all": sum(row[1] for row in sets if rule.name in row[0]),
            "example": examples.get(rule.name),
        }
        for rule in rules
    ]
    return Tally(
        table=table,
        rows=sum(row[2] for row in sets),
        distinct=sum(row[1] for row in sets),
        refused=sum(row[1] for row in sets if row[0]),
        by_rule=by_rule,
        facts={name: sum(row[3 + i] for row in sets) for i, name in enumerate(facts)},
    )


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


def totals(run: Run, state: State, days: Days) -> dict[str, int]:
    """What this run changed in silver.events, silver.repeats and the events of quarantine: after it, less before.

    Only ``days`` are counted, from the written tables and not from the frames that were to be written.
    """
    tables = {schemas.SILVER_EVENTS: days.linked, schemas.SILVER_REPEATS: days.linked, schemas.QUARANTINE: days.judged}
    parts = []
    for sign in (1, -1) if not state.full else (1,):
        for table, chosen in tables.items():
            frame = run.read(table) if sign == 1 else state.held(run, table)
            if table is schemas.QUARANTINE:
                frame = frame.where(F.col(c.TABLE) == schemas.BRONZE_EVENTS.name)
            columns = [F.col(name) if name in frame.columns else F.lit(None).alias(name) for name in _COUNTED]
            parts.append(
                frame.where(on(chosen)).select(F.lit(sign).alias("_sign"), F.lit(table.name).alias(c.TABLE), *columns)
            )
    in_events, is_cancel = F.col(c.TABLE) == schemas.SILVER_EVENTS.name, F.col(c.EVENT_TYPE) == c.CANCEL
    numbers = {
        "copies": F.col(c.COPIES),
        "kept": in_events,
        "near_repeats": F.col(c.TABLE) == schemas.SILVER_REPEATS.name,
        "quarantined": F.col(c.TABLE) == schemas.QUARANTINE.name,
        "cancellations": in_events & is_cancel,
        "cancellations_matched": in_events & F.col(c.CANCELLED),
        "suspect_events": in_events & F.col(c.SUSPECT),
        "clean_purchases": F.col(c.EVENT_TYPE) == c.PURCHASE,
    }
    sums = [F.coalesce(F.sum(F.col("_sign") * n.cast("bigint")), F.lit(0)).alias(name) for name, n in numbers.items()]
    row = reduce(lambda a, b: a.unionByName(b), parts).agg(*sums).first()
    assert row is not None
    found: dict[str, int] = row.asDict()
    return found


def balance(run: Run, state: State, days: Days, arrived: Arrived, items: Tally, items_kept: int) -> dict[str, int]:
    """The counts of the whole lake, from what this run changed; RuntimeError unless every row is accounted for.

    New rows in bronze = the change of the copies over silver and quarantine; for the catalogue, all rows.
    """
    change = totals(run, state, days)
    conserve(schemas.BRONZE_EVENTS.name, arrived.rows, change.pop("copies"))
    change |= {"rows_in": arrived.rows, "files": arrived.files}
    counts = {name: n + state.counts.get(name, 0) for name, n in change.items()}
    counts["duplicates"] = counts["rows_in"] - counts["kept"] - counts["quarantined"]
    if state.items_changed(run):
        refused = run.read(schemas.QUARANTINE).where(F.col(c.TABLE) == items.table).select(c.COPIES)
        row = run.read(schemas.SILVER_ITEMS).select(c.COPIES).unionByName(refused).agg(F.sum(c.COPIES)).first()
        assert row is not None
        conserve(items.table, items.rows, row[0] or 0)
    return counts | {
        "rows_new": arrived.rows,
        "items_rows_in": items.rows,
        "items_kept": items_kept,
        "items_quarantined": items.refused,
    }


def facts(run: Run, state: State, new: Tally, checked: DataFrame) -> dict[str, Any]:
    """Every fact for the report, and what the next run needs to carry them on: ``facts``, ``sums``, ``countries``.

    Sums of raw rows go on from the last run. Who bought, and what, is counted in two columns of silver when purchases
    are new. Countries are remembered by name, the first thousand. Clean purchases are the accepted ones, taken back
    later or not. Of a log that never names its items it is not said how many rows lack a name.
    """
    counts, last = run.counts, state.details.get("facts", {})
    sums = {name: n + state.details.get("sums", {}).get(name, 0) for name, n in new.facts.items()}
    here = checked.select(F.trim(c.COUNTRY).alias(c.COUNTRY)).where(F.col(c.COUNTRY).isNotNull()).distinct()
    found = {row[0] for row in here.limit(_MOST_COUNTRIES).collect()}
    countries = sorted(found | set(state.details.get("countries", [])))[:_MOST_COUNTRIES]
    bought = {name: last.get(name, 0) for name in ("clean_purchase_users", "clean_purchase_items")}
    if counts["clean_purchases"] != last.get("clean_purchases", 0):
        purchases = run.read(schemas.SILVER_EVENTS).where(F.col(c.EVENT_TYPE) == c.PURCHASE)
        row = purchases.agg(*[F.count_distinct(name) for name in (c.USER_ID, c.ITEM_ID)]).first()
        assert row is not None
        bought = dict(zip(bought, row, strict=True))
    named = {n: k for n, k in sums.items() if n != "rows_without_item_name" or k < counts["rows_in"]}
    return {
        "facts": {
            "rows": counts["rows_in"],
            "files": counts["files"],
            "exact_repeats": counts["duplicates"] - counts["near_repeats"],
            "near_repeats": counts["near_repeats"],
            **named,
            "clean_purchases": counts["clean_purchases"],
            **bought,
            "countries": len(countries),
        },
        "sums": sums,
        "countries": countries,
    }


def refused(run: Run, state: State, new: Tally, rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """``by_rule`` of all events in quarantine, not of the new ones only."""
    if state.full:
        return new.by_rule
    whole = run.read(schemas.QUARANTINE).where(F.col(c.TABLE) == new.table)
    return tally(whole, new.table, rules).by_rule


def conserve(what: str, came_in: int, accounted: int) -> None:
    """Raises RuntimeError, a defect of ours, when rows were lost or counted twice."""
    if came_in != accounted:
        raise RuntimeError(
            f"Rows of {what} are not conserved: {came_in:,} came in, and {accounted:,} are accounted for as kept, "
            "merged or refused. The run record is not written, so no later stage reads these tables."
        )
