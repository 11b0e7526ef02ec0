"""Sums of doubles that do not depend on the order of the rows, to six decimals.

A number is a whole part and millionths, each summed in a bigint: the same bits on every run. A sum of decimals would do
as well, and costs about twice as much, for Spark keeps wide decimals as objects.
"""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

_WHOLE, _REST = "whole", "rest"
_UNIT = 1_000_000


def sum_of(value: Column) -> Column:
    """The aggregate of a double column: a struct that :func:`fold` adds up and :func:`total` reads."""
    whole = F.floor(value)
    rest = F.round((value - whole) * _UNIT).cast("bigint")
    return F.struct(F.sum(whole.cast("bigint")).alias(_WHOLE), F.sum(rest).alias(_REST))


def fold(sums: str) -> Column:
    """The aggregate of a column of such structs: their sum."""
    return F.struct(*[F.sum(f"{sums}.{part}").alias(part) for part in (_WHOLE, _REST)])


def total(sums: Column | str) -> Column:
    """Such a struct as a double; null where no number went into it."""
    column = F.col(sums) if isinstance(sums, str) else sums
    whole, rest = (column.getField(part).cast("decimal(20,0)") for part in (_WHOLE, _REST))
    return (whole * F.lit(_UNIT) + rest).cast("double") / F.lit(float(_UNIT))
