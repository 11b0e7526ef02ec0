"""Vectors of users and items from the trained two-tower model, as Arrow batches on the executors.

The towers are the ones that trained (``models.two_tower.towers``). Each executor process memory-maps the model once
and takes from its tables only the rows that a block of users needs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkrec import columns as c
from sparkrec.errors import DataError
from sparkrec.models.two_tower import exported
from sparkrec.models.two_tower.exported import Exported

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

#: Users or items in one pass through a tower.
BLOCK = 4096


def users(
    sequences: DataFrame, vocabulary: DataFrame, folder: str, chunk_length: int, spare_chunks: int | None = 0
) -> DataFrame:
    """user_index, user_id, vector for each user of gold.sequences.

    ``chunk_length`` is ``features.max_length``: the history that the model was trained on lies in the newest
    ⌈max_history / chunk_length⌉ chunks, so most often in one row, and then nothing is shuffled before the towers.
    ``spare_chunks`` : so many more, where chunks are not full; None: all, where nobody knows how full they are.
    """
    full = -(-exported.load(folder).settings.max_history // chunk_length)
    chunks = None if spare_chunks is None else full + spare_chunks
    histories = newest_first_chunks(sequences, chunks)
    schema = f"{c.USER_INDEX} int, {c.VECTOR} array<float>"
    vectors = histories.mapInArrow(_kernel(folder, _user_block), schema)
    return vectors.join(vocabulary.select(c.USER_INDEX, c.USER_ID), c.USER_INDEX)


def strangers(histories: DataFrame, folder: str) -> DataFrame:
    """user_id, vector from user_id, item_index and event_type (oldest first) of users whom the model has not met."""
    schema = f"{c.USER_ID} string, {c.VECTOR} array<float>"
    rows = histories.select(c.USER_ID, c.ITEM_INDEX, c.EVENT_TYPE)
    return rows.mapInArrow(_kernel(folder, _stranger_block), schema)


def items(gold_items: DataFrame, folder: str) -> DataFrame:
    """item_index, item_id, vector for each item of gold.items."""
    schema = f"{c.ITEM_INDEX} int, {c.ITEM_ID} string, {c.VECTOR} array<float>"
    return gold_items.select(c.ITEM_INDEX, c.ITEM_ID, c.FEATURES).mapInArrow(_kernel(folder, _item_block), schema)


def check_tables(model: Exported, versions: Mapping[str, int]) -> None:
    """What is embedded is what the model was trained on.

    Raises
    ------
    DataError
        A table has been written since.
    """
    for table, version in versions.items():
        if (trained := model.tables.get(table, version)) != version:
            raise DataError(
                f"The two-tower model was trained on version {trained} of {table}, and featurize of this run has "
                f"written version {version} since. Run train_two_tower again, then embed."
            )


def newest_first_chunks(
    sequences: DataFrame, chunks: int | None, fields: tuple[str, ...] = (c.ITEM_INDEX, c.EVENT_TYPE)
) -> DataFrame:
    """user_index and the ``fields``: each user's newest ``chunks`` chunks joined in time order; None: all of them."""
    from pyspark.sql import functions as F

    newest = sequences if chunks is None else sequences.where(F.col(c.CHUNK) < chunks)
    if chunks == 1:
        return newest.select(c.USER_INDEX, *fields)
    parts = F.sort_array(F.collect_list(F.struct((-F.col(c.CHUNK)).alias("age"), *fields)))
    joined = newest.groupBy(c.USER_INDEX).agg(parts.alias("parts"))
    whole = [F.flatten(F.col(f"parts.{name}")).alias(name) for name in fields]
    # The order within a partition decides the blocks, and must not depend on which shuffle block came first.
    return joined.select(c.USER_INDEX, *whole).sortWithinPartitions(c.USER_INDEX)


def _kernel(
    folder: str, block: Callable[[Exported, pa.RecordBatch], pa.RecordBatch]
) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    def vectors(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        model = _model(folder)
        for batch in batches:
            for start in range(0, batch.num_rows, BLOCK):
                yield block(model, batch.slice(start, BLOCK))

    return vectors


@lru_cache(maxsize=1)
def _model(folder: str) -> Exported:
    """Once a process; one thread, because Spark runs one process a core."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return exported.load(folder)


def _user_block(model: Exported, batch: pa.RecordBatch) -> pa.RecordBatch:
    import pyarrow as pa

    index = batch.column(c.USER_INDEX)
    vectors = user_vectors(
        model, index.to_numpy(), *_lists(batch.column(c.ITEM_INDEX)), _lists(batch.column(c.EVENT_TYPE))[1]
    )
    return pa.RecordBatch.from_arrays([index, _as_lists(vectors)], [c.USER_INDEX, c.VECTOR])


def _stranger_block(model: Exported, batch: pa.RecordBatch) -> pa.RecordBatch:
    import pyarrow as pa

    nobody = np.full(batch.num_rows, -1, np.int32)
    met, types = _lists(batch.column(c.ITEM_INDEX)), _lists(batch.column(c.EVENT_TYPE))[1]
    vectors = user_vectors(model, nobody, *met, types)
    return pa.RecordBatch.from_arrays([batch.column(c.USER_ID), _as_lists(vectors)], [c.USER_ID, c.VECTOR])


def _item_block(model: Exported, batch: pa.RecordBatch) -> pa.RecordBatch:
    import pyarrow as pa

    vectors = item_vectors(model, batch.column(c.ITEM_INDEX).to_numpy(), *_lists(batch.column(c.FEATURES)))
    return pa.RecordBatch.from_arrays(
        [batch.column(c.ITEM_INDEX), batch.column(c.ITEM_ID), _as_lists(vectors)], [c.ITEM_INDEX, c.ITEM_ID, c.VECTOR]
    )


def user_vectors(
    model: Exported, index: np.ndarray, lengths: np.ndarray, item_index: np.ndarray, event_type: np.ndarray
) -> np.ndarray:
    """f of users [n, d] from whole histories, flat and oldest first; only the newest ``max_history`` count.

    A negative index is nobody's: where users have an id row, theirs is zeros, and the history alone decides.
    """
    from sparkrec.models.two_tower import towers
    from sparkrec.training.events import Events
    from sparkrec.training.loader import whole_histories

    events = Events(index, np.cumsum(lengths), item_index, event_type.astype(np.int8), np.zeros(len(item_index), bool))
    batch = whole_histories(events, np.arange(len(index)), model.settings.max_history)
    met, batch["history_items"] = np.unique(batch["history_items"], return_inverse=True)
    batch["history_rows"] = batch["history_items"]
    batch["users"] = np.arange(len(index), dtype=np.int32)
    rows = {name: rows for name, rows in (("user_id", np.maximum(index, 0)), ("history_item", met))
            if name in model.weights}  # fmt: skip
    local = model.weights | {name: model.weights[name][some] for name, some in rows.items()}
    if "user_id" in local:
        local["user_id"][index < 0] = 0
    return _finite(towers.user_vectors(local, model.settings, batch, model.item_vectors[met]), "user")


def item_vectors(model: Exported, index: np.ndarray, lengths: np.ndarray, features: np.ndarray) -> np.ndarray:
    """g of items [n, d] from their id rows and features, flat."""
    from sparkrec.models.two_tower import towers

    rows = {"item_id": index}
    if "item_feature" in model.weights:
        rows["item_feature"], features = np.unique(features, return_inverse=True)
    local = model.weights | {name: model.weights[name][some] for name, some in rows.items()}
    batch = towers.ItemFeatures(np.cumsum(lengths), features).of(np.arange(len(index)))
    return _finite(towers.item_rows(local, batch), "item")


def _finite(vectors: Any, what: str) -> np.ndarray:
    array = np.asarray(vectors)
    if not np.isfinite(array).all():
        raise DataError(f"The two-tower model gives {what} vectors that are not finite. Train it again.")
    return array


def _lists(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Lengths and flat values of a list column; null is an empty list."""
    import pyarrow as pa

    filled = column.fill_null(pa.scalar([], column.type))
    return np.diff(filled.offsets.to_numpy()), filled.flatten().to_numpy()


def _as_lists(vectors: np.ndarray) -> pa.Array:
    import pyarrow as pa

    n, d = vectors.shape
    return pa.ListArray.from_arrays(pa.array(np.arange(n + 1) * d, pa.int32()), pa.array(vectors.reshape(-1)))
