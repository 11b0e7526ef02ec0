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
from sparkrec.retrieval import catalogue, changes, join, rules
from sparkrec.retrieval import traits as item_traits
from sparkrec.retrieval.reranking import Policy
from sparkrec.schemas import Table


def recommend(run: Run) -> None:
    """Vectors → k unseen, available items for every user and model, and a list for anyone else."""
    settings, items = run.settings.recommend, run.read(schemas.GOLD_ITEMS)
    named = rules.read_lists(run.spark, settings)
    shelf = rules.offered(items, settings, named)
    traits = item_traits.publish(rules.item_traits(items, settings)) if rules.needs_traits(settings) else None
    policy = Policy(settings, traits)
    users = rules.users(run, named).persist(StorageLevel.DISK_ONLY)
    popular = catalogue.publish(shelf, _vectors(run, schemas.VECTORS_ITEMS, popularity.NAME), popularity.NAME)
    for model in settings.models:
        matrix = popular
        if model != popularity.NAME:
            matrix = catalogue.publish(shelf, _vectors(run, schemas.VECTORS_ITEMS, model), model)
        vectors = _vectors(run, schemas.VECTORS_USERS, model)
        lists = join.similarity_join(users, vectors, matrix, popular, settings.k, settings.block_users, policy)
        place = {c.RUN_ID: run.run_id, c.MODEL: model}
        labels = {column: F.lit(value) for column, value in place.items()}
        run.write(schemas.RECOMMENDATIONS, lists.withColumns(labels), place)
    run.count(users=users.count() - 1)  # without anyone
    users.unpersist()
    _count(run)
    _compare(run)


def _compare(run: Run) -> None:
    """What changed against the last run's lists."""
    before = changes.previous(run)
    if before is None:
        return
    k, models = run.settings.recommend.k, run.settings.recommend.models
    lists = run.read(schemas.RECOMMENDATIONS).where(F.col(c.MODEL).isin(*models))
    mine, theirs = (lists.where(F.col(c.RUN_ID) == name) for name in (run.run_id, before))
    found = changes.against(mine, theirs, k)
    run.detail(changes={"previous": before, "models": found})
    run.tracker.metrics(
        {f"{model}.{name}": row[name] for model, row in found.items() for name in ("overlap", "churn") if name in row}
    )


def _vectors(run: Run, table: Table, model: str) -> DataFrame:
    return run.read(table, {c.RUN_ID: run.run_id, c.MODEL: model})


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
