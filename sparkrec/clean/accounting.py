"""What came in, what was kept, merged and refused: counted in one pass, and conserved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    from sparkrec.clean.state import Days, State
    from sparkrec.pipeline import Run

_MOST_COUNTRIES = 1000
#: Which of :func:`event_facts` hold for a row: a bit for each.
FACTS = "_facts"
# What is counted, where a table has it.
_COUNTED = (c.EVENT_TYPE, c.CANCELLED, c.COPIES, c.NOTES)


@dataclass(frozen=True)
class Arrived:
    """What bronze holds that is new."""

    rows: int
    files: int


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


def tally(judged: DataFrame, table: str, rules: Sequence[Rule], facts: Sequence[str] = ()) -> Tally:
    """Counts the judged rows by the set of rules that they break, and the raw rows that meet each of ``facts``.

    What comes back to the driver is a row for each set of rules that occurs, and an example of each rule.
    """
    holds = [F.getbit(FACTS, F.lit(bit)) == 1 for bit in range(len(facts))]
    sums = [F.sum(F.when(fact, F.col(c.COPIES)).otherwise(0)) for fact in holds]
    sets = judged.groupBy(c.RULES, c.NOTES).agg(F.count("*"), F.sum(c.COPIES), *sums).collect()
    # Apart, and of those rows only: Spark sorts all rows for an aggregate that holds a text.
    first = F.coalesce(F.get(c.RULES, F.lit(0)), F.get(c.NOTES, F.lit(0)))
    place = F.concat(c.SOURCE_FILE, F.lit(", line "), c.LINE, F.lit(": "), F.coalesce(c.REASON, c.REMARK))
    examples: dict[str, str] = dict(judged.where(first.isNotNull()).groupBy(first).agg(F.min(place)).collect())
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
    """What the report says about any log: name → which checked rows count."""
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


def marked(facts: dict[str, Column]) -> Column:
    """:data:`FACTS` of a checked row."""
    bits = [F.when(fact, 1 << bit).otherwise(0) for bit, fact in enumerate(facts.values())]
    return reduce(lambda a, b: a + b, bits)


@dataclass(frozen=True)
class Changes:
    """What a run changed, after it less before: ``numbers`` of rows, and how often each rule was ``noted``."""

    numbers: dict[str, int]
    noted: Counter[str]


def changes(run: Run, state: State, days: Days) -> Changes:
    """What this run changed in silver.events, silver.repeats and the events of quarantine.

    Only ``days`` are counted, from the written tables and not from the frames that were to be written. What comes back
    to the driver is a row for each set of notes that occurs.
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
        "clean_purchases": F.col(c.EVENT_TYPE) == c.PURCHASE,
    }
    signed = {name: F.sum(F.col("_sign") * n.cast("bigint")) for name, n in {**numbers, "rows": F.lit(1)}.items()}
    union = reduce(lambda a, b: a.unionByName(b), parts)
    sets = union.groupBy(c.NOTES).agg(*[total.alias(name) for name, total in signed.items()]).collect()
    noted = Counter[str]()
    for row in sets:
        for note in row[c.NOTES] or ():
            noted[note] += row["rows"]
    return Changes({name: sum(row[name] or 0 for row in sets) for name in numbers}, noted)


def balance(
    run: Run, state: State, changed: Changes, arrived: Arrived, items: Tally, items_kept: int
) -> dict[str, int]:
    """The counts of the whole lake, from what this run changed; RuntimeError unless every row is accounted for.

    New rows in bronze = the change of the copies over silver and quarantine; for the catalogue, all rows.
    """
    change = dict(changed.numbers)
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


def facts(run: Run, state: State, new: Tally, rows: DataFrame) -> dict[str, Any]:
    """Every fact for the report, and what the next run needs to carry them on: ``facts``, ``sums``, ``countries``.

    Sums of raw rows go on from the last run. Who bought, and what, is counted in two columns of silver when purchases
    are new. Countries are remembered by name, the first thousand. Clean purchases are the accepted ones, taken back
    later or not. Of a log that never names its items it is not said how many rows lack a name.
    """
    counts, last = run.counts, state.details.get("facts", {})
    sums = {name: n + state.details.get("sums", {}).get(name, 0) for name, n in new.facts.items()}
    here = rows.select(c.COUNTRY).where(F.col(c.COUNTRY).isNotNull()).distinct()
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


def by_rule(run: Run, state: State, changed: Changes, new: Tally, rules: Sequence[Rule]) -> dict[str, Any]:
    """``rules``: the entries of all events, not of the new ones only; ``noted``: what the next run carries on.

    What is refused is counted in quarantine, what was mended or warned of in the days that changed. Rules over many
    rows speak of the rows that one run reads.
    """
    noted = Counter(state.details.get("noted", {}))
    noted.update(changed.noted)
    entries = {rule["rule"]: rule for rule in new.by_rule}
    if not state.full:
        nothing = {c.NOTES: F.array().cast("array<string>"), c.REMARK: F.lit(None).cast("string")}
        whole = run.read(schemas.QUARANTINE).where(F.col(c.TABLE) == new.table).withColumns(nothing)
        of_all = tally(whole, new.table, [rule for rule in rules if rule.severity == "quarantine"])
        entries |= {rule["rule"]: rule for rule in of_all.by_rule}
    entries |= {r.name: entries[r.name] | {"all": noted[r.name]} for r in rules if r.severity != "quarantine"}
    return {"rules": list(entries.values()), "noted": dict(noted)}


def suspects(run: Run) -> dict[str, Any]:
    """How many users behaved as bots, on how many days, why, and their events of those days: counted, and no ids."""
    days = run.read(schemas.SILVER_SUSPECTS)
    row = days.agg(F.count_distinct(c.USER_ID), F.count("*"), F.coalesce(F.sum(c.N_EVENTS), F.lit(0))).first()
    assert row is not None
    run.count(suspects=row[0], suspect_events=row[2])
    reasons = (
        days.select(c.USER_ID, F.explode(c.REASONS).alias("reason"))
        .groupBy("reason")
        .agg(F.count("*").alias("days"), F.count_distinct(c.USER_ID).alias("users"))
    )
    by_reason = [reason.asDict() for reason in reasons.orderBy(F.desc("users"), "reason").collect()]
    return {"users": row[0], "days": row[1], "events": row[2], "reasons": by_reason}


def conserve(what: str, came_in: int, accounted: int) -> None:
    """Raises RuntimeError, a defect of ours, when rows were lost or counted twice."""
    if came_in != accounted:
        raise RuntimeError(
            f"Rows of {what} are not conserved: {came_in:,} came in, and {accounted:,} are accounted for as kept, "
            "merged or refused. The run record is not written, so no later stage reads these tables."
        )
