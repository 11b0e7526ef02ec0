"""How far a run's lists are from those of the last run: what its users will notice."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config.recommend import Recommend
from sparkrec.models.segments import person
from sparkrec.pipeline import Run

_DIGITS = 6  # sums over partitions may differ in the last bits


def note(run: Run) -> None:
    """Into the record and the tracker: what changed against the last run's lists, if there are any."""
    before = previous(run)
    if before is None:
        return
    models = run.settings.recommend.models
    lists = run.read(schemas.RECOMMENDATIONS).where(F.col(c.MODEL).isin(*models))
    mine, theirs = (lists.where(F.col(c.RUN_ID) == name) for name in (run.run_id, before))
    found = told(mine, theirs, run.settings.recommend)
    run.detail(changes={"previous": before, **found})
    rows = found["models"].items()
    run.tracker.metrics(
        {f"{model}.{name}": row[name] for model, row in rows for name in ("overlap", "churn") if name in row}
    )


def told(lists: DataFrame, before: DataFrame, settings: Recommend) -> dict[str, dict[str, Any]]:
    """``models`` : :func:`against` without the places of the lot, which each run draws anew.

    ``with_lots`` : with them, where there are any.
    """
    settled = F.coalesce(F.col(c.PROPENSITY), F.lit(1.0)) == 1
    found = {"models": against(lists.where(settled), before.where(settled), settings.k)}
    if settings.exploration.places:
        found["with_lots"] = against(lists, before, settings.k)
    return found


def previous(run: Run) -> str | None:
    """The run before this one that wrote lists in this lake: by the newest record older than this run's first."""
    if not run.lake.exists(schemas.RUNS):
        return None
    records = run.lake.read(schemas.RUNS).where(F.col(c.STAGE) == run.stage)
    first = records.where(F.col(c.RUN_ID) == run.run_id).agg(F.min(c.STARTED)).collect()[0][0] or run.started
    others = records.where((F.col(c.RUN_ID) != run.run_id) & (F.col(c.STARTED) < F.lit(first)))
    row = others.orderBy(F.desc(c.STARTED)).select(c.RUN_ID).head()
    return None if row is None else str(row[0])


def against(lists: DataFrame, before: DataFrame, k: int) -> dict[str, dict[str, Any]]:
    """By model, over the users who have a list in both:

    ``overlap`` : mean of |items in both| / length of the longer list, in any order.
    ``churn`` : 1 − overlap: the share of a list that is new.
    ``same_first`` : the share of users whose first item stayed.
    ``users``, ``users_new``, ``users_gone`` : with a list in both, only now, only before. ``churn_all`` : mean of churn
    where those with a list only now or only before count as 1.
    """
    now, then = _by_user(lists, k, "_now"), _by_user(before, k, "_then")
    both = now.join(then, [c.MODEL, c.USER_ID], "full")
    longer = F.greatest(F.size("_now"), F.size("_then"))
    ids = [F.transform(name, lambda row: row[c.ITEM_ID]) for name in ("_now", "_then")]
    shared = F.size(F.array_intersect(*ids)) / longer
    in_both = F.col("_now").isNotNull() & F.col("_then").isNotNull()
    first = F.col("_now")[0][c.ITEM_ID] == F.col("_then")[0][c.ITEM_ID]
    rows = (
        both.groupBy(c.MODEL)
        .agg(
            F.avg(F.when(in_both, shared)).alias("overlap"),
            F.avg(F.when(in_both, first.cast("int"))).alias("same_first"),
            F.avg(F.when(in_both, 1 - shared).otherwise(1.0)).alias("churn_all"),
            F.count_if(in_both).alias("users"),
            F.count_if(F.col("_then").isNull()).alias("users_new"),
            F.count_if(F.col("_now").isNull()).alias("users_gone"),
        )
        .collect()
    )
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        values: dict[str, Any] = row.asDict()
        values |= {name: round(x, _DIGITS) for name, x in values.items() if isinstance(x, float)}
        if values["overlap"] is not None:
            values["churn"] = round(1 - values["overlap"], _DIGITS)
        found[str(values.pop(c.MODEL))] = values
    return found


def _by_user(lists: DataFrame, k: int, name: str) -> DataFrame:
    own = lists.where(person(F.col(c.USER_ID)) & (F.col(c.RANK) <= k))
    entry = F.struct(c.RANK, c.ITEM_ID)
    return own.groupBy(c.MODEL, c.USER_ID).agg(F.sort_array(F.collect_list(entry)).alias(name))
