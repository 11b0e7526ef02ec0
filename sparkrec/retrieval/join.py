"""The batch similarity join: every user's exact top-k, in Arrow blocks beside a memory-mapped item matrix.

Users are never multiplied with items as rows: a user is one row with a vector and an array of what they have seen, and
leaves as k rows. Nothing is shuffled but the users' own rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.retrieval import fallback
from sparkrec.retrieval.catalogue import ItemMatrix, rectangle
from sparkrec.retrieval.topk import Catalogue, Csr, top_k

SEEN = "seen"
_LISTS = pa.schema(
    [
        (c.USER_ID, pa.string()),
        (c.RANK, pa.int32()),
        (c.ITEM_ID, pa.string()),
        (c.SCORE, pa.float64()),
        (c.SOURCE, pa.string()),
        (c.REASON, pa.string()),
    ]
)
#: The columns of a list.
DDL = f"{c.USER_ID} string, {c.RANK} int, {c.ITEM_ID} string, {c.SCORE} double, {c.SOURCE} string, {c.REASON} string"


def with_seen(users: DataFrame, sequences: DataFrame, event_types: Iterable[str]) -> DataFrame:
    """User index, id and :data:`SEEN`: the item indices that each user met in one of these ways (null: none)."""
    codes = [c.EVENT_TYPES.index(name) for name in event_types]
    met = F.filter(F.arrays_zip(c.ITEM_INDEX, c.EVENT_TYPE), lambda event: event[c.EVENT_TYPE].isin(codes))
    chunks = sequences.select(c.USER_INDEX, F.transform(met, lambda event: event[c.ITEM_INDEX]).alias(SEEN))
    seen = chunks.groupBy(c.USER_INDEX).agg(F.array_distinct(F.flatten(F.collect_list(SEEN))).alias(SEEN))
    return users.select(c.USER_INDEX, c.USER_ID).join(seen, c.USER_INDEX, "left")


def with_vectors(users: DataFrame, vectors: DataFrame) -> DataFrame:
    """Users from :func:`with_seen` beside their vectors (null: none)."""
    return users.join(vectors.select(c.USER_INDEX, c.VECTOR), c.USER_INDEX, "left").select(c.USER_ID, c.VECTOR, SEEN)


def similarity_join(frame: DataFrame, items: ItemMatrix, popular: ItemMatrix, k: int, block: int) -> DataFrame:
    """The lists of all users: exactly ``k`` rows each, or as many as there are items left.

    Parameters
    ----------
    frame
        From :func:`with_vectors`; a user without a vector gets the most popular items, and the row says so.
    items, popular
        The model's items, and those of the popularity model.
    block
        Users in one search; it changes the memory, never the result.
    """
    return frame.mapInArrow(_kernel(items, popular, k, block), DDL)


def _kernel(
    items: ItemMatrix, popular: ItemMatrix, k: int, block: int
) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for start in range(0, batch.num_rows, block):
                part = batch.slice(start, block)
                known = part.column(c.VECTOR).is_valid()
                served, others = part.filter(known), part.filter(pc.invert(known))
                if served.num_rows:
                    yield _for_known(served, items, k)
                if others.num_rows:
                    yield _for_unknown(others, popular, k)

    return kernel


def search_known(
    users: pa.RecordBatch, items: ItemMatrix, how: Catalogue, k: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """What :func:`topk.top_k` finds for users who have vectors."""
    vectors = rectangle(users.column(c.VECTOR), items.plan.width, f"tables of vectors of '{items.model}'")
    return top_k(vectors, how, k, _seen(users))


def _for_known(users: pa.RecordBatch, items: ItemMatrix, k: int) -> pa.RecordBatch:
    return _lists(users, items, *search_known(users, items, items.searchable, k))


def _for_unknown(users: pa.RecordBatch, popular: ItemMatrix, k: int) -> pa.RecordBatch:
    return _lists(users, popular, *fallback.popular(popular, users.num_rows, k, _seen(users)))


def _seen(users: pa.RecordBatch) -> Csr:
    """What each user has seen as compressed rows; null is nothing."""
    lengths = users.column(SEEN).value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    flat = users.column(SEEN).flatten().to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), flat.astype(np.int32, copy=False)


def _lists(
    users: pa.RecordBatch, items: ItemMatrix, indices: NDArray[np.int32], scores: NDArray[np.float32]
) -> pa.RecordBatch:
    """One row for each place that is filled."""
    owner, place = np.nonzero(indices >= 0)
    ids = items.ids.take(pa.array(indices[owner, place])).combine_chunks()
    columns = [
        users.column(c.USER_ID).take(pa.array(owner)),
        pa.array((place + 1).astype(np.int32)),
        ids,
        pa.array(scores[owner, place].astype(np.float64)),
        pa.repeat(items.model, len(owner)),
        pa.repeat(fallback.reason(items.model), len(owner)),
    ]
    return pa.RecordBatch.from_arrays(
        [column.cast(field.type) for column, field in zip(columns, _LISTS, strict=True)], schema=_LISTS
    )
