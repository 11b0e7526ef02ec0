"""The simulated events and catalogue as Spark rows, and as the text that a shop's files hold."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sparkrec.ingest.simulator import behaviour, catalogue, dirt
from sparkrec.ingest.simulator.behaviour import NONE
from sparkrec.ingest.simulator.options import SimulatorOptions

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

#: What the log calls the event types, by code.
LOG_TYPES = ("view", "add_to_cart", "order", "search", "rating", "review", "remove_from_cart", "return")
_OPINIONS = (
    "Broke within a week, sent it back.", "Not what the pictures promise.", "Does its job, no more.",
    "Well made, would buy again.", "Exactly right. I have told all my friends.",
)  # fmt: skip
ITEMS_PER_BLOCK = 2_000


def event_rows(spark: SparkSession, options: SimulatorOptions) -> DataFrame:
    """Every event with its dirt: numbers only, as :func:`behaviour.events` and :func:`dirt.soil` give them."""

    def draw(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        items = catalogue.build(options)
        for block in numbers(batches):
            who = behaviour.users(options, block)
            soiled = dirt.soil(behaviour.events(options, items, who, block), options, block)
            country = who.country[soiled["user"] - who.number[0]]
            yield batch({"block": np.full(len(country), block), **soiled, "country": country})

    names = ("block", "user", "type", "time", "item", "session", "order", "quantity", "stars", "category", "price",
             "id", "dirt", "arrival", "country")  # fmt: skip
    blocks = blocks_of(spark, options.blocks)
    return blocks.mapInArrow(draw, ", ".join(f"`{name}` bigint" for name in names))


def item_changes(spark: SparkSession, options: SimulatorOptions) -> DataFrame:
    """What the daily catalogue files hold: codes and numbers."""

    def draw(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        items = catalogue.build(options)
        for block in numbers(batches):
            own = own_items(options, block)
            rows = catalogue.changes(items, own, options.days)
            codes = {
                name: getattr(items, name)[rows["item"]] for name in ("category", "brand", "colour", "noun", "series")
            }
            yield batch({**rows, **codes})

    schema = ("item bigint, day bigint, price double, promotion double, stock bigint, category bigint, brand bigint, "
              "colour bigint, noun bigint, series bigint")  # fmt: skip
    return blocks_of(spark, item_blocks(options)).mapInArrow(draw, schema)


def line(options: SimulatorOptions) -> Column:
    """The JSON line of an event, cut in the middle or with text for a number where the dirt says so."""
    from pyspark.sql import functions as F

    soiled = F.col("dirt")
    zero = (options.start.toordinal() - dt.date(1970, 1, 1).toordinal()) * behaviour.DAY
    item = F.when(soiled == dirt.UNKNOWN_ITEM, F.concat(F.lit("X"), F.col("item") % 97)).otherwise(sku())
    price = F.when(F.col("price") != NONE, F.col("price") / 100)
    words = [nouns[0] for nouns in catalogue.NOUNS]
    seconds = F.date_format(F.timestamp_millis(F.lit(zero) + F.col("time")), "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'")
    order = F.concat(F.lit("O"), F.col("user"), F.lit("-"), F.col("session"))
    fields = {
        "id": event_id(),
        "ts": seconds,
        "user": user_id(),
        "type": name(F.col("type"), LOG_TYPES),
        "sku": F.when(F.col("item") != NONE, item),
        "qty": F.when(F.col("quantity") != NONE, F.col("quantity")),
        "price": price,
        "currency": F.when(price.isNotNull(), F.lit("GBP")),
        "stars": F.when(F.col("stars") != NONE, F.col("stars")),
        "text": F.when(F.col("type") == behaviour.REVIEW, name(F.col("stars") - 1, _OPINIONS)),
        "q": F.when(F.col("category") != NONE, name(F.col("category"), words)),
        "session": F.concat(F.lit("S"), F.col("user"), F.lit("-"), F.col("session")),
        "order": F.when(F.col("order") == 1, order),
        "country": name(F.col("country"), behaviour.COUNTRIES),
    }
    good = F.to_json(F.struct(*[column.alias(name) for name, column in fields.items()]))
    wrong = fields | {"price": F.lit("call us"), "qty": F.lit("a few")}
    bad = F.to_json(F.struct(*[column.alias(name) for name, column in wrong.items()]))
    cut = F.substring(good, F.lit(1), (F.length(good) / 2).cast("int"))
    return F.when(soiled == dirt.MALFORMED, cut).when(soiled == dirt.WRONG_TYPE, bad).otherwise(good)


def catalogue_columns(options: SimulatorOptions) -> list[Column]:
    from pyspark.sql import functions as F

    nouns = F.array(*[F.array(*map(F.lit, names)) for names in catalogue.NOUNS])
    noun = nouns[F.col("category").cast("int")][F.col("noun").cast("int")]
    colour, brand = name(F.col("colour"), catalogue.COLOURS), name(F.col("brand"), catalogue.BRANDS)
    series = name(F.col("series"), catalogue.SERIES)
    # One price in fifty is missing, always the same.
    price = F.when(F.pmod(F.xxhash64("item", "day"), F.lit(50)) > 0, F.col("price"))
    text = F.concat_ws(" ", colour, noun, F.lit("of the series"), series, F.lit("by"), brand)
    return [
        sku().alias("sku"),
        F.date_add(F.lit(options.start), F.col("day").cast("int")).cast("string").alias("updated"),
        F.concat(colour, F.lit(" "), noun, F.lit(", "), series).alias("title"),
        brand.alias("brand"),
        name(F.col("category"), catalogue.CATEGORIES).alias("category"),
        F.round(price, 2).alias("price"),
        F.lit("GBP").alias("currency"),
        F.col("stock"),
        F.col("promotion"),
        colour.alias("colour"),
        series.alias("series"),
        F.concat(text, F.lit(".")).alias("description"),
        F.date_add(F.lit(options.start), F.col("day").cast("int")).alias("date"),
    ]


def sku() -> Column:
    """The item's id in the log, from its number."""
    from pyspark.sql import functions as F

    return F.format_string("P%06d", F.col("item"))


def user_id() -> Column:
    """The user's id in the log, from their number."""
    from pyspark.sql import functions as F

    return F.format_string("U%07d", F.col("user"))


def event_id() -> Column:
    """The event's id in the log; a letter-for-letter duplicate has the same."""
    from pyspark.sql import functions as F

    return F.concat(F.lit("E"), F.col("block"), F.lit("-"), F.col("id"))


def name(code: Column, names: Sequence[str]) -> Column:
    """``names[code]``."""
    from pyspark.sql import functions as F

    return F.array(*map(F.lit, names))[code.cast("int")]


def blocks_of(spark: SparkSession, blocks: int) -> DataFrame:
    """A row for each block, each its own task while there are not too many."""
    return spark.range(0, blocks, 1, max(1, min(blocks, 10_000)))


def numbers(batches: Iterable[pa.RecordBatch]) -> Iterator[int]:
    """The block numbers in the batches of ``blocks_of``."""
    for batch in batches:
        yield from batch.column(0).to_pylist()


def batch(columns: Mapping[str, Any]) -> pa.RecordBatch:
    """Arrays by name as a record batch."""
    return pa.RecordBatch.from_arrays([pa.array(values) for values in columns.values()], names=list(columns))


def own_items(options: SimulatorOptions, block: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The items of a block."""
    return np.arange(block * ITEMS_PER_BLOCK, min((block + 1) * ITEMS_PER_BLOCK, options.items))


def item_blocks(options: SimulatorOptions) -> int:
    return -(-options.items // ITEMS_PER_BLOCK)
