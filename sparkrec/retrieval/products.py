"""Other products of the join: similar items, items bought together, and the users for an item."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.errors import DataError
from sparkrec.features.neighbors import BOUGHT, sure_lift
from sparkrec.retrieval import csr
from sparkrec.retrieval.catalogue import ItemMatrix, rectangle
from sparkrec.retrieval.divergence import Distributions, least_divergent, roots
from sparkrec.retrieval.filters import Audience
from sparkrec.retrieval.join import audience_of
from sparkrec.retrieval.reranking import Policy
from sparkrec.retrieval.similarity import nearest, unit, widened
from sparkrec.retrieval.topk import top_k

TOGETHER = "bought_together"
#: How items are compared whose vectors are logarithms of distributions.
DIVERGENCE = "divergence"

_NEIGHBORS = pa.schema(
    [(c.ITEM_ID, pa.string()), (c.RANK, pa.int32()), (c.NEIGHBOR_ID, pa.string()), (c.SCORE, pa.float64())]
)
_NEIGHBORS_DDL = f"{c.ITEM_ID} string, {c.RANK} int, {c.NEIGHBOR_ID} string, {c.SCORE} double"


def prepared(vectors: DataFrame, similarity: str) -> DataFrame:
    """Item vectors such that the join's inner product does the rest: as they are, at length 1, widened, or as roots."""
    change = {"cosine": unit, "euclidean": widened, DIVERGENCE: roots}.get(similarity)
    if change is None:
        return vectors

    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                yield _with_vectors(batch, change(_rectangle(batch)))

    return vectors.mapInArrow(kernel, vectors.schema)


def similar_items(vectors: DataFrame, items: ItemMatrix, similarity: str, k: int, block: int) -> DataFrame:
    """The ``k`` items most like each item, itself left out; only items that may be offered stand beside another.

    The score is the cosine, the dot product or minus the Euclidean distance; by :data:`DIVERGENCE` it is
    1 − JS / ln 2, from 0 (nothing in common) to 1 (the same distribution).

    Parameters
    ----------
    vectors
        Item index, id and vector of every item that gets neighbours, from :func:`prepared` like those in ``items``.
    """

    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        compared = Distributions.of(items.vectors, items.allowed) if similarity == DIVERGENCE else None
        for batch in batches:
            for start in range(0, batch.num_rows, block):
                yield _neighbors(batch.slice(start, block), items, similarity, k, compared)

    return vectors.select(c.ITEM_INDEX, c.ITEM_ID, c.VECTOR).mapInArrow(kernel, _NEIGHBORS_DDL)


def _neighbors(
    queries: pa.RecordBatch, items: ItemMatrix, similarity: str, k: int, compared: Distributions | None
) -> pa.RecordBatch:
    vectors = rectangle(queries.column(c.VECTOR), items.plan.width, f"vectors.items of '{items.model}'")
    itself = np.arange(len(vectors) + 1), queries.column(c.ITEM_INDEX).to_numpy()
    if similarity == "euclidean":
        found, distances = nearest(vectors[:, :-2], items.searchable, k, itself)
        scores: NDArray[np.floating] = -distances
    elif compared is not None:
        found, divergences = least_divergent(vectors, compared, k, itself)
        scores = 1 - divergences / np.log(2)
    else:
        found, scores = top_k(vectors, items.searchable, k, itself)
    owner, place = np.nonzero(found >= 0)
    columns = [
        queries.column(c.ITEM_ID).take(pa.array(owner)),
        pa.array((place + 1).astype(np.int32)),
        items.ids.take(pa.array(found[owner, place])).combine_chunks(),
        pa.array(scores[owner, place].astype(np.float64)),
    ]
    return pa.RecordBatch.from_arrays(
        [column.cast(field.type) for column, field in zip(columns, _NEIGHBORS, strict=True)], schema=_NEIGHBORS
    )


def bought_together(neighbors: DataFrame, shelf: DataFrame, min_lift: float, k: int) -> DataFrame:
    """Complements of each item, from gold.item_neighbors: those bought together more often than by chance.

    Lift alone favours pairs of rare items that met by accident, so the order is that of its lower 95 % bound,
    :func:`sure_lift`. Equal bounds go to the lower index.

    ``shelf`` is from :func:`rules.offered`: what may be offered stands beside another, and every item gets neighbours.
    """
    bought = neighbors.where(F.col(c.RELATION) == BOUGHT)
    strong = bought.withColumn(c.SCORE, sure_lift()).where(F.col(c.SCORE) > min_lift)
    return beside(strong, shelf, k).select(c.ITEM_ID, c.RANK, c.NEIGHBOR_ID, c.SCORE, c.LIFT, c.COUNT)


def beside(scored: DataFrame, shelf: DataFrame, k: int) -> DataFrame:
    """The ``k`` best neighbours of each item among those that may be offered; equal scores go to the lower index.

    Parameters
    ----------
    scored
        item_index, neighbor_index, score, and more.
    """
    offered = shelf.where(F.col("allowed")).select(
        F.col(c.ITEM_INDEX).alias(c.NEIGHBOR_INDEX), F.col(c.ITEM_ID).alias(c.NEIGHBOR_ID)
    )
    best = Window.partitionBy(c.ITEM_INDEX).orderBy(F.desc(c.SCORE), c.NEIGHBOR_INDEX)
    return (
        scored.drop(c.RANK)
        .join(offered, c.NEIGHBOR_INDEX)
        .withColumn(c.RANK, F.row_number().over(best))
        .where(F.col(c.RANK) <= k)
        .join(shelf.select(c.ITEM_INDEX, c.ITEM_ID), c.ITEM_INDEX)
    )


def audience(
    users: DataFrame, vectors: DataFrame, items: NDArray[np.int64], matrix: ItemMatrix, n: int, policy: Policy
) -> DataFrame:
    """The ``n`` users whom each of ``items`` (indices) suits best, among those whom the rules let it be offered to.

    The join with its sides exchanged: the few items reach every executor, each partition of users keeps its ``n`` best
    of each item, and only those meet. Equal scores go to the lower user index. Users without a vector are in no
    audience: nothing is known of them.

    Raises
    ------
    DataError
        The model has no vector of one of the items.
    """
    if not matrix.allowed[items].all():
        unknown = matrix.ids[int(items[~matrix.allowed[items]][0])]
        raise DataError(
            f"The model '{matrix.model}' has no vector of the item '{unknown}', so it knows no audience for it. Take "
            "the item out, or pass a --model that knows it (two_tower places new items by their content)."
        )
    there = [x for x in users.columns if x not in (c.USER_INDEX, c.USER_ID)]
    frame = users.join(vectors.select(c.USER_INDEX, c.VECTOR), c.USER_INDEX)
    frame = frame.select(c.USER_INDEX, c.USER_ID, c.VECTOR, *there)
    schema = f"{c.ITEM_INDEX} int, {c.USER_INDEX} int, {c.USER_ID} string, {c.SCORE} double"
    best = Window.partitionBy(c.ITEM_INDEX).orderBy(F.desc(c.SCORE), c.USER_INDEX)
    ranked = frame.mapInArrow(_audience_kernel(items, matrix, n, policy), schema)
    return ranked.withColumn(c.RANK, F.row_number().over(best)).where(F.col(c.RANK) <= n)


def _audience_kernel(
    items: NDArray[np.int64], matrix: ItemMatrix, n: int, policy: Policy
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        kept: list[pa.RecordBatch] = []
        for batch in batches:
            if batch.num_rows:
                kept = [_best([*kept, _suited(batch, items, matrix, n, policy)], n)]
        yield from kept

    return kernel


def _suited(
    users: pa.RecordBatch, items: NDArray[np.int64], matrix: ItemMatrix, n: int, policy: Policy
) -> pa.RecordBatch:
    """Each item's best users of one batch."""
    users = users.take(pc.sort_indices(users.column(c.USER_INDEX)))  # of equal scores the lower place is taken
    vectors = rectangle(users.column(c.VECTOR), matrix.plan.width, f"vectors.users of '{matrix.model}'")
    barred = unsuited(
        audience_of(users, vectors, policy), items, None if policy.traits is None else policy.traits.hidden
    )
    rows, columns = np.nonzero(barred)
    exclude = csr.rows_of(rows, columns, len(items))
    found, scores = top_k(np.asarray(matrix.vectors[items]), vectors, min(n, len(vectors)), exclude)
    owner, place = np.nonzero(found >= 0)
    chosen = pa.array(found[owner, place])
    return pa.RecordBatch.from_arrays(
        [
            pa.array(items[owner].astype(np.int32)),
            users.column(c.USER_INDEX).take(chosen),
            users.column(c.USER_ID).take(chosen).cast(pa.string()),
            pa.array(scores[owner, place].astype(np.float64)),
        ],
        [c.ITEM_INDEX, c.USER_INDEX, c.USER_ID, c.SCORE],
    )


def unsuited(users: Audience, items: NDArray[np.int64], hidden: NDArray[np.int64] | None) -> NDArray[np.bool_]:
    """``[len(items), n]``: who may not be offered which of these items (distinct indices, ascending)."""

    def named(lists: csr.Csr) -> NDArray[np.bool_]:
        rows, columns = csr.pairs(lists)
        place = np.minimum(np.searchsorted(items, columns), len(items) - 1)
        known = items[place] == columns
        found = np.zeros((len(items), len(users)), bool)
        found[place[known], rows[known]] = True
        return found

    barred = named(users.seen) | (users.own & ~named(users.subset))
    return barred if hidden is None else barred | ((hidden[items][:, None] & users.barred) != 0)


def _best(parts: list[pa.RecordBatch], n: int) -> pa.RecordBatch:
    """The ``n`` best users of each item."""
    table = pa.Table.from_batches(parts).combine_chunks()
    item, user, score = (table[name].to_numpy() for name in (c.ITEM_INDEX, c.USER_INDEX, c.SCORE))
    order = np.lexsort((user, -score, item))
    rank = np.arange(len(order)) - np.searchsorted(item[order], item[order])
    return table.take(pa.array(order[rank < n])).combine_chunks().to_batches()[0] if len(order) else parts[-1]


def _rectangle(batch: pa.RecordBatch) -> NDArray[np.float32]:
    lists = batch.column(c.VECTOR)
    return rectangle(lists, len(lists[0]), "table vectors.items")


def _with_vectors(batch: pa.RecordBatch, vectors: NDArray[np.float32]) -> pa.RecordBatch:
    ends = np.arange(0, vectors.size + 1, vectors.shape[1], dtype=np.int32)
    lists = pa.ListArray.from_arrays(pa.array(ends), pa.array(vectors.ravel()))
    columns = [lists if name == c.VECTOR else batch.column(name) for name in batch.schema.names]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)
