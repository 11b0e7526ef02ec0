"""A model's item matrix, brought to every executor once and memory-mapped there.

The driver streams the table to files a block at a time, puts the kernel's form beside them and hands them to Spark,
which copies them to each machine once: its workers share the pages. What is on the driver's disk grows with the
catalogue; in its memory are a few bytes of each item (length, order, known or not), and the vectors only as pages of a
file. An index of faiss it builds in memory.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import SparkFiles
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.errors import DataError
from sparkrec.retrieval import cells, indexes, kernel, topk
from sparkrec.retrieval.indexes import Index
from sparkrec.retrieval.item_columns import ItemColumns, kept_folder, record_batches, spread
from sparkrec.retrieval.kernel import Packed
from sparkrec.retrieval.planner import Plan, plan

if TYPE_CHECKING:
    from sparkrec.config.recommend import Faiss

ALLOWED = "allowed"
#: Of items that a machine holds at a time, unless configured.
MEMORY_MB = 8192
_PACKED = ("rows", "bytes", "order", "starts", "sizes")  # the fields of kernel.Packed beside the vectors


class Shelf(ItemColumns):
    """The shop's items, whatever the model."""

    @cached_property
    def ids(self) -> pa.ChunkedArray:
        """``[m]`` item ids by item index."""
        return self.texts(c.ITEM_ID)

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """``[m]``: the item may be recommended."""
        return self.column(ALLOWED)


@dataclass(frozen=True)
class ItemMatrix:
    """A model's items on this machine, opened where it is first used: on the driver or on an executor."""

    model: str
    name: str
    plan: Plan
    shelf: Shelf

    @cached_property
    def searchable(self) -> topk.Catalogue:
        """What :func:`topk.top_k` searches: the items that may be recommended."""
        parts: list[Packed] = []
        centres: list[Packed] = []
        found: list[Index] = []
        for number, part in enumerate(topk.part_bounds(self.plan.items, self.plan.parts)):
            parts.append(Packed(self.vectors[part], *(self._array(number, name) for name in _PACKED)))
            if self.plan.probes:
                centres += topk.pack(self._array(number, "centres")).parts
            if self.plan.index:
                found.append(indexes.read(SparkFiles.get(f"{self.name}.{number}.faiss"), parts[-1], self.plan.index))
        return topk.Catalogue(self.vectors, tuple(parts), tuple(centres), self.plan.probes, tuple(found))

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """``[m, d]`` by item index; zeros for an item that the model does not know."""
        matrix: NDArray[np.float32] = np.load(SparkFiles.get(f"{self.name}.npy"), mmap_mode="r")
        return matrix

    @property
    def ids(self) -> pa.ChunkedArray:
        """``[m]`` item ids by item index."""
        return self.shelf.ids

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """``[m]``: the model knows the item, and it may be recommended."""
        marks: NDArray[np.bool_] = np.load(SparkFiles.get(f"{self.name}.allowed.npy"), mmap_mode="r")
        return marks

    def _array(self, part: int, name: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(SparkFiles.get(f"{self.name}.{part}.{name}.npy"), mmap_mode="r")
        return array

    def __getstate__(self) -> dict[str, object]:
        return {"model": self.model, "name": self.name, "plan": self.plan, "shelf": self.shelf}  # as of a shelf


def offered(items: DataFrame, in_stock_only: bool) -> DataFrame:
    """Item index, id and :data:`ALLOWED` of every item: for sale and, if asked, not known to be out of stock."""
    allowed = F.coalesce(F.col(c.FOR_SALE), F.lit(True))
    if in_stock_only:
        allowed = allowed & F.coalesce(F.col(c.STOCK) > 0, F.lit(True))
    return items.select(c.ITEM_INDEX, c.ITEM_ID, allowed.alias(ALLOWED))


def stocked(catalogue: DataFrame) -> Shelf:
    """Brings what is offered to every executor, for all models.

    Parameters
    ----------
    catalogue
        From :func:`offered`: every item index from 0 to m − 1, once.

    Raises
    ------
    DataError
        The item indices have gaps.
    """
    return Shelf(spread(catalogue.select(c.ITEM_INDEX, c.ITEM_ID, ALLOWED)))


def publish(
    shelf: Shelf,
    vectors: DataFrame,
    model: str,
    memory_mb: float = MEMORY_MB,
    probes: int = 0,
    index: Faiss | None = None,
) -> ItemMatrix:
    """Brings a model's item vectors to every executor.

    Parameters
    ----------
    shelf
        From :func:`stocked`.
    vectors
        Item index and vector. Items without one are not recommended.
    memory_mb
        Of items that a machine holds at a time; a larger catalogue is searched in parts.
    probes
        Cells that a search looks into, of each part; 0: there are none.
    index
        Which index proposes items, for each part; None: none. With neither the search is exact.

    Raises
    ------
    ConfigError
        There can be no such index.
    DataError
        The model has no item vectors, or two of an item, or some of items that are not in the shelf.
    """
    first = vectors.select(F.size(c.VECTOR)).head()
    if first is None:
        raise DataError(
            f"The model '{model}' has no item vectors in this run. Run the stage that trains it first, or take it out "
            "of recommend.models."
        )
    folder, name = kept_folder("items"), f"{model}-{uuid.uuid4().hex}"
    chosen = plan(shelf.items, int(first[0]), memory_mb, probes, index)
    known = _write_vectors(record_batches(vectors.select(c.ITEM_INDEX, c.VECTOR)), chosen, folder / name)
    np.save(folder / f"{name}.allowed.npy", known & shelf.allowed)
    _pack(chosen, folder / name)
    for file in sorted(folder.iterdir()):
        vectors.sparkSession.sparkContext.addFile(str(file))
    return ItemMatrix(model, name, chosen, shelf)


def rectangle(lists: pa.Array, width: int, what: str) -> NDArray[np.float32]:
    """Arrow lists of equal length as ``[n, width]`` float32; there must be no null list."""
    flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    if (lengths != width).any():
        raise DataError(
            f"The {what} holds vectors of different widths: {width}, and {int(lengths[lengths != width][0])}. They "
            "come from different trainings. Run the stage that writes them again."
        )
    return flat.reshape(-1, width)


def _write_vectors(batches: Iterator[pa.RecordBatch], plan: Plan, name: Path) -> NDArray[np.bool_]:
    """``NAME.npy``: the vectors, which come in any order; ``[m]``: which items have one."""
    m, rows, known = plan.items, 0, np.zeros(plan.items, bool)
    matrix = np.lib.format.open_memmap(f"{name}.npy", "w+", np.float32, (m, plan.width))
    for batch in batches:
        there = batch.filter(batch.column(c.VECTOR).is_valid())
        index = there.column(c.ITEM_INDEX).to_numpy()
        unknown = index[(index < 0) | (index >= m)]
        if len(unknown):
            raise DataError(
                f"The table vectors.items has a vector for item_index {unknown[0]}, and gold.items holds {m:,} items. "
                "They come from different runs of featurize. Train the model of this run again."
            )
        matrix[index] = rectangle(there.column(c.VECTOR), plan.width, "table vectors.items")
        known[index] = True
        rows += len(index)
    if rows != known.sum():
        raise DataError(
            f"The table vectors.items holds {rows:,} vectors of {known.sum():,} items, so some item has two. Run the "
            "stage that writes them again."
        )
    matrix.flush()
    return known


def _pack(plan: Plan, name: Path) -> None:
    """``NAME.PART.FIELD.npy``: the parts in the kernel's form, from what was written before."""
    vectors = np.load(f"{name}.npy", mmap_mode="r")
    allowed = np.load(f"{name}.allowed.npy", mmap_mode="r")
    for number, part in enumerate(topk.part_bounds(plan.items, plan.parts)):
        norms = topk.lengths(vectors[part], "item", part.start)
        if plan.probes:
            offered = np.flatnonzero(allowed[part])
            order, starts, centres = cells.build(vectors[part], norms, offered, min(plan.cells, len(offered)))
            np.save(f"{name}.{number}.centres.npy", centres)
        else:
            order, starts = kernel.by_length(norms, kernel.width_of(plan.width), allowed[part])
        place = partial(_file, f"{name}.{number}")
        packed = kernel.pack(vectors[part], order, starts, plan.exact, place)
        for field in _PACKED[2:]:
            np.save(f"{name}.{number}.{field}.npy", getattr(packed, field))
        if plan.index:
            indexes.write(vectors[part], order[order >= 0], plan.index, Path(f"{name}.{number}.faiss"))


def _file(name: str, field: str, shape: tuple[int, int], kind: type[np.generic]) -> NDArray[Any]:
    """The memory of ``NAME.FIELD.npy``."""
    array: NDArray[Any] = np.lib.format.open_memmap(f"{name}.{field}.npy", "w+", kind, shape)
    return array
