"""What counts as popular, with everyone and within segments."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from sparkrec.config.base import Section

Dimension = Literal["country", "weekday", "part_of_day"]


class Popularity(Section):
    """Segments are for whom nothing else is known: docs/cold_start.md."""

    half_life_days: float | None = Field(None, gt=0, description="an event's weight halves in this time; null: never")
    segments: tuple[Dimension, ...] = Field(
        (), description="lists by the user's country, the event's weekday or part of the day (UTC); none by default"
    )
    max_segments: int = Field(
        50, ge=1, le=1000, description="of one dimension: those with the most events; the others get everyone's list"
    )
    segment_prior: float = Field(
        1000.0, gt=0, description="a segment's shares count as if so many more events had come with everyone's shares"
    )

    @field_validator("segments")
    @classmethod
    def _each_once(cls, segments: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
        if double := next((name for name in segments if segments.count(name) > 1), None):
            raise ValueError(f"'{double}' is there twice. Name each dimension once")
        return segments
