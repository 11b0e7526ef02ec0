"""The files behind Delta tables: how many and how large, compaction, removal of old ones, and purging for good."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.lake.migrations import KEEP_FILES
from sparkrec.lake.tables import Lake
from sparkrec.schemas import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_CHECK = "spark.databricks.delta.retentionDurationCheck.enabled"
#: A smaller file is joined with others, and what comes of it is at most so large.
_FILE_BYTES = ("spark.databricks.delta.optimize.minFileSize", "spark.databricks.delta.optimize.maxFileSize")
_WEEK = 168
#: Between one upkeep and the next.
_MORE_WEEKS = 3
_VECTORS = "delta.feature.deletionVectors"
_KEEP_LOG = "delta.logRetentionDuration"
_OF_VERSION = re.compile(r"\.?(\d{20})\..+")
_OF_ROWS = re.compile(r"part-[\w.-]+\.parquet")  # a random UUID is in each: a name is that of one file
# Tables whose rows of one user are read together: compaction also sorts them by user.
_CLUSTERED = {schemas.SILVER_EVENTS.name: c.USER_ID}
#: Written on commits that changed no row that anybody may still read.
ERASURE = "sparkrec erase"


@dataclass(frozen=True)
class Files:
    """Of a table's newest version."""

    files: int
    bytes: int
    small: int

    def __str__(self) -> str:
        return f"{self.files:,} files, {self.bytes / 1e6:,.1f} MB, {self.small:,} small"


def files(lake: Lake, table: Table, small_bytes: int) -> Files:
    """How many, how large, and how many below ``small_bytes``."""
    row = _listed(lake, table).selectExpr(
        "count(*)", "coalesce(sum(size), 0)", f"coalesce(count_if(size < {small_bytes}), 0)"
    ).first()  # fmt: skip
    assert row is not None
    return Files(*row)


def crowded(lake: Lake, table: Table, small_bytes: int, at_least: int) -> list[Mapping[str, str | None]]:
    """Partitions with at least so many small files; of an unpartitioned table, ``{}``."""
    listed = _listed(lake, table).where(f"size < {small_bytes}")
    rows = listed.groupBy("partitionValues").count().where(f"count >= {at_least}").collect()
    return [dict(row[0]) for row in rows]


def partitions(lake: Lake, table: Table, column: str) -> set[str]:
    """The values that a column of the partitioning has in the newest version; no file is opened."""
    return {row[0] for row in _listed(lake, table).selectExpr(f"partitionValues['{column}']").distinct().collect()}


def delete_partitions(lake: Lake, table: Table, column: str, values: Sequence[str]) -> None:
    """Leave out the partitions with these values, in one commit; :func:`vacuum` removes their files later."""
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    DeltaTable.forPath(lake.spark, lake.path(table)).delete(F.col(column).isin(*values))


def compact(lake: Lake, table: Table, partitions: list[Mapping[str, str | None]], file_bytes: int) -> None:
    """Join the small files of these partitions, and sort them by user where the table is read so."""
    from delta.tables import DeltaTable

    with _settings(lake.spark, dict.fromkeys(_FILE_BYTES, str(file_bytes))):
        optimize = DeltaTable.forPath(lake.spark, lake.path(table)).optimize()
        if table.partition_by:
            optimize = optimize.where(" OR ".join(f"({_condition(values)})" for values in partitions))
        if table.name in _CLUSTERED:
            optimize.executeZOrderBy(_CLUSTERED[table.name])
        else:
            optimize.executeCompaction()


def retain(lake: Lake, table: Table, hours: float, log_days: int) -> None:
    """Write on the table how far back Delta lets others read, and how long it keeps its log, where it says otherwise.

    ``log_days``, or where more is needed whole weeks, for a number that changes each day would be a commit each day;
    and some weeks besides: what was removed longer ago Delta forgets, and a file that it has forgotten VACUUM deletes,
    needed or not. A version without its log cannot be read either.
    """
    days = max(log_days, 7 * (math.ceil(hours / _WEEK) + _MORE_WEEKS))
    wanted = {KEEP_FILES: f"interval {days} days", _KEEP_LOG: f"interval {days} days"}
    path = _quoted(lake, table)
    found = {row.key: row.value for row in lake.spark.sql(f"SHOW TBLPROPERTIES {path}").collect()}
    if any(found.get(key) != value for key, value in wanted.items()):
        _set_properties(lake, table, wanted)


def vacuum(lake: Lake, table: Table, hours: float) -> None:
    """Remove files that no version younger than so many hours needs."""
    with _settings(lake.spark, {_CHECK: "false"}):  # shorter than a week is the operator's decision, not Delta's
        lake.spark.sql(f"VACUUM {_quoted(lake, table)} RETAIN {hours:.4f} HOURS")


def removable(lake: Lake, table: Table, hours: float) -> int:
    """How many files :func:`vacuum` would remove now."""
    with _settings(lake.spark, {_CHECK: "false"}):
        return lake.spark.sql(f"VACUUM {_quoted(lake, table)} RETAIN {hours:.4f} HOURS DRY RUN").count()


def hours_since_left(lake: Lake, table: Table, version: int) -> float | None:
    """Hours since a version stopped being the newest; None: it still is, or the log has forgotten when."""
    rows = lake.spark.sql(f"DESCRIBE HISTORY {_quoted(lake, table)}").where(f"version > {version}")
    row = rows.selectExpr("min(version)", "(unix_millis(now()) - unix_millis(min(timestamp))) / 3600000.0").first()
    return None if row is None or row[0] is None else float(row[1])


def oldest_alike(lake: Lake, table: Table) -> int:
    """The oldest version from which on nothing but maintenance and erasures happened to the table."""
    oldest = lake.version(table)
    for commit in reversed(lake.commits(table)):
        oldest = commit.version
        if not commit.keeps_content and commit.token != ERASURE:
            break
    return oldest


def purge(lake: Lake, table: Table) -> None:
    """Leave nothing of a table but its newest version: no old files, and no log that tells of them.

    A removed row lives on in old files, in deletion vectors, in change files, and as least and greatest values in the
    statistics of old commits and checkpoints. So: rows that only vectors hide are purged; files are removed without any
    retention (the check against that is lifted for these statements alone: time travel is what must go); a checkpoint
    without tombstones is written; the log before it is deleted, as Delta itself does when it expires.
    """
    path, spark = _quoted(lake, table), lake.spark
    properties = {row.key: row.value for row in spark.sql(f"SHOW TBLPROPERTIES {path}").collect()}
    before = properties.get(KEEP_FILES)
    _set_properties(lake, table, {KEEP_FILES: "interval 0 hours"})
    if _VECTORS in properties:  # sparkrec switches them off; another writer may have switched them on
        spark.sql(f"REORG TABLE {path} APPLY (PURGE)")
    vacuum(lake, table, 0)
    version = _checkpoint(lake, table)
    _delete_log_before(lake, table, version)
    if before and before != "interval 0 hours":
        _set_properties(lake, table, {KEEP_FILES: before})
    else:
        spark.sql(f"ALTER TABLE {path} UNSET TBLPROPERTIES ('{KEEP_FILES}')")


def sweep(lake: Lake, table: Table) -> int:
    """Remove files that no version refers to, however young: what killed writes have left. Returns how many.

    Older versions stay, unlike with :func:`vacuum`, which by its hours removes both or neither; but only as far back as
    Delta remembers removed files (see :func:`retain`). Of the newest version, and of one that nothing was removed from
    since, no file is ever forgotten. Nobody may be writing.
    """
    jvm: Any = lake.spark._jvm
    folder = jvm.org.apache.hadoop.fs.Path(lake.path(table))
    system = folder.getFileSystem(lake.spark._jsc.hadoopConfiguration())
    listed, found = [], system.listFiles(folder, True)
    while found.hasNext():
        path = found.next().getPath()
        if _OF_ROWS.fullmatch(path.getName()):
            listed.append((path.toString(), path.getName()))
    if not listed:
        return 0
    _, snapshot = _snapshot(lake, table)
    known = _frame(lake, snapshot.allFiles()).select("path").union(_frame(lake, snapshot.tombstones()).select("path"))
    names = known.selectExpr("substring_index(path, '/', -1) AS name")
    left = lake.spark.createDataFrame(listed, "path string, name string").join(names, "name", "left_anti").collect()
    for row in left:
        system.delete(jvm.org.apache.hadoop.fs.Path(row.path), False)
    return len(left)


def _checkpoint(lake: Lake, table: Table) -> int:
    jvm: Any = lake.spark._jvm
    jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # the settings of the newest version decide about tombstones
    log, snapshot = _snapshot(lake, table)
    log.checkpoint(snapshot, jvm.scala.Option.empty())
    return int(snapshot.version())


def _delete_log_before(lake: Lake, table: Table, version: int) -> None:
    jvm: Any = lake.spark._jvm
    folder = jvm.org.apache.hadoop.fs.Path(f"{lake.path(table)}/_delta_log")
    system = folder.getFileSystem(lake.spark._jsc.hadoopConfiguration())
    for status in system.listStatus(folder):
        name = status.getPath().getName()
        of = _OF_VERSION.fullmatch(name)
        if of and int(of.group(1)) < version:
            system.delete(status.getPath(), False)


def _listed(lake: Lake, table: Table) -> DataFrame:
    """The newest version's files: path, partitionValues, size."""
    return _frame(lake, _snapshot(lake, table)[1].allFiles())


def _snapshot(lake: Lake, table: Table) -> tuple[Any, Any]:
    """Delta's log of a table, and what it says now."""
    jvm: Any = lake.spark._jvm
    log = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(lake.spark._jsparkSession, lake.path(table))
    nothing = jvm.scala.Option.empty()
    return log, log.update(False, nothing, nothing)


def _frame(lake: Lake, rows: Any) -> DataFrame:
    from pyspark.sql import DataFrame

    return DataFrame(rows.toDF(), lake.spark)


def _set_properties(lake: Lake, table: Table, values: Mapping[str, str]) -> None:
    listed = ", ".join(f"'{key}' = '{value}'" for key, value in values.items())
    lake.spark.sql(f"ALTER TABLE {_quoted(lake, table)} SET TBLPROPERTIES ({listed})")


def _condition(values: Mapping[str, str | None]) -> str:
    return " AND ".join(
        f"`{name}` IS NULL" if value is None else f"`{name}` = '" + value.replace("'", "''") + "'"
        for name, value in values.items()
    )


def _quoted(lake: Lake, table: Table) -> str:
    return "delta.`" + lake.path(table).replace("`", "``") + "`"


@contextmanager
def _settings(spark: SparkSession, values: Mapping[str, str]) -> Iterator[None]:
    """Session settings for the time of a statement."""
    before = {key: spark.conf.get(key, None) for key in values}
    try:
        for key, value in values.items():
            spark.conf.set(key, value)
        yield
    finally:
        for key, old in before.items():
            if old is None:
                spark.conf.unset(key)
            else:
                spark.conf.set(key, old)


@contextmanager
def noted(spark: SparkSession, text: str) -> Iterator[None]:
    """Commits within carry this note in the table's history."""
    with _settings(spark, {"spark.databricks.delta.commitInfo.userMetadata": text}):
        yield
