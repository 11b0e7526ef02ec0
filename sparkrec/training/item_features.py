"""What the item tower knows of items, read from the row groups of gold.items; every rank reads all of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparkrec import columns as c
from sparkrec.errors import DataError
from sparkrec.models.two_tower.towers import ItemFeatures, Sizes
from sparkrec.training.manifest import Manifest, read


def read_item_features(manifest: Manifest, sizes: Sizes, alive: Callable[[], None] = lambda: None) -> ItemFeatures:
    """All of gold.items: an item without a row has no features. ``alive`` is called between row groups."""
    import pyarrow as pa

    tables = []
    for piece in (piece for pieces in manifest.ranks for piece in pieces):
        alive()
        tables.append(read(piece, [c.ITEM_INDEX, c.FEATURES]))
    if not tables:
        return ItemFeatures(np.zeros(sizes.items, np.int64), np.zeros(0, np.int32))
    table = pa.concat_tables(tables).sort_by(c.ITEM_INDEX).combine_chunks()
    lists = table[c.FEATURES].combine_chunks().fill_null(pa.scalar([], table[c.FEATURES].type))
    lengths = np.zeros(sizes.items, np.int64)
    check_known("gold.items", c.ITEM_INDEX, table[c.ITEM_INDEX].to_numpy(), sizes.items)
    check_known("gold.items", c.FEATURES, lists.flatten().to_numpy(), sizes.features)
    lengths[table[c.ITEM_INDEX].to_numpy()] = np.diff(lists.offsets.to_numpy())
    return ItemFeatures(np.cumsum(lengths), lists.flatten().to_numpy().astype(np.int32))


def check_known(table: str, name: str, index: np.ndarray, rows: int) -> None:
    """Indices are rows of an embedding table.

    Raises
    ------
    DataError
        One is not.
    """
    if len(index) and (index.min() < 0 or index.max() >= rows):
        raise DataError(
            f"{table} has {name} {index.min()} to {index.max()}, and the vocabulary knows 0 to {rows - 1}. They are "
            "not from the same featurize run: run featurize again."
        )
