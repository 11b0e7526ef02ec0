"""gold.holdout: what the test part asks for."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import Settings
from sparkrec.evaluation.splits import PART, TEST, Borders, utc
from sparkrec.features import activity
from sparkrec.retrieval import rules

#: Strongest first: what an item's row says when a user did several things with it.
_STRENGTH = (c.PURCHASE, c.CART, c.REVIEW, c.RATING, c.CLICK, c.VIEW)


def asked(events: DataFrame, settings: Settings) -> DataFrame:
    """The distinct (user, item) of the test part, among ``features.target_types``.

    event_type is the strongest, event_time, first_type and country the first, value the mean of the stars.
    """
    wanted = events.where((F.col(PART) == TEST) & F.col(c.EVENT_TYPE).isin(*settings.features.target_types))
    strength = F.coalesce(*[F.when(F.col(c.EVENT_TYPE) == name, i) for i, name in enumerate(_STRENGTH)], F.lit(99))
    stars = F.when(F.col(c.EVENT_TYPE).isin(c.RATING, c.REVIEW), F.col(c.VALUE))
    return wanted.groupBy(c.USER_ID, c.ITEM_ID).agg(
        F.min(F.struct(strength, F.col(c.EVENT_TYPE)))[c.EVENT_TYPE].alias(c.EVENT_TYPE),
        F.min(c.EVENT_TIME).alias(c.EVENT_TIME),
        F.min(F.struct(c.EVENT_TIME, strength, c.EVENT_TYPE))[c.EVENT_TYPE].alias(c.FIRST_TYPE),
        (F.sum(stars.cast("decimal(28,6)")).cast("double") / F.count(stars)).alias(c.VALUE),
        F.min(F.when(F.col(c.COUNTRY).isNotNull(), F.struct(c.EVENT_TIME, c.COUNTRY)))[c.COUNTRY].alias(c.COUNTRY),
    )


def indexed(pairs: DataFrame, users: DataFrame, items: DataFrame) -> DataFrame:
    """Rows of gold.holdout. ``users`` and ``items`` are those known before the split; others get no index."""
    known_users = users.select(c.USER_ID, c.USER_INDEX)
    known_items = items.select(c.ITEM_ID, c.ITEM_INDEX)
    joined = pairs.join(known_users, c.USER_ID, "left").join(known_items, c.ITEM_ID, "left")
    return joined.select(*schemas.GOLD_HOLDOUT.column_names)


def of_goods(asked: DataFrame, catalogue: DataFrame, at: Borders) -> DataFrame:
    """:func:`indexed`, without items that nobody knew before the split and that are no goods: a new kind of postage.

    ``catalogue`` is silver.items, in which they came after the split and were never for sale until the end. What is
    known at the split is judged as of the split (:mod:`sparkrec.features.selection`), whatever is said of it later:
    models could offer it.
    """
    told = catalogue.where(F.col(c.VALID_FROM) <= utc(at.end)).groupBy(c.ITEM_ID)
    seen = told.agg(F.bool_or(c.FOR_SALE).alias(c.FOR_SALE), F.min(c.VALID_FROM).alias(c.VALID_FROM))
    no_goods = seen.where(~F.col(c.FOR_SALE) & (F.col(c.VALID_FROM) > utc(at.as_of))).select(c.ITEM_ID)
    new = F.col(c.ITEM_INDEX).isNull()
    kept = asked.where(~new).unionByName(asked.where(new).join(no_goods, c.ITEM_ID, "left_anti"))
    return kept.select(*schemas.GOLD_HOLDOUT.column_names)


def answerable(
    asked: DataFrame, pairs: DataFrame, sequences: DataFrame, items: DataFrame, settings: Settings
) -> DataFrame:
    """For a split by time: without the items that the user met in training in a way that ``recommend`` excludes.

    ``asked`` is :func:`of_goods`; the others are gold.pairs, gold.sequences and gold.items. No model is allowed to
    recommend those, so they would only lower every number by the same unknown amount. What ``recommend`` has forgotten
    at the split may be asked for. The published protocols (leave one out, a given split) keep every pair, as their
    numbers do.
    """
    if settings.split.kind != "time":
        return asked
    excluded, on = set(settings.recommend.exclude_seen), [c.USER_INDEX, c.ITEM_ID]
    if rules.forgets(settings.recommend):
        met = _remembered(
            sequences.join(asked.select(c.USER_INDEX).distinct(), c.USER_INDEX, "left_semi"), items, settings
        )
    else:
        met = pairs.where(F.col(c.TYPES).bitwiseAND(sum(activity.bit(name) for name in excluded)) != 0)
    # The test part is small against all pairs: they are brought to it.
    return asked.join(met.select(*on).join(asked.select(*on), on, "left_semi"), on, "left_anti").select(
        *schemas.GOLD_HOLDOUT.column_names
    )


def _remembered(sequences: DataFrame, items: DataFrame, settings: Settings) -> DataFrame:
    """User index and item id of what counts as seen at the split."""
    codes = [c.EVENT_TYPES.index(name) for name in settings.recommend.exclude_seen]
    met = F.explode(F.arrays_zip(c.ITEM_INDEX, c.EVENT_TYPE, c.EVENT_TIME)).alias("_met")
    events = sequences.select(c.USER_INDEX, met).select(c.USER_INDEX, "_met.*").where(F.col(c.EVENT_TYPE).isin(codes))
    memory = rules.memory_days(items, settings.recommend).alias("_days")
    known = items.select(c.ITEM_INDEX, c.ITEM_ID, memory, F.unix_seconds(c.AS_OF).alias("_at"))
    return events.join(known, c.ITEM_INDEX).where((F.col("_at") - F.col(c.EVENT_TIME)) / 86400 <= F.col("_days"))


def counts(written: DataFrame, asked: DataFrame) -> dict[str, int]:
    """test_users, those without a training event, the items that were not known before the split, and the users who
    chose nothing but what :func:`answerable` takes out of ``asked`` (:func:`of_goods`): they are no test users."""
    row = written.agg(
        F.count_distinct(c.USER_ID).alias("test_users"),
        F.count_distinct(F.when(F.col(c.USER_INDEX).isNull(), F.col(c.USER_ID))).alias("test_users_unseen"),
        F.count_distinct(F.when(F.col(c.ITEM_INDEX).isNull(), F.col(c.ITEM_ID))).alias("test_items_unseen"),
    ).first()
    assert row is not None
    everyone = asked.select(c.USER_ID).distinct().count()
    return {**row.asDict(), "test_users_only_seen": everyone - row["test_users"]}
