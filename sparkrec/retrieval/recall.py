"""How much of the exact lists an approximate search finds, on a sample of the run's own users."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.errors import DataError
from sparkrec.retrieval.catalogue import ItemMatrix
from sparkrec.retrieval.join import search_known
from sparkrec.retrieval.kernel import I32

SAMPLE = 1000


def measured(frame: DataFrame, items: ItemMatrix, k: int, minimum: float) -> float:
    """recall@k over up to :data:`SAMPLE` users with a vector (from :func:`join.with_vectors`), always the same ones.

    Raises
    ------
    DataError
        It is below ``minimum``.
    """
    sample = frame.where(F.col(c.VECTOR).isNotNull()).orderBy(F.xxhash64(c.USER_ID), c.USER_ID).limit(SAMPLE)

    def counted(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        exact = replace(items.searchable, probes=0)
        for batch in batches:
            (found, _), (wanted, _) = (search_known(batch, items, how, k) for how in (items.searchable, exact))
            yield pa.RecordBatch.from_pydict({"hits": [hits(found, wanted)], "wanted": [int((wanted >= 0).sum())]})

    row = sample.mapInArrow(counted, "hits long, wanted long").agg(F.sum("hits"), F.sum("wanted")).head()
    recall = row[0] / row[1] if row is not None and row[1] else 1.0
    if recall < minimum:
        raise DataError(
            f"The approximate search for '{items.model}' finds {recall:.3f} of the exact lists, and "
            f"recommend.min_recall is {minimum}. Raise recommend.probes (it looked into {items.plan.probes} of "
            f"{items.plan.cells} cells), lower recommend.min_recall, or set recommend.search: exact."
        )
    return recall


def hits(found: I32, wanted: I32) -> int:
    """Places of ``wanted`` [n, k] whose item is in the same row of ``found`` [n, k]; -1 is no item."""
    rows = np.arange(len(found))[:, None].astype(np.int64) << 32
    return int(np.isin((rows + wanted)[wanted >= 0], (rows + found)[found >= 0]).sum())
