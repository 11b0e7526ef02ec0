"""Rows that Python makes block by block, and that the executors which made them write: none passes through the JVM.

Spark's writer takes rows one by one, and each has to come from Python first: in a job that wrote 10 million rows of
lists that took longer than the search (docs/retrieval.md has the job's speed before and after). The transaction is
Delta's, as of any other write: first the files, under names that nobody else has, then one commit that names them. What
a task leaves that dies, or that ran twice, is named by nobody, and goes with VACUUM.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Kernel = Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]
#: Rows of a row group, at least: a kernel's blocks may be of a few.
_GROUP = 1 << 19


@dataclass(frozen=True)
class Blocks:
    """What ``kernel`` makes of the rows of ``source``: batches of ``schema``, whose texts may be dictionaries.

    No value of a dictionary is null; a number may be.
    """

    source: DataFrame
    kernel: Kernel
    schema: pa.Schema

    @property
    def columns(self) -> list[str]:
        """Name and Spark SQL type of each."""
        from pyspark.sql.pandas.types import from_arrow_schema

        return [f"{field.name} {field.dataType.simpleString()}" for field in from_arrow_schema(self.schema)]

    def rows(self) -> DataFrame:
        """As a frame, row by row."""
        kernel, plain = self.kernel, self.schema

        def batches(of: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            return (batch.cast(plain) for batch in kernel(of))

        return self.source.mapInArrow(batches, ", ".join(self.columns))


@dataclass(frozen=True)
class Part:
    """A file that one task wrote: its name, bytes and rows."""

    name: str
    size: int
    rows: int


def written(blocks: Blocks, folder: str, mode: int = 0o644) -> list[Part]:
    """The files that hold all rows, a file a task, in a folder that is there and that every executor reaches.

    ``mode`` : of the files, whatever the umask of an executor.
    """
    made = blocks.source.mapInArrow(_writing(blocks.kernel, folder, mode), "name string, size long, n long")
    return [Part(*row) for row in made.collect()]


def _writing(kernel: Kernel, folder: str, mode: int) -> Kernel:
    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        task = TaskContext.get()
        name = f"part-{task.partitionId() if task else 0:05}-{uuid.uuid4()}.c000.zstd.parquet"
        path, rows, writer = os.path.join(folder, name), 0, None
        try:
            for table in row_groups(kernel(batches)):
                writer = writer or _writer(path, table.schema)
                writer.write_table(table, row_group_size=table.num_rows)
                rows += table.num_rows
            if writer:
                writer.close()
                os.chmod(path, mode)
        except BaseException:
            if writer:
                with suppress(OSError, pa.ArrowException):  # the error under way says more
                    writer.close()
                with suppress(OSError):
                    os.unlink(path)
            raise
        if writer:
            yield pa.RecordBatch.from_pydict({"name": [name], "size": [os.path.getsize(path)], "n": [rows]})

    return write


def row_groups(batches: Iterable[pa.RecordBatch], least: int = _GROUP) -> Iterator[pa.Table]:
    """The rows of the batches, in order, in tables of one schema and of ``least`` rows or more, but for the last one.

    A column that is a dictionary in the first batch is one in all tables: small numbers, and the values of that table.
    """
    coded: list[str] | None = None
    held: list[pa.RecordBatch] = []

    def group() -> pa.Table:
        return pa.Table.from_batches(held).unify_dictionaries().combine_chunks()

    for batch in batches:
        if not batch.num_rows:
            continue
        if coded is None:
            coded = [field.name for field in batch.schema if pa.types.is_dictionary(field.type)]
        columns = {name: batch.column(name) for name in batch.schema.names}
        columns = {name: _coded(x) if name in coded else _plain(x) for name, x in columns.items()}
        held.append(pa.RecordBatch.from_pydict(columns))
        if sum(one.num_rows for one in held) >= least:
            yield group()
            held = []
    if held:
        yield group()


def _coded(column: pa.Array) -> pa.DictionaryArray:
    """As a dictionary, numbered by int32."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    return pa.DictionaryArray.from_arrays(column.indices.cast(pa.int32()), column.dictionary)


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _writer(path: str, schema: pa.Schema) -> pq.ParquetWriter:
    """Dictionaries and bounds where they cost nothing; and Arrow's own schema would make dictionaries the type."""
    coded = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    small = [field.name for field in schema if pa.types.is_integer(field.type)]
    return pq.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=coded + small, write_statistics=coded, store_schema=False
    )


def predicate(where: Mapping[str, str]) -> str:
    """SQL: the rows of one partition, by the values of columns."""
    return " AND ".join(f"{column} = {quoted(value)}" for column, value in where.items())


def quoted(value: str) -> str:
    """As a literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


class Replacement:
    """One transaction of Delta that puts files in the place of those of one partition.

    It begins when it is made: who commits to the same partition after that is in conflict with it.
    """

    def __init__(self, spark: SparkSession, path: str, where: Mapping[str, str]) -> None:
        jvm: Any = spark._jvm
        self._spark, self._jvm, self._path, self._where = spark, jvm, path, where
        self._log = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, path)
        self._transaction = self._log.startTransaction()
        escaped = jvm.org.apache.spark.sql.catalyst.catalog.ExternalCatalogUtils
        #: Under the table's path, where the partition's files go.
        self.folder = "/".join(escaped.getPartitionPathString(name, value) for name, value in where.items())
        self._predicate = predicate(where)

    @property
    def fits(self) -> bool:
        """Whether files can be put into the table: columns go by their names, and no constraint is to be checked."""
        properties = str(self._transaction.metadata().configuration().keySet().mkString(" "))
        return "delta.columnMapping.mode" not in properties and "delta.constraints." not in properties

    def make_folder(self) -> int:
        """Makes :attr:`folder`, as Spark would, and returns the mode that a file would get."""
        hadoop, conf = self._jvm.org.apache.hadoop.fs, self._spark._jsc.hadoopConfiguration()
        folder = hadoop.Path(self._path, hadoop.Path(self.folder))
        folder.getFileSystem(conf).mkdirs(folder)
        return 0o666 & ~int(hadoop.permission.FsPermission.getUMask(conf).toShort())

    def commit(self, parts: Sequence[Part], token: str) -> int:
        """The version in which the partition is these files; ``token`` : its ``userMetadata``.

        Raises
        ------
        ConcurrentAppendException, or another of ``delta.exceptions``
            Somebody else has changed the partition since; nothing was changed.
        """
        import delta.exceptions  # noqa: F401  it turns what the JVM raises into exceptions of Python

        jvm, sql = self._jvm, self._jvm.org.apache.spark.sql
        session = self._spark._jsparkSession
        condition = session.sessionState().sqlParser().parseExpression(self._predicate)
        held = self._transaction.filterFiles(self._sequence([condition]), False)
        added = [sql.delta.actions.Action.fromJson(json.dumps({"add": self._add(part)})) for part in parts]
        removed = [held.apply(number).remove() for number in range(held.size())]
        nothing, some = jvm.scala.Option.empty(), jvm.scala.Option
        how = sql.delta.DeltaOperations.Write(
            sql.SaveMode.Overwrite, some.apply(self._sequence(list(self._where))),
            some.apply(self._predicate), some.apply(token), nothing, nothing, nothing, nothing, nothing,
        )  # fmt: skip
        self._note(numFiles=len(parts), numOutputRows=sum(part.rows for part in parts),
                   numOutputBytes=sum(part.size for part in parts))  # fmt: skip
        return int(self._transaction.commit(self._sequence(added + removed), how))

    def _add(self, part: Part) -> dict[str, Any]:
        """The action of Delta's protocol."""
        path = self._jvm.org.apache.hadoop.fs.Path(f"{self.folder}/{part.name}").toUri().toString()
        return {
            "path": path, "partitionValues": dict(self._where), "size": part.size, "dataChange": True,
            "modificationTime": int(time.time() * 1000), "stats": json.dumps({"numRecords": part.rows}),
        }  # fmt: skip

    def _note(self, **numbers: int) -> None:
        """For the table's history."""
        metrics, context = self._jvm.java.util.HashMap(), self._spark._jsparkSession.sparkContext()
        for name, number in numbers.items():
            metrics[name] = self._jvm.org.apache.spark.sql.execution.metric.SQLMetrics.createMetric(context, name)
            metrics[name].set(number)
        self._transaction.registerSQLMetrics(self._spark._jsparkSession, self._jvm.PythonUtils.toScalaMap(metrics))

    def _sequence(self, values: list[Any]) -> Any:
        return self._jvm.PythonUtils.toSeq(values)
