"""Items beside an item."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sparkrec.config.base import Section


class Similar(Section):
    """`sparkrec similar`: docs/recommending.md."""

    k: int = Field(20, ge=1, description="neighbours of an item, of each kind")
    models: tuple[str, ...] = Field(("als", "two_tower"), description="models whose item vectors are compared")
    similarity: Literal["cosine", "dot", "euclidean"] = Field(
        "cosine", description="euclidean: the score is minus the distance"
    )
    bought_together: bool = Field(
        False, description="also from what the same users bought: needs features.neighbors above 0"
    )
    min_lift: float = Field(
        1, ge=0, description="bought together: the lower 95 % bound of the lift must lie above this; 1: chance"
    )
