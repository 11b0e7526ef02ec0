"""What is served to those whom a model does not know, and the words that go with a recommendation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparkrec import columns as c
from sparkrec.models import popularity
from sparkrec.retrieval.catalogue import ItemMatrix
from sparkrec.retrieval.topk import Csr, top_k

_REASONS = {
    popularity.NAME: "popular with everyone",
    "als": "people with your taste chose it",
    "two_tower": "goes with what you have shown interest in",
}


def reason(source: str) -> str:
    """A few words that could be shown to the user."""
    return _REASONS.get(source, f"chosen for you by {source}")


def popular(items: ItemMatrix, users: int, k: int, seen: Csr) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The most popular items for users without a vector: indices and scores as :func:`topk.top_k` gives them."""
    return top_k(np.ones((users, 1), np.float32), items.searchable, k, seen)


def for_anyone(items: ItemMatrix, k: int) -> list[dict[str, object]]:
    """The rows of the list of :data:`columns.ANYONE`: the most popular items, for whoever has no list."""
    indices, scores = popular(items, 1, k, (np.zeros(2, np.int64), np.zeros(0, np.int32)))
    found = indices[0] >= 0
    ids = items.ids.take(indices[0][found]).to_pylist()
    return [
        {
            c.USER_ID: c.ANYONE, c.RANK: rank, c.ITEM_ID: item, c.SCORE: float(score),
            c.SOURCE: items.model, c.REASON: reason(items.model),
        }
        for rank, (item, score) in enumerate(zip(ids, scores[0][found], strict=True), start=1)
    ]  # fmt: skip
