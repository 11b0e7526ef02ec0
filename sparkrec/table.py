"""What a table and a column are: name, type, key, and what it says of persons. The tables: ``sparkrec.schemas``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparkrec import columns as c

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

#: identifier: names a person, here or in another system. personal: says something of a person. public: neither.
DATA_CLASSES = IDENTIFIER, PERSONAL, PUBLIC = ("identifier", "personal", "public")

_IDENTIFIERS = (c.USER_ID, c.USER_INDEX, c.SESSION_ID, c.ORDER_ID)
#: Of a person's row, what says only where it came from.
_LINEAGE = (
    c.EVENT_ID, c.SOURCE_FILE, c.LINE, c.HEADER, c.SOURCE_BYTES, c.INGEST_TIME, c.RUN_ID, c.MODEL, c.TABLE, c.STAGE,
    c.RULE, c.RULES, c.NOTES, c.COPIES, c.MERGED_INTO, c.SPLIT, c.CHUNK, c.RANK, c.AS_OF,
)  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One column: name, Spark SQL type, and a sentence for the reader of ``docs/tables.md``.

    ``data_class`` : one of ``DATA_CLASSES``; left out, the table says (``Table.data_class``).
    """

    name: str
    type: str
    doc: str
    data_class: str | None = None


RUN_ID = Column(c.RUN_ID, "string", "the run that wrote the row")


@dataclass(frozen=True)
class Table:
    """A Delta table of the lake.

    ``name`` is also its path under the lake's root, with the dot as a folder: ``silver.events`` lies in
    ``silver/events``. ``key`` is unique. ``partition_by`` names folders; ``skip_by`` the columns whose least and
    greatest value Delta notes for each file, so that readers can leave files out; of an ``append_only`` table Delta
    lets nobody change a row; ``change_feed`` lets a reader ask what came new after a version.
    """

    name: str
    key: tuple[str, ...]
    doc: str
    columns: tuple[Column, ...]
    partition_by: tuple[str, ...] = ()
    skip_by: tuple[str, ...] = ()
    append_only: bool = False
    change_feed: bool = False

    @property
    def person(self) -> str | None:
        """The column that says whose row it is: user_id, else user_index, else raw; None where no row is a person's."""
        names = self.column_names if self.name != "bronze.items" else []
        return next((name for name in (c.USER_ID, c.USER_INDEX, c.RAW) if name in names), None)

    def data_class(self, column: Column) -> str:
        """A column's class: its own, else by its name and whether the table's rows are persons'."""
        if column.data_class:
            return column.data_class
        if column.name in _IDENTIFIERS:
            return IDENTIFIER
        return PUBLIC if self.person is None or column.name in _LINEAGE else PERSONAL

    @property
    def ddl(self) -> str:
        """The columns as Spark's DDL string."""
        return ", ".join(f"`{column.name}` {column.type}" for column in self.columns)

    @property
    def column_names(self) -> list[str]:
        return [column.name for column in self.columns]

    def described(self) -> dict[str, dict[str, str]]:
        """What the lake says of each column: its sentence, and its data class."""
        return {
            column.name: {"comment": column.doc, "sparkrec.dataClass": self.data_class(column)}
            for column in self.columns
        }

    def struct(self) -> StructType:
        """The columns as a Spark ``StructType``. Needs pyspark, not a session."""
        from pyspark.sql.types import StructType

        struct = StructType.fromDDL(self.ddl)
        assert isinstance(struct, StructType)
        return struct
