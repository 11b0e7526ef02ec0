"""The truth about the simulated shop: for tests and benchmarks only, never read by the pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sparkrec.ingest.simulator import behaviour, catalogue, dirt
from sparkrec.ingest.simulator.options import SimulatorOptions
from sparkrec.ingest.simulator.rows import (
    batch,
    blocks_of,
    event_id,
    event_rows,
    item_blocks,
    name,
    numbers,
    own_items,
    sku,
    user_id,
)  # fmt: skip

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def true_dirt(spark: SparkSession, options: SimulatorOptions) -> DataFrame:
    """id (of the event in the log) and kind, for each row that is dirt."""
    from pyspark.sql import functions as F

    soiled = event_rows(spark, options).where(F.col("dirt") != dirt.CLEAN)
    return soiled.select(event_id().alias("id"), name(F.col("dirt"), dirt.KINDS).alias("kind"))


def true_users(spark: SparkSession, options: SimulatorOptions) -> DataFrame:
    """user_id, segment, is_bot, bot (its kind), arrival (day), vector, categories (the three it likes best)."""
    from pyspark.sql import functions as F

    def draw(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        items = catalogue.build(options)
        for block in numbers(batches):
            who = behaviour.users(options, block)
            best = np.argsort(-(who.taste @ items.category_vector.T), axis=1)[:, :3]
            yield batch({
                "user": who.number, "segment": who.segment, "is_bot": who.bot, "bot_kind": who.bot_kind,
                "arrival": who.arrival, "vector": list(who.taste), "best": list(best),
            })  # fmt: skip

    schema = (
        "user bigint, segment bigint, is_bot boolean, bot_kind bigint, arrival bigint, "
        "vector array<double>, best array<bigint>"
    )
    rows = blocks_of(spark, options.blocks).mapInArrow(draw, schema)
    best = F.transform("best", lambda code: name(code, catalogue.CATEGORIES))
    segment = name(F.col("segment"), behaviour.SEGMENTS)
    bot = F.when(F.col("is_bot"), name(F.col("bot_kind"), behaviour.BOTS))
    return rows.select(user_id().alias("user_id"), segment.alias("segment"), "is_bot", bot.alias("bot"), "arrival",
                       "vector", best.alias("categories"))  # fmt: skip


def true_items(spark: SparkSession, options: SimulatorOptions) -> DataFrame:
    """item_id, category, arrival (day), log_popularity, vector. True preference = user vector · item vector."""

    def draw(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        items = catalogue.build(options)
        for block in numbers(batches):
            own = own_items(options, block)
            yield batch({
                "item": own, "category": items.category[own], "arrival": items.arrival[own],
                "log_popularity": items.log_popularity[own], "vector": list(items.vector[own]),
            })  # fmt: skip

    from pyspark.sql import functions as F

    schema = "item bigint, category bigint, arrival bigint, log_popularity double, vector array<double>"
    rows = blocks_of(spark, item_blocks(options)).mapInArrow(draw, schema)
    category = name(F.col("category"), catalogue.CATEGORIES)
    return rows.select(sku().alias("item_id"), category.alias("category"), "arrival", "log_popularity", "vector")
