"""Distributions over kinds of items: of what users like, and of what the users of an item like."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sparkrec.config.base import Section


class Tastes(Section):
    """Which kinds, and how far an item's distribution is drawn to the shop's: docs/models.md."""

    by: Literal["category", "brand"] = Field("category", description="what a kind is; of categories the whole path")
    width: int = Field(
        63, ge=1, le=1000, description="kinds with the most events; all others are one more, as far as there are any"
    )
    prior: float = Field(
        30.0, gt=0, description="an item's audience counts as if so many more events had come with the shop's shares"
    )
    own: float = Field(0.5, ge=0, lt=1, description="the part of an item's distribution that is its own kind")
