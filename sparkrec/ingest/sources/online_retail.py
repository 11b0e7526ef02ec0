"""UCI Online Retail (D. Chen, 2015): the invoice lines of a UK gift shop, one CSV a day.

Files ``{date}.csv``: InvoiceNo, StockCode, Description, Quantity, InvoiceDate (UK time, taken as UTC), UnitPrice,
CustomerID, Country.

- An invoice that starts with C is a cancellation (type ``cancel``; its quantity is negative and passed on as it is),
  one that starts with A an accounting entry (``adjustment``, which clean refuses), any other a purchase.
- CustomerID ``17850.0`` becomes ``17850``.
- InvoiceNo is never made a pseudonym: its first letter says what the line is.
- There is no catalogue: names are the Description of the lines.
- Goods have five digits first, or are of the DCGS series (girls' and boys' party bags and the like). Not goods: postage
  and carriage (POST, DOT, C2), manual entries and samples (M, m, S), discounts (D), bank charges, Amazon fees,
  charity (CRUK), bad debt (B), gift vouchers (gift_…) and PADS, a token entry of a penny or less.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sparkrec import columns as c
from sparkrec.ingest.canonical import Field
from sparkrec.ingest.formats import Csv
from sparkrec.ingest.sources import register
from sparkrec.ingest.sources.base import Files, Source

if TYPE_CHECKING:
    from pyspark.sql import Column

_COLUMNS = (
    "InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country",
)  # fmt: skip


def _events(field: Field) -> Mapping[str, Column]:
    from pyspark.sql import functions as F

    invoice = field("InvoiceNo")
    kind = F.when(invoice.startswith("C"), c.CANCEL).when(invoice.startswith("A"), "adjustment").otherwise(c.PURCHASE)
    return {
        c.USER_ID: F.regexp_replace(field("CustomerID"), r"\.0$", ""),
        c.ITEM_ID: field("StockCode"),
        c.EVENT_TYPE: F.when(invoice.isNotNull(), kind),
        c.EVENT_TIME: field("InvoiceDate"),
        c.VALUE: field("Quantity"),
        c.PRICE: field("UnitPrice"),
        c.CURRENCY: F.lit("GBP"),
        c.ORDER_ID: invoice,
        c.COUNTRY: field("Country"),
        c.ITEM_NAME: field("Description"),
    }


@register
class OnlineRetail(Source):
    """See the module."""

    name = "online_retail"
    event_files = (Files("{date}.csv", Csv(), _events, needs=_COLUMNS, ids={c.USER_ID: "CustomerID"}),)

    def is_goods(self, item_id: Column) -> Column:
        return item_id.rlike(r"^(\d{5}|DCGS)")
