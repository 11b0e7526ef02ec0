"""What all sections share."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from sparkrec import columns as c

EventType = Literal["view", "click", "cart", "purchase", "search", "rating", "review", "remove", "cancel"]


#: Who makes lists. The ranker orders what the others bring; they are vectors.
Model = Literal["popularity", "segment_popularity", "tastes", "als", "two_tower", "ranker"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


assert set(EventType.__args__) == set(c.EVENT_TYPES)  # type: ignore[attr-defined]
