"""A run's lists as they are served: one row an owner, and across domains by maps of ids."""

from __future__ import annotations

from py4j.protocol import Py4JError
from pyspark import StorageLevel
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.config.publish import Publish
from sparkrec.errors import ConfigError, DataError, RetryableError
from sparkrec.models.segments import person
from sparkrec.persistence import persisted
from sparkrec.pipeline import Run
from sparkrec.privacy import persons
from sparkrec.retrieval import shortfall
from sparkrec.retrieval.id_files import compared, read
from sparkrec.schemas import RECOMMENDATIONS, SIMILAR_ITEMS
from sparkrec.serving import gates
from sparkrec.serving.resp import Address
from sparkrec.serving.stores import ITEMS, OWNER, FileStore, RedisStore, Store

_TO_ITEM, _TO_USER = "to_item_id", "to_user_id"
#: Of each table: whose list it is, which item stands in it, and what else is served of a row.
_SHAPES = {
    RECOMMENDATIONS.name: (c.USER_ID, c.ITEM_ID, (c.SCORE, c.SOURCE, c.REASON, c.PROPENSITY)),
    SIMILAR_ITEMS.name: (c.ITEM_ID, c.NEIGHBOR_ID, (c.SCORE, c.LIFT)),
}


def publish(run: Run, store: Store, settings: Publish) -> None:
    """Writes a version, counts it, points at it, and lets the old ones go.

    Raises
    ------
    DataError
        There is nothing to publish, or a gate is shut (:mod:`serving.gates`).
    RetryableError
        The store holds another number of lists than were to be written. It still serves what it served before.
    """
    table = RECOMMENDATIONS if settings.table == RECOMMENDATIONS.name else SIMILAR_ITEMS
    models = run.settings.recommend.models if table is RECOMMENDATIONS else run.settings.similar_models
    model = settings.model or (models or (None,))[-1]
    if model is None:
        raise ConfigError(
            "publish.table is similar_items, and no model makes any: name one in publish.model, for instance jaccard, "
            "or in similar.models."
        )
    if table is RECOMMENDATIONS and model in models:
        shortfall.require_made(run, [model])
    rows = mapped(run, run.read(table, {c.RUN_ID: run.run_id, c.MODEL: model}), settings)
    lists = persisted(grouped(rows, settings.table), StorageLevel.DISK_ONLY)
    # Each publication is a version of its own: what is served is never written to.
    version = f"{run.run_id}-{model}-{run.started:%Y%m%dT%H%M%S}"
    expected = lists.count()
    if not expected:
        raise DataError(
            f"The run '{run.run_id}' has no rows of the model '{model}' in {table.name} to publish. Check "
            "publish.model and the maps of ids; what is served has not changed."
        )
    gates.check(run, settings, model, expected)
    if left := store.clear():
        run.say(f"removed {left:,} key(s) or version(s) of publications that died")
    run.say(f"writing {expected:,} lists as version {version}")
    written = store.write(lists, version)
    lists.unpersist()
    if written != expected:
        raise RetryableError(
            f"Of {expected:,} lists {written:,} arrived at {settings.to}, so it was not switched to the version "
            f"{version} and serves what it served before. Run publish again."
        )
    before = store.switch(version)
    run.detail(
        to=settings.to, prefix=settings.prefix, table=settings.table, version=version, before=before, model=model
    )
    retired = 0
    try:
        retired = store.retire(version)
    except (RetryableError, Py4JError) as error:  # the new lists are served, and a retry would write them again
        run.say(f"what was served before could not be removed, and the next publication will: {error}")
    run.count(lists=written, retired=retired)
    run.say(f"{settings.to} serves {version} now" + (f", and {before} before" if before else ""))


def store(run: Run, settings: Publish) -> Store:
    """The store that ``publish.to`` names."""
    if settings.to is None:
        raise ConfigError("publish.to is not set. Pass, for instance, --set publish.to=redis://localhost:6379/0.")
    scheme, _, place = settings.to.partition(":")
    if scheme in ("redis", "rediss"):
        password = settings.password.get_secret_value() if settings.password else None
        return RedisStore(Address(settings.to, settings.username, password), settings.prefix, settings.grace_seconds)
    return FileStore(run.spark, place.rstrip("/"), {"jsonl": "json"}.get(scheme, scheme), settings.keep)


def grouped(rows: DataFrame, table: str) -> DataFrame:
    """One row an owner: its items in the order of their ranks."""
    owner, item, more = _SHAPES[table]
    entry = F.struct(c.RANK, F.col(item).alias(c.ITEM_ID), *more)
    return rows.groupBy(F.col(owner).alias(OWNER)).agg(F.sort_array(F.collect_list(entry)).alias(ITEMS))


def mapped(run: Run, rows: DataFrame, settings: Publish) -> DataFrame:
    """The lists in the ids of another domain or platform, by ``publish.item_map`` and ``publish.user_map``.

    The users of a map are as the log has them, or as the lake does where that is pseudonyms.

    An item that became several is each of them, at its place; several that became one are it, at the best place, and
    are not beside themselves; then ranks count again from 1, and the propensities of a list in which one has changed
    are null. A user may have several accounts there.

    Raises
    ------
    DataError
        Two users share an account, or no user of the map has a list.
    """
    owner, item, more = _SHAPES[settings.table]
    if settings.user_map and owner == c.USER_ID:
        users = read(run.spark, settings.user_map, "publish.user_map", (c.USER_ID, _TO_USER))
        users = persons.as_stored(run, users)
        if double := users.groupBy(_TO_USER).count().where("count > 1").head():
            raise DataError(
                f"publish.user_map gives {double['count']} users to one account, '{double[0]}'. Keep one row for it."
            )
        served = rows.where(person(F.col(c.USER_ID)))
        mapped_users, without = compared(users, c.USER_ID, served.select(c.USER_ID).distinct())
        if mapped_users == without:
            raise DataError(
                f"publish.user_map ({settings.user_map}) maps {mapped_users:,} users, and none of them has a list. "
                "Write the ids as the log has them, capitals too. What is served has not changed."
            )
        run.count(mapped_users=mapped_users, mapped_users_without_list=without)
        theirs = served.join(users, c.USER_ID)
        nobody = rows.where(~person(F.col(c.USER_ID)))
        rows = theirs.withColumn(c.USER_ID, F.col(_TO_USER)).drop(_TO_USER).unionByName(nobody)
    if settings.item_map:
        items = read(run.spark, settings.item_map, "publish.item_map", (c.ITEM_ID, _TO_ITEM)).distinct()
        rows = _renamed(rows, items, item)
        if owner == c.ITEM_ID:
            rows = _renamed(rows, items, owner).where(F.col(owner) != F.col(item))  # two that became one
        same = Window.partitionBy(owner, item).orderBy(c.RANK, F.desc(c.SCORE), *more)
        place = Window.partitionBy(owner).orderBy(c.RANK, item)
        best = rows.withColumn("_n", F.row_number().over(same)).where("_n = 1").drop("_n")
        placed = best.withColumn("_place", F.row_number().over(place))
        if c.PROPENSITY in more:  # of a place that the lot drew, and not of another
            moved = F.max(F.col("_place") != F.col(c.RANK)).over(Window.partitionBy(owner))
            placed = placed.withColumn(c.PROPENSITY, F.when(~moved, F.col(c.PROPENSITY)))
        rows = placed.withColumn(c.RANK, F.col("_place")).drop("_place")
    return rows


def _renamed(rows: DataFrame, items: DataFrame, column: str) -> DataFrame:
    names = items.select(F.col(c.ITEM_ID).alias(column), _TO_ITEM)
    return rows.join(names, column).withColumn(column, F.col(_TO_ITEM)).drop(_TO_ITEM)
