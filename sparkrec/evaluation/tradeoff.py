"""What diversity costs: NDCG against intra-list diversity and coverage, over a sweep of the diversity weight.

Where lists are calibrated, also against how far their categories (brands) are from the user's taste.

A sample of test users (a fixed number, so what reaches the driver does not grow) is given lists at each weight, by the
same join and rules as everybody. Half of them choose a weight, and the other half say what it costs, so the number that
is shown for the chosen one is not the one it was chosen by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config.recommend import Exploration
from sparkrec.evaluation import metrics, samples
from sparkrec.persistence import persisted
from sparkrec.pipeline import Run
from sparkrec.retrieval import catalogue, fallback, join, rules
from sparkrec.retrieval import traits as item_traits
from sparkrec.retrieval.csr import pairs, take
from sparkrec.retrieval.divergence import jensen_shannon
from sparkrec.retrieval.reranking import Policy
from sparkrec.retrieval.topk import Csr

WEIGHTS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75)
#: The most of NDCG that the chosen weight may cost.
TOLERANCE = 0.02
_WEIGHT = "weight"
_MEASURES = ("ndcg", "diversity", "miscalibration")
_KIND = "_kind"
_CELLS = 1 << 24  # features of items in lists, held at a time: 64 MB


@dataclass(frozen=True)
class Point:
    """At one weight: NDCG@k, mean intra-list diversity, and the share of the offered items that is in some list.

    ``miscalibration`` : mean :func:`divergence` from the users' tastes; None: not measured.
    """

    weight: float
    ndcg: float
    diversity: float
    coverage: float
    miscalibration: float | None = None


@dataclass(frozen=True)
class Tastes:
    """What n users like: kinds and their shares, ``[n, t]``, -1 and 0 for padding; and the kind of each item, -1: none.

    Items are numbered as in ``features``.
    """

    codes: NDArray[np.integer]
    shares: NDArray[np.floating]
    kinds: NDArray[np.int64]


@dataclass(frozen=True)
class Lists:
    """Lists of n users at one weight, ``[n, k]`` with -1 beyond the end: numbers of the items in ``features``."""

    weight: float
    items: NDArray[np.int64]


def sweep(run: Run, users: DataFrame, holdout: DataFrame, shelf: DataFrame) -> dict[str, Any] | None:
    """The curve of the last of recommend.models whose vectors can be compared; None where there is none.

    ``users`` is from :func:`outcomes.test_users`, ``shelf`` from :func:`rules.offered`.
    """
    settings = run.settings.recommend
    models = [model for model in settings.with_vectors if model not in fallback.COUNTING]
    drawn = samples.draw(users, run.settings.evaluate.tradeoff_users) if models else []
    if not drawn:
        return None
    method = "mmr" if settings.diversity.method == "none" else settings.diversity.method
    rows = _lists(run, models[-1], [index for _, index in drawn], shelf, method).toArrow()
    wanted = holdout.where(F.col(c.USER_ID).isin([user for user, _ in drawn])).select(c.USER_ID, c.ITEM_ID).toArrow()
    asked: dict[str, list[str]] = {}
    for user, item in zip(wanted[c.USER_ID].to_pylist(), wanted[c.ITEM_ID].to_pylist(), strict=True):
        asked.setdefault(user, []).append(item)
    numbers, features = _features(run, rows[c.ITEM_ID].unique().to_pylist())
    served = sorted({*rows[c.USER_ID].to_pylist()} & asked.keys())
    if not served:
        return None
    relevant = [[numbers.get(item, -1) for item in asked[user]] for user in served]
    lists = [Lists(weight, _matrix(rows, weight, served, numbers, settings.k)) for weight in WEIGHTS]
    tastes = _tastes(run, served, numbers) if method == "calibrated" else None
    found = summary(lists, relevant, features, shelf.where(catalogue.ALLOWED).count(), tastes)
    return found | {"model": models[-1], "method": method, "kind": settings.diversity.kind}


def _matrix(
    rows: pa.Table, weight: float, served: Sequence[str], numbers: Mapping[str, int], k: int
) -> NDArray[np.int64]:
    place = {user: number for number, user in enumerate(served)}
    part = rows.filter(pc.and_(pc.equal(rows[_WEIGHT], weight), pc.is_in(rows[c.USER_ID], pa.array(served))))
    matrix = np.full((len(served), k), -1, np.int64)
    owner = [place[user] for user in part[c.USER_ID].to_pylist()]
    matrix[owner, part[c.RANK].to_numpy() - 1] = [numbers[item] for item in part[c.ITEM_ID].to_pylist()]
    return matrix


def _features(run: Run, items: Sequence[str]) -> tuple[dict[str, int], Csr]:
    """The items that were shown as numbers, and the features of each."""
    shown = F.broadcast(run.spark.createDataFrame([(item,) for item in items], f"{c.ITEM_ID} string"))
    found = run.read(schemas.GOLD_ITEMS).join(shown, c.ITEM_ID).select(c.ITEM_ID, c.FEATURES).toArrow()
    lists = found[c.FEATURES].combine_chunks()
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    codes = lists.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    numbers = {item: number for number, item in enumerate(found[c.ITEM_ID].to_pylist())}
    return numbers, (np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), codes)


def _tastes(run: Run, users: Sequence[str], numbers: Mapping[str, int]) -> Tastes:
    """Of these users, in their order, and the kinds of the items of ``numbers``."""
    settings, gold = run.settings.recommend, run.read(schemas.GOLD_ITEMS)
    asked = run.spark.createDataFrame([(user,) for user in users], f"{c.USER_ID} string")
    own = rules.with_tastes(run.read(schemas.VOCABULARY_USERS), run.read(schemas.GOLD_USERS), settings)
    found = own.join(F.broadcast(asked), c.USER_ID).select(c.USER_ID, *join.TASTES).toArrow()
    in_order = found.take(pc.index_in(pa.array(users), found[c.USER_ID].combine_chunks())).combine_chunks()
    shown = run.spark.createDataFrame([(item,) for item in numbers], f"{c.ITEM_ID} string")
    traits = rules.item_traits(gold, settings).select(
        c.ITEM_INDEX, F.col(f"kind_{settings.diversity.kind}").alias(_KIND)
    )
    of_items = gold.join(F.broadcast(shown), c.ITEM_ID).join(traits, c.ITEM_INDEX).select(c.ITEM_ID, _KIND).toArrow()
    kinds = np.full(len(numbers), -1, np.int64)
    kinds[[numbers[item] for item in of_items[c.ITEM_ID].to_pylist()]] = of_items[_KIND].to_numpy()
    return Tastes(*join.tastes(in_order.to_batches()[0]), kinds)


def summary(
    lists: Sequence[Lists],
    relevant: Sequence[Sequence[int]],
    features: Csr,
    n_items: int,
    tastes: Tastes | None = None,
) -> dict[str, Any]:
    """``points`` over all users; ``chosen``: a weight, and ``confirmed``: what it costs those who did not choose it.

    Users take turns: those with an even number choose the largest weight that costs them at most :data:`TOLERANCE` of
    their NDCG, the others confirm. ``relevant`` is, by user, the numbers of the items that were right (negative: not in
    any list).
    """
    n_relevant = np.array([len(x) for x in relevant])
    indptr = np.concatenate([[0], np.cumsum(n_relevant)])
    nobody = len(features[0])  # a number that is no item's
    flat = np.array([i if i >= 0 else nobody for x in relevant for i in x], np.int64)
    points, halves = [], []
    for entry in lists:
        k = entry.items.shape[1]
        hit = metrics.hits(entry.items, indptr, flat)
        ndcg = metrics.per_user(hit, n_relevant, k)[:, metrics.NAMES.index("ndcg")]
        apart = intra_list_diversity(entry.items, features)
        coverage = len(np.unique(entry.items[entry.items >= 0])) / max(n_items, 1)
        off = None if tastes is None else divergence(entry.items, tastes)
        measures = [ndcg, apart] if off is None else [ndcg, apart, off]
        means = [float(measure.mean()) for measure in measures]
        points.append(Point(entry.weight, means[0], means[1], coverage, *means[2:]))
        if len(relevant) > 1:
            halves.append([[float(measure[side::2].mean()) for measure in measures] for side in range(2)])
    result: dict[str, Any] = {"points": [asdict(point) for point in points], "users": len(relevant)}
    if not halves:
        return result
    able = [n for n, (choosing, _) in enumerate(halves) if choosing[0] >= (1 - TOLERANCE) * halves[0][0][0]]
    chosen = max(able, key=lambda n: lists[n].weight)
    confirmed: dict[str, float] = {"users": len(relevant) // 2}
    for name, after, before in zip(_MEASURES, halves[chosen][1], halves[0][1], strict=False):
        confirmed |= {name: after, f"{name}_before": before}
    return result | {"chosen": lists[chosen].weight, "confirmed": confirmed}


def divergence(lists: NDArray[np.integer], tastes: Tastes) -> NDArray[np.float64]:
    """``[n]``: Jensen-Shannon divergence of a list's kinds from those of the user's taste, in nats, from 0 to ln 2.

    ``lists`` is ``[n, k]``, -1 beyond the end. A user without a taste, and an empty list, are as far as can be.
    """
    there = lists >= 0
    kinds = np.where(there, tastes.kinds[np.maximum(lists, 0)] if len(tastes.kinds) else -1, -1)
    same = (kinds[:, :, None] == kinds[:, None, :]) & there[:, :, None] & there[:, None, :]
    first = ~np.tril(same, -1).any(axis=2) & (kinds >= 0)
    shares = same.sum(axis=2) / np.maximum(there.sum(axis=1, keepdims=True), 1)
    own = tastes.codes, tastes.shares.astype(np.float64)
    return jensen_shannon(np.where(first, kinds, -1), np.where(first, shares, 0.0), *own)


def intra_list_diversity(lists: NDArray[np.integer], features: Csr) -> NDArray[np.float64]:
    """Mean over the pairs of a list of 1 − |common features| / |features of either|; 0 for a list of one.

    Smyth and McClave, Similarity vs. diversity, ICCBR 2001, with the Jaccard similarity of the items' features
    (category, brand, price, words, attributes), which no model's vectors decide. Two items without features are alike.
    ``lists`` is ``[n, k]``, -1 beyond the end; row i of ``features`` belongs to item i.
    """
    kinds = np.unique(take(features, np.unique(lists[lists >= 0]))[1])
    k = lists.shape[1]
    upper = np.triu_indices(k, 1)
    found = np.zeros(len(lists))
    step = max(1, _CELLS // max(1, k * len(kinds)))
    for start in range(0, len(lists), step):
        block = lists[start : start + step]
        items, place = np.unique(block[block >= 0], return_inverse=True)
        rows, columns = pairs(take(features, items))
        incidence = np.zeros((len(items) + 1, len(kinds)), np.float32)  # the last row is of no item
        incidence[rows, np.searchsorted(kinds, columns)] = 1
        compact = np.full(block.shape, -1, np.int64)
        compact[block >= 0] = place
        own = incidence[compact]
        both = np.matmul(own, own.transpose(0, 2, 1))[:, upper[0], upper[1]]
        sizes = own.sum(axis=2)
        either = sizes[:, upper[0]] + sizes[:, upper[1]] - both
        apart = 1 - np.where(either > 0, both / np.maximum(either, 1), 1.0)
        there = (block[:, upper[0]] >= 0) & (block[:, upper[1]] >= 0)
        found[start : start + step] = (apart * there).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    return found


def _lists(run: Run, model: str, indices: Sequence[int], shelf: DataFrame, method: str) -> DataFrame:
    """The lists of some users at every weight: weight, user_id, rank, item_id."""
    settings, gold = run.settings.recommend, run.read(schemas.GOLD_ITEMS)
    place = {c.RUN_ID: run.run_id, c.MODEL: model}
    traits = item_traits.publish(rules.item_traits(gold, settings))
    matrix = catalogue.publish(catalogue.stocked(shelf), run.read(schemas.VECTORS_ITEMS, place), model)
    vectors = run.read(schemas.VECTORS_USERS, place).where(F.col(c.USER_INDEX).isin(*indices))
    drawn = run.spark.createDataFrame([(index,) for index in indices], f"{c.USER_INDEX} int")
    everyone = rules.users(run, rules.read_lists(run), only=drawn)
    frame = persisted(join.with_vectors(everyone.join(vectors, c.USER_INDEX, "left_semi"), vectors))
    frames = []
    for weight in WEIGHTS:
        changed: dict[str, Any] = {
            "diversity": settings.diversity.model_copy(update={"method": method, "weight": weight}),
            "exploration": Exploration(),
        }
        policy = Policy(settings.model_copy(update=changed), traits)
        lists = join.similarity_join(frame, matrix, matrix, settings.k, settings.block_users, policy)
        frames.append(lists.rows().select(F.lit(weight).alias(_WEIGHT), c.USER_ID, c.RANK, c.ITEM_ID))
    return reduce(DataFrame.unionByName, frames)
