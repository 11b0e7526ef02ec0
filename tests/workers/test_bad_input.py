"""What users do wrong: one paragraph that names it, an exit code, and no half-written table."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from deltalake import DeltaTable

from sparkrec import cli, schemas

pytestmark = pytest.mark.spark

COLUMNS = "user,item,what,when"


@pytest.fixture
def job(spark: Any, tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str]]:
    """Runs a stage on CSV logs in ``tmp_path/logs``; returns the exit code and the message."""

    def run(stage: str, *arguments: str, **sections: Any) -> tuple[int, str]:
        content = {
            "name": "x",
            "lake": {"path": str(tmp_path / "lake")},
            "source": {
                "name": "generic",
                "path": str(tmp_path / "logs"),
                "options": {
                    "events": {
                        "files": "*.csv*",
                        "format": "csv",
                        "columns": {"user_id": "user", "item_id": "item", "event_type": "what", "event_time": "when"},
                    }
                },
            },
            "tracking": {"enabled": False},
        }
        conf = tmp_path / "conf.yaml"
        conf.write_text(yaml.safe_dump(content | sections))
        code = cli.main([stage, "--conf", str(conf), *arguments])
        return code, capsys.readouterr().err.split("sparkrec: ")[-1]

    return run


def log(tmp_path: Path, name: str, *rows: str, header: str = COLUMNS) -> Path:
    path = tmp_path / "logs" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def no_table(tmp_path: Path, table: schemas.Table) -> bool:
    folder = tmp_path / "lake" / table.name.replace(".", "/")
    return not folder.exists() or DeltaTable(str(folder)).to_pyarrow_table().num_rows == 0


def expect(result: tuple[int, str], code: int, *words: str) -> None:
    assert result[0] == code, result[1]
    for word in words:
        assert word in result[1]
    assert len(result[1].strip().splitlines()) == 1, "one paragraph"


def test_empty_and_missing_folder(job: Any, tmp_path: Path) -> None:
    expect(job("ingest"), 3, str(tmp_path / "logs"))
    (tmp_path / "logs").mkdir()
    expect(job("ingest"), 3, str(tmp_path / "logs"), "*.csv*")
    assert no_table(tmp_path, schemas.BRONZE_EVENTS)


def test_file_with_other_columns(job: Any, tmp_path: Path) -> None:
    log(tmp_path, "a.csv", "u1,i1,view,2026-01-01 00:00:00")
    log(tmp_path, "b.csv", "u1,9", header="user,points")
    expect(job("ingest"), 3, "b.csv", "points", "item")
    assert no_table(tmp_path, schemas.BRONZE_EVENTS)


def test_truncated_gzip(job: Any, tmp_path: Path) -> None:
    path = log(tmp_path, "a.csv", *(f"u{i},i{i * 7919 % 997},view,2026-01-01 00:00:{i % 60:02}" for i in range(20000)))
    whole = gzip.compress(path.read_bytes())
    path.unlink()
    (tmp_path / "logs" / "a.csv.gz").write_bytes(whole[: len(whole) // 2])
    expect(job("ingest"), 3, "a.csv.gz")
    assert no_table(tmp_path, schemas.BRONZE_EVENTS)


def test_stage_without_its_input(job: Any) -> None:
    expect(job("train_als"), 3, "train_als", "gold.")


def test_lake_of_a_newer_schema_version(job: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(tmp_path, "a.csv", "u1,i1,view,2026-01-01 00:00:00")
    assert job("ingest")[0] == 0
    wrote = schemas.SCHEMA_VERSION
    monkeypatch.setattr(schemas, "SCHEMA_VERSION", 1)
    expect(job("clean"), 2, f"schema version {wrote}", "version 1.")


def test_too_many_refused_rows_stop_before_the_write(job: Any, tmp_path: Path) -> None:
    log(tmp_path, "a.csv", *(f"u1,i{i},view,yesterday" for i in range(9)), "u1,i9,view,2026-01-01 00:00:00")
    assert job("ingest")[0] == 0
    expect(job("clean"), 3, "max_refused", "90")
    assert no_table(tmp_path, schemas.SILVER_EVENTS)


def test_date_without_data(job: Any, tmp_path: Path) -> None:
    log(tmp_path, "2026-01-01.csv", "u1,i1,view,2026-01-01 00:00:00")
    options = json.loads(
        """{"events": {"files": "{date}.csv", "format": "csv", "columns":
        {"user_id": "user", "item_id": "item", "event_type": "what", "event_time": "when"}}}"""
    )
    source = {"name": "generic", "path": str(tmp_path / "logs"), "options": options}
    expect(job("ingest", "--date", "2026-01-02", source=source), 3, "2026-01-02", "2026-01-01")
    assert job("ingest", "--date", "2026-01-01", source=source)[0] == 0


def test_too_few_slots_for_the_ranks(job: Any) -> None:
    """Said before anything is read."""
    expect(job("train_two_tower", two_tower={"ranks": 64}), 2, "64", "two_tower.ranks", "Spark slots")
