"""REES46 eCommerce behaviour (2019 and later): a CSV a month, ``2019-Oct.csv`` or ``.csv.gz``.

Columns: event_time (``2019-10-01 00:00:00 UTC``), event_type (view, cart, remove_from_cart, purchase), product_id,
category_id, category_code (``electronics.smartphone``, often empty), brand, price (USD), user_id, user_session. There
is no catalogue: brand, category and price are what the log says of the item. A line is one piece, so there is no
quantity. Without a category code the category is the category id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sparkrec import columns as c
from sparkrec.ingest.canonical import Field, time_from_pattern
from sparkrec.ingest.formats import Csv
from sparkrec.ingest.sources import register
from sparkrec.ingest.sources.base import Files, Source

if TYPE_CHECKING:
    from pyspark.sql import Column

_COLUMNS = (
    "event_time", "event_type", "product_id", "category_id", "category_code", "brand", "price", "user_id",
    "user_session",
)  # fmt: skip


def _events(field: Field) -> Mapping[str, Column]:
    from pyspark.sql import functions as F

    kind = field("event_type")
    return {
        c.USER_ID: field("user_id"),
        c.ITEM_ID: field("product_id"),
        c.EVENT_TYPE: F.when(kind == "remove_from_cart", c.REMOVE).otherwise(kind),
        c.EVENT_TIME: time_from_pattern(field("event_time"), "yyyy-MM-dd HH:mm:ss 'UTC'"),
        c.PRICE: field("price"),
        c.CURRENCY: F.lit("USD"),
        c.SESSION_ID: field("user_session"),
        c.ITEM_BRAND: field("brand"),
        c.ITEM_CATEGORY: F.coalesce(F.replace(field("category_code"), F.lit("."), F.lit(" > ")), field("category_id")),
    }


@register
class Rees46(Source):
    """See the module."""

    name = "rees46"
    event_files = (
        Files("*.csv*", Csv(), _events, needs=_COLUMNS, ids={c.USER_ID: "user_id", c.SESSION_ID: "user_session"}),
    )
