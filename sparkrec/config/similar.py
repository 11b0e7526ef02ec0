"""Items beside an item."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sparkrec.config.base import Model, Section


class Similar(Section):
    """`sparkrec similar`: docs/recommending.md."""

    k: int = Field(20, ge=1, description="neighbours of an item, of each kind")
    models: tuple[Model, ...] | None = Field(
        None,
        description="models whose item vectors are compared; null: als and two_tower of recommend.models",
    )
    similarity: Literal["cosine", "dot", "euclidean"] = Field(
        "cosine",
        description="euclidean: the score is minus the distance; of the model tastes always 1 − the Jensen-Shannon "
        "divergence / ln 2",
    )
    bought_together: bool = Field(
        False, description="also from what the same users bought: needs features.neighbors above 0"
    )
    min_lift: float = Field(
        1, ge=0, description="bought together: the lower 95 % bound of the lift must lie above this; 1: chance"
    )
    neighborhood: tuple[Literal["jaccard", "pearson", "adjusted_cosine"], ...] = Field(
        (),
        description="also by the same users: who met both (jaccard), how those who rated both rated them (the others)",
    )
    min_users: int = Field(5, ge=1, description="neighborhood: fewest users of both items")
    shrinkage: float = Field(
        100, ge=0, description="pearson, adjusted_cosine: the score times n / (n + this), of n users who rated both"
    )
