"""What is known of items besides their vectors, on every executor once: first of all what rules and reranking need.

Written by the driver a block at a time into one Arrow file, which executors map: nothing grows in anybody's memory.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import uuid
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import SparkFiles
from pyspark.sql import DataFrame

from sparkrec import columns as c
from sparkrec.errors import DataError
from sparkrec.retrieval.catalogue import record_batches

#: Columns of the frame that :func:`publish` takes; ``kinds`` are named by the cap.
HIDDEN, MEMORY_DAYS, FRESH, PROMOTED = "hidden", "memory_days", "fresh", "promoted"


class ItemColumns:
    """Columns of a frame of items, by item index, opened where they are first used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def column(self, name: str) -> NDArray:
        """``[m]``."""
        return np.asarray(self._table[name].to_numpy())

    def matrix(self, name: str, kind: type[np.generic]) -> NDArray:
        """``[m, w]`` of a column of arrays that are equally long."""
        flat = self._table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return flat.astype(kind, copy=False).reshape(len(self._table), -1 if len(flat) else 0)

    @cached_property
    def _table(self) -> pa.Table:
        with pa.memory_map(SparkFiles.get(f"{self._name}.arrow")) as source:
            return pa.ipc.open_stream(source).read_all()

    def __getstate__(self) -> dict[str, str]:
        return {"_name": self._name}  # what is open stays on its machine


class ItemTraits(ItemColumns):
    """Arrays ``[m]`` by item index."""

    @cached_property
    def hidden(self) -> NDArray[np.int64]:
        """The rules, a bit each, whose items this is one of."""
        return self.column(HIDDEN)

    @cached_property
    def memory_days(self) -> NDArray[np.float32]:
        """How long a meeting counts as seen."""
        return self.column(MEMORY_DAYS)

    @cached_property
    def fresh(self) -> NDArray[np.bool_]:
        """Whether the item is new."""
        return self.column(FRESH)

    @cached_property
    def promoted(self) -> NDArray[np.bool_]:
        """Whether the business wants it to be seen."""
        return self.column(PROMOTED)

    def kinds(self, cap: str) -> NDArray[np.int32]:
        """The item's category, brand, … as a number; -1 for none."""
        if cap not in self._kinds:
            self._kinds[cap] = self.column(f"kind_{cap}")
        return self._kinds[cap]

    @cached_property
    def _kinds(self) -> dict[str, NDArray[np.int32]]:
        return {}


def publish(frame: DataFrame) -> ItemTraits:
    """The traits of :func:`rules.item_traits`, on every executor."""
    return ItemTraits(spread(frame))


def spread(frame: DataFrame) -> str:
    """Brings columns of items to every executor, under the name that :class:`ItemColumns` takes.

    Parameters
    ----------
    frame
        Every item index from 0 to m − 1, once.

    Raises
    ------
    DataError
        The item indices have gaps.
    """
    folder = Path(tempfile.mkdtemp(prefix="sparkrec-traits-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    name = f"traits-{uuid.uuid4().hex}"
    write(frame, folder / f"{name}.arrow")
    frame.sparkSession.sparkContext.addFile(str(folder / f"{name}.arrow"))
    return name


def write(frame: DataFrame, file: Path) -> None:
    """Columns of items into an Arrow file, in item order, block by block; ``frame`` and errors as of :func:`spread`."""
    done, writer = 0, None
    for batch in record_batches(frame.orderBy(c.ITEM_INDEX)):
        index = batch.column(c.ITEM_INDEX).to_numpy()
        if not np.array_equal(index, np.arange(done, done + len(index))):
            raise DataError(
                f"gold.items does not hold every item index from 0 on once: after {done} rows come "
                f"{index[:3].tolist()}. Run featurize again."
            )
        writer = writer or pa.ipc.new_stream(str(file), batch.schema)
        writer.write_batch(batch)
        done += len(index)
    if writer is None:
        raise DataError("gold.items is empty: there is nothing to recommend. Run featurize on a log that has items.")
    writer.close()
