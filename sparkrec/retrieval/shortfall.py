"""Why lists are shorter than they should be."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.errors import DataError
from sparkrec.models.segments import person
from sparkrec.pipeline import Run
from sparkrec.retrieval import csr, filters
from sparkrec.retrieval.catalogue import ItemMatrix
from sparkrec.retrieval.filters import Audience
from sparkrec.retrieval.join import audience_of
from sparkrec.retrieval.reranking import Policy

#: The first of these that alone leaves fewer than k: what the user may be offered at all (for sale, in stock, known to
#: the model, rules, lists), what of that the user has not seen, and the caps on what is left. What a list denies to
#: single users counts as seen, as it does in the join.
OFFERED, SEEN, CAPS = REASONS = "few_offered", "most_seen", "caps"
_FULL = "full"
_NUMBERS = ("lists", "fallback_users", _FULL)


def counted(run: Run, rows: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """What recommend wrote, by model: lists, rows, lists from the fallback, lists that are short or empty.

    ``rows`` : model → the rows written. ``run.counts`` has the number of users already; the sums over models go there
    too.
    """
    k, models = run.settings.recommend.k, run.settings.recommend.models
    own = (F.col(c.RANK) == 1) & person(F.col(c.USER_ID))
    found = (
        run.read(schemas.RECOMMENDATIONS, {c.RUN_ID: run.run_id})
        .where(F.col(c.MODEL).isin(*models))  # not what `newcomers` wrote, or a run with other settings
        .where(F.col(c.RANK).isin(1, k))  # the others say nothing, and are nearly all
        .groupBy(c.MODEL)
        .agg(
            F.count_if(own).alias("lists"),
            F.count_if(own & (F.col(c.SOURCE) != F.col(c.MODEL))).alias("fallback_users"),
            F.count_if((F.col(c.RANK) == k) & person(F.col(c.USER_ID))).alias(_FULL),
        )
        .collect()
    )
    by_model: dict[str, dict[str, Any]] = {
        model: {"rows": rows.get(model, 0)} | dict.fromkeys(_NUMBERS, 0) for model in models
    }
    for row in found:
        by_model[row[c.MODEL]] |= {name: row[name] for name in _NUMBERS}
    for numbers in by_model.values():
        numbers["short_lists"] = run.counts["users"] - numbers.pop(_FULL)
    run.count(
        **{name: sum(r[name] for r in by_model.values()) for name in ("lists", "rows", "fallback_users", "short_lists")}
    )
    return by_model


def require_made(run: Run, models: Iterable[str]) -> None:
    """The lists of these models are those that this run's last ``recommend`` wrote.

    Raises
    ------
    DataError
        It wrote none of some: what the table still holds of them is of other settings.
    """
    recorded = [row for row in run.records() if row[c.STAGE] == "recommend"]
    made = json.loads(recorded[-1][c.DETAILS] or "{}").get("lists") if recorded else None
    if made is not None and (missing := [model for model in models if model not in made]):
        raise DataError(
            f"The last recommend of the run '{run.run_id}' made lists of {', '.join(made)}, and none of "
            f"{', '.join(missing)}: what recommendations may still hold of them is of other settings. Run recommend "
            "with them in recommend.models, or take them out."
        )


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


def _distinct(lists: csr.Csr, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """row · m + item of every entry that the mask lets through, once."""
    rows, columns = csr.pairs(lists)
    return np.unique((rows * len(mask) + columns)[mask[columns]])


def _audience(users: pa.RecordBatch, policy: Policy) -> Audience:
    return audience_of(users, np.zeros((users.num_rows, 0), np.float32), policy)
