"""How large the simulated shop is, and how dirty its logs."""

from __future__ import annotations

import datetime as dt
import hashlib
import json

from pydantic import Field

from sparkrec.config import Section

_EVENTS_PER_BLOCK = 50_000


class Dirt(Section):
    """Shares of the events (of the users: ``bots``; of the purchases: ``cancelled``)."""

    duplicates: float = Field(0.01, ge=0, le=0.2, description="written twice, letter for letter")
    near_duplicates: float = Field(0.005, ge=0, le=0.2, description="written again less than a second later")
    late: float = Field(0.01, ge=0, le=0.2, description="in the file of a later day")
    malformed: float = Field(0.002, ge=0, le=0.2, description="lines cut in the middle")
    wrong_types: float = Field(0.002, ge=0, le=0.2, description="text where a number belongs")
    impossible_times: float = Field(0.001, ge=0, le=0.2, description="from 1970, or from the far future")
    unknown_items: float = Field(0.002, ge=0, le=0.2, description="items that the catalogue does not hold")
    missing_prices: float = Field(0.02, ge=0, le=0.2, description="events with a price that lack it")
    cancelled: float = Field(0.05, ge=0, le=1)
    bots: float = Field(0.005, ge=0, le=0.2)


class SimulatorOptions(Section):
    """The same options give the same logs, letter for letter, on any number of cores."""

    users: int = Field(2000, ge=10)
    items: int = Field(1000, ge=50)
    days: int = Field(60, ge=2, le=3650)
    events: int = Field(120_000, ge=100, description="about so many, before the dirt")
    seed: int = Field(17, ge=0)
    start: dt.date = dt.date(2024, 3, 4)
    dirt: Dirt = Field(default_factory=Dirt)

    @property
    def block_users(self) -> int:
        """Users whose events are drawn together: a task's unit of work, about 50,000 events."""
        return max(1, min(self.users, _EVENTS_PER_BLOCK * self.users // self.events))

    @property
    def blocks(self) -> int:
        return -(-self.users // self.block_users)

    def hash(self) -> str:
        """Names the options."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
