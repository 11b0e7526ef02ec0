"""recommend: vectors → the lists, by the batch similarity join."""

from __future__ import annotations

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.cli import run_job
from sparkrec.models import popularity, segments
from sparkrec.pipeline import Run
from sparkrec.ranking import model as ranker
from sparkrec.ranking import serving
from sparkrec.retrieval import catalogue, changes, join, kernel, recall, rules, shortfall
from sparkrec.retrieval import traits as item_traits
from sparkrec.retrieval.catalogue import ItemMatrix
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
    popular = _publish(run, shelf, popularity.NAME)
    segmented = _publish(run, shelf, segments.NAME) if join.SEGMENT in users.columns else None
    matrices: dict[str, ItemMatrix] = {}
    for model in settings.models:
        if model == ranker.NAME:
            lists = serving.lists(run, shelf, users, policy, segmented)
        else:
            matrix = popular if model == popularity.NAME else _publish(run, shelf, model)
            frame = join.with_vectors(users, _vectors(run, schemas.VECTORS_USERS, model))
            _say_how(run, model, matrix, frame)
            lists = join.similarity_join(frame, matrix, popular, settings.k, settings.block_users, policy, segmented)
            matrices[model] = matrix
        place = {c.RUN_ID: run.run_id, c.MODEL: model}
        labels = {column: F.lit(value) for column, value in place.items()}
        run.write(schemas.RECOMMENDATIONS, lists.withColumns(labels), place)
    run.count(users=users.where(segments.person(F.col(c.USER_ID))).count())
    by_model = shortfall.counted(run)
    for model, row in by_model.items():
        if row["short_lists"]:
            of = popularity.NAME if model == ranker.NAME else model  # a ranker may recommend what popularity may
            vectors = _vectors(run, schemas.VECTORS_USERS, of)
            lists = run.read(schemas.RECOMMENDATIONS, {c.RUN_ID: run.run_id, c.MODEL: model})
            last = "caps_or_candidates" if model == ranker.NAME else shortfall.CAPS
            row["short_because"] = shortfall.reasons(
                users, vectors, lists, matrices.get(of, popular), popular, settings.k, policy, last
            )
    run.detail(lists=by_model)
    users.unpersist()
    changes.note(run)


def _vectors(run: Run, table: Table, model: str) -> DataFrame:
    return run.read(table, {c.RUN_ID: run.run_id, c.MODEL: model})


def _publish(run: Run, shelf: DataFrame, model: str) -> ItemMatrix:
    settings = run.settings.recommend
    probes = settings.probes if settings.search == "cells" and model not in (popularity.NAME, segments.NAME) else 0
    return catalogue.publish(shelf, _vectors(run, schemas.VECTORS_ITEMS, model), model, settings.memory_mb, probes)


def _say_how(run: Run, model: str, matrix: ItemMatrix, frame: DataFrame) -> None:
    """Which plan and which unit of the processor; of an approximate search also what it finds of the exact lists."""
    settings = run.settings.recommend
    how: dict[str, object] = {"plan": str(matrix.plan), "unit": kernel.best_unit()}
    if matrix.plan.probes:
        how["recall"] = recall.measured(frame, matrix, settings.k, settings.min_recall)
    run.say(f"{model}: " + ", ".join(f"{name} {value}" for name, value in how.items()))
    run.detail(search={**run.details.get("search", {}), model: how})


if __name__ == "__main__":
    run_job(recommend)
