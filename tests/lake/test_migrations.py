"""Tables as version 1 of the schema wrote them: brought up to date, or refused."""

from __future__ import annotations

from typing import Any

import pytest

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.errors import ConfigError
from sparkrec.lake.migrations import SCHEMA_PROPERTY
from sparkrec.lake.tables import Lake

pytestmark = pytest.mark.spark

VERSION = str(schemas.SCHEMA_VERSION)
#: The columns of quarantine in version 1.
QUARANTINE_1 = (
    "table_name string, source_file string, line bigint, raw string, stage string, rule string, rules array<string>, "
    "reason string, copies int"
)


def old(lake: Lake, table: schemas.Table, columns: str, partition_by: tuple[str, ...] = (), version: str = "1") -> None:
    """A table of that version with one row of nulls, and the version where older releases put it."""
    from delta.tables import DeltaTable

    builder = DeltaTable.create(lake.spark).location(lake.path(table)).property("sparkrec.schemaVersion", version)
    for column in columns.split(", "):
        builder = builder.addColumn(*column.split(" "))
    (builder.partitionedBy(*partition_by) if partition_by else builder).execute()
    row = lake.spark.createDataFrame([(None,) * len(columns.split(", "))], columns)
    row.write.format("delta").mode("append").save(lake.path(table))


def properties(lake: Lake, table: schemas.Table) -> dict[str, str]:
    return {row.key: row.value for row in lake.spark.sql(f"SHOW TBLPROPERTIES delta.`{lake.path(table)}`").collect()}


def test_columns_are_added_and_layouts_replaced(spark: Any, tmp_path: Any) -> None:
    lake = Lake(str(tmp_path), spark)
    old(lake, schemas.BRONZE_EVENTS, schemas.BRONZE_EVENTS.ddl.replace("`", ""))
    old(lake, schemas.QUARANTINE, QUARANTINE_1)
    events = ", ".join(f"{x.name} {x.type}" for x in schemas.SILVER_EVENTS.columns if x.name != c.SESSION_ID)
    old(lake, schemas.SILVER_EVENTS, events, (c.EVENT_DATE,))

    assert lake.read(schemas.BRONZE_EVENTS).count() == 1
    found = properties(lake, schemas.BRONZE_EVENTS)
    assert (found[SCHEMA_PROPERTY], found["delta.enableChangeDataFeed"]) == (VERSION, "true")
    version = lake.prepare(schemas.BRONZE_EVENTS)
    assert Lake(lake.root, spark).prepare(schemas.BRONZE_EVENTS) == version, "once"

    assert lake.read(schemas.SILVER_EVENTS).columns == schemas.SILVER_EVENTS.column_names
    assert lake.read(schemas.SILVER_EVENTS).count() == 1
    said = spark.sql(f"DESCRIBE delta.`{lake.path(schemas.SILVER_EVENTS)}`").where(f"col_name = '{c.SESSION_ID}'")
    assert said.first()["comment"].startswith("the shop's session; 'gap-…' where")
    assert lake.read(schemas.SILVER_EVENTS, 1).columns == schemas.SILVER_EVENTS.column_names

    assert lake.read(schemas.QUARANTINE).count() == 0, "clean computes it again"
    assert lake.read(schemas.QUARANTINE, 1).count() == 1, "the old version stays readable"
    assert properties(lake, schemas.QUARANTINE)[SCHEMA_PROPERTY] == VERSION


def test_the_version_is_found_where_older_releases_put_it(spark: Any, tmp_path: Any) -> None:
    lake = Lake(str(tmp_path), spark)
    old(lake, schemas.VOCABULARY_USERS, schemas.VOCABULARY_USERS.ddl.replace("`", ""), version=VERSION)
    assert lake.read(schemas.VOCABULARY_USERS).count() == 1
    assert lake.version(schemas.VOCABULARY_USERS) == 1, "there was nothing to migrate"


def test_a_layout_that_nothing_can_compute_again_is_refused(spark: Any, tmp_path: Any) -> None:
    lake = Lake(str(tmp_path), spark)
    old(lake, schemas.VOCABULARY_USERS, schemas.VOCABULARY_USERS.ddl.replace("`", "").replace(" int,", " string,"))
    version = lake.version(schemas.VOCABULARY_USERS)
    with pytest.raises(ConfigError, match=r"gold\.vocabulary_users .* version 1, .* cannot be computed again"):
        lake.read(schemas.VOCABULARY_USERS)
    assert lake.version(schemas.VOCABULARY_USERS) == version
