"""Which lists are made, what may be in them, and in which order."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from sparkrec.config.base import EventType, Model, Section

Cap = Literal["category", "root_category", "brand", "price_bucket", "promoted"]


class Rule(Section):
    """Items that some users are not offered, or that may be offered again. SQL conditions; null is not true."""

    name: str = Field(description="stands in messages and in the run record")
    items: str = Field(description="which items: a condition on the columns of gold.items")
    only_for: str | None = Field(
        None, description="offered only where this condition on gold.users is true: who is unknown is not offered it"
    )
    hide_from: str | None = Field(None, description="not offered where this condition on gold.users is true")
    again_after_days: float | None = Field(
        None, ge=0, description="offered again so many days after the user last met it: for what is used up"
    )

    @model_validator(mode="after")
    def _does_one_thing(self) -> Rule:
        given = [x for x in (self.only_for, self.hide_from, self.again_after_days) if x is not None]
        if len(given) > 1:
            raise ValueError(f"the rule '{self.name}' must have at most one of only_for, hide_from, again_after_days")
        return self

    @property
    def concerns_some(self) -> bool:
        """Whether it depends on who the user is."""
        return self.only_for is not None or self.hide_from is not None


class ItemList(Section):
    """Items by name, from a file or a table: CSV with a header, JSON lines, parquet or Delta, by the path's ending."""

    name: str = Field(description="stands in messages and in the run record")
    kind: Literal["deny", "allow"] = Field(description="deny: never these; allow: nothing but these")
    path: str = Field(description="with a column item_id, and user_id where it holds for those users only")


class Diversity(Section):
    """Items of a list that differ from each other, or that differ as the user's tastes do."""

    method: Literal["none", "mmr", "dpp", "calibrated"] = Field(
        "none",
        description="mmr: maximal marginal relevance; dpp: determinantal point process, greedy; calibrated: "
        "categories (brands) in the shares that they have in the user's taste",
    )
    weight: float = Field(0.15, ge=0, lt=1, description="0: by score alone; towards 1: by difference (taste) alone")
    kind: Literal["category", "brand"] = Field("category", description="what is calibrated")


class NewItems(Section):
    """A push for items that are new."""

    days: float = Field(14, ge=0, description="an item is new so long after its first event, and before it")
    boost: float = Field(0, ge=0, description="added to its relevance, which is 1 for the best of the pool and 0 last")


class Exploration(Section):
    """Places that are given away by lot, with the chance written beside each row."""

    places: int = Field(0, ge=0, description="so many places at the end of a list take part")
    probability: float = Field(0.5, ge=0, le=1, description="that such a place shows another item of the pool")
    seed: int = 23


class Promotions(Section):
    """Items that the business wants to be seen, to those whom they suit best."""

    items: str | None = Field(None, description="which: a condition on the columns of gold.items")
    quota: int = Field(0, ge=0, description="at least so many of a list's items, evenly over its places")

    @model_validator(mode="after")
    def _say_which(self) -> Promotions:
        if self.quota and self.items is None:
            raise ValueError("a quota needs items: the condition that says which are promoted")
        return self


class Faiss(Section):
    """What proposes items where ``recommend.search`` is ``faiss``."""

    index: str = Field(
        "HNSW32", description="in faiss's words (index_factory): HNSW32, IVF4096,Flat, PQ32x4fs, SQ8 (int8), …"
    )
    parameters: str = Field(
        "", description="of a search, in faiss's words (ParameterSpace): efSearch=256, nprobe=64, …"
    )
    candidates: float = Field(2.0, ge=1, description="items proposed for each place, to be scored exactly")


class Recommend(Section):
    """Rules and reranking, explained: docs/recommending.md."""

    k: int = Field(20, ge=1, description="length of a list")
    models: tuple[Model, ...] = Field(
        ("popularity", "als", "two_tower"), min_length=1, description="models with lists; others are not trained"
    )
    exclude_seen: tuple[EventType, ...] = Field(
        ("view", "click", "cart", "purchase", "rating", "review"),
        description="items that the user met in these ways are not recommended",
    )
    seen_days: float | None = Field(
        None, gt=0, description="only what was met in so many days before the split counts as seen; null: ever"
    )
    in_stock_only: bool = Field(True, description="not what is known to be out of stock")
    block_users: int = Field(4096, ge=1, description="users in one block of the join")
    memory_mb: int = Field(
        8192, ge=1, description="of items that a machine holds at a time; a larger catalogue is searched in parts"
    )
    search: Literal["exact", "cells", "faiss"] = Field(
        "exact",
        description="cells: approximate, only the most promising cells of items are looked into; faiss: approximate, "
        "one of faiss's indexes proposes the items",
    )
    faiss: Faiss = Field(default_factory=Faiss)
    probes: int = Field(32, ge=1, description="cells looked into, of four times the square root of the items")
    min_recall: float = Field(
        0.97, ge=0, le=1, description="approximate lists must hold this share of the exact ones, or the run fails"
    )
    rules: tuple[Rule, ...] = Field((), description="who is offered what")
    lists: tuple[ItemList, ...] = Field((), description="items that are allowed or denied by name")
    pool: int = Field(100, ge=1, description="best items of a user among which reranking chooses")
    caps: dict[Cap, int] = Field(
        default_factory=dict,
        description="most items of one kind in a list",
    )
    diversity: Diversity = Field(default_factory=Diversity)
    new_items: NewItems = Field(default_factory=NewItems)
    exploration: Exploration = Field(default_factory=Exploration)
    promotions: Promotions = Field(default_factory=Promotions)
    newcomer_prior: float = Field(
        30.0, ge=0, description="a new user's vector is drawn towards the mean user's as if by so many events"
    )

    @field_validator("caps")
    @classmethod
    def _caps_leave_something(cls, caps: dict[Cap, int]) -> dict[Cap, int]:
        if bad := [name for name, most in caps.items() if most < 1]:
            raise ValueError(f"the cap on {bad[0]} is {caps[bad[0]]}, and must be 1 or more")
        return caps

    @model_validator(mode="after")
    def _fits(self) -> Recommend:
        if "promoted" in self.caps and self.promotions.items is None:
            raise ValueError("caps.promoted needs promotions.items: the condition that says which are promoted")
        names = [given.name for given in self.lists]
        if double := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two of lists are called '{double}'")
        some = [rule.name for rule in self.rules if rule.concerns_some]
        if len(some) > 63:
            raise ValueError(f"at most 63 rules may depend on the user, and {len(some)} do")
        if self.promotions.quota + self.exploration.places > self.k:
            raise ValueError(
                f"promotions.quota ({self.promotions.quota}) and exploration.places ({self.exploration.places}) ask "
                f"for more places than a list has (k: {self.k})"
            )
        return self

    @property
    def with_vectors(self) -> tuple[str, ...]:
        """The models that are vectors: all but the ranker."""
        return tuple(name for name in self.models if name != "ranker")

    @property
    def kinds(self) -> tuple[Cap, ...]:
        """How items are sorted into kinds for the lists."""
        own = (self.diversity.kind,) if self.diversity.method == "calibrated" else ()
        return tuple(dict.fromkeys((*self.caps, *own)))

    @property
    def reranks(self) -> bool:
        """Whether the order may be another than by score alone."""
        return bool(
            self.caps
            or self.diversity.method != "none"
            or self.new_items.boost
            or self.exploration.places
            or self.promotions.quota
        )
