"""RetailRocket (Kaggle, 2017): events, and where they are there item properties and the category tree.

- ``events.csv``: timestamp (unix ms), visitorid, event (view, addtocart, transaction), itemid, transactionid; more
  columns are allowed. No prices or quantities.
- ``item_properties_part*.csv``: timestamp, itemid, property, value: a line for each property that was seen on a
  day. Read are ``categoryid``, ``available`` (as stock: 0 or 1) and ``790`` (the price, ``n`` + decimal). A line
  becomes a catalogue row that holds what is known of the item from its time on, the earlier lines included.
- ``category_tree.csv``: categoryid, parentid. It turns a category id into its path; its lines are not catalogue rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sparkrec import columns as c
from sparkrec.ingest import canonical
from sparkrec.ingest.canonical import Field, time_from_milliseconds
from sparkrec.ingest.files import regex
from sparkrec.ingest.formats import FIELDS, Csv
from sparkrec.ingest.sources import register
from sparkrec.ingest.sources.base import Files, Source

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_TREE = "category_tree.csv"
_CATEGORY, _AVAILABLE, _PRICE = "categoryid", "available", "790"


def paths(parents: Mapping[str, str | None]) -> dict[str, str]:
    """Category → its path, root first: {"3": "2", "2": None} → {"3": "2 > 3", "2": "2"}. A cycle ends the path."""
    result = {}
    for category in parents:
        path, parent = [category], parents[category]
        while parent and parent not in path:
            path.append(parent)
            parent = parents.get(parent)
        result[category] = " > ".join(reversed(path))
    return result


def _events(field: Field) -> Mapping[str, Column]:
    from pyspark.sql import functions as F

    kind = field("event")
    return {
        c.USER_ID: field("visitorid"),
        c.ITEM_ID: field("itemid"),
        c.EVENT_TYPE: F.when(kind == "addtocart", c.CART).when(kind == "transaction", c.PURCHASE).otherwise(kind),
        c.EVENT_TIME: time_from_milliseconds(field("timestamp")),
        c.ORDER_ID: field("transactionid"),
    }


def _properties(field: Field) -> Mapping[str, Column]:
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    time = field("timestamp").cast("bigint")
    so_far = Window.partitionBy(field("itemid")).orderBy(time).rangeBetween(Window.unboundedPreceding, 0)

    def known(name: str) -> Column:
        """The newest value of a property, lines of the same time included."""
        newest = F.struct(time, F.col(c.SOURCE_FILE), F.col(c.LINE), field("value").alias("value"))
        return F.max(F.when(field("property") == name, newest)).over(so_far)["value"]

    return {
        c.ITEM_ID: field("itemid"),
        c.VALID_FROM: time_from_milliseconds(field("timestamp")),
        c.CATEGORY: known(_CATEGORY),
        c.STOCK: known(_AVAILABLE),
        c.PRICE: F.regexp_replace(known(_PRICE), "^n", ""),
    }


def _nothing(field: Field) -> Mapping[str, Column]:
    return {}


@register
class RetailRocket(Source):
    """See the module."""

    name = "retailrocket"
    event_files = (
        Files(
            "events.csv", Csv(), _events, needs=("timestamp", "visitorid", "event", "itemid", "transactionid"),
            ids={c.USER_ID: "visitorid", c.ORDER_ID: "transactionid"},
        ),
    )  # fmt: skip
    item_files = (
        Files(
            "item_properties_part*.csv", Csv(), _properties,
            needs=("timestamp", "itemid", "property", "value"), optional=True,
        ),
        Files(_TREE, Csv(), _nothing, needs=("categoryid", "parentid"), optional=True),
    )  # fmt: skip

    def items(self, bronze: DataFrame) -> DataFrame:
        from pyspark.sql import functions as F

        properties, tree = self.item_files
        in_tree = F.col(c.SOURCE_FILE).rlike(regex(_TREE))
        items = canonical.select(properties.format.parse(bronze.where(~in_tree)), canonical.ITEMS, properties.to)
        # Categories are few, whatever the number of items and events.
        rows = tree.format.parse(bronze.where(in_tree)).where(F.col(FIELDS).isNotNull()).select(FIELDS).collect()
        parents = {row[FIELDS]["categoryid"]: row[FIELDS]["parentid"] for row in rows if row[FIELDS]["categoryid"]}
        known = bronze.sparkSession.createDataFrame(list(paths(parents).items()), f"{c.CATEGORY} string, _path string")
        joined = items.join(F.broadcast(known), c.CATEGORY, "left")
        return joined.withColumn(c.CATEGORY, F.coalesce("_path", c.CATEGORY)).select(*canonical.ITEMS)
