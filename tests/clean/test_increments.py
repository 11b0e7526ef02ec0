"""Batches of a dirty log, in any order, give the tables that all of them at once give."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batches import CLEAN, OPTIONS, TABLES, append, cleaned, content, dirty_log, record, settings

from sparkrec import schemas
from sparkrec.clean import sessions
from sparkrec.clean.silver import Judge, accepted
from sparkrec.config import Clean, Source
from sparkrec.features.items import as_of
from sparkrec.ingest.sources import get
from sparkrec.persistence import persisted
from sparkrec.pipeline import Run

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.mark.parametrize("with_catalogue", [False, True])
def test_any_order_of_batches_is_as_all_at_once(spark: Any, tmp_path: Path, with_catalogue: bool) -> None:
    chance = random.Random(5 + with_catalogue)
    lines = dirty_log(chance, 200)
    third = len(lines) // 3
    parts = [lines[:third], lines[third : 2 * third], lines[2 * third :]]
    chance.shuffle(parts)
    batches = [
        (dt.datetime(2026, 3, 4 + day, 23, tzinfo=dt.UTC), [(f"{day}.jsonl", n, raw) for n, raw in enumerate(part, 1)])
        for day, part in enumerate(parts)
    ]
    # Item c is not in the catalogue at first: its events wait in quarantine.
    items = [[("items1.json", 1, '{"item": "a", "name": "Lamp"}'), ("items1.json", 2, '{"item": "b", "name": "Mug"}')],
             [], [("items2.json", 1, '{"item": "c", "name": "Late"}')]]  # fmt: skip
    catalogue = [(batches[0][0], rows) for rows in items] if with_catalogue else [(batches[0][0], [])] * 3

    by_batch, at_once = settings(tmp_path / "by_batch"), settings(tmp_path / "at_once")
    increments = []
    for batch, more in zip(batches, catalogue, strict=True):
        append(by_batch, [batch], [more])
        increments.append(cleaned(by_batch))
    append(at_once, chance.sample(batches, 3), catalogue)
    whole = cleaned(at_once)

    assert [run.details["increment"]["why_full"] is None for run in increments] == [False, True, True]
    found, expected = content(increments[-1]), content(whole)
    for name, rows in expected.items():
        assert found[name] == rows, name
    assert record(increments[-1]) == record(whole)
    assert all(expected[table.name] for table in TABLES if table is not schemas.SILVER_ITEM_DAYS), "worth comparing"


def test_all_anew_under_an_old_run_id_reads_the_newest_catalogue(spark: Any, tmp_path: Path) -> None:
    """Run A brought item a, run B item b and an event on it; ``clean.full`` under A's id knows both."""
    event = {"user_id": "u", "item_id": "b", "event_type": "view", "event_time": "2026-03-02 10:00:00"}
    time = dt.datetime(2026, 3, 4, tzinfo=dt.UTC)
    items = [(time, [(f"items{n}.json", 1, json.dumps({"item": item, "name": "Lamp"}))]) for n, item in enumerate("ab")]
    first, second = settings(tmp_path, name="a"), settings(tmp_path, name="b")
    append(first, [(time, [("1.jsonl", 1, json.dumps(event | {"item_id": "a"}))])], items[:1])
    append(second, [(time, [("2.jsonl", 1, json.dumps(event))])], items[1:])
    run = cleaned(settings(tmp_path, name="a", clean=CLEAN | {"full": True}))
    assert run.run_id == "a-all"
    assert (run.counts["items_kept"], run.counts["kept"], run.counts["quarantined"]) == (2, 2, 0)


def test_what_the_log_said_of_an_item_holds_until_the_catalogue_speaks(spark: Any, tmp_path: Path) -> None:
    event = {"user_id": "u", "item_id": "x", "event_type": "view", "event_time": "2026-03-01 10:00:00"}
    columns = OPTIONS["items"] | {"columns": {"item_id": "item", "name": "name", "valid_from": "day"}}
    source = {"name": "generic", "path": "unused", "options": OPTIONS | {"items": columns}}
    to = settings(tmp_path, clean=CLEAN | {"unknown_items": "keep"}, source=source)
    time = dt.datetime(2026, 3, 4, tzinfo=dt.UTC)
    append(to, [(time, [("1.jsonl", 1, json.dumps(event | {"item_name": "Lamp"}))])])
    cleaned(to)
    append(to, [], [(time, [("items.json", 1, '{"item": "x", "name": "Bright lamp", "day": "2026-03-20"}')])])
    run = cleaned(to)
    assert run.details["increment"]["why_full"] is None
    rows = run.read(schemas.SILVER_ITEMS)
    known = {(row["valid_from"].day, row["name"]) for row in rows.collect()}
    assert known == {(2, "Lamp"), (20, "Bright lamp")}
    assert [row["name"] for row in as_of(rows, dt.datetime(2026, 3, 9)).collect()] == ["Lamp"]


def test_what_an_increment_cannot_mend_is_computed_anew(spark: Any, tmp_path: Path) -> None:
    """A note of an item that the catalogue then gets; rows of bronze that are taken back after they were cleaned."""

    def batch(number: int, *items: str) -> Any:
        event = {"user_id": "u", "event_type": "view", "event_time": f"2026-03-0{number} 10:00:00"}
        lines = [json.dumps(event | {"item_id": item}) for item in items]
        return dt.datetime(2026, 3, 9, tzinfo=dt.UTC), [(f"{number}.jsonl", n, raw) for n, raw in enumerate(lines, 1)]

    def listed(item: str) -> Any:
        return [(dt.datetime(2026, 3, 9, tzinfo=dt.UTC), [(f"items{item}.json", 1, f'{{"item": "{item}"}}')])]

    to = settings(tmp_path, clean=CLEAN | {"rules": {"unknown_item": {"severity": "warn"}}})
    append(to, [batch(1, "a", "b")], listed("a"))
    assert cleaned(to).details["noted"]["unknown_item"] == 1
    append(to, [], listed("b"))
    run = cleaned(to)
    assert "kept with the note" in run.details["increment"]["why_full"]
    assert not run.details["noted"].get("unknown_item")
    assert {tuple(row["notes"]) for row in run.read(schemas.SILVER_EVENTS).collect()} == {()}
    append(to, [], listed("c"))
    assert cleaned(to).details["increment"]["why_full"] is None, "no event was kept for want of this one"

    good = run.lake.version(schemas.BRONZE_EVENTS)
    append(to, [batch(2, "a", "a", "b")])
    assert cleaned(to).details["increment"]["why_full"] is None
    spark.sql(f"RESTORE delta.`{run.lake.path(schemas.BRONZE_EVENTS)}` TO VERSION AS OF {good}")
    append(to, [batch(2, "a", "c")])
    run = cleaned(to)
    assert "were changed or deleted" in run.details["increment"]["why_full"]
    rows = {(row["event_date"].day, row["item_id"]): row["copies"] for row in run.read(schemas.SILVER_EVENTS).collect()}
    assert rows == {(1, "a"): 1, (1, "b"): 1, (2, "a"): 1, (2, "c"): 1}


def test_a_refused_outlier_stays_refused_when_a_late_row_comes(spark: Any, tmp_path: Path) -> None:
    """Beside the other refused rows of its day, judged again without those that were kept, it would be none."""

    def batch(number: int, values: list[str]) -> Any:
        event = {"user_id": "u", "event_type": "purchase", "item_id": "a"}
        lines = [
            json.dumps(event | {"event_time": f"2026-03-02 1{number}:{n:02}:00", "value": value})
            for n, value in enumerate(values)
        ]
        return dt.datetime(2026, 3, 4, tzinfo=dt.UTC), [(f"{number}.jsonl", n, raw) for n, raw in enumerate(lines, 1)]

    def refused(run: Run) -> list[tuple[Any, ...]]:
        return sorted((row["rule"], row["rules"], row["reason"]) for row in run.read(schemas.QUARANTINE).collect())

    to = settings(tmp_path, clean=CLEAN | {"rules": {"outlier_quantity": {"severity": "quarantine"}}})
    append(to, [batch(0, ["8", "9", "10", "11", "12", "9999", "many"])])
    before = refused(cleaned(to))
    assert [(rule, rules) for rule, rules, _ in before] == [
        ("outlier_quantity", ["outlier_quantity"]), ("value_not_a_number", ["value_not_a_number"]),
    ]  # fmt: skip
    append(to, [batch(1, ["10"])])
    run = cleaned(to)
    assert run.details["increment"]["why_full"] is None
    assert refused(run) == before
    values = [row["value"] for row in run.read(schemas.SILVER_EVENTS).collect()]
    assert sorted(values) == [8, 9, 10, 10, 11, 12]


def test_rows_that_a_grown_catalogue_frees_are_as_if_it_had_been_there(spark: Any, tmp_path: Path) -> None:
    """A cancel that waited takes back its purchase; a session that began with a waiting event runs on past midnight.

    Neither a cancel nor an event of those days comes with the catalogue's new row.
    """

    def line(user: str, item: str, kind: str, time: str) -> str:
        return json.dumps({"user_id": user, "item_id": item, "event_type": kind, "event_time": time, "value": "1"})

    events = [
        line("u", "b", "purchase", "2026-03-02 10:00:00"), line("u", "b", "cancel", "2026-03-02 11:00:00"),
        line("v", "b", "view", "2026-03-02 23:55:00"), line("v", "a", "view", "2026-03-03 00:05:00"),
        line("v", "a", "view", "2026-03-03 00:30:00"),
    ]  # fmt: skip
    first = dt.datetime(2026, 3, 4, tzinfo=dt.UTC), [("1.jsonl", n, raw) for n, raw in enumerate(events, 1)]
    later = dt.datetime(2026, 3, 5, tzinfo=dt.UTC), [("2.jsonl", 1, line("w", "a", "view", "2026-03-04 12:00:00"))]
    items = [(first[0], [(f"items{n}.json", 1, json.dumps({"item": item, "name": "Lamp"}))])
             for n, item in enumerate("ab")]  # fmt: skip
    by_batch, at_once = settings(tmp_path / "by_batch"), settings(tmp_path / "at_once")
    append(by_batch, [first], items[:1])
    waiting = cleaned(by_batch)
    assert waiting.counts["quarantined"] == 3
    append(by_batch, [later], items[1:])
    found = cleaned(by_batch)
    assert found.details["increment"]["why_full"] is None
    append(at_once, [first, later], items)
    expected = cleaned(at_once)
    assert content(found) == content(expected)
    assert record(found)["counts"] == record(expected)["counts"]
    assert expected.counts["cancellations_matched"] == 1
    v = [row for row in found.read(schemas.SILVER_EVENTS).collect() if row["user_id"] == "v"]
    assert len({row["session_id"] for row in v}) == 1


def test_little_is_inferred_of_rows_that_are_judged_again(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the filters by which days are found Spark inferred so many others that they filled a driver's memory."""

    def stored(name: str, schema: Any) -> Any:
        spark.createDataFrame([], schema).write.parquet(str(tmp_path / name))
        return spark.read.parquet(str(tmp_path / name))

    def timed(frame: Any) -> Any:
        query = frame._jdf.queryExecution()
        query.optimizedPlan()
        rules = {entry._1(): entry._2().totalTimeNs() for entry in _each(query.tracker().rules())}
        shares.append(sum(ns for name, ns in rules.items() if name.endswith("PruneFilters")) / sum(rules.values()))
        return persisted(frame)

    shares: list[float] = []
    monkeypatch.setattr(sessions, "persisted", timed)
    judge = Judge(get(Source(name="simulator", path="logs")).events, stored("items", "item_id string"), Clean())
    judged = accepted(judge.again(stored("quarantine", schemas.QUARANTINE.struct())))
    held = stored("held", "user_id string, event_time timestamp, event_date date")
    events = held.unionByName(judged.select(*held.columns))
    changed, days = events.select("user_id", "event_date").distinct(), {dt.date(2026, 3, 2)}
    assert sessions.linked_days(changed, events.unionByName(held), days, seconds=1800) == days
    assert max(shares) < 0.5, "of the optimizer's time; nine tenths were seen"


def _each(entries: Any) -> Iterator[Any]:
    found = entries.iterator()
    while found.hasNext():
        yield found.next()
