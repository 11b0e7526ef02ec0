"""The second stage over blocks of users: candidates and their features, as rows to learn from or as the lists.

A user stays one row with vectors, a history and what the rules say, and the candidates exist only inside a block: there
is no table of users × candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.config.ranker import Ranker
from sparkrec.errors import DataError
from sparkrec.lake.blocks import Blocks
from sparkrec.models import popularity, two_tower
from sparkrec.ranking import candidates, features
from sparkrec.ranking.candidates import Candidates
from sparkrec.ranking.facts import ItemFacts
from sparkrec.ranking.histories import Histories, neighbor_sums
from sparkrec.ranking.known import MODELS, Known
from sparkrec.ranking.model import NAME, RankingModel
from sparkrec.retrieval import csr, embed, fallback, filters, join, reranking
from sparkrec.retrieval.catalogue import ItemMatrix, rectangle
from sparkrec.retrieval.filters import Audience
from sparkrec.retrieval.reranking import Assortment, Policy, Ranked
from sparkrec.retrieval.topk import exact_scores

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

#: Users whose candidates and features are in memory at a time: some 100 MB.
BLOCK = 1024
_ITEMS, _TYPES, _AGES, _GOALS = "_history_items", "_history_types", "_history_ages", "goals"
_EXAMPLES = pa.schema(
    [
        (c.USER_INDEX, pa.int32()),
        (c.ITEM_INDEX, pa.list_(pa.int32())),
        ("chosen", pa.list_(pa.bool_())),
        ("asked", pa.int32()),
        (c.FEATURES, pa.list_(pa.float32())),
        (c.VECTOR, pa.list_(pa.float32())),
    ]
)
_EXAMPLES_DDL = (
    f"{c.USER_INDEX} int, {c.ITEM_INDEX} array<int>, chosen array<boolean>, asked int, {c.FEATURES} array<float>, "
    f"{c.VECTOR} array<float>"
)


@dataclass(frozen=True)
class SecondStage:
    """What executors need. ``matrices`` : by model, with popularity's, whose items are all that may be recommended."""

    settings: Ranker
    matrices: dict[str, ItemMatrix]
    facts: ItemFacts
    policy: Policy

    @property
    def scored(self) -> tuple[str, ...]:
        """Models whose scores are features."""
        return tuple(name for name in self.settings.sources if name in MODELS and name != popularity.NAME)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the features."""
        return features.names(self.scored, self._sources)

    @property
    def hidden(self) -> I64 | None:
        """``[m]``: the rules, a bit each, that an item falls under; None: there are none."""
        return self.policy.traits.hidden if self.policy.traits else None

    @property
    def _sources(self) -> tuple[str, ...]:
        promoted = ("promoted",) if self._promotes else ()
        return (*self.settings.sources, *promoted)

    @property
    def _promotes(self) -> bool:
        return bool(self.policy.settings.promotions.quota and self.policy.traits)

    @property
    def _first(self) -> str:
        """By which model promoted items are chosen."""
        return self.scored[0] if self.scored else popularity.NAME

    def found(self, users: pa.RecordBatch) -> Block:
        """Candidates of a block of users, and their features."""
        n, k, shelf = users.num_rows, self.settings.per_source, self.matrices[popularity.NAME]
        hidden = self.hidden
        base = join.audience_of(users, np.zeros((n, 0), np.float32), self.policy)
        histories = _histories(users)
        sums = neighbor_sums(histories, self.facts.neighbors, self.facts.cosines)
        vectors = {model: self._vectors(users, model) for model in self.matrices}
        lists = {}
        for source in self._sources:
            if source in self.matrices:
                lists[source] = self._search(base, vectors[source], self.matrices[source], hidden)
            elif source == "neighbors":
                lists[source] = candidates.of_neighbors(sums, base, k, shelf.allowed, hidden)
            elif source == "recent":
                lists[source] = candidates.recently_met(histories, base, k, shelf.allowed, hidden)
            else:
                lists[source] = self._promoted(base, vectors[self._first])
        found = candidates.merged(lists, len(shelf.allowed))
        scores = {model: _scores(vectors[model], self.matrices[model], found) for model in self.scored}
        columns = features.matrix(found, histories, self.facts, sums, scores)
        return Block(base, found, columns, vectors.get(two_tower.NAME, (np.zeros((n, 0), np.float32),))[0])

    def item_vectors(self) -> F32:
        """``[m, d]``: those that go with :attr:`Block.vectors`."""
        return self._of_items(two_tower.NAME)

    def likeness(self) -> F32:
        """``[m, d]``: what tells the reranking how alike two items are; of width 0 where no source has vectors."""
        return self._of_items(self.settings.alike)

    def _of_items(self, model: str | None) -> F32:
        if model is not None and model in self.matrices:
            return self.matrices[model].vectors
        return np.zeros((len(self.facts.events), 0), np.float32)

    def _vectors(self, users: pa.RecordBatch, model: str) -> tuple[F32, NDArray[np.bool_]]:
        """``[n, d]``, zeros for who has none; and who has one."""
        n, width = users.num_rows, self.matrices[model].plan.width
        if model == popularity.NAME:
            return np.ones((n, 1), np.float32), np.ones(n, bool)
        column = users.column(f"vector_{model}")
        known = column.is_valid().to_numpy(zero_copy_only=False)
        vectors = np.zeros((n, width), np.float32)
        vectors[known] = rectangle(column.drop_null(), width, f"vectors of users of '{model}'")
        return vectors, known

    def _search(
        self, base: Audience, vectors: tuple[F32, NDArray[np.bool_]], items: ItemMatrix, hidden: I64 | None
    ) -> NDArray[np.int32]:
        rows = np.flatnonzero(vectors[1])
        lists = np.full((len(base), self.settings.per_source), -1, np.int32)
        users = replace(base, vectors=vectors[0]).take(rows)
        lists[rows] = filters.search(users, items.searchable, self.settings.per_source, items.allowed, hidden)[0]
        return lists

    def _promoted(self, base: Audience, vectors: tuple[F32, NDArray[np.bool_]]) -> NDArray[np.int32]:
        """Enough promoted items to fill a quota: those that suit best by the first model."""
        items, settings = self.matrices[self._first], self.policy.settings
        assert self.policy.traits is not None
        offered = Assortment(items.vectors, items.vectors, items.allowed, self.policy.traits)
        return reranking.promoted(replace(base, vectors=vectors[0]), offered, settings.k, settings)[0]


@dataclass(frozen=True)
class Block:
    """``vectors`` : the two-tower model's of the users; of width 0 without it."""

    audience: Audience
    candidates: Candidates
    features: F32
    vectors: F32


def users(known: Known, people: DataFrame, settings: Ranker) -> DataFrame:
    """The users of the join (:func:`rules.users`), with their vectors of each model and their history."""
    frame = people
    for model, vectors in known.users.items():
        if model != popularity.NAME:
            own = vectors.select(c.USER_INDEX, F.col(c.VECTOR).alias(f"vector_{model}"))
            frame = frame.join(own, c.USER_INDEX, "left")
    return frame.join(_newest(known, settings.history), c.USER_INDEX, "left")


def examples(frame: DataFrame, stage: SecondStage) -> DataFrame:
    """A row a user of ``frame`` (:func:`users` with ``goals``) who has a history: candidates, features, choices."""

    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for part in _blocks(batches):
            block, n = stage.found(part), part.num_rows
            m, found = len(stage.facts.events), block.candidates
            goals = csr.pairs(join.csr(part, _GOALS))
            allowed = stage.matrices[popularity.NAME].allowed
            offered = filters.offered(block.audience, *goals, allowed, stage.hidden)
            chosen = np.isin(found.rows * m + found.items, goals[0] * m + goals[1])
            ends = np.searchsorted(found.rows, np.arange(n + 1))
            width, d = block.features.shape[1], block.vectors.shape[1]
            columns = [
                part.column(c.USER_INDEX),
                _lists(ends, found.items.astype(np.int32)),
                _lists(ends, chosen),
                pa.array(np.bincount(goals[0][offered], minlength=n), pa.int32()),
                _lists(ends * width, block.features.reshape(-1)),
                _lists(np.arange(n + 1) * d, block.vectors.reshape(-1)),
            ]
            typed = [column.cast(field.type) for column, field in zip(columns, _EXAMPLES, strict=True)]
            yield pa.RecordBatch.from_arrays(typed, schema=_EXAMPLES)

    return frame.where(F.col(_ITEMS).isNotNull()).mapInArrow(kernel, _EXAMPLES_DDL)


def lists(
    frame: DataFrame, stage: SecondStage, model: RankingModel, k: int, segments: ItemMatrix | None = None
) -> Blocks:
    """The lists of all users, as :func:`join.similarity_join` gives them; the score is the probability.

    Who has no history gets the most popular items, of their segment where there are ``segments``.

    Raises
    ------
    DataError
        The model has learned from other features.
    """
    if model.names != stage.names:
        other = set(model.names) ^ set(stage.names)
        raise DataError(
            f"The ranker of this run was trained with other sources or promotions ({', '.join(sorted(other))}). Run "
            "train_ranker again with these settings."
        )
    popular = stage.matrices[popularity.NAME]

    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for part in _blocks(batches):
            served, others = join.divided(part, _ITEMS)
            if served.num_rows:
                yield _ranked(served, stage, model, k)
            yield from join.popular_lists(others, popular, segments, k, stage.policy)

    return Blocks(frame, kernel, join.LISTS)


def _ranked(users: pa.RecordBatch, stage: SecondStage, model: RankingModel, k: int) -> pa.RecordBatch:
    block, popular = stage.found(users), stage.matrices[popularity.NAME]
    found, vectors, m = block.candidates, stage.item_vectors(), len(stage.facts.events)
    pair = (block.vectors[found.rows], vectors[found.items]) if vectors.shape[1] else (block.vectors, vectors)
    values = model.probability(block.features, *pair)
    longest = int(np.bincount(found.rows, minlength=1).max())
    order = Ranked(*csr.best(found.rows, found.items, values, len(block.audience), max(longest, k)))
    likeness = stage.likeness()
    result = reranking.lists(block.audience, *join.lots(users), order, likeness, popular.allowed, k, stage.policy)
    owner, place = np.nonzero(result.indices >= 0)
    at = np.searchsorted(found.rows * m + found.items, owner * m + result.indices[owner, place])
    sources, why = list(found.places), result.why[owner, place]
    texts = pa.array([fallback.reason(source, number) for source in sources for number in range(3)])
    reasons = pa.DictionaryArray.from_arrays(pa.array((found.source()[at] * 3 + why).astype(np.int32)), texts)
    return join.rows(users, result, popular.ids, NAME, reasons)


def _newest(known: Known, length: int) -> DataFrame:
    """user_index and the newest ``length`` events, oldest first, as three arrays."""
    fields = (c.ITEM_INDEX, c.EVENT_TYPE, c.EVENT_TIME)
    whole = embed.newest_first_chunks(known.sequences, known.chunks, fields)
    item, kind, time = (F.slice(name, -F.least(F.size(name), F.lit(length)), length) for name in fields)
    ages = F.transform(time, lambda at: ((F.lit(known.moment) - at) / 86_400.0).cast("float"))
    return whole.select(c.USER_INDEX, item.alias(_ITEMS), kind.alias(_TYPES), ages.alias(_AGES))


def _histories(users: pa.RecordBatch) -> Histories:
    rows, items = csr.pairs(join.csr(users, _ITEMS))
    types, ages = (users.column(name).flatten().to_numpy(zero_copy_only=False) for name in (_TYPES, _AGES))
    return Histories(users.num_rows, rows, items, types.astype(np.int8), ages.astype(np.float32))


def _scores(vectors: tuple[F32, NDArray[np.bool_]], items: ItemMatrix, found: Candidates) -> F32:
    scores = exact_scores(vectors[0], items.vectors, found.rows, found.items)
    return np.where(vectors[1][found.rows] & items.allowed[found.items], scores, np.nan).astype(np.float32)


def _blocks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    return (batch.slice(start, BLOCK) for batch in batches for start in range(0, batch.num_rows, BLOCK))


def _lists(ends: NDArray[np.integer], values: NDArray) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(values))
