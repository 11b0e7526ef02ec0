"""Text to typed values. What cannot be read becomes null, and a rule then refuses the row with the text."""

from pyspark.sql import Column
from pyspark.sql import functions as F

# Spark's own casts also take "12:30" (today), "2011" (New Year) and "1d" (Java's notation of 1.0).
_TIMESTAMP = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2})?)?$"
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"


def present(text: Column) -> Column:
    """The text without blanks around it; null where nothing remains."""
    return F.nullif(F.trim(text), F.lit(""))


def timestamp(text: Column) -> Column:
    """ISO 8601 text (UTC unless it has an offset) as a timestamp, else null."""
    return F.when(F.trim(text).rlike(_TIMESTAMP), F.trim(text).cast("timestamp"))


def number(text: Column) -> Column:
    """Decimal text as a double, else null: no NaN, no infinity."""
    value = F.when(F.trim(text).rlike(_NUMBER), F.trim(text).cast("double"))
    return F.when(F.abs(value) < float("inf"), value)


def path(text: Column) -> Column:
    """``"Home > Kitchen > Mugs"`` as an array, root first; null where there is no part."""
    parts = F.filter(F.transform(F.split(text, ">"), lambda part: F.trim(part)), lambda part: part != "")
    return F.when(F.size(parts) > 0, parts)
