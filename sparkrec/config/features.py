"""What gold is made of, and how its features are computed."""

from __future__ import annotations

from pydantic import Field

from sparkrec.config.base import EventType, Section


class Features(Section):
    """Which events count, and the features of users and items. Formulas: docs/data_contract.md."""

    # which events
    event_types: tuple[EventType, ...] = Field(
        ("view", "click", "cart", "purchase", "rating", "review"),
        description="the events that gold.sequences holds",
    )
    target_types: tuple[EventType, ...] = Field(
        ("view", "click", "cart", "purchase", "rating", "review"),
        description="the events that the test part asks for",
    )
    min_rating: float | None = Field(None, description="ratings below this are not positive: left out of gold")
    min_user_events: int = Field(1, ge=1, description="users with fewer events stay out of gold")
    min_item_events: int = Field(0, ge=0, description="items with fewer events stay out of gold")
    max_length: int = Field(200, ge=1, description="events in one chunk of gold.sequences")
    # of items
    attributes: tuple[str, ...] = Field((), description="catalogue attributes that become item features")
    words: int = Field(2000, ge=0, description="most words of names and texts that become item features")
    max_item_features: int = Field(32, ge=0, description="most features of one item")
    half_life_days: float = Field(
        14, gt=0, description="popularity: an event's weight halves in this time, by whole days"
    )
    conversion_prior: float = Field(
        20, ge=0, description="ratios of an item are smoothed as if so many more users had behaved like all users"
    )
    rating_prior: float = Field(5, ge=0, description="rating: as if so many more had given the mean of all stars")
    neighbors: int = Field(
        0, ge=0, description="gold.item_neighbors: most neighbours an item, of each relation; 0: no such table"
    )
    neighbor_items: int = Field(50, ge=2, description="a user's newest items that make neighbours: n² / 2 pairs a user")
    neighbor_users: int = Field(2, ge=1, description="fewest users whom two neighbours share")
    # of users
    tastes: int = Field(8, ge=0, description="most brands, and most categories, of a user's taste")
