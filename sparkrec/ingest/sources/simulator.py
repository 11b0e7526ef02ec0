"""The simulated shop: reads what :mod:`sparkrec.ingest.simulator` writes, and has it written where it is absent.

Options: those of :class:`sparkrec.ingest.simulator.SimulatorOptions` (users, items, days, events, seed, start, dirt).

- ``events/date={date}/*.json``: id, ts, user, type (view, add_to_cart, order, search, rating, review, remove_from_cart,
  return), sku, qty, price (paid, after the promotion), currency, stars, text, q (query), session, order, country.
- ``catalogue/date={date}/*.csv``: the items that are new or changed on a day: sku, updated, title, brand, category,
  price, currency, stock, promotion, colour, series, description.
- ``truth/`` is for tests and benchmarks, and is not read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sparkrec import columns as c
from sparkrec.ingest.canonical import Field
from sparkrec.ingest.formats import Csv, JsonLines
from sparkrec.ingest.simulator import SimulatorOptions
from sparkrec.ingest.sources import register
from sparkrec.ingest.sources.base import Files, Source

if TYPE_CHECKING:
    from pyspark.sql import Column

    from sparkrec.pipeline import Run

_TYPES = {"add_to_cart": c.CART, "order": c.PURCHASE, "remove_from_cart": c.REMOVE, "return": c.CANCEL}
_CATALOGUE = ("sku", "updated", "title", "brand", "category", "price", "currency", "stock", "promotion", "description")


def _events(field: Field) -> Mapping[str, Column]:
    from pyspark.sql import functions as F

    kind = field("type")
    for own, ours in _TYPES.items():
        kind = F.when(field("type") == own, F.lit(ours)).otherwise(kind)
    return {
        c.USER_ID: field("user"),
        c.ITEM_ID: field("sku"),
        c.EVENT_TYPE: kind,
        c.EVENT_TIME: field("ts"),
        c.VALUE: F.coalesce(field("stars"), field("qty")),
        c.PRICE: field("price"),
        c.CURRENCY: field("currency"),
        c.QUERY: field("q"),
        c.TEXT: field("text"),
        c.SESSION_ID: field("session"),
        c.ORDER_ID: field("order"),
        c.COUNTRY: field("country"),
    }


def _items(field: Field) -> Mapping[str, Column]:
    from pyspark.sql import functions as F

    attributes = F.create_map(F.lit("colour"), field("colour"), F.lit("series"), field("series"))
    return {
        c.ITEM_ID: field("sku"),
        c.VALID_FROM: field("updated"),
        c.NAME: field("title"),
        c.BRAND: field("brand"),
        c.CATEGORY: field("category"),
        c.PRICE: field("price"),
        c.CURRENCY: field("currency"),
        c.STOCK: field("stock"),
        c.PROMOTION: field("promotion"),
        c.TEXT: field("description"),
        c.ATTRIBUTES: attributes,
    }


@register
class Simulator(Source):
    """See the module."""

    name = "simulator"
    Options = SimulatorOptions
    event_files = (
        Files(
            "events/date={date}/*.json", JsonLines(), _events,
            ids={c.USER_ID: "user", c.SESSION_ID: "session", c.ORDER_ID: "order"}, texts=("text", "q"),
        ),
    )  # fmt: skip
    item_files = (Files("catalogue/date={date}/*.csv", Csv(), _items, needs=_CATALOGUE),)

    def prepare(self, run: Run) -> None:
        from sparkrec.ingest.simulator import logs

        assert isinstance(self.options, SimulatorOptions)
        logs.ensure(run.spark, run.settings.source.path, self.options, run.say)
