"""similar: item vectors, and what the same users did → what to show beside each item."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.cli import run_job
from sparkrec.models import tastes
from sparkrec.pipeline import Run
from sparkrec.retrieval import catalogue, neighborhood, products, rules


def similar(run: Run) -> None:
    """Items that are alike by each model's vectors or by the same users, and items bought together, of every item."""
    settings, gold = run.settings.similar, run.read(schemas.GOLD_ITEMS)
    shelf = rules.offered(gold, run.settings.recommend, rules.read_lists(run))
    stocked = catalogue.stocked(shelf)
    for model in run.settings.similar_models:
        place = {c.RUN_ID: run.run_id, c.MODEL: model}
        similarity = products.DIVERGENCE if model == tastes.NAME else settings.similarity
        vectors = products.prepared(run.read(schemas.VECTORS_ITEMS, place), similarity)
        matrix = catalogue.publish(stocked, vectors, model)
        block = run.settings.recommend.block_users
        _write(run, model, products.similar_items(vectors, matrix, similarity, settings.k, block))
    for measure in settings.neighborhood:
        most, known = run.settings.features.neighbor_items, (run.read(schemas.GOLD_PAIRS), gold)
        scored = neighborhood.alike(*known, measure, most, settings.min_users, settings.shrinkage)
        found = products.beside(scored, shelf, settings.k)
        _write(run, measure, found.select(c.ITEM_ID, c.RANK, c.NEIGHBOR_ID, c.SCORE, c.COUNT))
        run.spark.catalog.clearCache()  # the next one has baskets of its own
    if settings.bought_together:
        neighbors = run.read(schemas.GOLD_NEIGHBORS)
        _write(run, products.TOGETHER, products.bought_together(neighbors, shelf, settings.min_lift, settings.k))


def _write(run: Run, model: str, rows: DataFrame) -> None:
    place = {c.RUN_ID: run.run_id, c.MODEL: model}
    missing = {x.name: F.lit(None) for x in schemas.SIMILAR_ITEMS.columns if x.name not in (*rows.columns, *place)}
    run.count(**{model: run.write(schemas.SIMILAR_ITEMS, rows.withColumns(missing), place)})


if __name__ == "__main__":
    run_job(similar)
