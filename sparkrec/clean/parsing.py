"""Text to typed values. What cannot be read becomes null, and a rule then refuses the row with the text."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

# Spark's own casts also take "12:30" (today), "2011" (New Year) and "1d" (Java's notation of 1.0). Python's days
# end with the year 9999, where databases have their placeholders: there is no day after its last one.
_TIMESTAMP = r"^(?!0000|9999)\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2})?)?$"
_OFFSET = r"(Z|[+-]\d{2}:\d{2})$"
# As Java writes a time whose seconds are 0, and Spark reads none.
_NO_SECONDS = r"([T ]\d{2}:\d{2})(Z|[+-]\d{2}:\d{2})$"
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"
#: White space (of Unicode too), control characters and byte-order marks: nothing at the ends of a text.
BLANKS = "".join(map(chr, [*range(33), 127, 0x85, 0xA0, 0x2007, 0x2009, 0x200B, 0x202F, 0x3000, 0xFEFF]))
# Of the clocks' changes: by how much they go back.
_CHANGES_SECONDS = (1800, 3600, 7200)


def present(text: Column) -> Column:
    """The text without blanks and control characters around it; null where nothing remains."""
    return F.nullif(trimmed(text), F.lit(""))


def trimmed(text: Column) -> Column:
    """The text without blanks and control characters around it."""
    return F.btrim(text, F.lit(BLANKS))


def timestamp(text: Column, zone: str = "UTC") -> Column:
    """ISO 8601 text as a timestamp, else null; null too in the years 0 and 9999.

    Without an offset it is the time of clocks in ``zone``.

    Where clocks go back, a time that occurs twice is the first of the two; where they go forward, a time that does
    not occur is as much later as the clocks jump (as java.time and Spark have it).
    """
    read = _read(text)
    if zone == "UTC":
        return read
    return F.when(trimmed(text).rlike(_OFFSET), read).otherwise(F.to_utc_timestamp(read, zone))


def in_gap(text: Column, zone: str) -> Column:
    """Whether a text without an offset names a time that the clocks of ``zone`` jump over."""
    if zone == "UTC":
        return F.lit(False)
    read, clock = _read(text), F.from_utc_timestamp(timestamp(text, zone), zone)
    return F.coalesce(~trimmed(text).rlike(_OFFSET) & (clock != read), F.lit(False))


def is_twice(text: Column, zone: str) -> Column:
    """Whether a text without an offset names a time that the clocks of ``zone`` show twice."""
    if zone == "UTC":
        return F.lit(False)
    read, first = _read(text), F.unix_micros(timestamp(text, zone))
    again = F.lit(False)
    for seconds in _CHANGES_SECONDS:
        later = F.timestamp_micros(first + F.lit(seconds * 1_000_000))
        again = again | (F.from_utc_timestamp(later, zone) == read)
    return F.coalesce(~trimmed(text).rlike(_OFFSET) & again, F.lit(False))


def number(text: Column) -> Column:
    """Decimal text as a double, else null: no NaN, no infinity."""
    value = F.when(trimmed(text).rlike(_NUMBER), trimmed(text).cast("double"))
    return F.when(F.abs(value) < float("inf"), value)


def path(text: Column) -> Column:
    """``"Home > Kitchen > Mugs"`` as an array, root first; null where there is no part."""
    parts = F.filter(F.transform(F.split(text, ">"), lambda part: F.trim(part)), lambda part: part != "")
    return F.when(F.size(parts) > 0, parts)


def _read(text: Column) -> Column:
    whole = F.regexp_replace(trimmed(text), _NO_SECONDS, "$1:00$2")
    return F.when(trimmed(text).rlike(_TIMESTAMP), whole.cast("timestamp"))
