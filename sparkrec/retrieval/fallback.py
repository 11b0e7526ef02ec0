"""The words that go with a recommendation.

Who has no vector of a model is served what is most popular in their segment, or with everyone: the join with the item
vectors of the popularity models, and a one-hot or 1 as the user's. See :mod:`sparkrec.retrieval.join`.
"""

from __future__ import annotations

from sparkrec.models import popularity, segments
from sparkrec.retrieval.reranking import EXPLORED, PROMOTED

#: Their vectors are amounts, and say nothing of how alike two items are: what nobody met is not like nothing.
COUNTING = (popularity.NAME, segments.NAME)
_REASONS = {
    popularity.NAME: "popular with everyone",
    segments.NAME: "popular with people like you",
    "tastes": "of the kinds that you like",
    "als": "people with your taste chose it",
    "two_tower": "goes with what you have shown interest in",
    "neighbors": "chosen by people who chose what you chose",
    "recent": "you looked at it lately",
    "promoted": "recommended by the shop",
}
_WHY = {PROMOTED: "recommended by the shop", EXPLORED: "something new to discover"}


def reason(source: str, why: int = 0) -> str:
    """A few words that could be shown to the user; ``why`` as in :mod:`reranking`."""
    return _WHY.get(why) or _REASONS.get(source, f"chosen for you by {source}")
