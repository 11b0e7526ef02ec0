"""Which part of the catalogue the lists show, and how evenly: counted in Spark, as items by number of exposures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.evaluation import metrics
from sparkrec.models.segments import person

_TIMES, _ITEMS = "times", "items"


@dataclass(frozen=True)
class Exposure:
    """``items[j]`` items of the catalogue are shown ``times[j]`` times; items never shown are among them."""

    times: NDArray[np.int64]
    items: NDArray[np.int64]

    @property
    def coverage(self) -> float:
        """The share of the catalogue that is shown at all."""
        return float(self.items[self.times > 0].sum() / max(self.items.sum(), 1))

    @property
    def gini(self) -> float:
        return metrics.gini(self.times, self.items)

    def curve(self) -> list[float]:
        """The share of all exposures that the most shown 0, 1, …, 100 % of the items get."""
        return [round(float(x), 5) for x in metrics.concentration(self.times, self.items)]


def of_lists(lists: DataFrame, ks: Sequence[int], catalogue: int) -> dict[tuple[str, int], Exposure]:
    """Exposure by model and k in everyone's lists (less those of nobody in particular).

    ``catalogue`` is the number of items that may be recommended.
    """
    at_k = F.array(*[F.struct(F.lit(k).alias(c.K), F.count_if(F.col(c.RANK) <= k).alias(_TIMES)) for k in ks])
    shown = lists.where(person(F.col(c.USER_ID))).groupBy(c.MODEL, c.ITEM_ID).agg(at_k.alias("at_k"))
    rows = shown.select(c.MODEL, F.inline("at_k")).where(F.col(_TIMES) > 0)
    counted = rows.groupBy(c.MODEL, c.K, _TIMES).agg(F.count("*").alias(_ITEMS)).toArrow()
    found = {}
    for model in counted[c.MODEL].unique().to_pylist():
        for k in ks:
            inside = pc.and_(pc.equal(counted[c.MODEL], model), pc.equal(counted[c.K], k))
            found[model, k] = _exposure(counted.filter(inside), catalogue)
    return found


def of_log(items: DataFrame) -> Exposure:
    """How the events of the log fall on the items that may be recommended."""
    counted = items.groupBy(F.coalesce(c.N_EVENTS, F.lit(0)).alias(_TIMES)).agg(F.count("*").alias(_ITEMS)).toArrow()
    return _exposure(counted, 0)


def _exposure(counted: pa.Table, catalogue: int) -> Exposure:
    """From rows of (times, items); what the catalogue holds besides was never shown."""
    times, items = counted[_TIMES].to_numpy(), counted[_ITEMS].to_numpy()
    order = np.argsort(times)
    never = max(catalogue - int(items.sum()), 0)
    return Exposure(np.concatenate([[0], times[order]]), np.concatenate([[never], items[order]]))
