"""The simulated logs as files, read back by plain Python and by the pipeline's own source."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sparkrec import columns as c
from sparkrec.config import Source as Settings
from sparkrec.errors import ConfigError
from sparkrec.ingest import sources
from sparkrec.ingest.files import Folder
from sparkrec.ingest.simulator import Dirt, SimulatorOptions, logs

pytestmark = pytest.mark.spark

OPTIONS = SimulatorOptions(
    users=120, items=80, days=6, events=3000,
    dirt=Dirt(malformed=0.02, wrong_types=0.02, unknown_items=0.02, impossible_times=0.02, duplicates=0.02, bots=0.02),
)  # fmt: skip


def ignore(text: str) -> None:
    pass


@pytest.fixture(scope="module")
def shop(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shop") / "logs"
    assert logs.ensure(spark, str(path), OPTIONS, ignore)
    return path


@pytest.fixture(scope="module")
def lines(shop: Path) -> list[tuple[str, str]]:
    """(day, line) of all event files."""
    return [
        (path.parent.name[-10:], line)
        for path in sorted(shop.glob("events/*/*.json"))
        for line in path.read_text().splitlines()
    ]


@pytest.fixture(scope="module")
def events(lines: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """The lines that are JSON, each with the day of its file."""
    found = []
    for day, line in lines:
        try:
            found.append(json.loads(line) | {"day": day})
        except json.JSONDecodeError:
            continue
    return found


@pytest.fixture(scope="module")
def truth(shop: Path) -> dict[str, list[dict[str, Any]]]:
    return {name: pq.read_table(shop / "truth" / name).to_pylist() for name in ("events", "users", "items")}


def files(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("[ec]*/*/part-*")}
    assert len(found) > OPTIONS.days
    return found


def test_letter_for_letter_the_same_again(spark: Any, shop: Path, tmp_path: Path) -> None:
    assert not logs.ensure(spark, str(shop), OPTIONS, ignore), "they are there already"
    logs.ensure(spark, str(tmp_path / "logs"), OPTIONS, ignore)
    assert files(tmp_path / "logs") == files(shop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs"], "no draft is left"


def test_logs_of_other_options_and_foreign_folders_are_refused(spark: Any, shop: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="users 120 there, 121 here"):
        logs.ensure(spark, str(shop), OPTIONS.model_copy(update={"users": 121}), ignore)
    with pytest.raises(ConfigError, match="not written by the simulator"):
        logs.ensure(spark, str(tmp_path), OPTIONS, ignore)


def test_the_dirt_is_where_the_truth_says(
    lines: list[tuple[str, str]], events: list[dict[str, Any]], truth: dict[str, list[dict[str, Any]]]
) -> None:
    kinds = Counter(row["kind"] for row in truth["events"])
    ids = {kind: {row["id"] for row in truth["events"] if row["kind"] == kind} for kind in kinds}
    known = {row["item_id"] for row in truth["items"]}
    assert len(lines) - len(events) == kinds["malformed"] > 0
    assert {e["id"] for e in events if e.get("price") == "call us"} == ids["wrong_types"]
    assert {e["id"] for e in events if e.get("sku", "P000000") not in known} == ids["unknown_items"]
    assert {e["id"] for e in events if not e["ts"].startswith("2024-03-")} == ids["impossible_times"]
    late = {e["id"] for e in events if e["ts"][:10] != e["day"] and e["ts"].startswith("2024")}
    assert ids["late"] <= late
    assert len(lines) - len({line for _, line in lines}) == kinds["duplicates"] > 0


def test_the_catalogue_is_readable_and_covers_what_was_sold(shop: Path, events: list[dict[str, Any]]) -> None:
    rows = [
        row | {"day": path.parent.name[-10:]}
        for path in sorted(shop.glob("catalogue/*/*.csv"))
        for row in csv.DictReader(path.open(newline=""))
    ]
    assert all(row["updated"] == row["day"] for row in rows)
    first = {row["sku"]: row["day"] for row in reversed(rows)}
    assert len(first) == OPTIONS.items
    sold = [e for e in events if e.get("sku", "").startswith("P") and e["ts"].startswith("2024")]
    assert all(first[e["sku"]] <= e["ts"][:10] for e in sold)
    assert any(row["price"] == "" for row in rows)
    assert any(float(row["promotion"]) > 0 for row in rows)
    assert rows[0]["category"].count(" > ") == 1
    bought = [e for e in events if e["type"] == "order" and isinstance(e.get("qty"), int)]
    assert bought
    assert all(e["order"] and e["qty"] >= 1 and e["country"] for e in bought)


def test_the_source_maps_every_row(spark: Any, shop: Path, lines: list[tuple[str, str]]) -> None:
    source = sources.get(Settings(name="simulator", path=str(shop)))
    folder = Folder(spark, str(shop))
    kind = source.event_files[0]
    bronze, _ = kind.format.read(folder, kind.format.files(folder, kind.pattern), kind.needs)
    rows = [row.asDict() for row in source.events(bronze).collect()]
    assert Counter(row[c.RAW] for row in rows) == Counter(line for _, line in lines)
    assert {row[c.EVENT_TYPE] for row in rows if row[c.MALFORMED] is None} <= set(c.EVENT_TYPES)
    for row in rows[:200]:
        if row[c.MALFORMED] is None:
            own = json.loads(row[c.RAW])
            value = own.get("stars", own.get("qty"))
            assert (row[c.USER_ID], row[c.ITEM_ID], row[c.EVENT_TIME]) == (own["user"], own.get("sku"), own["ts"])
            assert row[c.VALUE] == (None if value is None else str(value))
            assert row[c.PRICE] is None or row[c.PRICE] == "call us" or float(row[c.PRICE]) == own["price"]
