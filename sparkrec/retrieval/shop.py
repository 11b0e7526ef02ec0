"""What a join needs besides its users: what is offered, by which rules, and the items of each model."""

from __future__ import annotations

from functools import cached_property

from pyspark.sql import DataFrame

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.lake.blocks import Blocks
from sparkrec.models import popularity, segments, tastes
from sparkrec.pipeline import Run
from sparkrec.retrieval import catalogue, join, rules
from sparkrec.retrieval import segments as segment_users
from sparkrec.retrieval import traits as item_traits
from sparkrec.retrieval.catalogue import ItemMatrix, Shelf
from sparkrec.retrieval.reranking import Policy

#: Their vectors are amounts and shares of kinds, not directions: cells and graphs lose their way among them.
_COUNTED = (popularity.NAME, segments.NAME, tastes.NAME)


class Shop:
    """The shop of a run. A model's items are brought to the executors when they are first asked for.

    ``items`` : rows of gold.items of another time than now. ``few`` : for so few users that no cells and no index are
    worth making.
    """

    def __init__(self, run: Run, items: DataFrame | None = None, few: bool = False) -> None:
        self.run, self.settings = run, run.settings.recommend
        self._few = few
        self.items = run.read(schemas.GOLD_ITEMS) if items is None else items
        self.named = rules.read_lists(run)
        self.shelf = rules.offered(self.items, self.settings, self.named)
        self._matrices: dict[str, ItemMatrix] = {}

    @cached_property
    def policy(self) -> Policy:
        wanted = rules.needs_traits(self.settings)
        return Policy(
            self.settings, item_traits.publish(rules.item_traits(self.items, self.settings)) if wanted else None
        )

    @cached_property
    def stocked(self) -> Shelf:
        """The shelf, on every executor."""
        return catalogue.stocked(self.shelf)

    @cached_property
    def segments(self) -> DataFrame | None:
        """:func:`segments.of_run`."""
        return segment_users.of_run(self.run)

    def vectors(self, model: str) -> DataFrame:
        """Rows of vectors.items."""
        return self.run.read(schemas.VECTORS_ITEMS, {c.RUN_ID: self.run.run_id, c.MODEL: model})

    def matrix(self, model: str) -> ItemMatrix:
        """The model's items, searched as ``recommend.search`` says; of models that count always exactly."""
        if model not in self._matrices:
            settings = self.settings
            search = "exact" if self._few or model in _COUNTED else settings.search
            probes, index = settings.probes * (search == "cells"), settings.faiss if search == "faiss" else None
            if search != "exact":
                self.run.say(f"{model}: making {f'the index {index.index}' if index else 'cells'} of its items")
            self._matrices[model] = catalogue.publish(
                self.stocked, self.vectors(model), model, settings.memory_mb, probes, index
            )
        return self._matrices[model]

    @property
    def told(self) -> ItemMatrix | None:
        """The items of the model of segments; None: there are none."""
        return None if self.segments is None else self.matrix(segments.NAME)

    def lists(self, frame: DataFrame, model: str) -> Blocks:
        """The lists of users with vectors of the model, and of others by the fallbacks: see :mod:`join`."""
        popular, settings = self.matrix(popularity.NAME), self.settings
        return join.similarity_join(
            frame, self.matrix(model), popular, settings.k, settings.block_users, self.policy, self.told
        )
