"""The rules of ``recommend`` as columns: of items (who is offered them, their kinds) and of users (what concerns them).

A rule that depends on the user takes one bit. A user is barred from a bit's items where ``only_for`` is not true or
``hide_from`` is; users with the same bits share a mask in the join, so the cost is one mask an outcome, not one a user.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import StructField, StructType

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config.recommend import ItemList, Recommend
from sparkrec.errors import ConfigError, DataError
from sparkrec.models.segments import person
from sparkrec.pipeline import Run
from sparkrec.privacy import persons
from sparkrec.retrieval import catalogue, join, segments
from sparkrec.retrieval.catalogue import ALLOWED
from sparkrec.retrieval.id_files import compared, read
from sparkrec.retrieval.join import AGE_DAYS, BARRED, KEY, SEEN, SUBSET, TASTE, TASTE_SHARES
from sparkrec.retrieval.traits import FRESH, HIDDEN, MEMORY_DAYS, PROMOTED

_NEVER = float("inf")


def needs_traits(settings: Recommend) -> bool:
    """Whether anything is asked for that items must be known for besides their vectors."""
    return settings.reranks or forgets(settings) or any(rule.concerns_some for rule in settings.rules)


def forgets(settings: Recommend) -> bool:
    """Whether what a user met may be recommended again some day."""
    return settings.seen_days is not None or any(rule.again_after_days is not None for rule in settings.rules)


def as_of(items: DataFrame) -> float | None:
    """The time of gold.items, from which ages are counted, in unix seconds."""
    row = items.select(F.unix_seconds(c.AS_OF)).head()
    return None if row is None else float(row[0])


def item_traits(items: DataFrame, settings: Recommend) -> DataFrame:
    """The frame that :func:`traits.publish` takes, from gold.items."""
    some = [rule for rule in settings.rules if rule.concerns_some]
    hidden = [F.when(_true(items, rule.items, f"rule '{rule.name}'"), F.lit(1 << n)) for n, rule in enumerate(some)]
    kinds = {
        "category": F.try_element_at(c.CATEGORY_CODES, F.lit(-1)),
        "root_category": F.try_element_at(c.CATEGORY_CODES, F.lit(1)),
        "brand": F.col(c.BRAND_CODE),
        "price_bucket": F.col(c.PRICE_BUCKET),
    }
    promoted = F.lit(False)
    if settings.promotions.items is not None:
        promoted = _true(items, settings.promotions.items, "recommend.promotions")
    kinds["promoted"] = F.when(promoted, 0)
    days = F.col(c.AGE_DAYS)
    return items.select(
        c.ITEM_INDEX,
        _sum(hidden).alias(HIDDEN),
        memory_days(items, settings).cast("float").alias(MEMORY_DAYS),
        (days.isNull() | (days <= settings.new_items.days)).alias(FRESH),
        promoted.alias(PROMOTED),
        *[F.coalesce(kinds[cap].cast("int"), F.lit(-1)).alias(f"kind_{cap}") for cap in settings.kinds],
    )


def memory_days(items: DataFrame, settings: Recommend) -> Column:
    """For how many days a meeting with the item counts as seen; infinite where nothing is said."""
    general = F.lit(settings.seen_days or _NEVER)
    again = [
        F.when(_true(items, rule.items, f"rule '{rule.name}'"), F.lit(float(rule.again_after_days)))
        for rule in settings.rules
        if rule.again_after_days is not None
    ]
    return F.least(general, *again) if again else general


def offered(items: DataFrame, settings: Recommend, lists: dict[str, DataFrame]) -> DataFrame:
    """:func:`catalogue.offered` of gold.items, without what rules and :func:`read_lists` keep from everybody."""
    shelf = catalogue.offered(items, settings.in_stock_only)
    everybody = [rule for rule in settings.rules if not rule.concerns_some and rule.again_after_days is None]
    if everybody:
        gone = reduce(or_, [_true(items, rule.items, f"rule '{rule.name}'") for rule in everybody])
        shelf = shelf.join(items.select(c.ITEM_INDEX, gone.alias("_gone")), c.ITEM_INDEX)
        shelf = shelf.select(c.ITEM_INDEX, c.ITEM_ID, (F.col(ALLOWED) & ~F.col("_gone")).alias(ALLOWED))
    for given in settings.lists:
        if c.USER_ID in lists[given.name].columns:
            continue
        marked = lists[given.name].select(c.ITEM_ID, F.lit(True).alias("_named")).distinct()
        named = F.coalesce(F.col("_named"), F.lit(False))
        allowed = F.col(ALLOWED) & (named if given.kind == "allow" else ~named)
        shelf = shelf.join(marked, c.ITEM_ID, "left").select(c.ITEM_INDEX, c.ITEM_ID, allowed.alias(ALLOWED))
    return shelf


def with_rules(users: DataFrame, profiles: DataFrame, settings: Recommend) -> DataFrame:
    """Adds :data:`join.BARRED`, from gold.users; who has no row there is like a row of nulls."""
    bits = []
    for n, rule in enumerate(rule for rule in settings.rules if rule.concerns_some):
        condition = _true(profiles, rule.only_for or rule.hide_from or "", f"rule '{rule.name}'")
        bits.append(F.when(~condition if rule.only_for is not None else condition, F.lit(1 << n)))
    known = profiles.select(c.USER_INDEX, _sum(bits).alias(BARRED))
    anything = StructType([StructField(field.name, field.dataType) for field in profiles.schema])
    empty = profiles.sparkSession.createDataFrame([(None,) * len(profiles.columns)], anything)
    row = empty.select(_sum(bits)).first()
    assert row is not None
    return users.join(known, c.USER_INDEX, "left").withColumn(BARRED, F.coalesce(BARRED, F.lit(row[0])))


def with_lots(users: DataFrame, settings: Recommend, run_id: str) -> DataFrame:
    """Adds :data:`join.KEY`, the user's number in the lot of this run; null for lists of nobody in particular."""
    if not settings.exploration.places:
        return users
    drawn = F.xxhash64(F.lit(settings.exploration.seed), F.lit(run_id), F.col(c.USER_ID))
    return users.withColumn(KEY, F.when(person(F.col(c.USER_ID)), drawn))


def with_lists(users: DataFrame, items: DataFrame, settings: Recommend, lists: dict[str, DataFrame]) -> DataFrame:
    """What lists say of single users: denied items count as seen, allowed ones become :data:`join.SUBSET`.

    A user of several allow lists is offered what all of them hold. Items that gold does not know are no matter.
    """
    for given in settings.lists:
        frame = lists[given.name]
        if c.USER_ID not in frame.columns:
            continue
        indexed = frame.join(items.select(c.ITEM_ID, c.ITEM_INDEX), c.ITEM_ID, "left")
        named = indexed.groupBy(c.USER_ID).agg(F.collect_set(c.ITEM_INDEX).alias("_named"))
        users = users.join(named, c.USER_ID, "left")
        if given.kind == "allow":
            both = F.array_intersect(SUBSET, "_named") if SUBSET in users.columns else F.col("_named")
            old = F.col(SUBSET) if SUBSET in users.columns else F.lit(None)
            users = users.withColumn(SUBSET, F.coalesce(both, "_named", old)).drop("_named")
            continue
        none = F.array().cast("array<int>")
        new = F.coalesce("_named", none)
        if AGE_DAYS in users.columns:  # denied for ever: as if met in the future
            ages = F.transform(new, lambda _: F.lit(-1.0).cast("float"))
            users = users.withColumn(AGE_DAYS, F.concat(F.coalesce(AGE_DAYS, F.array().cast("array<float>")), ages))
        users = users.withColumn(SEEN, F.concat(F.coalesce(SEEN, none), new)).drop("_named")
    return users


class Then(NamedTuple):
    """What was known at another time than now: rows of gold.sequences, rows of gold.users (None where no rule asks for
    them), and when (unix seconds)."""

    sequences: DataFrame
    profiles: DataFrame | None
    moment: float


def users(
    run: Run,
    lists: dict[str, DataFrame],
    then: Then | None = None,
    only: DataFrame | None = None,
) -> DataFrame:
    """Everyone, segments and anyone, with what they have seen and what the rules say of them: the users of the join.

    ``then`` : at another time than now, when no segment is served. ``only`` : of persons, no more than those with these
    user indices.

    Raises
    ------
    DataError
        A list is of users of whom the vocabulary has none.
    """
    settings, items = run.settings.recommend, run.read(schemas.GOLD_ITEMS)
    everybody = run.read(schemas.VOCABULARY_USERS)
    for given in settings.lists:
        if c.USER_ID in lists[given.name].columns:
            named = lists[given.name].where(person(F.col(c.USER_ID)))
            _note_unknown(run, given, named, c.USER_ID, everybody, "gold.vocabulary_users")
    moment = (as_of(items) if then is None else then.moment) if forgets(settings) else None
    events = run.read(schemas.GOLD_SEQUENCES) if then is None else then.sequences
    if only is not None:  # before their events are brought together
        few = F.broadcast(only.select(c.USER_INDEX))
        everybody, events = (frame.join(few, c.USER_INDEX, "left_semi") for frame in (everybody, events))
    known = join.with_seen(everybody, events, settings.exclude_seen, moment)
    everyone, found = join.with_anyone(known), segments.of_run(run) if then is None else None
    if found is not None:
        everyone = segments.added(everyone, found, run.read(schemas.GOLD_USERS))
    if any(rule.concerns_some for rule in settings.rules):
        profiles = run.read(schemas.GOLD_USERS) if then is None else then.profiles
        assert profiles is not None
        profiles = profiles if found is None else segments.with_profiles(profiles, found)
        everyone = with_rules(everyone, profiles, settings)
    if settings.diversity.method == "calibrated" and then is None:
        everyone = with_tastes(everyone, run.read(schemas.GOLD_USERS), settings)
    return with_lots(with_lists(everyone, items, settings, lists), settings, run.run_id)


def with_tastes(users: DataFrame, profiles: DataFrame, settings: Recommend) -> DataFrame:
    """Adds :data:`join.TASTE` and its shares, from gold.users: of categories or of brands."""
    tastes = {"category": (c.CATEGORIES, c.CATEGORY_SHARES), "brand": (c.BRANDS, c.BRAND_SHARES)}
    kinds, shares = tastes[settings.diversity.kind]
    known = profiles.select(c.USER_INDEX, F.col(kinds).alias(TASTE), F.col(shares).alias(TASTE_SHARES))
    return users.join(known, c.USER_INDEX, "left")


def of_strangers(run: Run, users: DataFrame, lists: dict[str, DataFrame]) -> DataFrame:
    """Users of the join of whom gold knows nothing (no user index), with what the rules say of anyone."""
    settings = run.settings.recommend
    if any(rule.concerns_some for rule in settings.rules):
        nobody = users.withColumn(c.USER_INDEX, F.lit(None).cast("int"))
        users = with_rules(nobody, run.read(schemas.GOLD_USERS), settings).drop(c.USER_INDEX)
    return with_lots(with_lists(users, run.read(schemas.GOLD_ITEMS), settings, lists), settings, run.run_id)


def read_lists(run: Run) -> dict[str, DataFrame]:
    """The allow and deny lists by name: item_id, and where they have it user_id, as the lake holds it.

    Raises
    ------
    ConfigError
        A list cannot be read, or the lake's pseudonyms are of another key.
    DataError
        A column or a value is missing, or gold.items has none of a list's items.
    """
    found, items = {}, run.read(schemas.GOLD_ITEMS)
    for given in run.settings.recommend.lists:
        rows = read(run.spark, given.path, f"The list '{given.name}' of recommend.lists", (c.ITEM_ID,), (c.USER_ID,))
        _note_unknown(run, given, rows, c.ITEM_ID, items, "gold.items")
        if c.USER_ID in rows.columns:
            somebody = person(F.col(c.USER_ID))
            rows = persons.as_stored(run, rows.where(somebody)).unionByName(rows.where(~somebody))
        found[given.name] = rows
    return found


def _note_unknown(run: Run, given: ItemList, rows: DataFrame, column: str, known: DataFrame, where: str) -> None:
    """How many of a list's ids mean nothing here: said, and put into the run record. A list of nothing else fails."""
    named, unknown = compared(rows, column, known)
    what = {c.ITEM_ID: "items", c.USER_ID: "users"}[column]
    if named and unknown == named:
        raise DataError(
            f"The list '{given.name}' of recommend.lists ({given.path}) names {named:,} {what}, and {where} has none "
            f"of them, so that it would do nothing. Write the ids as the log has them, capitals too, or take the list "
            "out."
        )
    if unknown:
        run.say(f"the list '{given.name}' names {named:,} {what}, of which {where} does not know {unknown:,}")
    noted = run.details.get("named", {})
    counted = noted.get(given.name, {}) | {what: named, f"unknown_{what}": unknown}
    run.detail(named=noted | {given.name: counted})


def _true(frame: DataFrame, condition: str, where: str) -> Column:
    """A condition on a gold table; null is false."""
    try:
        found = frame.select(F.expr(condition).alias("_is")).schema["_is"].dataType.simpleString()
    except Exception as error:  # noqa: BLE001  Spark's parser and analyser have no common class
        raise _not_a_condition(frame, condition, where, str(error).splitlines()[0]) from None
    if found != "boolean":
        raise _not_a_condition(frame, condition, where, f"It is of type {found}, not boolean.")
    return F.coalesce(F.expr(condition), F.lit(False))


def _not_a_condition(frame: DataFrame, condition: str, where: str, why: str) -> ConfigError:
    return ConfigError(
        f"'{condition}' ({where}) is not a condition that Spark SQL understands: {why} "
        f"It may use {', '.join(frame.columns)}."
    )


def _sum(bits: list[Column]) -> Column:
    return reduce(
        lambda found, bit: found.bitwiseOR(F.coalesce(bit.cast("long"), F.lit(0))), bits, F.lit(0).cast("long")
    )
