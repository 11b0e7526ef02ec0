"""What an item is, as feature strings: category=A > B, brand=X, price=3, genres=Drama, word=lantern."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.config import Features
from sparkrec.features import text

_PRIORITY = "priority"


def features(items: DataFrame, settings: Features, n_items: int) -> DataFrame:
    """item_id, feature, priority: one row each; an item's features sort by (priority, feature), the best first.

    Structured ones come first (each prefix of the category path, brand, price decile, attributes), then words, the
    rarest first. A word counts when it is among the ``settings.words`` most frequent that occur in at least two items
    and in at most half of the ``n_items``.
    """
    listed = F.posexplode(_structured(settings)).alias("_position", c.FEATURE)
    structured = items.select(c.ITEM_ID, listed)
    structured = structured.groupBy(c.ITEM_ID, c.FEATURE).agg(F.min("_position").cast("bigint").alias(_PRIORITY))
    if settings.words == 0:
        return structured
    found = items.select(c.ITEM_ID, F.explode(F.array_distinct(text.words())).alias("_word"))
    vocabulary = (
        found.groupBy("_word")
        .agg(F.count("*").alias("_items"))
        .where((F.col("_items") >= 2) & (F.col("_items") <= n_items / 2))
        .orderBy(F.desc("_items"), "_word")
        .limit(settings.words)
    )
    # Structured positions are far below this.
    rarest_first = (F.col("_items") + (1 << 32)).alias(_PRIORITY)
    words = found.join(F.broadcast(vocabulary), "_word").select(
        c.ITEM_ID, F.concat(F.lit("word="), "_word").alias(c.FEATURE), rarest_first
    )
    return structured.unionByName(words)


def counted(item_features: DataFrame) -> DataFrame:
    """The features as a vocabulary wants them: in how many items each occurs; they have no time."""
    never = F.lit(None).cast("timestamp")
    counts = item_features.groupBy(c.FEATURE).agg(F.count("*").alias(c.COUNT))
    return counts.withColumns({c.FIRST_SEEN: never, c.LAST_SEEN: never})


def encoded(item_features: DataFrame, vocabulary: DataFrame, most: int) -> DataFrame:
    """item_id, ``features``: the indices of its ``most`` best features, ``brand_code`` and ``category_codes``."""
    indices = vocabulary.select(c.FEATURE, c.FEATURE_INDEX)
    entry = F.struct(_PRIORITY, c.FEATURE, c.FEATURE_INDEX)

    def ranked(kind: str = "") -> Column:
        return F.sort_array(F.collect_list(F.when(F.col(c.FEATURE).startswith(kind), entry)))

    lists = (
        item_features.join(indices, c.FEATURE)
        .groupBy(c.ITEM_ID)
        .agg(
            ranked().alias("_ranked"),
            ranked("category=").getField(c.FEATURE_INDEX).alias(c.CATEGORY_CODES),
            F.min(F.when(F.col(c.FEATURE).startswith("brand="), F.col(c.FEATURE_INDEX))).alias(c.BRAND_CODE),
        )
    )
    best = F.slice("_ranked", 1, most) if most else F.slice("_ranked", 1, 0)
    return lists.select(c.ITEM_ID, best.getField(c.FEATURE_INDEX).alias(c.FEATURES), c.BRAND_CODE, c.CATEGORY_CODES)


def _structured(settings: Features) -> Column:
    depth = F.coalesce(F.size(c.CATEGORY), F.lit(0))
    prefixes = F.transform(
        F.filter(F.sequence(F.lit(0), depth), lambda i: i > 0),
        lambda i: F.concat(F.lit("category="), F.array_join(F.slice(c.CATEGORY, 1, i), " > ")),
    )
    brand = F.array_compact(F.array(F.concat(F.lit("brand="), c.BRAND)))
    price = F.array_compact(F.array(F.concat(F.lit("price="), F.col(c.PRICE_BUCKET).cast("string"))))
    attributes = [_attribute(name) for name in settings.attributes]
    parts = [F.coalesce(part, F.array().cast("array<string>")) for part in (prefixes, brand, price, *attributes)]
    return F.concat(*parts)


def _attribute(name: str) -> Column:
    values = F.transform(F.split(F.col(c.ATTRIBUTES)[name], r"\|"), lambda value: F.trim(value))
    return F.transform(F.filter(values, lambda value: value != ""), lambda value: F.concat(F.lit(f"{name}="), value))
