"""Ids and their dense integers: append-only, made without a single-partition window and without collecting ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.errors import DataError
from sparkrec.lake.tables import ABSENT
from sparkrec.persistence import persisted
from sparkrec.schemas import Table

if TYPE_CHECKING:
    from sparkrec.pipeline import Run

_LARGEST = 2**31 - 1
# monotonically_increasing_id: the partition in the upper 31 bits, the row within it in the lower 33.
_ROW_BITS = 33
_ROW, _PARTITION, _START = "_row", "_partition", "_start"


def write(run: Run, bases: Mapping[str, int], table: Table, found: DataFrame) -> int:
    """Writes :func:`extend` of the vocabulary at its version in ``bases``, the lake's newest; returns its rows."""
    base = bases[table.name]
    old = None if base == ABSENT else run.lake.read(table, base)
    return run.write(table, extend(table, old, found), base=base)


def extend(table: Table, old: DataFrame | None, found: DataFrame) -> DataFrame:
    """The vocabulary ``table`` after a run that found these ids.

    Parameters
    ----------
    table
        One of ``schemas.VOCABULARY_*``: its first two columns are the id and the index.
    old
        Its newest rows, or None. They keep their index, also when the id is no longer found (``count`` is then 0).
    found
        id, count, first_seen, last_seen; one row an id. New ones are appended in the order (first_seen, length of
        the id, id); ids without a time come last.

    Raises
    ------
    DataError
        The indices would not fit an int.
    """
    key, index = table.column_names[:2]
    numbers = found.select(key, c.COUNT, c.FIRST_SEEN, c.LAST_SEEN)
    if old is None:
        return _numbered(numbers, key, index, first=0).select(*table.column_names)
    both = persisted(old.select(key, index).join(numbers, key, "full"))
    row = both.agg(F.max(index)).first()
    first = 0 if row is None or row[0] is None else row[0] + 1
    known = both.where(F.col(index).isNotNull()).withColumn(c.COUNT, F.coalesce(c.COUNT, F.lit(0)))
    new = _numbered(both.where(F.col(index).isNull()).drop(index), key, index, first)
    return known.unionByName(new).select(*table.column_names)


def _numbered(ids: DataFrame, key: str, index: str, first: int) -> DataFrame:
    """Adds first, first + 1, … in the order (first_seen, length, id).

    A range sort numbers the rows within each partition; how many each holds (a row a partition is collected) says
    where it starts.
    """
    order = (F.col(c.FIRST_SEEN).asc_nulls_last(), F.length(key), F.col(key))
    # Kept, so that both readings below see the same partitions.
    ranked = ids.orderBy(*order).withColumn(_ROW, F.monotonically_increasing_id())
    ranked = persisted(ranked.withColumn(_PARTITION, F.shiftright(_ROW, _ROW_BITS)))
    sizes = ranked.groupBy(_PARTITION).count().collect()
    starts, start = [], first
    for partition, size in sorted(sizes):
        starts.append((partition, start))
        start += size
    if start - 1 > _LARGEST:
        raise DataError(
            f"The vocabulary of {key} would need {start:,} indices, and an index is a 32-bit integer (at most "
            f"{_LARGEST:,}). Raise features.min_user_events or features.min_item_events, or start a new lake."
        )
    begin = ids.sparkSession.createDataFrame(starts, f"{_PARTITION} bigint, {_START} bigint")
    within = F.col(_ROW).bitwiseAND(F.lit((1 << _ROW_BITS) - 1))
    numbered = ranked.join(F.broadcast(begin), _PARTITION)
    return numbered.withColumn(index, (F.col(_START) + within).cast("int")).drop(_ROW, _PARTITION, _START)
