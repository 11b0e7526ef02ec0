import bz2
import datetime as dt
import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from sparkrec import schemas
from sparkrec.errors import DataError
from sparkrec.jobs.ingest import ingest
from sparkrec.pipeline import Run

pytestmark = pytest.mark.spark

HEADER = "user,item,what,when"
COLUMNS = {"user_id": "user", "item_id": "item", "event_type": "what", "event_time": "when"}


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


@pytest.fixture
def start(make_run: Callable[..., Run], logs: Path) -> Callable[..., Run]:
    """A run of ingest over CSV files in ``logs``."""

    def make(pattern: str = "*.csv*", form: str = "csv", date: dt.date | None = None) -> Run:
        options = {"events": {"files": pattern, "format": form, "columns": COLUMNS}}
        run = make_run("ingest", source={"name": "generic", "path": str(logs), "options": options})
        run.date = date
        return run

    return make


def text(*rows: str) -> str:
    return "\n".join((HEADER, *rows)) + "\n"


def held(run: Run) -> list[tuple[str, int, str]]:
    rows = run.lake.read(schemas.BRONZE_EVENTS).collect()
    return sorted((row.source_file, row.line, row.raw) for row in rows)


def test_each_file_once(start: Callable[..., Run], logs: Path) -> None:
    (logs / "a.csv").write_text(text("u1,i1,view,t", "u1,i2,view,t"))
    (logs / "b 2.csv.gz").write_bytes(gzip.compress(text("u2,i1,view,t").encode()))
    first = start()
    ingest(first)
    assert first.counts == {"files": 2, "files_new": 2, "rows": 3}
    expected = [("a.csv", 2, "u1,i1,view,t"), ("a.csv", 3, "u1,i2,view,t"), ("b 2.csv.gz", 2, "u2,i1,view,t")]
    assert held(first) == expected

    again = start()
    ingest(again)
    assert again.counts == {"files": 2, "files_new": 0, "rows": 0}
    assert again.outputs == first.outputs, "no new version"
    assert set(again.outputs) == {"bronze.events", "bronze.items"}, "an empty catalogue is a table too"

    (logs / "c.csv.bz2").write_bytes(bz2.compress(text("u3,i1,view,t").encode()))
    third = start()
    ingest(third)
    assert third.counts == {"files": 3, "files_new": 1, "rows": 1}
    assert held(third) == [*expected, ("c.csv.bz2", 2, "u3,i1,view,t")]

    (logs / "a.csv").write_text(text("u1,i1,view,t", "u1,i2,view,t", "u9,i9,view,t"))
    with pytest.raises(DataError, match=r"a\.csv .*must not change"):
        ingest(start())
    assert len(held(third)) == 4


def test_a_date_reads_what_is_not_later(start: Callable[..., Run], logs: Path) -> None:
    for day in (1, 2, 4):
        (logs / f"2026-01-0{day}.csv").write_text(text(f"u{day},i1,view,t"))
    run = start("{date}.csv", date=dt.date(2026, 1, 2))
    ingest(run)
    assert [row[0] for row in held(run)] == ["2026-01-01.csv", "2026-01-02.csv"]
    with pytest.raises(DataError, match=r"2026-01-03.*2026-01-02 and 2026-01-04"):
        ingest(start("{date}.csv", date=dt.date(2026, 1, 3)))


def test_nothing_of_a_damaged_file(start: Callable[..., Run], logs: Path) -> None:
    rows = [f"u{i},i{i * 7919 % 997},view,t" for i in range(5000)]
    whole = gzip.compress(text(*rows).encode())
    (logs / "good.csv").write_text(text("u1,i1,view,t"))
    (logs / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    run = start()
    with pytest.raises(DataError, match=r"cut\.csv\.gz .*is cut short"):
        ingest(run)
    assert not run.lake.exists(schemas.BRONZE_EVENTS)

    (logs / "header only.txt").write_text(HEADER + "\n")
    (logs / "nothing.txt").touch()
    with pytest.raises(DataError, match=r"2 file\(s\).*hold no row"):
        ingest(start("*.txt"))

    (logs / "bad.parquet").write_text("this is no parquet file")
    with pytest.raises(DataError, match=r"bad\.parquet .*cannot be read"):
        ingest(start("*.parquet", "parquet"))
    assert held(run) == []
