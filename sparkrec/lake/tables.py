"""Delta tables by name: read a version, write atomically and idempotently."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sparkrec import schemas
from sparkrec.errors import ConfigError, DataError
from sparkrec.schemas import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_SCHEMA_PROPERTY = "sparkrec.schemaVersion"
#: In a run record, while an erasure is under way: the newest version, whatever its number will be.
CURRENT = -1
_COMMIT = re.compile(r"\d{20}\.json")


@dataclass(frozen=True)
class Lake:
    """A folder (or URI) of Delta tables."""

    root: str
    spark: SparkSession
    _checked: set[str] = field(default_factory=set, compare=False)

    def path(self, table: Table) -> str:
        """Where a table lies."""
        return f"{self.root.rstrip('/')}/{table.name.replace('.', '/')}"

    def exists(self, table: Table) -> bool:
        from delta.tables import DeltaTable

        return DeltaTable.isDeltaTable(self.spark, self.path(table))

    def version(self, table: Table) -> int:
        """The newest version of an existing table."""
        return self._last_commit(table)[0]

    def read(self, table: Table, version: int | None = None) -> DataFrame:
        """A table, whole, at a version (default: the newest).

        Raises
        ------
        DataError
            The table is not there, or another schema version of sparkrec wrote it.
        """
        if table.name not in self._checked and not self.exists(table):
            raise DataError(
                f"The table {table.name} is not in the lake {self.root}. "
                "Run the stage that writes it first: sparkrec run does them all in order."
            )
        self._check_schema_version(table)
        if version == CURRENT:
            raise DataError(
                f"An erasure of users from the lake {self.root} was interrupted, and {table.name} is not whole. Run "
                "'sparkrec erase' with the same users again, then this."
            )
        reader = self.spark.read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        with _forgotten(table, version):
            return reader.load(self.path(table)).select(*table.column_names)

    def overwrite(self, table: Table, frame: DataFrame, where: Mapping[str, str] | None = None) -> tuple[int, int]:
        """Replace the whole table, or the partitions named by ``where``, in one commit.

        Running it again with the same rows gives the same table. Returns the new version and the rows written.
        """
        self._create(table)
        writer = self._conform(table, frame).write.format("delta").mode("overwrite")
        if where:
            condition = " AND ".join(f"{column} = '{_quoted(value)}'" for column, value in where.items())
            writer = writer.option("replaceWhere", condition)
        writer.save(self.path(table))
        return self._last_commit(table)

    def append(self, table: Table, frame: DataFrame, transaction: str) -> tuple[int, int]:
        """Append in one commit, once: the same ``transaction`` again changes nothing. Returns as above."""
        self._create(table)
        (
            self._conform(table, frame)
            .write.format("delta")
            .mode("append")
            .option("txnAppId", transaction)
            .option("txnVersion", 1)
            .save(self.path(table))
        )
        return self._last_commit(table)

    def _last_commit(self, table: Table) -> tuple[int, int]:
        """Version and rows written of the newest commit, from its file: Delta's history would start a Spark job."""
        files, log = self._log(table)
        paths = [file.getPath() for file in files.listStatus(log)]
        newest = max((path for path in paths if _COMMIT.fullmatch(path.getName())), key=lambda path: path.getName())
        jvm: Any = self.spark._jvm
        lines = jvm.java.io.BufferedReader(jvm.java.io.InputStreamReader(files.open(newest), "UTF-8"))
        try:  # one line an action; commitInfo is the first
            actions = (json.loads(line) for line in iter(lines.readLine, None))
            about: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
        finally:
            lines.close()
        return int(newest.getName()[:20]), int(about.get("operationMetrics", {}).get("numOutputRows", 0))

    def _log(self, table: Table) -> tuple[Any, Any]:
        """The file system and the path of a table's log."""
        jvm: Any = self.spark._jvm
        log = jvm.org.apache.hadoop.fs.Path(f"{self.path(table)}/_delta_log")
        return log.getFileSystem(self.spark._jsc.hadoopConfiguration()), log

    def create(self, table: Table) -> None:
        """An empty table, where there is none."""
        self._create(table)

    def _create(self, table: Table) -> None:
        from delta.tables import DeltaTable

        if table.name in self._checked:
            return
        if self.exists(table):
            self._check_schema_version(table)
            return
        self._remove_torn_log(table)
        builder = (
            DeltaTable.createIfNotExists(self.spark)
            .location(self.path(table))
            .addColumns(table.struct())
            .comment(table.doc)
            .property(_SCHEMA_PROPERTY, str(schemas.SCHEMA_VERSION))
        )
        if table.append_only:
            builder = builder.property("delta.appendOnly", "true")
        if table.partition_by:
            builder = builder.partitionedBy(*table.partition_by)
        builder.execute()
        self._checked.add(table.name)

    def _remove_torn_log(self, table: Table) -> None:
        """A creation that was killed before its first commit left a log without one; Delta would not create over it."""
        files, log = self._log(table)
        if files.exists(log) and not any(_COMMIT.match(file.getPath().getName()) for file in files.listStatus(log)):
            files.delete(log, True)

    def _check_schema_version(self, table: Table) -> None:
        if table.name in self._checked:
            return
        path = self.path(table).replace("`", "``")
        properties = {row.key: row.value for row in self.spark.sql(f"SHOW TBLPROPERTIES delta.`{path}`").collect()}
        found = properties.get(_SCHEMA_PROPERTY, "none")
        if found != str(schemas.SCHEMA_VERSION):
            raise ConfigError(
                f"The table {table.name} in the lake {self.root} was written with schema version {found}, and this "
                f"sparkrec reads and writes version {schemas.SCHEMA_VERSION}. Nothing was changed. Point lake.path "
                "at another folder, or use the release of sparkrec that wrote it."
            )
        self._checked.add(table.name)

    def _conform(self, table: Table, frame: DataFrame) -> DataFrame:
        """Exactly the table's columns, in order, in its types; a missing or surplus one is a defect of ours."""
        missing = set(table.column_names) - set(frame.columns)
        surplus = set(frame.columns) - set(table.column_names)
        if missing or surplus:
            raise ValueError(f"{table.name}: columns missing {sorted(missing)}, surplus {sorted(surplus)}")
        return frame.selectExpr(*[f"CAST(`{x.name}` AS {x.type}) AS `{x.name}`" for x in table.columns])


@contextlib.contextmanager
def _forgotten(table: Table, version: int | None) -> Iterator[None]:
    """Turns what Delta says about a version that is gone into a DataError that says what to do."""
    from pyspark.errors import AnalysisException

    try:
        yield
    except AnalysisException as error:
        if "DELTA_VERSION_NOT_FOUND" not in str(error) and "TIME_TRAVEL" not in str(error):
            raise
        raise DataError(
            f"Version {version} of {table.name}, which this run reads, is gone: an erasure or 'sparkrec maintain' has "
            "removed old versions. Run the stages of this run before this one again, with the same --run-id."
        ) from None


def _quoted(value: str) -> str:
    return value.replace("'", "''")
