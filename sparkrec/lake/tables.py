"""Delta tables by name: read a version, write atomically and idempotently, on top of a known version."""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sparkrec.errors import DataError, RetryableError
from sparkrec.lake import listing, migrations
from sparkrec.lake.blocks import Blocks, Replacement, predicate, quoted, written
from sparkrec.lake.place import by_path
from sparkrec.schemas import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: In a run record, while an erasure is under way: the newest version, whatever its number will be.
CURRENT = -1
#: As a version to write on: the table is not there yet.
ABSENT = -2
_COMMIT = re.compile(r"\d{20}\.json")
_APPLICATION = "sparkrec"


@dataclass(frozen=True)
class Commit:
    """One line of a table's history."""

    version: int
    operation: str
    mode: str
    rows: int
    token: str | None

    @property
    def appends(self) -> bool:
        """Rows came, and no other changed; the first ones of a table came with it."""
        return self.operation == "WRITE" and self.mode in ("Append", "ErrorIfExists")

    @property
    def keeps_content(self) -> bool:
        """Files moved, properties changed: every row is what it was."""
        kind = self.operation.split()[0]
        return kind in {"OPTIMIZE", "REORG", "VACUUM", "SET", "UNSET", "ADD"} or self.operation == "CREATE TABLE"


@dataclass(frozen=True)
class Lake:
    """A folder (or URI) of Delta tables."""

    root: str
    spark: SparkSession
    _checked: set[str] = field(default_factory=set, compare=False)
    _pinned: dict[tuple[str, int], DataFrame] = field(default_factory=dict, compare=False)

    def path(self, table: Table) -> str:
        """Where a table lies."""
        return f"{self.root.rstrip('/')}/{table.name.replace('.', '/')}"

    def exists(self, table: Table) -> bool:
        from delta.tables import DeltaTable

        return DeltaTable.isDeltaTable(self.spark, self.path(table))

    def version(self, table: Table) -> int:
        """The newest version of an existing table."""
        return max(self._versions(table))

    def commits(self, table: Table, after: int | None = None) -> list[Commit]:
        """The commits after a version (default: all that the log has), oldest first.

        Raises
        ------
        DataError
            The log does not reach back that far.
        """
        versions = sorted(version for version in self._versions(table) if after is None or version > after)
        if after is not None and versions and versions[0] != after + 1:
            raise DataError(
                f"The log of {table.name} in the lake {self.root} begins at version {versions[0]}, "
                f"and what happened after version {after} is asked for. Compute that table anew (clean.full=true)."
            )
        return [self._commit(table, version) for version in versions]

    def read(self, table: Table, version: int | None = None) -> DataFrame:
        """A table, whole, at a version (default: the newest). Columns that an old version lacks are null.

        The files of a version are found once.

        Raises
        ------
        DataError
            The table is not there.
        ConfigError
            Another schema version of sparkrec wrote it, and it cannot be migrated.
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
        if version is None:
            return _shaped(table, reader.load(self.path(table)))
        if (table.name, version) not in self._pinned:
            with _forgotten(table, version):
                frame = reader.option("versionAsOf", version).load(self.path(table))
            self._pinned[table.name, version] = _shaped(table, listing.listed(frame))
        return self._pinned[table.name, version]

    def appended(self, table: Table, first: int, last: int) -> DataFrame:
        """The rows that the commits ``first`` to ``last`` appended, from the change feed; moved files do not count."""
        if first > last:
            return self.spark.createDataFrame([], table.struct())
        changes = (
            self.spark.read.format("delta")
            .option("readChangeFeed", "true")
            .option("startingVersion", first)
            .option("endingVersion", last)
            .load(self.path(table))
        )
        return changes.where("_change_type = 'insert'").select(*table.column_names)

    def changed_partitions(self, table: Table, column: str, after: int, until: int) -> set[str | None]:
        """The values of a partition column of which the commits after ``after``, to ``until``, changed rows.

        Raises
        ------
        DataError
            The log does not reach back that far.
        """
        found: set[str | None] = set()
        for commit in self.commits(table, after):
            if commit.version <= until:
                for action in self._actions(table, commit.version):
                    moved = action.get("add") or action.get("remove")
                    if moved and moved["dataChange"]:
                        found.add(moved["partitionValues"][column])
        return found

    def overwrite(
        self, table: Table, frame: DataFrame, where: Mapping[str, str] | str | None = None, base: int | None = None
    ) -> tuple[int, int]:
        """Replace the whole table, or the partitions of ``where`` (values by column, or SQL), in one commit.

        Running it again with the same rows gives the same table. Returns the new version and the rows written. With
        ``base``, the table must still be at that version.

        Raises
        ------
        RetryableError
            Somebody else has written the table since ``base``; nothing was changed.
        """
        if isinstance(where, Mapping):
            where = predicate(where)
        return self._write(table, frame, "overwrite", base, where or "")

    def overwrite_blocks(self, table: Table, blocks: Blocks, where: Mapping[str, str]) -> tuple[int, int]:
        """:meth:`overwrite` of one partition, without its columns, by the executors that make the rows.

        Spark writes where they do not reach the lake by path, as a store of objects, and where somebody has given the
        table constraints or other names for its columns.
        """
        wanted = [f"{x.name} {x.type}" for x in table.columns if x.name not in where]
        if list(where) != list(table.partition_by) or blocks.columns != wanted:
            raise ValueError(f"{table.name}: {blocks.columns} of {dict(where)}, where {wanted} of one partition belong")
        if not self._is_there(table):
            self._make(table, self.spark.createDataFrame([], table.struct()), "", None)
        replacement, place = Replacement(self.spark, self.path(table), where), by_path(self.path(table))
        if place is None or not replacement.fits:
            given = [f"{quoted(value)} AS `{name}`" for name, value in where.items()]
            return self.overwrite(table, blocks.rows().selectExpr("*", *given), where)
        parts = written(blocks, str(place / replacement.folder), replacement.make_folder())
        return replacement.commit(parts, uuid.uuid4().hex), sum(part.rows for part in parts)

    def append(
        self, table: Table, frame: DataFrame, base: int | None = None, properties: Mapping[str, str] | None = None
    ) -> tuple[int, int]:
        """Append in one commit. ``base`` and returns as above; without a base the table's state is not computed.

        ``properties`` : what a table that this makes says of itself, beside what all do.
        """
        return self._write(table, frame, "append", base, properties=properties)

    def prepare(self, table: Table) -> int:
        """The version to write on, a ``base``: the newest (an old table is migrated), or ``ABSENT``."""
        return self.version(table) if self._is_there(table) else ABSENT

    def restore(self, table: Table, version: int) -> int:
        """Takes back what came after ``version`` (a new commit, if there is anything); returns the newest version."""
        from delta.tables import DeltaTable

        if self.version(table) != version:
            DeltaTable.forPath(self.spark, self.path(table)).restoreToVersion(version)
        return self.version(table)

    def clear(self, table: Table) -> bool:
        """Removes what a killed first write of a table that is not there has left; whether there was anything."""
        if self.exists(table):
            raise ValueError(f"{table.name} is there: what nobody refers to is removed by VACUUM")
        files, log = self._log(table)
        return bool(files.delete(log.getParent(), True))

    def _write(
        self, table: Table, frame: DataFrame, mode: str, base: int | None, where: str = "",
        properties: Mapping[str, str] | None = None,
    ) -> tuple[int, int]:  # fmt: skip
        rows = self._conform(table, frame)
        if base in (None, ABSENT) and not self._is_there(table):
            made = self._make(table, rows, where, properties)
            if made is not None:
                return made
        writer = rows.write.format("delta").mode(mode)
        return self._save(table, writer.option("replaceWhere", where) if where else writer, base)

    def _make(
        self, table: Table, rows: DataFrame, where: str, properties: Mapping[str, str] | None
    ) -> tuple[int, int] | None:
        """The table with its first rows, in one commit; None: somebody else has made it meanwhile.

        What a first write that was killed has left is no table, and lies there until VACUUM or an erasure: it is not
        told from one that is under way.
        """
        from delta import exceptions
        from pyspark.errors import AnalysisException

        if where:  # as Delta does where a table is there
            refusal = quoted(f"{table.name}: a row outside of replaceWhere {where}")
            rows = rows.where(f"CASE WHEN {where} THEN true ELSE raise_error({refusal}) END")
        about = migrations.properties(table) | dict(properties or {})
        of_delta = {name: value for name, value in about.items() if name.startswith("delta.")}
        own = {name: value for name, value in about.items() if name not in of_delta}
        writer = migrations.named(rows, table, own).write.format("delta").mode("errorifexists").options(**of_delta)
        try:
            writer.partitionBy(*table.partition_by).save(self.path(table))
        except (
            AnalysisException, exceptions.ConcurrentWriteException, exceptions.DeltaConcurrentModificationException,
            exceptions.MetadataChangedException, exceptions.ProtocolChangedException,
        ):  # fmt: skip
            if not self.exists(table):
                raise
            self._check_schema_version(table)
            return None
        self._checked.add(table.name)
        return 0, self._commit(table, 0).rows

    def _save(self, table: Table, writer: Any, base: int | None) -> tuple[int, int]:
        """Delta skips a transaction whose number it has seen: numbered by the version, it commits on ``base`` only."""
        before, token = self.version(table), uuid.uuid4().hex
        if base is not None:
            writer = writer.option("txnAppId", _APPLICATION).option("txnVersion", base + 1)
        # A table that has moved on by another hand (OPTIMIZE) has no such transaction.
        if base in (None, before):
            writer.option("userMetadata", token).save(self.path(table))
        after = self.commits(table, before)
        mine = next((commit for commit in after if commit.token == token), None)
        if base is not None and (mine is None or mine.version != base + 1):
            was = "not there" if base == ABSENT else f"at version {base}"
            raise RetryableError(
                f"The table {table.name} in the lake {self.root} was {was} when this run read it, and another job has "
                "written it since. What this run made of it is not recorded and will not be read. Let the other job "
                "finish, then run this stage again."
            )
        return (before, 0) if mine is None else (mine.version, mine.rows)

    def _versions(self, table: Table) -> list[int]:
        """Those whose commit is still in the log."""
        return [int(name[:20]) for name in self._log_names(table) if _COMMIT.fullmatch(name)]

    def _log_names(self, table: Table) -> list[str]:
        """The files of a table's log, in one call to the JVM however many there are."""
        jvm: Any = self.spark._jvm
        files, log = self._log(table)
        listed = jvm.org.apache.hadoop.fs.FileUtil.stat2Paths(files.listStatus(log))
        return re.findall(r"/([^/,]+)(?=[,}])", jvm.org.apache.commons.lang3.ArrayUtils.toString(listed))

    def _commit(self, table: Table, version: int) -> Commit:
        """From the commit's file: Delta's history would start a Spark job."""
        about: dict[str, Any] = next(
            (action["commitInfo"] for action in self._actions(table, version) if "commitInfo" in action), {}
        )
        return Commit(
            version=version,
            operation=about.get("operation", "unknown"),
            mode=about.get("operationParameters", {}).get("mode", ""),
            rows=int(about.get("operationMetrics", {}).get("numOutputRows", 0)),
            token=about.get("userMetadata"),
        )

    def _actions(self, table: Table, version: int) -> Iterator[dict[str, Any]]:
        jvm: Any = self.spark._jvm
        files, log = self._log(table)
        path = jvm.org.apache.hadoop.fs.Path(log, f"{version:020}.json")
        lines = jvm.java.io.BufferedReader(jvm.java.io.InputStreamReader(files.open(path), "UTF-8"))
        try:  # one line an action; commitInfo is the first
            yield from (json.loads(line) for line in iter(lines.readLine, None))
        finally:
            lines.close()

    def _log(self, table: Table) -> tuple[Any, Any]:
        """The file system and the path of a table's log."""
        jvm: Any = self.spark._jvm
        log = jvm.org.apache.hadoop.fs.Path(f"{self.path(table)}/_delta_log")
        return log.getFileSystem(self.spark._jsc.hadoopConfiguration()), log

    def _is_there(self, table: Table) -> bool:
        """Whether the table is there; an old one is migrated."""
        if table.name not in self._checked and self.exists(table):
            self._check_schema_version(table)
        return table.name in self._checked

    def _check_schema_version(self, table: Table) -> None:
        if table.name not in self._checked:
            migrations.bring_up_to_date(self.spark, self.root, self.path(table), table)
            self._checked.add(table.name)

    def _conform(self, table: Table, frame: DataFrame) -> DataFrame:
        """Exactly the table's columns, in order, in its types; a missing or surplus one is a defect of ours."""
        missing = set(table.column_names) - set(frame.columns)
        surplus = set(frame.columns) - set(table.column_names)
        if missing or surplus:
            raise ValueError(f"{table.name}: columns missing {sorted(missing)}, surplus {sorted(surplus)}")
        return frame.selectExpr(*[f"CAST(`{x.name}` AS {x.type}) AS `{x.name}`" for x in table.columns])


def _shaped(table: Table, frame: DataFrame) -> DataFrame:
    """The table's columns; those that an older version of it lacks are null."""
    found = set(frame.columns)
    return frame.selectExpr(
        *[f"`{x.name}`" if x.name in found else f"CAST(NULL AS {x.type}) AS `{x.name}`" for x in table.columns]
    )


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
