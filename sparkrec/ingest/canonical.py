"""The text columns that every source gives to clean, whatever its files look like."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sparkrec import columns as c
from sparkrec.ingest import json_text
from sparkrec.ingest.formats import FIELDS

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

#: Where a row came from; malformed is null, or a sentence why the line could not be read.
ORIGIN = (c.SOURCE_FILE, c.LINE, c.RAW, c.MALFORMED)
#: What clean needs of a raw row beside its canonical columns; passed on as it is where the row has it.
CARRIED = (c.HEADER, c.INGEST_TIME, c.COPIES)
#: An event. Text or null; event_time ISO 8601 UTC where the log's own form can be read, else the log's own text.
EVENTS = (
    *ORIGIN, c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIME, c.VALUE, c.PRICE, c.CURRENCY, c.QUERY, c.TEXT,
    c.SESSION_ID, c.ORDER_ID, c.COUNTRY, c.SPLIT, c.ITEM_NAME, c.ITEM_BRAND, c.ITEM_CATEGORY,
)  # fmt: skip
#: A catalogue row. Text or null; category "A > B > C", for_sale "true" or "false", attributes map of text.
ITEMS = (
    *ORIGIN, c.ITEM_ID, c.VALID_FROM, c.NAME, c.BRAND, c.CATEGORY, c.PRICE, c.CURRENCY, c.STOCK, c.PROMOTION, c.TEXT,
    c.FOR_SALE, c.ATTRIBUTES,
)  # fmt: skip

#: A field of a parsed row, by the name that the file gives it; null where the row has none.
Field = Callable[[str], "Column"]
#: Canonical columns from a row's fields.
ToCanonical = Callable[[Field], Mapping[str, "Column"]]

#: Time zero of files that hold an order and no times.
EPOCH = "2000-01-01"


def fields(to: ToCanonical) -> tuple[str, ...]:
    """The fields that ``to`` looks at."""
    from pyspark.sql import functions as F

    seen: dict[str, Column] = {}
    to(lambda name: seen.setdefault(name, F.col(FIELDS)[name]))
    return tuple(seen)


def select(parsed: DataFrame, names: tuple[str, ...], to: ToCanonical) -> DataFrame:
    """The canonical columns ``names`` of parsed rows; what ``to`` does not give is null."""
    from pyspark.sql import functions as F

    given = dict(to(lambda name: F.col(FIELDS)[name]))
    given |= {name: F.col(name) for name in ORIGIN}
    types = {c.LINE: "bigint", c.ATTRIBUTES: "map<string,string>"}
    nothing = F.lit(None)
    carried = [name for name in CARRIED if name in parsed.columns]
    columns = [given.get(name, nothing).cast(types.get(name, "string")).alias(name) for name in names]
    return parsed.select(*columns, *carried)


def time_from_seconds(text: Column) -> Column:
    """Unix seconds as ISO 8601 UTC; other text as it is."""
    return _time(text, r"^-?\d{1,11}$", 1000)


def time_from_milliseconds(text: Column) -> Column:
    """Unix milliseconds as ISO 8601 UTC; other text as it is."""
    return _time(text, r"^-?\d{1,14}$", 1)


def time_from_pattern(text: Column, pattern: str) -> Column:
    """Text of a Spark datetime pattern as ISO 8601; other text as it is.

    With an offset or zone in the pattern it is UTC; else it has no offset, and clean says whose clocks those are.
    """
    from pyspark.sql import functions as F

    literal = re.search("'[^']*(UTC|GMT|Z)[^']*'", pattern)
    has_offset = literal or re.search("[VzOXxZ]", re.sub("'[^']*'", "", pattern))
    time = F.try_to_timestamp(text, F.lit(pattern))
    time = json_text.iso(time, "'Z'") if "SSSS" in pattern else _iso(time)
    return F.coalesce(time if has_offset else F.rtrim(time, F.lit("Z")), text)


def time_from_position(seconds: Column) -> Column:
    """``EPOCH`` + seconds as ISO 8601 UTC, for files that hold an order and no times."""
    from pyspark.sql import functions as F

    return _iso(F.timestamp_seconds(F.unix_timestamp(F.lit(EPOCH).cast("timestamp")) + seconds.cast("bigint")))


def _time(text: Column, pattern: str, milliseconds: int) -> Column:
    from pyspark.sql import functions as F

    number = F.when(F.trim(text).rlike(pattern), F.trim(text).cast("bigint"))
    return F.coalesce(_iso(F.timestamp_millis(number * milliseconds)), text)


def _iso(timestamp: Column) -> Column:
    from pyspark.sql import functions as F

    return F.date_format(timestamp, "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'")
