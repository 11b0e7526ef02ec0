"""The second stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sparkrec.config.base import EventType, Section

Source = Literal["two_tower", "als", "popularity", "segment_popularity", "neighbors", "recent"]


class Ranker(Section):
    """Learns an order of candidates; used where `recommend.models` has `ranker`. docs/ranking.md."""

    model: Literal["trees", "neural"] = Field(
        "trees", description="trees: gradient-boosted (LightGBM); neural: NeuMF on the two-tower model's vectors"
    )
    sources: tuple[Source, ...] = Field(
        ("two_tower", "als", "popularity", "neighbors"),
        description="who brings candidates; neighbors needs features.neighbors, segment_popularity needs country in "
        "popularity.segments; recent: what the user met last, where it may be offered again",
    )
    per_source: int = Field(100, ge=1, description="candidates from each source")
    goal: tuple[EventType, ...] = Field(
        (),
        description="a candidate is right if the user goes on to one of these events on it; none named: "
        "features.target_types",
    )
    history: int = Field(50, ge=1, description="a user's newest events that features look at")
    half_life_days: float = Field(14, gt=0, description="of the weight of an event in an item's recent popularity")
    train_users: int = Field(
        10_000, ge=10, description="users from whom it learns, drawn among those who came back: they fit on one machine"
    )
    seed: int = 17
    # trees
    threads: int = Field(2, ge=1, description="trees: of the driver; another number may give other trees")
    leaves: int = Field(15, ge=2, description="trees: of one tree")
    leaf_rows: int = Field(100, ge=1, description="trees: fewest candidates in a leaf")
    learning_rate: float = Field(0.05, gt=0, description="trees: of one tree")
    rounds: int = Field(500, ge=1, description="trees: at most; users set aside decide")
    # neural
    layers: tuple[int, ...] = Field((64, 32, 16), min_length=1, description="neural: widths of the perceptron")
    epochs: int = Field(20, ge=1, description="neural: at most; users set aside decide")
    batch: int = Field(4096, ge=1, description="neural: candidates a step")
    step_size: float = Field(1e-3, gt=0, description="neural: learning rate of Adam")
    patience: int = Field(30, ge=1, description="rounds (neural: a tenth as many epochs) without a better one")

    @property
    def alike(self) -> Source | None:
        """The source whose item vectors say how alike two items are: the first that is a model of tastes."""
        return next((source for source in self.sources if source in ("two_tower", "als")), None)

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Ranker:
        if len(set(self.sources)) < len(self.sources) or not self.sources:
            raise ValueError("ranker.sources must name at least one source, and each once")
        if self.model == "neural" and "two_tower" not in self.sources:
            raise ValueError("ranker.model: neural works on the two-tower model's vectors: add two_tower to sources")
        return self
