"""Amazon product reviews (J. McAuley, 2014 and 2018 editions): JSON lines, one review a line.

Reviews (option ``reviews``, a glob): reviewerID, asin, overall, reviewText, summary, unixReviewTime (seconds). A review
is a ``review`` event; its stars are the value, summary and text together the text.

Catalogue (option ``meta``, a glob; none by default): asin, title, brand, price, category or categories, description.
The 2014 edition's meta files are Python literals, not JSON: convert them first. ``$12.99`` is read as 12.99; a
range of prices, and the style sheets that the 2018 edition has for some, are no price.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sparkrec import columns as c
from sparkrec.config import Section
from sparkrec.ingest.canonical import Field, time_from_seconds
from sparkrec.ingest.formats import JsonLines
from sparkrec.ingest.sources import register
from sparkrec.ingest.sources.base import Files, Source

if TYPE_CHECKING:
    from pyspark.sql import Column


def _reviews(field: Field) -> Mapping[str, Column]:
    from pyspark.sql import functions as F

    text = F.concat_ws("\n", F.nullif(field("summary"), F.lit("")), F.nullif(field("reviewText"), F.lit("")))
    return {
        c.USER_ID: field("reviewerID"),
        c.ITEM_ID: field("asin"),
        c.EVENT_TYPE: F.lit(c.REVIEW),
        c.EVENT_TIME: time_from_seconds(field("unixReviewTime")),
        c.VALUE: field("overall"),
        c.TEXT: F.nullif(text, F.lit("")),
    }


def _meta(field: Field) -> Mapping[str, Column]:
    from pyspark.sql import functions as F

    # 2018: "category": ["A", "B"]; 2014: "categories": [["A", "B"], …], of which the first path is taken.
    nested = F.get(F.from_json(field("categories"), "array<array<string>>"), F.lit(0))
    path = F.coalesce(F.from_json(field("category"), "array<string>"), nested)
    texts = F.from_json(field("description"), "array<string>")
    price = F.regexp_replace(field("price"), r"[$,\s]", "")
    return {
        c.ITEM_ID: field("asin"),
        c.NAME: field("title"),
        c.BRAND: F.nullif(field("brand"), F.lit("")),
        c.CATEGORY: F.array_join(path, " > "),
        c.PRICE: F.when(price.rlike(r"^\d+([.]\d+)?$"), price),
        c.CURRENCY: F.lit("USD"),
        c.TEXT: F.when(texts.isNull(), field("description")).otherwise(F.nullif(F.array_join(texts, "\n"), F.lit(""))),
    }


class AmazonOptions(Section):
    """Globs of the review files and, where there is one, of the catalogue."""

    reviews: str = "*.json*"
    meta: str | None = None


@register
class AmazonReviews(Source):
    """See the module."""

    name = "amazon_reviews"
    Options = AmazonOptions

    def __init__(self, options: Section) -> None:
        super().__init__(options)
        assert isinstance(options, AmazonOptions)
        self.event_files = (
            Files(
                options.reviews, JsonLines(), _reviews, ids={c.USER_ID: "reviewerID"}, texts=("summary", "reviewText")
            ),
        )
        self.item_files = (Files(options.meta, JsonLines(), _meta),) if options.meta else ()
