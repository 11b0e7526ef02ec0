"""Why lists are shorter than they should be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.models.segments import person
from sparkrec.pipeline import Run
from sparkrec.retrieval import filters
from sparkrec.retrieval.catalogue import ItemMatrix
from sparkrec.retrieval.filters import Audience
from sparkrec.retrieval.join import audience_of
from sparkrec.retrieval.reranking import Policy

#: The first of these that alone leaves fewer than k: what the user may be offered at all (for sale, in stock, known to
#: the model, rules, lists), what of that the user has not seen, and the caps on what is left.
OFFERED, SEEN, CAPS = REASONS = "few_offered", "most_seen", "caps"


def counted(run: Run) -> dict[str, dict[str, Any]]:
    """What recommend wrote, by model: lists, rows, lists from the fallback, lists that are short or empty.

    ``run.counts`` has the number of users already; the sums over models go there too.
    """
    k, models = run.settings.recommend.k, run.settings.recommend.models
    own = (F.col(c.RANK) == 1) & person(F.col(c.USER_ID))
    found = (
        run.read(schemas.RECOMMENDATIONS, {c.RUN_ID: run.run_id})
        .groupBy(c.MODEL)
        .agg(
            F.count("*").alias("rows"),
            F.count_if(own).alias("lists"),
            F.count_if(own & (F.col(c.SOURCE) != F.col(c.MODEL))).alias("fallback_users"),
            F.count_if((F.col(c.RANK) == k) & person(F.col(c.USER_ID))).alias("full"),
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
    return by_model


def reasons(
    users: DataFrame,
    vectors: DataFrame,
    lists: DataFrame,
    items: ItemMatrix,
    popular: ItemMatrix,
    k: int,
    policy: Policy,
    otherwise: str = CAPS,
) -> dict[str, int]:
    """How many of the users' lists are shorter than ``k``, by :data:`REASONS`. The arguments are those of the join.

    ``otherwise`` : what the last of the reasons is called.
    """
    lengths = lists.groupBy(c.USER_ID).agg(F.count("*").alias("_n"))
    known = vectors.select(c.USER_INDEX, F.lit(True).alias("_known"))
    short = users.where(person(F.col(c.USER_ID))).join(lengths, c.USER_ID, "left")
    short = short.where(F.coalesce("_n", F.lit(0)) < k).join(known, c.USER_INDEX, "left").drop("_n")

    names = pa.array([*REASONS[:-1], otherwise])

    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            mine = batch.column("_known").is_valid()
            for part, matrix in ((batch.filter(mine), items), (batch.filter(pc.invert(mine)), popular)):
                if part.num_rows:
                    found = because(_audience(part, policy), matrix.allowed, k, policy)
                    yield pa.RecordBatch.from_arrays([names.take(pa.array(found)).cast(pa.string())], ["r"])

    rows = short.mapInArrow(kernel, "r string").groupBy("r").count().collect()
    return {row["r"]: row["count"] for row in sorted(rows)}


def because(users: Audience, allowed: NDArray[np.bool_], k: int, policy: Policy) -> NDArray[np.int64]:
    """``[n]``: the place in :data:`REASONS` of why each of these users' lists is short."""
    hidden = None if policy.traits is None else policy.traits.hidden
    found = np.full(len(users), REASONS.index(CAPS))
    for barred, rows in filters.groups(users.barred, users.own):
        part, mask = users.take(rows), filters.permitted(allowed, hidden, barred)
        offered = np.full(len(rows), int(mask.sum()))
        if users.own[rows[0]]:
            able = _distinct(part.subset, mask)
            offered = np.bincount(able // len(mask), minlength=len(rows))
            met = np.intersect1d(_distinct(part.seen, mask), able)
        else:
            met = _distinct(part.seen, mask)
        left = offered - np.bincount(met // len(mask), minlength=len(rows))
        found[rows[left < k]] = REASONS.index(SEEN)
        found[rows[offered < k]] = REASONS.index(OFFERED)
    return found


def _distinct(lists: filters.Csr, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """row · m + item of every entry that the mask lets through, once."""
    rows, columns = filters.pairs(lists)
    return np.unique((rows * len(mask) + columns)[mask[columns]])


def _audience(users: pa.RecordBatch, policy: Policy) -> Audience:
    return audience_of(users, np.zeros((users.num_rows, 0), np.float32), policy)
