"""What rules and reranking need to know of items, on every executor once."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from sparkrec.retrieval.item_columns import ItemColumns, spread

#: Columns of the frame that :func:`publish` takes; ``kinds`` are named by the cap.
HIDDEN, MEMORY_DAYS, FRESH, PROMOTED = "hidden", "memory_days", "fresh", "promoted"


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
