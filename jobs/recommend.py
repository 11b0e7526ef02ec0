"""recommend: vectors → the lists, by the batch similarity join."""

from __future__ import annotations

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.cli import run_job
from sparkrec.models import popularity
from sparkrec.pipeline import Run
from sparkrec.retrieval import catalogue, fallback, join, kernel, recall
from sparkrec.retrieval.catalogue import ItemMatrix
from sparkrec.schemas import Table


def recommend(run: Run) -> None:
    """Vectors → k unseen, available items for every user and model, and a list for anyone else."""
    settings = run.settings.recommend
    shelf = catalogue.offered(run.read(schemas.GOLD_ITEMS), settings.in_stock_only)
    users = join.with_seen(
        run.read(schemas.VOCABULARY_USERS), run.read(schemas.GOLD_SEQUENCES), settings.exclude_seen
    ).persist(StorageLevel.DISK_ONLY)
    popular = _publish(run, shelf, popularity.NAME)
    anyone = run.spark.createDataFrame(fallback.for_anyone(popular, settings.k), join.DDL)
    plans: dict[str, dict[str, object]] = {}
    for model in settings.models:
        items = popular
        if model != popularity.NAME:
            items = _publish(run, shelf, model)
        frame = join.with_vectors(users, _vectors(run, schemas.VECTORS_USERS, model))
        plans[model] = {"plan": str(items.plan), "unit": kernel.best_unit()}
        if items.plan.probes:
            plans[model]["recall"] = recall.measured(frame, items, settings.k, settings.min_recall)
        run.say(f"{model}: " + ", ".join(f"{name} {value}" for name, value in plans[model].items()))
        lists = join.similarity_join(frame, items, popular, settings.k, settings.block_users)
        place = {c.RUN_ID: run.run_id, c.MODEL: model}
        labels = {column: F.lit(value) for column, value in place.items()}
        run.write(schemas.RECOMMENDATIONS, lists.unionByName(anyone).withColumns(labels), place)
    run.detail(search=plans)
    run.count(users=users.count())
    users.unpersist()
    _count(run)


def _vectors(run: Run, table: Table, model: str) -> DataFrame:
    return run.read(table, {c.RUN_ID: run.run_id, c.MODEL: model})


def _publish(run: Run, shelf: DataFrame, model: str) -> ItemMatrix:
    settings = run.settings.recommend
    probes = settings.probes if settings.search == "cells" and model != popularity.NAME else 0
    return catalogue.publish(shelf, _vectors(run, schemas.VECTORS_ITEMS, model), model, settings.memory_mb, probes)


def _count(run: Run) -> None:
    """What was written, by model: lists, rows, lists from the fallback, lists that are short or empty."""
    k, models = run.settings.recommend.k, run.settings.recommend.models
    own = (F.col(c.RANK) == 1) & (F.col(c.USER_ID) != c.ANYONE)
    found = (
        run.read(schemas.RECOMMENDATIONS, {c.RUN_ID: run.run_id})
        .groupBy(c.MODEL)
        .agg(
            F.count("*").alias("rows"),
            F.count_if(own).alias("lists"),
            F.count_if(own & (F.col(c.SOURCE) != F.col(c.MODEL))).alias("fallback_users"),
            F.count_if((F.col(c.RANK) == k) & (F.col(c.USER_ID) != c.ANYONE)).alias("full"),
        )
        .collect()
    )
    by_model = {row[c.MODEL]: row.asDict() for row in found if row[c.MODEL] in models}
    for row in by_model.values():
        row["short_lists"] = run.counts["users"] - row.pop("full")
        del row[c.MODEL]
    run.count(
        **{name: sum(r[name] for r in by_model.values()) for name in ("lists", "rows", "fallback_users", "short_lists")}
    )
    run.detail(lists=by_model)


if __name__ == "__main__":
    run_job(recommend)
