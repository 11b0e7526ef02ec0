"""How much of the exact lists an approximate search finds, on a sample of the run's own users."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.errors import DataError
from sparkrec.pipeline import Run
from sparkrec.retrieval import filters, join, kernel
from sparkrec.retrieval.catalogue import ItemMatrix
from sparkrec.retrieval.filters import Audience
from sparkrec.retrieval.kernel import F32
from sparkrec.retrieval.reranking import Policy
from sparkrec.retrieval.topk import Catalogue

SAMPLE = 1000


def say_how(run: Run, use: str, matrix: ItemMatrix, frame: DataFrame, size: int, policy: Policy) -> None:
    """By which plan and unit of the processor ``size`` items of each user are searched for, and for which ``use``.

    Said, and put into the run record; of an approximate search also what it finds of what an exact one does.

    Raises
    ------
    DataError
        That is below ``recommend.min_recall``.
    """
    how: dict[str, object] = {"plan": str(matrix.plan), "unit": kernel.best_unit()}
    if not matrix.plan.exact:
        how |= {"size": size, "recall": measured(frame, matrix, size, run.settings.recommend.min_recall, policy)}
    run.say(f"{use}: " + ", ".join(f"{name} {value}" for name, value in how.items()))
    run.detail(search={**run.details.get("search", {}), use: how})


def measured(frame: DataFrame, items: ItemMatrix, k: int, minimum: float, policy: Policy) -> float:
    """recall@k over up to :data:`SAMPLE` users with a vector (from :func:`join.with_vectors`), always the same ones,
    through the filters: what each of them may not be offered is in neither search.

    Raises
    ------
    DataError
        It is below ``minimum``.
    """
    sample = frame.where(F.col(c.VECTOR).isNotNull()).orderBy(F.xxhash64(c.USER_ID), c.USER_ID).limit(SAMPLE)

    def counted(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        hidden = policy.traits.hidden if policy.traits else None
        for batch in batches:
            users = join.audience_of(batch, join.vectors(batch, items), policy)
            both = of_block(users, items.searchable, k, items.allowed, hidden)
            yield pa.RecordBatch.from_pydict({name: [n] for name, n in zip(("hits", "wanted"), both, strict=True)})

    row = sample.mapInArrow(counted, "hits long, wanted long").agg(F.sum("hits"), F.sum("wanted")).head()
    recall = row[0] / row[1] if row is not None and row[1] else 1.0
    if recall < minimum:
        raise DataError(
            f"The approximate search for '{items.model}' finds {recall:.3f} of the {k} best that the exact one does, "
            f"and recommend.min_recall is {minimum}. It used {items.plan.how}. Raise {items.plan.effort}, lower "
            "recommend.min_recall, or set recommend.search: exact."
        )
    return recall


def of_block(
    users: Audience, items: Catalogue, k: int, allowed: NDArray[np.bool_], hidden: NDArray[np.int64] | None
) -> tuple[int, int]:
    """How many places of the exact lists of a block of users the search of ``items`` finds, and how many there are."""
    (_, found), (_, wanted) = (filters.search(users, how, k, allowed, hidden) for how in (items, items.exact))
    return reached(found, wanted), int((wanted > -np.inf).sum())


def reached(found: F32, wanted: F32) -> int:
    """In how many places stands what is as good as the last of the exact list; scores ``[n, k]``, -inf is no item.

    Which of equal items stand in a list is a matter of their indices.
    """
    last = np.where(wanted > -np.inf, wanted, np.inf).min(axis=1, initial=np.inf, keepdims=True)
    return int((found >= last).sum())
