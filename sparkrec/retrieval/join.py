"""The batch similarity join: every user's exact top-k, in Arrow blocks beside a memory-mapped item matrix.

Users are never multiplied with items as rows: a user is one row with a vector and an array of what they have seen, and
leaves as k rows. Nothing is shuffled but the users' own rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.lake.blocks import Blocks, Kernel
from sparkrec.retrieval import fallback, filters, reranking
from sparkrec.retrieval.catalogue import ItemMatrix, rectangle
from sparkrec.retrieval.filters import Audience
from sparkrec.retrieval.reranking import Policy
from sparkrec.retrieval.topk import Csr
from sparkrec.schemas import RECOMMENDATIONS

#: Of a user: items met, and how many days before the split; rules that bar items, a bit each; the only items that are
#: offered; the number in the lot. All but the first are there where the policy needs them. The number of the segment
#: whose list a user gets who has no vector, where there are segments.
SEEN, AGE_DAYS, BARRED, SUBSET, KEY, SEGMENT = "seen", "seen_age_days", "barred", "subset", "lot_key", "segment"
#: Kinds of items, and the share of each, in what a user likes; null where that is not known.
TASTES = TASTE, TASTE_SHARES = "taste", "taste_shares"
_POLICY = (SEEN, AGE_DAYS, BARRED, SUBSET, KEY, SEGMENT, *TASTES)
_COLUMNS = [x for x in RECOMMENDATIONS.columns if x.name not in RECOMMENDATIONS.partition_by]
_ARROW = {"string": pa.string(), "int": pa.int32(), "double": pa.float64()}
#: The columns of a list.
LISTS = pa.schema([(column.name, _ARROW[column.type]) for column in _COLUMNS])


def with_seen(
    users: DataFrame, sequences: DataFrame, event_types: Iterable[str], as_of: float | None = None
) -> DataFrame:
    """User index, id and :data:`SEEN`: the item indices that each user met in one of these ways (null: none).

    With ``as_of`` (unix seconds) also :data:`AGE_DAYS`, how long before it; an item met twice is there twice.
    """
    codes = [c.EVENT_TYPES.index(name) for name in event_types]
    known = users.select(c.USER_INDEX, c.USER_ID)
    if as_of is None:
        met = F.filter(c.ITEM_INDEX, lambda _, place: F.get(c.EVENT_TYPE, place).isin(codes))
        chunks = sequences.select(c.USER_INDEX, met.alias(SEEN))
        seen = chunks.groupBy(c.USER_INDEX).agg(F.array_distinct(F.flatten(F.collect_list(SEEN))).alias(SEEN))
        return known.join(seen, c.USER_INDEX, "left")
    zipped = F.arrays_zip(c.ITEM_INDEX, c.EVENT_TYPE, c.EVENT_TIME)
    met = F.filter(zipped, lambda event: event[c.EVENT_TYPE].isin(codes))
    chunks = sequences.select(c.USER_INDEX, met.alias("_met"))
    events = chunks.groupBy(c.USER_INDEX).agg(F.flatten(F.collect_list("_met")).alias("_met"))
    ages = F.transform("_met", lambda event: ((as_of - event[c.EVENT_TIME]) / 86400).cast("float"))
    seen = events.select(c.USER_INDEX, F.col(f"_met.{c.ITEM_INDEX}").alias(SEEN), ages.alias(AGE_DAYS))
    return known.join(seen, c.USER_INDEX, "left")


def with_anyone(users: DataFrame) -> DataFrame:
    """Adds :data:`columns.ANYONE`, of whom nothing is known: the list for whoever has none."""
    nobody = users.sparkSession.createDataFrame([(c.ANYONE,)], f"{c.USER_ID} string")
    return users.unionByName(nobody, allowMissingColumns=True)


def with_vectors(users: DataFrame, vectors: DataFrame) -> DataFrame:
    """Users from :func:`with_seen`, with what else the policy needs (:mod:`rules`), and their vectors (null: none)."""
    there = [name for name in _POLICY if name in users.columns]
    frame = users.join(vectors.select(c.USER_INDEX, c.VECTOR), c.USER_INDEX, "left")
    return frame.select(c.USER_ID, c.VECTOR, *there)


def similarity_join(
    frame: DataFrame,
    items: ItemMatrix,
    popular: ItemMatrix,
    k: int,
    block: int,
    policy: Policy | None = None,
    segments: ItemMatrix | None = None,
) -> Blocks:
    """The lists of all users: exactly ``k`` rows each, or as many as there are items left.

    Parameters
    ----------
    frame
        From :func:`with_vectors`; a user without a vector gets what is most popular in their :data:`SEGMENT`, or else
        with everyone, and the row says so.
    items, popular
        The model's items, and those of the popularity model.
    block
        Users in one search; it changes the memory, never the result.
    policy
        Rules and reranking; None: neither.
    segments
        The items of the model of segments; None: there are none.
    """
    return Blocks(frame, lists_kernel(items, popular, segments, k, block, policy), LISTS)


def lists_kernel(
    items: ItemMatrix, popular: ItemMatrix, segments: ItemMatrix | None, k: int, block: int, policy: Policy | None
) -> Kernel:
    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for start in range(0, batch.num_rows, block):
                served, others = divided(batch.slice(start, block), c.VECTOR)
                if served.num_rows:
                    yield _lists(served, vectors(served, items), items, k, policy)
                yield from popular_lists(others, popular, segments, k, policy)

    return kernel


def divided(users: pa.RecordBatch, column: str) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Those who have a value there, and the others."""
    there = users.column(column).is_valid()
    return users.filter(there), users.filter(pc.invert(there))


def _one_hot(numbers: pa.Array, width: int) -> NDArray[np.float32]:
    """``[n, width]``: 1 in the column of each number."""
    rows = np.zeros((len(numbers), width), np.float32)
    rows[np.arange(len(numbers)), numbers.to_numpy()] = 1
    return rows


def vectors(users: pa.RecordBatch, items: ItemMatrix) -> NDArray[np.float32]:
    """``[n, d]``, of users who all have one."""
    return rectangle(users.column(c.VECTOR), items.plan.width, f"tables of vectors of '{items.model}'")


def _lists(
    users: pa.RecordBatch, vectors: NDArray[np.float32], items: ItemMatrix, k: int, policy: Policy | None
) -> pa.RecordBatch:
    if policy and items.model in fallback.COUNTING:
        policy = policy.without_likeness
    found = reranking.lists(
        audience_of(users, vectors, policy), *lots(users), items.searchable, items.vectors, items.allowed, k, policy
    )
    owner, place = np.nonzero(found.indices >= 0)
    reasons = pa.array([fallback.reason(items.model, why) for why in range(3)])
    return rows(
        users,
        found,
        items.ids,
        items.model,
        pa.DictionaryArray.from_arrays(pa.array(found.why[owner, place].astype(np.int8)), reasons),
    )


def popular_lists(
    users: pa.RecordBatch, popular: ItemMatrix, segments: ItemMatrix | None, k: int, policy: Policy | None
) -> Iterator[pa.RecordBatch]:
    """For users of whom the model knows nothing: what is most popular in their segment, or else with everyone."""
    if segments is not None:
        told, users = divided(users, SEGMENT)
        if told.num_rows:
            yield _lists(told, _one_hot(told.column(SEGMENT), segments.plan.width), segments, k, policy)
    if users.num_rows:
        yield _lists(users, np.ones((users.num_rows, 1), np.float32), popular, k, policy)


def lots(users: pa.RecordBatch) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Each user's number in the lot, and whether they take part."""
    if KEY not in users.schema.names:
        return np.zeros(users.num_rows, np.uint64), np.zeros(users.num_rows, bool)
    column = users.column(KEY)
    return column.fill_null(0).to_numpy().view(np.uint64), column.is_valid().to_numpy(zero_copy_only=False)


def rows(
    users: pa.RecordBatch, found: reranking.Lists, ids: pa.ChunkedArray, source: str, reasons: pa.Array
) -> pa.RecordBatch:
    """One row for each place that is filled; texts that repeat are dictionaries, ``reasons`` among them."""
    owner, place = np.nonzero(found.indices >= 0)
    of = pa.DictionaryArray.from_arrays
    columns = [
        of(pa.array(owner.astype(np.int32)), users.column(c.USER_ID)),
        pa.array((place + 1).astype(np.int32)),
        ids.take(pa.array(found.indices[owner, place])).combine_chunks(),
        pa.array(found.scores[owner, place].astype(np.float64)),
        of(pa.array(np.zeros(len(owner), np.int8)), pa.array([source])),
        reasons,
        pa.array(found.propensity[owner, place].astype(np.float64)),
    ]
    return pa.RecordBatch.from_arrays(columns, names=LISTS.names)


def audience_of(users: pa.RecordBatch, vectors: NDArray[np.float32], policy: Policy | None) -> Audience:
    """A batch of users with their vectors, as the filters see them."""
    names, n = users.schema.names, users.num_rows
    seen = csr(users, SEEN)
    if AGE_DAYS in names and policy and policy.traits:
        ages = users.column(AGE_DAYS).flatten().to_numpy(zero_copy_only=False)
        seen = filters.recent(seen, ages, policy.traits.memory_days)
    barred = users.column(BARRED).to_numpy(zero_copy_only=False) if BARRED in names else np.zeros(n, np.int64)
    likes = tastes(users) if TASTE in names else None
    if SUBSET not in names:
        none = (np.zeros(n + 1, np.int64), np.zeros(0, np.int64))
        return Audience(vectors, seen, barred, np.zeros(n, bool), none, likes)
    own = users.column(SUBSET).is_valid().to_numpy(zero_copy_only=False)
    return Audience(vectors, seen, barred, own, csr(users, SUBSET), likes)


def tastes(users: pa.RecordBatch) -> tuple[NDArray[np.integer], NDArray[np.floating]]:
    """:data:`TASTE` and its shares, ``[n, t]`` both, -1 and 0 beyond what a user has."""
    return _padded(users, TASTE, -1), _padded(users, TASTE_SHARES, 0)


def _padded(users: pa.RecordBatch, column: str, filler: float) -> NDArray:
    """Short lists as one array, ``[n, longest]``."""
    lengths = users.column(column).value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    flat = users.column(column).flatten().to_numpy(zero_copy_only=False)
    padded = np.full((len(lengths), lengths.max(initial=0)), filler, flat.dtype)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = flat
    return padded


def csr(users: pa.RecordBatch, column: str) -> Csr:
    """Lists of item indices as compressed rows; null is nothing."""
    lengths = users.column(column).value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    flat = users.column(column).flatten().to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), flat.astype(np.int32, copy=False)
