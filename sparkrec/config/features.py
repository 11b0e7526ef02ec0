"""What gold is made of, and how its features are computed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

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
    min_rating: float | None = Field(
        None,
        description="ratings below this are not positive: left out of gold, so that an item that was met in no other "
        "way may be recommended again",
    )
    min_user_events: int = Field(1, ge=1, description="users with fewer events stay out of gold")
    min_item_events: int = Field(0, ge=0, description="items with fewer events stay out of gold")
    max_length: int = Field(200, ge=1, description="events in one chunk of gold.sequences")
    # increments
    full: bool = Field(False, description="compute all of gold anew, not only what changed since the last run")
    block_users: int = Field(100_000, ge=1, description="users of one folder of gold: an increment writes whole ones")
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
        0, ge=0, description="gold.item_neighbors: most neighbours an item (bought together: 4 times as many); 0: none"
    )
    neighbor_items: int = Field(50, ge=2, description="a user's newest items that make neighbours: n² / 2 pairs a user")
    neighbor_users: int = Field(2, ge=1, description="fewest users whom two neighbours share")
    content: tuple[Literal["tfidf", "word2vec", "sentence", "vector"], ...] = Field(
        (), description="parts of the items' content vector; none: no vector"
    )
    content_encoder: Literal["pca", "autoencoder"] = Field("pca", description="brings the parts to one width")
    content_width: int = Field(64, ge=1, description="of the content vector, and of word2vec's word vectors")
    content_sample: int = Field(10_000, ge=1, description="items that the encoder is fitted on, on the driver")
    content_seed: int = Field(17, description="of the autoencoder")
    sentence_encoder: str = Field(
        "wordllama", description="wordllama (pip install 'sparkrec[text]'), or module:function: texts → array"
    )
    vector_attribute: str | None = Field(None, description="vector: the catalogue attribute that holds the numbers")
    # of users
    tastes: int = Field(8, ge=0, description="most brands, and most categories, of a user's taste")

    @model_validator(mode="after")
    def _content_has_its_sources(self) -> Features:
        if "vector" in self.content and not self.vector_attribute:
            raise ValueError("content: vector needs vector_attribute, the catalogue attribute that holds the numbers")
        if {"tfidf", "word2vec"} & set(self.content) and not 0 < self.words <= 5000:
            raise ValueError(
                "content: tfidf and word2vec hold a matrix of words × words on the driver, so words must lie between 1 "
                f"and 5000, and is {self.words}"
            )
        return self
