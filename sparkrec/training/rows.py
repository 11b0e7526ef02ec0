"""Which rows of which table a step touches, and the step's batches rewritten to places among them.

The towers see only the rows that were looked up, wherever they are kept: ``models.two_tower.objective`` states what a
local batch holds. Pure NumPy; nothing is sorted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from sparkrec.config import TwoTower
from sparkrec.models.two_tower.towers import ItemFeatures
from sparkrec.training import order
from sparkrec.training.loader import Batch

#: A table's name → the rows of it, int32, distinct.
Touched = dict[str, np.ndarray]

# A table, the global indices of a batch, the name of the local ones.
_OF_USERS = (("user_id", "users", "users"), ("history_item", "history_items", "history_rows"))


def distinct(index: np.ndarray, scratch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values of ``index`` and, for each element, its value's place among them; both int32.

    ``scratch`` : int32, longer than the largest index, of any content. All write their position, the last one at each
    value wins, and the winners are numbered: O(n), and the same order for the same index.
    """
    place = np.arange(len(index), dtype=np.int32)
    scratch[index] = place
    rows = index[scratch[index] == place]
    scratch[rows] = place[: len(rows)]
    return rows.astype(np.int32, copy=False), scratch[index]


class Rows:
    """Rewrites steps for tables of these ``sizes`` (name → rows).

    Tables in ``whole`` are touched whole: all rows in order, so that global places are the local ones.
    """

    def __init__(
        self, settings: TwoTower, sizes: Mapping[str, int], whole: Collection[str], features: ItemFeatures | None
    ) -> None:
        self._sizes, self.whole, self._features = sizes, frozenset(whole), features
        self._all = {name: np.arange(sizes[name], dtype=np.int32) for name in self.whole}
        self._scratch = {name: np.zeros(size, np.int32) for name, size in sizes.items() if name not in self.whole}
        self.reads_items = settings.history not in ("none", "mean")
        self._drops_ids = settings.id_dropout > 0
        self._whole_features = self._of_items(self._all["item_id"]) if "item_id" in self.whole else None

    def local(
        self, parts: Sequence[Batch], columns: np.ndarray, bias: np.ndarray, key: int
    ) -> tuple[Touched, list[Batch]]:
        """The rows that the parts of a step touch together, and the parts with places among them.

        ``columns`` : int32 [k], distinct items; ``bias`` : float32 [k], added to their scores; ``key`` : of the step.
        """
        dropped = {"history_items", "history_rows"}
        local: list[Batch] = [{k: v for k, v in part.items() if k not in dropped} for part in parts]
        items = [columns, *(part["target_items"] for part in parts)]
        if self.reads_items:
            items += [part["history_items"] for part in parts]
        touched: Touched = {}
        touched["item_id"], (places, *of_parts) = self._find("item_id", items)
        features, shared = self._whole_features or self._of_items(touched["item_id"])
        touched |= features
        shared = shared | {"columns": places, "column_bias": bias}
        if self._drops_ids:
            shared["item_key"] = (order.mix(key, touched["item_id"]) >> np.uint64(32)).astype(np.uint32)
        for number, part in enumerate(local):
            part |= shared | {"target_items": of_parts[number]}
            if self.reads_items:
                part["history_items"] = of_parts[len(parts) + number]
        for table, given, name in _OF_USERS:
            if table in self._sizes:
                touched[table], found = self._find(table, [part[given] for part in parts])
                for part, rows in zip(local, found, strict=True):
                    part[name] = rows
        return touched, local

    def is_whole(self, table: str, rows: np.ndarray) -> bool:
        """Whether these rows are all of a table that is touched whole."""
        return rows is self._all.get(table)

    def of_items(self, items: np.ndarray) -> tuple[Touched, Batch]:
        """What the item tower takes of some distinct items, in their order."""
        features, flat = self._of_items(items)
        return {"item_id": items} | features, flat

    def of_users(self, batch: Batch) -> tuple[Touched, Batch]:
        """A batch of whole histories; ``history_items`` stay as they are, where they are read (``reads_items``)."""
        touched, local = {}, dict(batch)
        for table, given, name in _OF_USERS:
            if table in self._sizes:
                touched[table], (local[name],) = self._find(table, [batch[given]])
        return touched, local

    def _find(self, table: str, indices: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        if table in self.whole:
            return self._all[table], indices
        rows, places = distinct(np.concatenate(indices), self._scratch[table])
        return rows, np.split(places, np.cumsum([len(index) for index in indices])[:-1])

    def _of_items(self, items: np.ndarray) -> tuple[Touched, Batch]:
        """Rows of item_feature and, flat, the features of the touched items."""
        if self._features is None or "item_feature" not in self._sizes:
            return {}, {}
        flat = self._features.of(items)
        rows, (flat["feature_row"],) = self._find("item_feature", [flat["feature_row"]])
        return {"item_feature": rows}, flat
