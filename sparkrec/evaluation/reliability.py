"""Whether the probabilities that stand in a model's lists came true for the test users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c

_EXACT = "decimal(38,9)"  # sums of decimals are the same in any order


def of_lists(
    lists: DataFrame, holdout: DataFrame, model: str, goal: Sequence[str], fewest: int = 50
) -> list[dict[str, Any]]:
    """By powers of two of the probability, lowest first: ``rows``, the mean ``said``, the share that ``happened``.

    Groups of ``fewest`` rows or more. Only rows that the model chose, of users with a test part: those who came back,
    for whom the probability holds. What happened is an event of the ``goal``, as the strongest or the first on an item.
    """
    reached = F.col(c.EVENT_TYPE).isin(*goal) | F.col(c.FIRST_TYPE).isin(*goal)
    right = holdout.where(reached).select(c.USER_ID, c.ITEM_ID, F.lit(1).alias("_hit"))
    shown = lists.where((F.col(c.MODEL) == model) & (F.col(c.SOURCE) == model))
    known = shown.join(holdout.select(c.USER_ID).distinct(), c.USER_ID, "left_semi")
    told = known.join(right, [c.USER_ID, c.ITEM_ID], "left").groupBy(F.floor(F.log2(c.SCORE)).alias("_power"))
    rows = told.agg(
        F.count("*").alias("rows"),
        F.sum(F.col(c.SCORE).cast(_EXACT)).cast("double").alias("said"),
        F.count("_hit").alias("happened"),
    ).collect()
    enough = sorted((row for row in rows if row["rows"] >= fewest), key=lambda row: row["_power"])
    return [
        {"rows": row["rows"], "said": row["said"] / row["rows"], "happened": row["happened"] / row["rows"]}
        for row in enough
    ]
