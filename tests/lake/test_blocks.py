"""Rows that executors write themselves: the same table as Spark's writer makes, by one transaction of Delta."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.lake.blocks import Blocks, Replacement, row_groups
from sparkrec.lake.tables import Lake
from sparkrec.retrieval.join import LISTS

pytestmark = pytest.mark.spark

TABLE = schemas.RECOMMENDATIONS
PLACE = {c.RUN_ID: "2026-11-30", c.MODEL: "als"}


@pytest.fixture
def lake(spark: Any, tmp_path: Any) -> Lake:
    return Lake(str(tmp_path / "lake"), spark)


def batch(users: pa.Array, k: int, number: int) -> pa.RecordBatch:
    owner = np.repeat(np.arange(len(users), dtype=np.int32), k)
    n, of = len(owner), pa.DictionaryArray.from_arrays
    columns = [
        of(pa.array(owner), users),
        pa.array(np.tile(np.arange(1, k + 1, dtype=np.int32), len(users))),
        pa.array([f"item {number} '{i % 7}' ü" for i in range(n)]),
        pa.array(np.arange(n) / 3 + number),
        of(pa.array(np.zeros(n, np.int8)), pa.array(["als"])),
        of(pa.array([(0, 1, None)[i % 3] for i in range(n)], pa.int8()), pa.array(["because", "as well"])),
        pa.array(np.ones(n)),
    ]
    return pa.RecordBatch.from_arrays(columns, names=LISTS.names)


def otherwise(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows; dictionaries are numbered by other integers, or none, and what is none is one."""
    columns = {name: batch.column(name) for name in batch.schema.names}
    columns[c.SOURCE] = columns[c.SOURCE].dictionary_decode()
    columns[c.ITEM_ID] = columns[c.ITEM_ID].dictionary_encode()
    reasons = columns[c.REASON]
    columns[c.REASON] = pa.DictionaryArray.from_arrays(reasons.indices.cast(pa.int64()), reasons.dictionary)
    return pa.RecordBatch.from_pydict(columns)


def blocks(spark: Any, n: int, number: int = 0, fails: bool = False) -> Blocks:
    """Four rows a user, of two tasks with the strictest umask, of which each makes nothing of its last batch."""

    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        os.umask(0o077)
        for some in batches:
            users = pa.array([f"u{user}" for user in some.column("id").to_pylist()])
            yield batch(users, 2, number)
            if fails:
                raise ValueError("a vector of another width")
            yield batch(users.slice(0, 0), 2, number)
            yield otherwise(batch(users, 2, number + 1))

    return Blocks(spark.range(0, n, 1, 2), kernel, LISTS)


def rows(frame: Any) -> list[tuple[Any, ...]]:
    return sorted(map(tuple, frame.select(*LISTS.names).collect()), key=repr)


def files(lake: Lake) -> list[Path]:
    return sorted(Path(lake.path(TABLE)).rglob("*.parquet"))


def test_spark_and_executors_write_the_same_rows_of_the_same_types(spark: Any, lake: Lake) -> None:
    version, n = lake.overwrite_blocks(TABLE, blocks(spark, 50), PLACE)
    by_spark = rows(blocks(spark, 50).rows())
    assert n == 200 == len(by_spark)
    found = lake.read(TABLE, version)
    assert rows(found) == by_spark
    assert {tuple(row) for row in found.select(*PLACE).distinct().collect()} == {tuple(PLACE.values())}
    # Readers without Spark find the types of the table, too, whatever was a dictionary when it was written.
    table = deltalake.DeltaTable(lake.path(TABLE), version=version).to_pyarrow_table()
    assert sorted(map(repr, table.select(LISTS.names).to_pylist())) == sorted(
        repr(dict(zip(LISTS.names, row, strict=True))) for row in by_spark
    )
    assert table.schema.field(c.USER_ID).type == pa.string()


def test_a_second_write_replaces_its_partition_and_no_other(spark: Any, lake: Lake) -> None:
    other = PLACE | {c.MODEL: "two_tower"}
    first, _ = lake.overwrite_blocks(TABLE, blocks(spark, 5), PLACE)
    lake.overwrite_blocks(TABLE, blocks(spark, 6, 1), other)
    last, n = lake.overwrite_blocks(TABLE, blocks(spark, 3, 2), PLACE)
    now = lake.read(TABLE, last)
    assert n == 12 == now.where("model = 'als'").count()
    assert rows(now.where("model = 'als'")) == rows(blocks(spark, 3, 2).rows())
    assert now.where("model = 'two_tower'").count() == 24
    assert lake.read(TABLE, first).count() == 20


def test_nothing_is_an_empty_partition(spark: Any, lake: Lake) -> None:
    lake.overwrite_blocks(TABLE, blocks(spark, 5), PLACE)
    last, n = lake.overwrite_blocks(TABLE, blocks(spark, 0), PLACE)
    assert n == 0 == lake.read(TABLE, last).count()


@pytest.mark.parametrize("run_id", ["it's 100 %", "a:b=c", "ü?#[x]%20"])
def test_any_name_of_a_run(spark: Any, lake: Lake, run_id: str) -> None:
    place = PLACE | {c.RUN_ID: run_id}
    for n in (4, 3):
        lake.overwrite_blocks(TABLE, blocks(spark, n), place)
    lake.overwrite(TABLE, blocks(spark, 1).rows().selectExpr("*", "'r' AS run_id", "'als' AS model"), {c.RUN_ID: "r"})
    found = lake.read(TABLE)
    assert {(row[c.RUN_ID], row["count"]) for row in found.groupBy(c.RUN_ID).count().collect()} == {
        (run_id, 12),
        ("r", 4),
    }
    assert rows(found.where(found[c.RUN_ID] == run_id)) == rows(blocks(spark, 3).rows())


def test_the_history_says_what_was_written(spark: Any, lake: Lake) -> None:
    from delta.tables import DeltaTable

    version, n = lake.overwrite_blocks(TABLE, blocks(spark, 5), PLACE)
    (last,) = DeltaTable.forPath(spark, lake.path(TABLE)).history(1).collect()
    assert (last["version"], last["operation"], last["operationParameters"]["mode"]) == (version, "WRITE", "Overwrite")
    assert int(last["operationMetrics"]["numOutputRows"]) == n == lake.commits(TABLE)[-1].rows
    size = sum(path.stat().st_size for path in files(lake) if "model=als" in str(path))
    assert int(last["operationMetrics"]["numOutputBytes"]) == size


def test_files_are_as_readable_as_those_of_spark_and_have_few_row_groups(spark: Any, lake: Lake) -> None:
    lake.overwrite_blocks(TABLE, blocks(spark, 50), PLACE)
    written = files(lake)
    lake.overwrite(TABLE, blocks(spark, 50).rows().selectExpr("*", "'r' AS run_id", "'als' AS model"), {c.RUN_ID: "r"})
    by_spark = [path for path in files(lake) if path not in written]
    assert {oct(path.stat().st_mode) for path in written} == {oct(path.stat().st_mode) for path in by_spark}
    assert {oct(path.parent.stat().st_mode) for path in written} == {
        oct(path.parent.stat().st_mode) for path in by_spark
    }
    assert [pq.ParquetFile(path).num_row_groups for path in written] == [1, 1]


def test_a_table_that_somebody_has_changed_is_written_by_spark(spark: Any, lake: Lake) -> None:
    """With other names for columns in its files, or constraints that every row is to meet."""
    lake.overwrite_blocks(TABLE, blocks(spark, 5), PLACE)
    name = f"delta.`{lake.path(TABLE)}`"
    spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name')")
    version, _ = lake.overwrite_blocks(TABLE, blocks(spark, 3), PLACE)
    assert rows(lake.read(TABLE, version)) == rows(blocks(spark, 3).rows())
    other = Lake(f"{lake.root}-2", spark)
    other.overwrite_blocks(TABLE, blocks(spark, 5), PLACE)
    spark.sql(f"ALTER TABLE delta.`{other.path(TABLE)}` ADD CONSTRAINT likely CHECK ({c.SCORE} < 10)")
    with pytest.raises(Exception, match="likely"):
        other.overwrite_blocks(TABLE, blocks(spark, 50), PLACE)


def test_a_kernel_that_fails_leaves_the_table_and_no_file(spark: Any, lake: Lake) -> None:
    version, _ = lake.overwrite_blocks(TABLE, blocks(spark, 5), PLACE)
    before = files(lake)
    with pytest.raises(Exception, match="a vector of another width"):
        lake.overwrite_blocks(TABLE, blocks(spark, 50, fails=True), PLACE)
    assert files(lake) == before
    assert lake.version(TABLE) == version


def test_who_writes_the_same_partition_meanwhile_is_a_conflict(spark: Any, lake: Lake) -> None:
    from delta.exceptions import ConcurrentAppendException

    lake.overwrite_blocks(TABLE, blocks(spark, 5), PLACE)
    mine, other = (Replacement(spark, lake.path(TABLE), PLACE | {c.MODEL: name}) for name in ("als", "two_tower"))
    lake.overwrite_blocks(TABLE, blocks(spark, 3, 1), PLACE)
    with pytest.raises(ConcurrentAppendException):
        mine.commit([], "token")
    other.commit([], "token")
    assert rows(lake.read(TABLE)) == rows(blocks(spark, 3, 1).rows())


def test_a_store_that_python_does_not_reach_is_written_by_spark(spark: Any, tmp_path: Path) -> None:
    context = spark.sparkContext._jsc.hadoopConfiguration()
    context.set("fs.viewfs.mounttable.store.link./lakes", f"file://{tmp_path}")
    lake = Lake("viewfs://store/lakes/mine", spark)
    version, n = lake.overwrite_blocks(TABLE, blocks(spark, 5), PLACE)
    assert n == 20
    assert rows(lake.read(TABLE, version)) == rows(blocks(spark, 5).rows())
    assert lake.commits(TABLE)[-1].rows == n


def test_other_columns_or_half_a_partition_are_refused(spark: Any, lake: Lake) -> None:
    with pytest.raises(ValueError, match="one partition"):
        lake.overwrite_blocks(TABLE, blocks(spark, 1), {c.MODEL: "als"})
    few = Blocks(spark.range(1), lambda batches: batches, pa.schema([("id", pa.int64())]))
    with pytest.raises(ValueError, match="id bigint"):
        lake.overwrite_blocks(TABLE, few, PLACE)
    assert not lake.exists(TABLE)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=12), st.integers(1, 12))
def test_row_groups_are_the_rows_in_order_and_not_small(made: list[tuple[int, bool]], least: int) -> None:
    whole = [
        batch(pa.array([f"u{n}-{i}" for i in range(n)], pa.string()), 1, number) for number, (n, _) in enumerate(made)
    ]
    mixed = [otherwise(one) if other else one for one, (_, other) in zip(whole, made, strict=True)]
    tables = list(row_groups(mixed, least))
    plain = [row for one in whole for row in one.to_pylist()]
    assert [row for table in tables for row in table.to_pylist()] == plain
    assert all(table.num_rows >= least for table in tables[:-1])
    assert all(table.schema == tables[0].schema for table in tables)
    assert all(column.num_chunks == 1 for table in tables for column in table.columns)
