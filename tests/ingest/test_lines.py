import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkrec.ingest.files import Folder
from sparkrec.ingest.lines import offsets, read_lines


@pytest.mark.unit
@given(st.lists(st.integers(0, 50), max_size=20))
def test_offsets_are_the_sums_of_what_lies_before(counts: list[int]) -> None:
    assert offsets(counts) == [sum(counts[:i]) for i in range(len(counts))]


@pytest.fixture
def tiny_splits(spark: Any) -> Iterator[None]:
    settings = {"spark.sql.files.maxPartitionBytes": "150", "spark.sql.files.openCostInBytes": "20"}
    for key, value in settings.items():
        spark.conf.set(key, value)
    yield
    for key in settings:
        spark.conf.unset(key)


def executed(spark: Any, first: int) -> dict[int, str]:
    """The physical plans that Spark remembers, by number, from one on: the newest first."""
    spark.sparkContext._jsc.sc().listenerBus().waitUntilEmpty()
    known = spark._jsparkSession.sharedState().statusStore().executionsList()
    found: dict[int, str] = {}
    for place in reversed(range(known.size())):
        execution = known.apply(place)
        if execution.executionId() < first:
            break
        found[execution.executionId()] = execution.physicalPlanDescription()
    return found


@pytest.mark.spark
def test_lines_of_files_that_are_split_in_the_middle(spark: Any, tmp_path: Path, tiny_splits: None) -> None:
    draw = random.Random(1)
    texts = {}
    for name, lines, end in (
        ("a.csv", 40, "\n"),
        ("b [1] #é.csv", 60, "\r\n"),
        ("c.csv", 2, "\n"),
        ("none.csv", 0, ""),
    ):
        rows = [f"{name} {i} " + "x" * draw.randrange(60) if draw.random() < 0.9 else " " for i in range(lines)]
        rows[:1] = [f"header of {name}"][: len(rows)]
        texts[name] = rows
        (tmp_path / name).write_bytes(end.join(rows).encode())

    folder = Folder(spark, str(tmp_path))
    before = max(executed(spark, 0), default=0)
    frame, headers = read_lines(folder, folder.list("*.csv"), "utf-8", header=True)
    plans = executed(spark, before + 1).values()
    assert any("HashAggregate" in plan for plan in plans)
    assert not any("Sort" in plan for plan in plans), "no pass sorts the lines"

    assert headers == {name: rows[0] for name, rows in texts.items() if rows}
    found = {(row.source_file, row.line): (row.raw, row.header, row.source_bytes) for row in frame.collect()}
    expected = {
        (name, i): (text, rows[0], (tmp_path / name).stat().st_size)
        for name, rows in texts.items()
        for i, text in enumerate(rows, 1)
        if i > 1 and text.strip()
    }
    assert frame.rdd.getNumPartitions() > 8, "the files were not split, so nothing was tested"
    assert found == expected


@pytest.mark.spark
def test_encodings_and_byte_order_marks(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("Misérables\n".encode("latin-1"))
    (tmp_path / "utf").write_bytes("\ufeffMisérables\n".encode())
    (tmp_path / "windows").write_bytes("5 €\n".encode("cp1252"))
    folder = Folder(spark, str(tmp_path))
    expected = {
        ("latin", "ISO-8859-1"): "Misérables", ("utf", "utf-8"): "Misérables", ("windows", "windows-1252"): "5 €",
        ("latin", "us-ascii"): "Mis�rables",
    }  # fmt: skip
    for (name, encoding), text in expected.items():
        rows = read_lines(folder, folder.list(name), encoding, header=False)[0].collect()
        assert [(row.line, row.raw, row.header) for row in rows] == [(1, text, None)]
