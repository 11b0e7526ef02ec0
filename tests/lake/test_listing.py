"""A version whose files are listed once is what Delta reads, whatever is asked of it and whatever comes after it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame

from sparkrec.lake import listing

pytestmark = pytest.mark.spark

DAYS = ("a day", "b=c", "d/é%", None)


@pytest.fixture(scope="module")
def path(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two versions; partitions of odd names, and one without."""
    to = str(tmp_path_factory.mktemp("listed") / "a table")
    rows = [(n, DAYS[n % len(DAYS)]) for n in range(40)]
    for more in (rows[:30], rows[30:]):
        frame = spark.createDataFrame(more, "n int, day string")
        frame.write.format("delta").partitionBy("day").mode("append").save(to)
    return to


def _version(spark: Any, path: str, version: int) -> DataFrame:
    return spark.read.format("delta").option("versionAsOf", version).load(path)


def _files(frame: DataFrame) -> int:
    plan = frame._jdf.queryExecution().executedPlan()
    return int(plan.collectLeaves().head().selectedPartitions().totalNumberOfFiles())


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("condition", ["true", "n > 25", "day = 'd/é%'", "day IS NULL AND n < 20", "n < 0"])
def test_rows_are_those_of_delta(spark: Any, path: str, version: int, condition: str) -> None:
    delta = _version(spark, path, version)
    found = listing.listed(delta)
    assert found.schema == delta.schema
    assert "TahoeBatchFileIndex" in found._jdf.queryExecution().analyzed().collectLeaves().head().relation().location(
    ).getClass().getName()  # fmt: skip
    assert sorted(map(repr, found.where(condition).collect())) == sorted(map(repr, delta.where(condition).collect()))


def test_only_the_wanted_partitions_are_read(spark: Any, path: str) -> None:
    found = listing.listed(_version(spark, path, 1))
    assert _files(found.where("day = 'b=c'")) < _files(found)


def test_only_delta_searches_for_files_with_jobs(spark: Any, path: str) -> None:
    delta = _version(spark, path, 1)
    started = {}
    for name, frame in {"delta": delta, "listed": listing.listed(delta)}.items():
        spark.sparkContext.setJobGroup(name, name)
        frame.where("day = 'b=c'").select("n")._jdf.queryExecution().executedPlan()
        started[name] = len(spark.sparkContext.statusTracker().getJobIdsForGroup(name))
    spark.sparkContext.setLocalProperty("spark.jobGroup.id", None)
    assert started["listed"] == 0 < started["delta"]


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("left", ["whole", "gone", "torn", "of another number of files"])
def test_the_log_is_replayed_only_where_no_checksum_names_the_files(
    spark: Any, path: str, tmp_path: Path, version: int, left: str
) -> None:
    own = tmp_path / "own"
    shutil.copytree(path, own)
    for checksum in own.glob("_delta_log/0*.crc"):
        text = checksum.read_text()
        if left == "gone":
            checksum.unlink()
        elif left == "torn":
            checksum.write_text(text[: len(text) // 2])
        elif left != "whole":
            checksum.write_text(json.dumps(json.loads(text) | {"allFiles": []}))
        checksum.with_name(f".{checksum.name}.crc").unlink()  # Hadoop's own, of the bytes
    delta, group = _version(spark, str(own), version), f"{left} {version}"
    spark.sparkContext.setJobGroup(group, group)
    found = listing.listed(delta)
    jobs = len(spark.sparkContext.statusTracker().getJobIdsForGroup(group))
    spark.sparkContext.setLocalProperty("spark.jobGroup.id", None)
    assert sorted(map(repr, found.collect())) == sorted(map(repr, _version(spark, path, version).collect()))
    assert (jobs == 0) == (left == "whole")


def test_a_table_joins_with_itself_and_is_written_over_from_itself(spark: Any, path: str, tmp_path: Path) -> None:
    found = listing.listed(_version(spark, path, 0))
    assert found.join(found.selectExpr("n"), "n", "left_anti").isEmpty()
    own = str(tmp_path / "own")
    found.write.format("delta").save(own)
    listing.listed(_version(spark, own, 0)).where("n < 5").write.format("delta").mode("overwrite").save(own)
    assert listing.listed(_version(spark, own, 0)).count() == 30
    assert listing.listed(_version(spark, own, 1)).count() == 5


def test_many_files_are_left_to_delta(spark: Any, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_FILES", 2)
    delta = _version(spark, path, 1)
    assert listing.listed(delta) is delta
