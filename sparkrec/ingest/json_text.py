"""JSON as text in a column: rows written as it, and whether an object is all of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_END = "sparkrec: the end"
# How Spark writes the offset of a time into JSON, by the type of the time.
_OFFSET = {"timestamp": "XXX", "timestamp_ntz": ""}


def of_rows(frame: DataFrame) -> Column:
    """A row as JSON. A time keeps its microseconds, but not within a struct or a list."""
    from pyspark.sql import functions as F

    columns = {name: F.col(f"`{name}`") for name in frame.columns}
    columns |= {name: iso(columns[name], _OFFSET[kind]) for name, kind in frame.dtypes if kind in _OFFSET}
    return F.to_json(F.struct(*[column.alias(name) for name, column in columns.items()]))


def iso(time: Column, offset: str) -> Column:
    """ISO 8601 with three decimals, as Spark writes it into JSON; with six where there are microseconds.

    ``offset`` : what follows, in Spark's datetime pattern.
    """
    from pyspark.sql import functions as F

    millis, micros = (F.date_format(time, f"yyyy-MM-dd'T'HH:mm:ss.{'S' * decimals}{offset}") for decimals in (3, 6))
    return F.when(F.date_format(time, "SSSSSS").endswith("000"), millis).otherwise(micros)


def goes_on(text: Column) -> Column:
    """Whether something comes after a text's JSON object, of which Spark's parser reads the first and no more.

    Blanks are nothing, nor are commas and closing brackets: arrays are printed so, an object a line.
    """
    from pyspark.sql import functions as F

    from sparkrec.clean.parsing import BLANKS

    text = F.rtrim(text, F.lit(f"{BLANKS},]"))
    # Most objects hold no other. Of the rest the parser says it, of a list of the text and one more: there it ends.
    listed = F.from_json(F.concat(F.lit("["), text, F.lit(f',"{_END}"]')), "array<string>")
    alone = F.coalesce(F.array_position(listed, _END) == 2, F.lit(False))
    return (F.instr(text, "}") != F.length(text)) & ~alone
