"""What a day costs, what a run that died leaves, and Online Retail by day in random order."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import shop
import yaml
from batches import TABLES, append, cleaned, content, record, settings
from deltalake import DeltaTable

from sparkrec import schemas
from sparkrec.config import Settings
from sparkrec.errors import DataError
from sparkrec.jobs.clean import clean
from sparkrec.jobs.ingest import ingest
from sparkrec.pipeline import Run, execute

pytestmark = [pytest.mark.spark, pytest.mark.slow]

DAYS = 6
RETAIL_DAYS = int(os.environ.get("SPARKREC_RETAIL_DAYS", "3"))
SILVER = (*TABLES, schemas.SILVER_SUSPECTS)


def _day(number: int, *more: dict[str, Any], file: str = "log") -> tuple[dt.datetime, list[tuple[str, int, str]]]:
    """Twenty views at noon of a day in June, of users of its own, and ``more``; ingested in July."""
    day = f"2026-06-{1 + number:02}"
    events = [
        {"user_id": f"u{n}", "item_id": "a", "event_type": "view", "event_time": f"{day} 12:00:00"} for n in range(20)
    ]
    events += [{"user_id": "u0", "item_id": "a", "event_time": f"{day} 13:00:00"} | event for event in more]
    lines = [(f"{day}.{file}.jsonl", n, json.dumps(event)) for n, event in enumerate(events, 1)]
    return dt.datetime(2026, 7, 1, tzinfo=dt.UTC), lines


def _files(run: Run) -> dict[str, set[str]]:
    """Day → data files of silver.events."""
    found: dict[str, set[str]] = {}
    for path in DeltaTable(run.lake.path(schemas.SILVER_EVENTS), version=run.outputs["silver.events"]).file_uris():
        found.setdefault(path.split("event_date=")[1].split("/")[0], set()).add(path)
    return found


def test_a_new_day_costs_a_day_and_a_run_that_died_leaves_nothing(spark: Any, tmp_path: Path) -> None:
    to = settings(tmp_path)
    append(to, [_day(n, {"event_type": "purchase", "value": "1"}) for n in range(DAYS)])
    first = cleaned(to)
    before = _files(first)

    # A day that takes back what was bought on the day before, and one late event.
    taken_back = {"event_type": "cancel", "value": "1", "order_id": "o"}
    append(to, [_day(DAYS, taken_back, {"event_type": "view", "event_time": "2026-06-02 12:00:00", "user_id": "late"})])
    second = cleaned(to)
    after = _files(second)
    new_day, late, bought = f"2026-06-{1 + DAYS:02}", "2026-06-02", f"2026-06-{DAYS:02}"
    assert second.details["increment"] == {"why_full": None, "days": sorted([late, bought, new_day])}
    assert {day for day, files in after.items() if files != before.get(day)} == {late, bought, new_day}
    assert (second.counts["rows_new"], second.counts["rows_in"]) == (22, 22 + 21 * DAYS)
    assert second.counts["cancellations_matched"] == 1

    # A run that dies after it wrote, all days: what it left is taken back, also where no new run would have written.
    append(to, [_day(2, {"event_type": "view", "event_time": "2026-06-01 00:00:01"}, file="again")])

    def dies(run: Run) -> None:
        clean(run)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(dies, Run(settings(tmp_path, clean={"session_gap_minutes": None}), "clean"))
    third = cleaned(to)
    assert third.details["increment"] == {"why_full": None, "days": ["2026-06-01", "2026-06-03"]}

    whole = cleaned(settings(tmp_path, clean=to.clean.model_dump() | {"full": True}))
    assert content(third) == content(whole)
    assert record(third) == record(whole)

    # What is not of clean, and has left no record, must not come back to life: everything is computed.
    spark.sql(f"DELETE FROM delta.`{whole.lake.path(schemas.SILVER_EVENTS)}` WHERE user_id = 'u3'")
    append(to, [_day(8)])
    assert "silver.events was changed" in cleaned(to).details["increment"]["why_full"]


def test_online_retail_by_day_in_random_order_is_as_all_at_once(spark: Any, data: Path, tmp_path: Path) -> None:
    """``SPARKREC_RETAIL_DAYS=305 pytest -k online_retail_by_day`` takes them all: an hour or two."""
    chosen = sorted((data / "online-retail" / "by-day").glob("*.csv"))[:RETAIL_DAYS]
    random.Random(31).shuffle(chosen)

    def shop_of(name: str) -> Settings:
        base = {"name": "retail", "lake": {"path": str(tmp_path / name / "lake")}, "tracking": {"enabled": False}}
        (tmp_path / name / "logs").mkdir(parents=True)
        source = {"name": "online_retail", "path": str(tmp_path / name / "logs")}
        more = {"clean": _limits(), "spark": {"shuffle_partitions": 2}}
        return Settings.model_validate(base | {"source": source} | more)

    def arrived(to: Settings, *days: Path) -> Run:
        for day in days:
            shutil.copy(day, to.source.path)
        execute(ingest, Run(to, "ingest"))
        return cleaned(to)

    whole = arrived(shop_of("at_once"), *chosen)
    by_day = shop_of("by_day")
    why_full = []  # and not the runs: each holds the frames that it has read
    for day in chosen:
        last = arrived(by_day, day)
        why_full.append(last.details["increment"]["why_full"])
    assert [why is None for why in why_full] == [False] + [True] * (len(chosen) - 1)
    assert record(last) == record(whole)
    shop.assert_same_tables(tmp_path / "at_once" / "lake", tmp_path / "by_day" / "lake", SILVER)
    assert whole.counts["cancellations_matched"] > 0, "worth comparing"


@pytest.mark.parametrize("damage", [None, "times"])
def test_the_worst_day_of_online_retail_is_taken_and_a_damaged_one_is_not(
    spark: Any, data: Path, tmp_path: Path, damage: str | None
) -> None:
    """Of the rows of 30 August 2011 seven of eight name no customer: so it is. Of a damaged file nothing is written."""
    day = (data / "online-retail" / "by-day" / "2011-08-30.csv").read_text(encoding="utf-8")
    (tmp_path / "logs").mkdir()
    text = day.replace("2011-08-30 ", "30th of August ") if damage else day
    assert (text != day) == bool(damage)
    (tmp_path / "logs" / "2011-08-30.csv").write_text(text, encoding="utf-8")
    shop_of_one_day = {
        "name": "retail", "lake": {"path": str(tmp_path / "lake")}, "tracking": {"enabled": False},
        "source": {"name": "online_retail", "path": str(tmp_path / "logs")}, "clean": _limits(),
    }  # fmt: skip
    to = Settings.model_validate(shop_of_one_day)
    execute(ingest, Run(to, "ingest"))
    if damage:
        with pytest.raises(DataError, match=r"break the rule 'unreadable_time', more than clean.rules.unreadable_time"):
            cleaned(to)
        assert not (tmp_path / "lake" / "silver" / "events").exists()
    else:
        refused = cleaned(to).counts["quarantined"]
        assert refused == 2829, "rows without a customer, repeats apart, counted with Python's csv"


def _limits() -> dict[str, Any]:
    """What conf/online_retail.yaml lets be refused."""
    shipped: dict[str, Any] = yaml.safe_load((shop.HOME / "conf" / "online_retail.yaml").read_text())["clean"]
    return shipped
