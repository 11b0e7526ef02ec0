"""recommend: vectors → the lists, by the batch similarity join."""

from __future__ import annotations

from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.cli import run_job
from sparkrec.models import popularity, segments
from sparkrec.persistence import persisted
from sparkrec.pipeline import Run
from sparkrec.ranking import model as ranker
from sparkrec.ranking import serving
from sparkrec.retrieval import changes, join, recall, reranking, rules, shortfall
from sparkrec.retrieval.shop import Shop


def recommend(run: Run) -> None:
    """Vectors → k unseen, available items for every user and model, and a list for anyone else."""
    shop = Shop(run)
    users = persisted(rules.users(run, shop.named), StorageLevel.DISK_ONLY)
    rows: dict[str, int] = {}
    for model in shop.settings.models:
        if model == ranker.NAME:
            lists = serving.lists(run, shop, users)
        else:
            frame = join.with_vectors(users, _vectors(run, model))
            size = reranking.pool_size(shop.settings.k, shop.settings)
            recall.say_how(run, model, shop.matrix(model), frame, size, shop.policy)
            lists = shop.lists(frame, model)
        place = {c.RUN_ID: run.run_id, c.MODEL: model}
        rows[model] = run.write_blocks(schemas.RECOMMENDATIONS, lists, place)
    run.count(users=users.where(segments.person(F.col(c.USER_ID))).count())
    by_model = shortfall.counted(run, rows)
    for name, row in by_model.items():
        if row["short_lists"]:
            of = popularity.NAME if name == ranker.NAME else name  # a ranker may recommend what popularity may
            written = run.read(schemas.RECOMMENDATIONS, {c.RUN_ID: run.run_id, c.MODEL: name})
            last = "caps_or_candidates" if name == ranker.NAME else shortfall.CAPS
            row["short_because"] = shortfall.reasons(
                users,
                _vectors(run, of),
                written,
                shop.matrix(of),
                shop.matrix(popularity.NAME),
                shop.settings.k,
                shop.policy,
                last,
            )
    run.detail(lists=by_model)
    users.unpersist()
    changes.note(run)


def _vectors(run: Run, model: str) -> DataFrame:
    return run.read(schemas.VECTORS_USERS, {c.RUN_ID: run.run_id, c.MODEL: model})


if __name__ == "__main__":
    run_job(recommend)
