"""silver.items: the catalogue with its history; for shops without one, what the log says about its items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.clean import accounting, parsing, rules
from sparkrec.clean.accounting import Tally
from sparkrec.config import Clean
from sparkrec.persistence import persisted

if TYPE_CHECKING:
    from sparkrec.clean.state import State
    from sparkrec.ingest.sources.base import Source
    from sparkrec.pipeline import Run

_DESCRIPTION = (c.ITEM_NAME, c.ITEM_BRAND, c.ITEM_CATEGORY)
_STATE = "_state"
_FEW = 2_000_000  # rows, of which an item has several


@dataclass(frozen=True)
class Catalogue:
    """What bronze.items holds: its history (silver.items' columns), the refused rows, and their numbers.

    ``refused`` is None where no row has come since the last run: then all of it is what the last run found.
    """

    history: DataFrame
    refused: DataFrame | None
    tally: Tally
    strict: bool

    @property
    def few(self) -> bool:
        """Whether the ids of all items fit into the memory of every executor: some 200 MB."""
        return self.tally.distinct <= _FEW

    @property
    def known(self) -> DataFrame | None:
        """The items that there are, where the catalogue decides it; else None."""
        return self.history if self.strict else None


def load(run: Run, state: State, source: Source) -> Catalogue:
    """The catalogue, computed whole if rows of it have come: it is small against the events.

    Raises
    ------
    DataError
        More than ``clean.max_refused`` of its rows are refused.
    """
    settings = run.settings.clean
    if not state.items_changed(run):
        held = run.lake.read(schemas.SILVER_ITEMS, state.versions[schemas.SILVER_ITEMS.name])
        history_held = held.where(F.col(c.COPIES) > 0)  # the others are the log's
        return Catalogue(history_held, None, Tally(**state.details["items"]), state.details["strict"])
    items = persisted(checked(source.items(run.read(schemas.BRONZE_ITEMS)), settings))
    found = accounting.tally(items, schemas.BRONZE_ITEMS.name, rules.item_rules(settings))
    found.stop_above(settings.max_refused)
    has_items = found.distinct > found.refused
    strict = has_items and settings.unknown_items == "quarantine"
    return Catalogue(persisted(history(items, settings)), items, found, strict)


def checked(items: DataFrame, settings: Clean) -> DataFrame:
    """Canonical catalogue rows with typed values and the rules they break. Equal snapshots are merged later."""
    parsed = rules.parse_items(items, settings, _has_brands(items))
    return rules.check(parsed, rules.item_rules(settings)).withColumn(c.COPIES, F.lit(1))


def history(checked_items: DataFrame, settings: Clean) -> DataFrame:
    """Good catalogue rows → a row for each item and each time that something changed; silver.items' columns.

    Of two rows for the same item and time the later by (source file, line) holds. A row without a time holds from
    ``clean.earliest``. ``copies`` counts the rows merged, so their sum is the number of good rows.
    """
    typed = (c.NAME, c.BRAND, c.CURRENCY, c.TEXT, c.PRICE, c.STOCK, c.PROMOTION, c.CATEGORY)
    for_sale = F.lower(F.trim(c.FOR_SALE)).isin("false", "0", "no", "n")
    state = F.struct(
        *[F.col(f"{rules.PARSED}.{name}").alias(name) for name in typed],
        (~F.coalesce(for_sale, F.lit(False))).alias(c.FOR_SALE),
        F.col(c.ATTRIBUTES),
    )
    earliest = F.lit(str(settings.earliest)).cast("timestamp")
    states = (
        checked_items.where(F.col(c.RULE).isNull())
        .select(
            parsing.present(F.col(c.ITEM_ID)).alias(c.ITEM_ID),
            F.coalesce(F.col(f"{rules.PARSED}.{c.VALID_FROM}"), earliest).alias(c.VALID_FROM),
            state.alias(_STATE),
            F.struct(c.SOURCE_FILE, c.LINE).alias("_origin"),
        )
        .groupBy(c.ITEM_ID, c.VALID_FROM)
        .agg(F.max_by(_STATE, "_origin").alias(_STATE), F.count("*").alias(c.COPIES))
    )
    in_time = Window.partitionBy(c.ITEM_ID).orderBy(c.VALID_FROM)
    same_state = Window.partitionBy(c.ITEM_ID, "_run")
    return (
        states.withColumn("_text", F.to_json(_STATE))
        .withColumn("_changed", ~F.col("_text").eqNullSafe(F.lag("_text").over(in_time)))
        .withColumn("_run", F.sum(F.col("_changed").cast("int")).over(in_time))
        .withColumn(c.COPIES, F.sum(c.COPIES).over(same_state))
        .where("_changed")
        .select(c.ITEM_ID, c.VALID_FROM, f"{_STATE}.*", c.COPIES)
        .select(*schemas.SILVER_ITEMS.column_names)
    )


def item_days(events: DataFrame, held: DataFrame | None = None) -> DataFrame:
    """How often the ``events`` describe their item in which words, a day, added to what was ``held``."""
    described = F.coalesce(*_DESCRIPTION).isNotNull()
    keys = (c.ITEM_ID, c.EVENT_DATE, *_DESCRIPTION)
    days = events.where(F.col(c.ITEM_ID).isNotNull()).select(*keys, F.when(described, 1).otherwise(0).alias(c.COUNT))
    if held is not None:
        days = days.unionByName(held)
    return days.groupBy(*keys).agg(F.sum(c.COUNT).alias(c.COUNT))


def from_log(item_days: DataFrame) -> DataFrame:
    """What the log says about its items: the most frequent description (name, brand, category) so far.

    Ties go to the lexicographically first. A day's events count from the following midnight on, so that a later
    event never changes what was known at an earlier time; before its first such row an item is not known. An item
    that the log never describes gets a row without a name. There is no price: gold takes the median of the events
    before its split. ``copies`` is 0, for no catalogue row stands behind it.
    """
    daily = item_days.withColumnRenamed(c.COUNT, "_n")
    so_far = Window.partitionBy(c.ITEM_ID, *_DESCRIPTION).orderBy(c.EVENT_DATE)
    in_time = Window.partitionBy(c.ITEM_ID).orderBy(c.EVENT_DATE)
    days = (
        daily.withColumn("_total", F.sum("_n").over(so_far))
        # A running minimum of (−total, description): totals only grow, so the smallest is today's most frequent.
        .withColumn("_best", F.min(F.struct(-F.col("_total"), *_DESCRIPTION)).over(in_time))
        .groupBy(c.ITEM_ID, c.EVENT_DATE)
        .agg(F.min("_best").alias("_best"))
    )
    best = {name: F.col(f"_best.{name}") for name in _DESCRIPTION}
    text = F.to_json(F.struct(*[column.alias(name) for name, column in best.items()]))
    return (
        days.withColumn("_text", text)
        .withColumn("_changed", ~F.col("_text").eqNullSafe(F.lag("_text").over(in_time)))
        .where("_changed")
        .select(
            c.ITEM_ID,
            F.date_add(c.EVENT_DATE, 1).cast("timestamp").alias(c.VALID_FROM),
            best[c.ITEM_NAME].alias(c.NAME),
            best[c.ITEM_BRAND].alias(c.BRAND),
            parsing.path(best[c.ITEM_CATEGORY]).alias(c.CATEGORY),
            *_nothing(c.PRICE, c.CURRENCY, c.STOCK, c.PROMOTION, c.TEXT, c.ATTRIBUTES),
            F.lit(True).alias(c.FOR_SALE),
            F.lit(0).alias(c.COPIES),
        )
        .select(*schemas.SILVER_ITEMS.column_names)
    )


def finished(catalogue: DataFrame, log_items: DataFrame | None, is_goods: Callable[[Column], Column]) -> DataFrame:
    """The catalogue, and the items that it lacks as the log has them; what is not goods is not for sale.

    What the log says of an item also holds before its first row in the catalogue, which says nothing of the past.
    """
    items = catalogue
    if log_items is not None:
        since = catalogue.groupBy(c.ITEM_ID).agg(F.min(c.VALID_FROM).alias("_since"))
        before = F.col("_since").isNull() | (F.col(c.VALID_FROM) < F.col("_since"))
        items = catalogue.unionByName(log_items.join(since, c.ITEM_ID, "left").where(before).drop("_since"))
    return items.withColumn(c.FOR_SALE, F.col(c.FOR_SALE) & F.coalesce(is_goods(F.col(c.ITEM_ID)), F.lit(True)))


def _has_brands(items: DataFrame) -> bool:
    """Whether the catalogue names a brand at all: without any, a missing brand says nothing."""
    return not items.where(parsing.present(F.col(c.BRAND)).isNotNull()).limit(1).isEmpty()


def _nothing(*names: str) -> list[Column]:
    types = {column.name: column.type for column in schemas.SILVER_ITEMS.columns}
    return [F.lit(None).cast(types[name]).alias(name) for name in names]
