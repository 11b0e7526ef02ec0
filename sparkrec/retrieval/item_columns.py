"""Columns of a frame of items, by item index, on every executor once.

Written by the driver a block at a time into one Arrow file, which executors map: nothing grows in anybody's memory.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import SparkFiles
from pyspark.sql import DataFrame

from sparkrec import columns as c
from sparkrec.errors import DataError


class ItemColumns:
    """Columns of a frame of items, by item index, opened where they are first used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def column(self, name: str) -> NDArray:
        """``[m]``."""
        return np.asarray(self._table[name].to_numpy())

    @cached_property
    def items(self) -> int:
        """m."""
        return len(self._table)

    def texts(self, name: str) -> pa.ChunkedArray:
        """``[m]``, as Arrow has them."""
        return self._table[name].cast(pa.string())

    def matrix(self, name: str, kind: type[np.generic]) -> NDArray:
        """``[m, w]`` of a column of arrays that are equally long."""
        flat = self._table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return flat.astype(kind, copy=False).reshape(self.items, -1 if len(flat) else 0)

    @cached_property
    def _table(self) -> pa.Table:
        with pa.memory_map(SparkFiles.get(f"{self._name}.arrow")) as source:
            return pa.ipc.open_stream(source).read_all()

    def __getstate__(self) -> dict[str, str]:
        return {"_name": self._name}  # what is open stays on its machine


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
    folder, name = kept_folder("columns"), f"columns-{uuid.uuid4().hex}"
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


def record_batches(frame: DataFrame) -> Iterator[pa.RecordBatch]:
    """A DataFrame's rows in order as Arrow batches; the driver holds one partition, and the next one on its way."""

    def pack(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema) as writer:
                writer.write_batch(batch)
            yield pa.RecordBatch.from_arrays([pa.array([sink.getvalue().to_pybytes()], pa.binary())], ["packed"])

    for row in frame.mapInArrow(pack, "packed binary").toLocalIterator(prefetchPartitions=True):
        yield from pa.ipc.open_stream(row["packed"])


def kept_folder(what: str) -> Path:
    """Kept until this process ends: an executor that joins later fetches every file that was ever added."""
    folder = Path(tempfile.mkdtemp(prefix=f"sparkrec-{what}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
