"""Taobao UserBehavior (Alibaba Tianchi 649): ``UserBehavior.csv``, without a header.

User, item, category, type (pv, buy, cart, fav), unix seconds (UTC). ``pv`` is a view, ``buy`` a purchase, ``cart`` a
cart event and ``fav`` (marked as favourite) a click: an interest that is stronger than a view and less than a cart.
No quantities, prices or names; the category is what the log says of the item. Files: ``UserBehavior*.csv*``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sparkrec import columns as c
from sparkrec.ingest.canonical import Field, time_from_seconds
from sparkrec.ingest.formats import Csv
from sparkrec.ingest.sources import register
from sparkrec.ingest.sources.base import Files, Source

if TYPE_CHECKING:
    from pyspark.sql import Column

_COLUMNS = ("user", "item", "category", "type", "time")


def _events(field: Field) -> Mapping[str, Column]:
    from pyspark.sql import functions as F

    kind = field("type")
    return {
        c.USER_ID: field("user"),
        c.ITEM_ID: field("item"),
        c.EVENT_TYPE: F.when(kind == "pv", c.VIEW)
        .when(kind == "buy", c.PURCHASE)
        .when(kind == "fav", c.CLICK)
        .otherwise(kind),
        c.EVENT_TIME: time_from_seconds(field("time")),
        c.ITEM_CATEGORY: field("category"),
    }


@register
class TaobaoUserBehavior(Source):
    """See the module."""

    name = "taobao_user_behavior"
    event_files = (Files("UserBehavior*.csv*", Csv(columns=_COLUMNS), _events, ids={c.USER_ID: "user"}),)
