"""A table that an older schema version wrote is brought up to date, or refused with a sentence.

The rule, for every table: a column that came new is added, null in the old rows. A layout that changed (other
partitions, or a column of another type) cannot be changed in place: what later stages compute again anyway (quarantine
and gold) is replaced by an empty table, whose stage must then run; its old versions stay readable. Anything else is
refused. Both are one commit of metadata, and any process that touches the table first does it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sparkrec import schemas
from sparkrec.errors import ConfigError
from sparkrec.progress import say
from sparkrec.schemas import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SCHEMA_PROPERTY = "sparkrec.schemaVersion"
#: How long Delta remembers the files that were removed from a table.
KEEP_FILES = "delta.deletedFileRetentionDuration"
#: What holds something that no stage can compute again.
_NEVER_REPLACED = ("bronze.", "runs", "gold.vocabulary")


def properties(table: Table) -> dict[str, str]:
    """The table properties that this version writes."""
    wanted = {SCHEMA_PROPERTY: str(schemas.SCHEMA_VERSION)}
    # Until the first upkeep (sparkrec.lake.maintenance.retain), as long as Delta keeps its log; a week is its default.
    wanted[KEEP_FILES] = "interval 30 days"
    # Delta would note those of the first 32 columns, texts and all, which is a quarter of the work of writing lists.
    noted = {"delta.dataSkippingStatsColumns": ",".join(table.skip_by)}
    wanted |= noted if table.skip_by else {"delta.dataSkippingNumIndexedCols": "0"}
    wanted |= {"delta.enableChangeDataFeed": "true"} if table.change_feed else {}
    return wanted | ({"delta.appendOnly": "true"} if table.append_only else {})


def named(rows: DataFrame, table: Table, about: Mapping[str, str]) -> DataFrame:
    """The first rows of a table, with what each column is, for ``DESCRIBE`` and for catalogues that read it.

    And ``about`` the table, what :func:`read` finds: a writer can give no such properties. It is metadata of the first
    column, which Delta keeps with the schema.
    """
    said = table.described()
    said[rows.columns[0]] |= about
    return rows.select(*[rows[name].alias(name, metadata=said[name]) for name in rows.columns])


def read(spark: SparkSession, path: str, name: str) -> str | None:
    """One of a table's properties; or what it was made with under that name, if it has no such property."""
    jvm: Any = spark._jvm
    nothing = jvm.scala.Option.empty()
    log = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, path)
    about = log.update(False, nothing, nothing).metadata()
    if about.configuration().contains(name):
        return str(about.configuration().apply(name))
    found: str | None = json.loads(about.schemaString())["fields"][0]["metadata"].get(name)
    return found


def bring_up_to_date(spark: SparkSession, root: str, path: str, table: Table) -> None:
    """Migrates the table at ``path`` if it is of an older version; does nothing if it is of this one.

    Raises
    ------
    ConfigError
        It is of a newer version, or cannot be migrated. Nothing was changed.
    """
    name = f"delta.`{path.replace('`', '``')}`"
    version = read(spark, path, SCHEMA_PROPERTY) or "none"
    if version == str(schemas.SCHEMA_VERSION):
        return
    if not version.isdigit() or int(version) > schemas.SCHEMA_VERSION:
        raise ConfigError(
            f"The table {table.name} in the lake {root} was written with schema version {version}, and this "
            f"sparkrec reads and writes version {schemas.SCHEMA_VERSION}. Nothing was changed. Point lake.path "
            "at another folder, or use the release of sparkrec that wrote it."
        )
    # The version is named last: whoever dies in between migrates again.
    if _same_layout(spark, name, table):
        _add_columns(spark, name, table)
    elif table.name.startswith(_NEVER_REPLACED):
        raise ConfigError(
            f"The table {table.name} in the lake {root} was written with schema version {version}, whose layout this "
            f"sparkrec (version {schemas.SCHEMA_VERSION}) cannot read, and it holds what cannot be computed again. "
            "Nothing was changed. Start a new lake from the log files, or use the release that wrote it."
        )
    else:
        _replace(spark, path, table)
    # What upkeep has made of the retention meanwhile stays.
    pairs = ", ".join(f"'{key}' = '{value}'" for key, value in properties(table).items() if key != KEEP_FILES)
    spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ({pairs})")
    say("lake", f"migrated {table.name} from schema version {version} to {schemas.SCHEMA_VERSION}", 0)


def _same_layout(spark: SparkSession, name: str, table: Table) -> bool:
    detail = spark.sql(f"DESCRIBE DETAIL {name}").collect()[0]
    found = {field.name: field.dataType for field in spark.table(name).schema}
    types_hold = all(found.get(field.name, field.dataType) == field.dataType for field in table.struct())
    return tuple(detail.partitionColumns) == table.partition_by and types_hold


def _add_columns(spark: SparkSession, name: str, table: Table) -> None:
    found = set(spark.table(name).columns)
    new = [
        "`{}` {} COMMENT '{}'".format(column.name, column.type, column.doc.replace("'", r"\'"))
        for column in table.columns
        if column.name not in found
    ]
    if new:
        spark.sql(f"ALTER TABLE {name} ADD COLUMNS ({', '.join(new)})")


def _replace(spark: SparkSession, path: str, table: Table) -> None:
    from delta.tables import DeltaTable

    struct, said = table.struct(), table.described()
    for column in struct:
        column.metadata = said[column.name]
    builder = DeltaTable.replace(spark).location(path).addColumns(struct).comment(table.doc)
    if table.partition_by:
        builder = builder.partitionedBy(*table.partition_by)
    builder.execute()
