"""What came of the lists: for every test user where each model's list hit, and the sums that all numbers come from.

The denominator is every user of gold.holdout. A user who was not known before the split is served the list of
:data:`columns.ANYONE`, as in life.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.evaluation import bootstrap, metrics

#: Test users by their number of training events; a user is in exactly one.
SEGMENTS = ("new", "light", "regular", "heavy")
LIGHT, HEAVY = 5, 50
SEGMENT_DOCS = {
    "all": "every test user",
    "new": "nothing before the split",
    "light": f"fewer than {LIGHT} events before it",
    "regular": f"{LIGHT} to {HEAVY - 1}",
    "heavy": f"{HEAVY} or more",
}

N_RELEVANT, PLACES, KEY = "n_relevant", "places", "key"
_CELL, _TOTAL = "cell", "total"


def test_users(holdout: DataFrame, users: DataFrame, seed: int) -> DataFrame:
    """One row a test user: id, index, number of relevant items, segment (place in :data:`SEGMENTS`), hash of the id."""
    relevant = holdout.groupBy(c.USER_ID).agg(F.count("*").alias(N_RELEVANT), F.max(c.USER_INDEX).alias(c.USER_INDEX))
    events = F.coalesce(F.col(c.N_EVENTS), F.lit(0))
    segment = (
        F.when(F.col(c.USER_INDEX).isNull() | (events == 0), 0)
        .when(events < LIGHT, 1)
        .when(events < HEAVY, 2)
        .otherwise(3)
    )
    return relevant.join(users.select(c.USER_INDEX, c.N_EVENTS), c.USER_INDEX, "left").select(
        c.USER_ID, c.USER_INDEX, N_RELEVANT, segment.alias(c.SEGMENT), F.xxhash64(F.lit(seed), c.USER_ID).alias(KEY)
    )


def hits(holdout: DataFrame, lists: DataFrame, models: Sequence[str], k: int) -> DataFrame:
    """User id and :data:`PLACES`: model · k + rank − 1 for each hit. Users without a hit are not in it."""
    served = F.when(F.col(c.USER_INDEX).isNull(), F.lit(c.ANYONE)).otherwise(F.col(c.USER_ID))
    wanted = holdout.select(c.USER_ID, c.ITEM_ID, served.alias("served"))
    number = F.array_position(F.array(*map(F.lit, models)), F.col(c.MODEL)) - 1
    offered = lists.where(F.col(c.MODEL).isin(*models) & (F.col(c.RANK) <= k)).select(
        F.col(c.USER_ID).alias("served"), c.ITEM_ID, (number * k + F.col(c.RANK) - 1).cast("int").alias("place")
    )
    return wanted.join(offered, ["served", c.ITEM_ID]).groupBy(c.USER_ID).agg(F.collect_list("place").alias(PLACES))


class Totals(NamedTuple):
    """All that is known of the test users, by segment.

    ``sums`` : those of :func:`bootstrap.sums`, ``[segments, 1 + resamples, 1 + models · metrics]``; columns after the
    first are model by model, within a model as :func:`metrics.names`. ``apart`` : users to whom two models gave
    different results, ``[segments, pairs · metrics]``, pairs in the order of :func:`itertools.combinations`.
    """

    sums: NDArray[np.int64]
    apart: NDArray[np.int64]


def totals(
    users: DataFrame, found: DataFrame, n_models: int, ks: Sequence[int], resamples: int, segments: int = len(SEGMENTS)
) -> Totals:
    """What came of the lists, as exact sums. Only these reach the driver; users never do."""
    width, n_pairs = len(metrics.names(ks)), n_models * (n_models - 1) // 2
    shapes = (segments, 1 + resamples, 1 + n_models * width), (segments, n_pairs * width)
    joined = users.join(found, c.USER_ID, "left").select(N_RELEVANT, c.SEGMENT, KEY, PLACES)
    cells = joined.mapInArrow(_kernel(n_models, tuple(ks), shapes), f"{_CELL} bigint, {_TOTAL} bigint")
    summed = cells.groupBy(_CELL).agg(F.sum(_TOTAL).alias(_TOTAL)).toArrow()
    sizes = [int(np.prod(shape)) for shape in shapes]
    result = np.zeros(sum(sizes), np.int64)
    result[summed[_CELL].to_numpy()] = summed[_TOTAL].to_numpy()
    sums, apart = np.split(result, sizes[:1])
    return Totals(sums.reshape(shapes[0]), apart.reshape(shapes[1]))


def _kernel(
    n_models: int, ks: tuple[int, ...], shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        total = Totals(*(np.zeros(shape, np.int64) for shape in shapes))
        for batch in batches:
            for start in range(0, batch.num_rows, bootstrap.BLOCK):
                _add(total, batch.slice(start, bootstrap.BLOCK), n_models, ks)
        flat = np.concatenate([part.ravel() for part in total])
        cell = np.flatnonzero(flat)
        yield pa.RecordBatch.from_arrays([pa.array(cell, pa.int64()), pa.array(flat[cell])], [_CELL, _TOTAL])

    return kernel


def _add(total: Totals, batch: pa.RecordBatch, n_models: int, ks: tuple[int, ...]) -> None:
    k, n = max(ks), batch.num_rows
    lengths = batch.column(PLACES).value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    found = np.zeros((n, n_models * k), bool)
    found[np.repeat(np.arange(n), lengths), batch.column(PLACES).flatten().to_numpy(zero_copy_only=False)] = True
    n_relevant = batch.column(N_RELEVANT).to_numpy()
    by_model = [metrics.table(part, n_relevant, ks) for part in np.split(found, n_models, axis=1)]
    values = np.concatenate(by_model, axis=1)
    keys = batch.column(KEY).to_numpy().view(np.uint64)
    segment = batch.column(c.SEGMENT).to_numpy()
    apart = np.concatenate(
        [np.zeros((n, 0), bool), *[one != other for one, other in combinations(by_model, 2)]], axis=1
    )
    for number in np.unique(segment):
        inside = segment == number
        total.sums[number] += bootstrap.sums(values[inside], keys[inside], total.sums.shape[1] - 1)
        total.apart[number] += apart[inside].sum(axis=0)
