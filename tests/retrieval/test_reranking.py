"""Whole lists, one user at a time in plain Python: pool, reranking, quota, lot, and the rest down the ranking."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from sparkrec import columns as c
from sparkrec.config.recommend import Recommend
from sparkrec.retrieval import filters, join, reranking
from sparkrec.retrieval.diversity import Limits, Relevance, Wanted, greedy
from sparkrec.retrieval.filters import Audience
from sparkrec.retrieval.reranking import EXPLORED, PROMOTED, Policy, Ranked, lists

pytestmark = pytest.mark.unit


@dataclass
class Traits:
    m: int
    seed: int = 0
    hidden: np.ndarray = field(init=False)
    memory_days: np.ndarray = field(init=False)
    fresh: np.ndarray = field(init=False)
    promoted: np.ndarray = field(init=False)

    def __post_init__(self):
        random = np.random.default_rng(self.seed)
        self.hidden = random.integers(0, 4, self.m) * (random.random(self.m) < 0.3)
        self.memory_days = np.full(self.m, np.inf)
        self.fresh = random.random(self.m) < 0.2
        self.promoted = random.random(self.m) < 0.15
        self._kinds = {"category": random.integers(-1, 6, self.m), "brand": random.integers(0, 9, self.m)}

    def kinds(self, cap):
        return self._kinds[cap]


def world(seed, n=12, m=60, d=4):
    random = np.random.default_rng(seed)
    users = random.integers(-3, 4, (n, d)).astype(np.float32)
    items = random.integers(-3, 4, (m, d)).astype(np.float32)
    seen = [random.choice(m, random.integers(0, m), replace=False) for _ in range(n)]
    indptr = np.cumsum([0, *map(len, seen)])
    nobody = (np.zeros(n + 1, np.int64), np.zeros(0, np.int64))
    tastes = np.tile(np.arange(5), (n, 1)), random.dirichlet(np.ones(5), n)
    rules = random.integers(0, 4, n)
    audience = Audience(users, (indptr, np.concatenate(seen)), rules, np.zeros(n, bool), nobody, tastes)
    return audience, items, random.random(m) < 0.9, Traits(m, seed)


def ranking(audience, items, allowed, traits, u):
    seen = audience.seen[1][audience.seen[0][u] : audience.seen[0][u + 1]]
    able = [i for i in range(len(items)) if allowed[i] and i not in seen and not audience.barred[u] & traits.hidden[i]]
    return sorted(able, key=lambda i: (-float(audience.vectors[u] @ items[i]), i))


def make(world, settings, rows=slice(None)):
    audience, items, allowed, traits = world
    n = len(audience)
    keys, all_users = np.arange(100, 100 + n, dtype=np.uint64), np.ones(n, bool)
    rows = np.arange(n)[rows]
    return lists(
        audience.take(rows), keys[rows], all_users[rows], items, items, allowed, settings.k, Policy(settings, traits)
    )


@examples(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 3), st.integers(1, 12), st.integers(1, 20))
def test_caps_leave_exactly_k_however_small_the_pool(seed, by_category, by_brand, k, pool):
    it = world(seed)
    found = make(it, Recommend(k=k, pool=pool, caps={"category": by_category, "brand": by_brand}))
    traits = it[3]
    for u in range(len(it[0])):
        chosen = []
        for i in ranking(*it, u):
            category, brand = traits.kinds("category"), traits.kinds("brand")
            full = category[i] >= 0 and sum(category[j] == category[i] for j in chosen) >= by_category
            full |= sum(brand[j] == brand[i] for j in chosen) >= by_brand
            if not full and len(chosen) < k:
                chosen.append(i)
        assert found.indices[u].tolist() == chosen + [-1] * (k - len(chosen))
        assert found.scores[u, : len(chosen)].tolist() == [float(it[0].vectors[u] @ it[1][i]) for i in chosen]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"caps": {"category": 1, "brand": 2}},
        {"diversity": {"method": "mmr", "weight": 0.4}, "caps": {"category": 2}},
        {"diversity": {"method": "dpp", "weight": 0.4}},
        {"diversity": {"method": "calibrated", "kind": "brand", "weight": 0.4}, "caps": {"category": 2}},
        {"promotions": {"items": "x", "quota": 3}, "new_items": {"boost": 0.3}},
        {"exploration": {"places": 2, "probability": 0.7}},
    ],
    ids=str,
)
def test_an_order_by_another_model_is_reranked_like_a_search(more):
    """The whole ranking of the items, handed over as one that somebody else made: the same lists, in blocks as well."""
    audience, items, allowed, traits = it = world(4, n=30)
    settings = Recommend(k=7, pool=60, **more)
    ranked = Ranked(*filters.search(audience, items, len(items), allowed, traits.hidden))
    keys, all_users = np.arange(100, 130, dtype=np.uint64), np.ones(30, bool)
    found = lists(audience, keys, all_users, ranked, items, allowed, 7, Policy(settings, traits))
    wanted = make(it, settings)
    for field_of in ("indices", "scores", "propensity", "why"):
        np.testing.assert_array_equal(getattr(found, field_of), getattr(wanted, field_of), field_of)
    assert (found.indices >= 0).sum() > 100


def test_a_quota_is_met_under_a_cap_wherever_that_is_possible():
    """A campaign of few kinds: items of these kinds that are not promoted leave them room; caps hold."""
    random, met, full = np.random.default_rng(8), 0, 0
    for _ in range(300):
        n, p, k, quota, most = 3, 25, 10, int(random.integers(1, 5)), int(random.integers(1, 4))
        kinds = random.integers(-1, 8, (n, p))
        promoted = (random.random((n, p)) < 0.5) & (kinds < random.integers(1, 4)) & (kinds >= 0)
        gains = Relevance(np.sort(random.random((n, p)))[:, ::-1])
        there = random.random((n, p)) < 0.9
        picks, _ = greedy(k, there, gains, Limits([kinds], [most]), Wanted(promoted, quota))
        for u in range(n):
            chosen = picks[u][picks[u] >= 0]
            own = kinds[u, chosen]
            assert np.bincount(own[own >= 0], minlength=1).max() <= most
            able = np.bincount(kinds[u, promoted[u] & there[u]], minlength=1)
            assert promoted[u, chosen].sum() >= min(quota, np.minimum(able, most).sum())
            met, full = met + (promoted[u, chosen].sum() >= quota), full + (len(chosen) == k)
    assert met > 300
    assert full > 600


def test_a_quota_is_met_from_below_the_pool_of_an_order_by_another_model():
    """Promoted items that stand behind the pool; their scores, and the order without them, stay."""
    audience, items, allowed, traits = world(4, n=30)
    plain, settings = Recommend(k=7, pool=8), Recommend(k=7, pool=8, promotions={"items": "x", "quota": 2})
    order, scores = filters.search(audience, items, len(items), allowed, traits.hidden)
    keys, all_users = np.arange(100, 130, dtype=np.uint64), np.ones(30, bool)
    found, without = (
        lists(audience, keys, all_users, Ranked(order, scores), items, allowed, 7, Policy(x, traits))
        for x in (settings, plain)
    )
    below = 0
    for u in range(30):
        promoted = [i for i in order[u] if i >= 0 and traits.promoted[i]]
        chosen = found.indices[u]
        assert sum(traits.promoted[chosen[chosen >= 0]]) >= min(2, len(promoted))
        below += any(i in promoted and i not in order[u, :8] for i in chosen)
        for i, score in zip(chosen, found.scores[u], strict=True):
            assert i < 0 or score == scores[u][order[u] == i][0]
        plain_ones = [i for i in chosen if i >= 0 and not traits.promoted[i]]
        others = [i for i in without.indices[u] if i >= 0 and not traits.promoted[i]]
        assert plain_ones == others[: len(plain_ones)]
    assert below > 3, "worth testing"


def for_one(categories, first_promoted, ranked, **settings):
    """The list of one user who likes the first item best, the next less, and so on; by a search, or another's order."""
    m = len(categories)
    audience, _, _, traits = world(0, n=1, d=1)
    nothing = np.zeros(2, np.int64), np.zeros(0, np.int64)
    audience = replace(audience, vectors=np.ones((1, 1), np.float32), seen=nothing)
    items, everything = np.arange(m, 0, -1, dtype=np.float32)[:, None], np.ones(m, bool)
    traits.hidden, traits.promoted = np.zeros(m, np.int64), np.arange(m) >= first_promoted
    traits._kinds |= {"category": np.array(categories), "promoted": np.where(traits.promoted, 0, -1)}
    searched = Ranked(*filters.search(audience, items, m, everything)) if ranked else items
    policy = Policy(Recommend(**settings), traits)
    lot = np.zeros(1, np.uint64), np.zeros(1, bool)
    found = lists(audience, *lot, searched, items, everything, policy.settings.k, policy)
    assert found.scores[0].tolist() == items[found.indices[0], 0].tolist()
    return sorted(found.indices[0].tolist())


@pytest.mark.parametrize("ranked", [False, True])
def test_a_quota_is_met_by_items_of_another_kind_than_the_best_which_are_all_of_one(ranked):
    """Thirty promoted items of a kind of which a list holds one, and behind them some of two other kinds."""
    categories, promotions = np.repeat([-1, 0, 1, 2], [20, 30, 5, 5]), {"items": "x", "quota": 3}
    found = for_one(categories, 20, ranked, k=5, pool=5, caps={"category": 1}, promotions=promotions)
    assert found == [0, 1, 20, 50, 55]


@pytest.mark.parametrize("ranked", [False, True])
def test_a_quota_is_not_met_by_items_whose_kinds_better_ones_have(ranked):
    """A list holds one item a category and two promoted ones: the best two of these share it with the best of all."""
    categories, promotions = [*range(40), 0, 1, 42, 2, 3, 45, 4, 5, 0, 1], {"items": "x", "quota": 2}
    caps = {"category": 1, "promoted": 2}
    assert for_one(categories, 40, ranked, k=6, pool=6, caps=caps, promotions=promotions) == [0, 1, 2, 3, 42, 45]


@pytest.mark.parametrize("method", ["mmr", "dpp", "calibrated"])
def test_a_list_that_caps_leave_short_is_completed_by_score(method):
    it = world(1)
    settings = Recommend(k=8, pool=8, caps={"category": 2}, diversity={"method": method, "weight": 0.5})
    found, loose = make(it, settings), make(it, settings.model_copy(update={"caps": {"category": 99}}))
    category = it[3].kinds("category")
    completed = 0
    for u in range(len(it[0])):
        order = ranking(*it, u)
        chosen = [i for i in found.indices[u] if i >= 0]
        assert sorted(set(chosen)) == sorted(chosen)
        assert max(np.bincount(category[chosen][category[chosen] >= 0], minlength=1)) <= 2
        reachable = sum(min(2, sum(category[order] == x)) for x in range(6)) + sum(category[order] == -1)
        assert len(chosen) == min(8, reachable)
        outside = [order.index(i) for i in chosen if i not in order[:8]]
        assert outside == sorted(outside), "down the ranking"
        completed += bool(outside)
        assert {i for i in loose.indices[u] if i >= 0} == set(order[:8]), "a pool of k can only be put in another order"
    assert completed > 3


def test_promoted_items_come_from_below_the_pool_and_respect_the_filters():
    it = world(2)
    found = make(it, Recommend(k=6, pool=6, promotions={"items": "x", "quota": 2}))
    promoted = it[3].promoted
    assert (found.why == PROMOTED).any()
    for u in range(len(it[0])):
        order = ranking(*it, u)
        chosen = [i for i in found.indices[u] if i >= 0]
        able = [i for i in order if promoted[i]]
        assert set(chosen) <= set(order)
        assert sum(promoted[chosen]) >= min(2, len(able))
        forced = found.indices[u][found.why[u] == PROMOTED]
        missing = [i for i in able if i not in found.indices[u][found.why[u] != PROMOTED]]
        assert forced.tolist() == missing[: len(forced)], "the best for this user"


@pytest.mark.parametrize("quota", [0, 2])
def test_a_quota_with_diversity_and_a_boost_equals_brute_force(quota):
    """Promoted items far below the pool: what is relevant within it stays as it is without them."""
    audience, items, allowed, traits = world(7, n=30)
    random = np.random.default_rng(7)
    items = random.normal(size=items.shape).astype(np.float32)
    items[traits.promoted] -= 2  # and users' vectors are positive: scores of quite another size
    audience = replace(audience, vectors=1 + random.random(audience.vectors.shape).astype(np.float32))
    k, pool, weight, boost = 6, 12, 0.4, 0.3
    settings = Recommend(
        k=k, pool=pool, diversity={"method": "mmr", "weight": weight}, new_items={"boost": boost},
        promotions={"items": "x", "quota": quota},
    )  # fmt: skip
    it = audience, items, allowed, traits
    found = make(it, settings)
    unit = items / np.linalg.norm(items, axis=1, keepdims=True)
    below = 0
    for u in range(30):
        order = ranking(*it, u)
        inside = order[:pool]
        outside = [i for i in [i for i in order if traits.promoted[i]][:k] if i not in inside] if quota else []
        scores = {i: float(audience.vectors[u] @ items[i]) for i in order}
        high, low = (f((scores[i] for i in inside), default=0) for f in (max, min))
        gains = {
            i: (1 - weight) * ((scores[i] - low) / (high - low) if high > low else 1 + scores[i] - high)
            + (1 - weight) * boost * traits.fresh[i]
            for i in inside + outside
        }
        chosen = []
        for place in range(k):
            left = [i for i in inside + outside if i not in chosen]
            due = [i for i in left if traits.promoted[i]]
            if due and sum(traits.promoted[chosen]) < quota * (place + 1) // k:
                left = due
            if left:
                chosen.append(max(left, key=lambda i: gains[i] - weight * max(unit[chosen] @ unit[i], default=0)))
        assert found.indices[u].tolist() == chosen + [-1] * (k - len(chosen))
        below += any(i in outside for i in chosen)
    assert below > 10 or not quota, "worth testing"


@pytest.mark.parametrize("method", ["mmr", "dpp"])
@pytest.mark.parametrize(("model", "width"), [("popularity", 1), ("segment_popularity", 1), ("segment_popularity", 3)])
def test_what_nobody_met_does_not_rise_among_amounts(method, model, width):
    """Of what is counted nothing is like [0, …], and all the rest is more or less alike."""
    counts = np.where(np.arange(60) % 3 == 0, 0, np.arange(60) * 10)[:, None] * (1 + np.arange(width))
    items = SimpleNamespace(
        model=model, plan=SimpleNamespace(width=width), searchable=counts.astype(np.float32), allowed=np.ones(60, bool),
        vectors=counts.astype(np.float32), ids=pa.chunked_array([[f"i{n}" for n in range(60)]]),
    )  # fmt: skip
    users = pa.RecordBatch.from_pydict({
        c.USER_ID: ["a", "b"], c.VECTOR: pa.array([None] * 2, pa.list_(pa.float32())),
        join.SEEN: pa.array([[59], [3, 4]], pa.list_(pa.int32())),
        join.SEGMENT: pa.array([width - 1, 0] if model == "segment_popularity" else [None] * 2, pa.int32()),
    })  # fmt: skip

    def shown(**more):
        policy = Policy(Recommend(k=8, pool=60, **more), Traits(60))
        found = pa.Table.from_batches(join.lists_kernel(items, items, items, 8, 10, policy)([users]))
        return found[c.ITEM_ID].to_pylist()

    assert len(shown()) == 16
    assert shown(diversity={"method": method, "weight": 0.5}) == shown()


def test_new_items_move_up_within_the_pool():
    it = world(3)
    plain, pushed = make(it, Recommend(k=5, pool=20)), make(it, Recommend(k=5, pool=20, new_items={"boost": 2.0}))
    fresh = it[3].fresh
    for u in range(len(it[0])):
        order = ranking(*it, u)[:20]
        assert pushed.indices[u].tolist() == (
            sorted(order, key=lambda i: (not fresh[i], order.index(i)))[:5] + [-1] * max(0, 5 - len(order))
        )
        assert plain.indices[u].tolist() == order[:5] + [-1] * max(0, 5 - len(order))


def test_lots_come_from_the_pool_and_respect_caps_and_promotions():
    it = world(4, n=200)
    settings = Recommend(
        k=6, pool=20, caps={"category": 3}, promotions={"items": "x", "quota": 2},
        exploration={"places": 2, "probability": 0.5},
    )  # fmt: skip
    found = make(it, settings)
    quiet = make(it, settings.model_copy(update={"exploration": Recommend().exploration}))
    assert (found.why == EXPLORED).sum() > 20
    assert (found.why[:, :4] != EXPLORED).all()
    drawn = found.why == EXPLORED
    np.testing.assert_array_equal(found.indices[~drawn], quiet.indices[~drawn])
    assert (found.propensity[:, :4] == 1).all()
    assert (found.propensity[drawn] <= 0.5).all()
    assert set(found.propensity[~drawn].tolist()) == {0.5, 1.0}
    assert (found.propensity[quiet.why == PROMOTED] == 1).all()
    category = it[3].kinds("category")
    promoted = it[3].promoted
    for u in range(200):
        chosen = [i for i in found.indices[u] if i >= 0]
        assert len(set(chosen)) == len(chosen)
        assert sum(promoted[chosen]) >= min(2, sum(promoted[[i for i in quiet.indices[u] if i >= 0]]))
        assert set(chosen) <= set(ranking(*it, u))
        assert max(np.bincount(category[chosen] + 1, minlength=2)[1:], default=0) <= 3


@pytest.mark.parametrize("method", ["mmr", "calibrated"])
def test_any_block_gives_the_same_to_the_bit(monkeypatch, method):
    it = world(5, n=40)
    settings = Recommend(
        k=6, pool=15, caps={"category": 2, "brand": 2}, diversity={"method": method}, new_items={"boost": 0.2},
        promotions={"items": "x", "quota": 2}, exploration={"places": 2},
    )  # fmt: skip
    whole = make(it, settings)
    monkeypatch.setattr(reranking, "_CELLS", 300)
    parts = [make(it, settings, slice(start, start + 7)) for start in range(0, 40, 7)]
    for name in ("indices", "scores", "propensity", "why"):
        np.testing.assert_array_equal(np.concatenate([getattr(x, name) for x in parts]), getattr(whole, name))
    assert make(it, settings, slice(0, 0)).indices.shape == (0, 6)


def test_a_block_is_searched_once_however_it_is_cut_for_the_reranking(monkeypatch):
    it = world(5, n=40)
    settings = Recommend(k=6, pool=15, diversity={"method": "mmr"}, exploration={"places": 2})
    calls = []
    search = filters.top_k
    monkeypatch.setattr(filters, "top_k", lambda *given: calls.append(len(given[0])) or search(*given))
    make(it, settings)
    whole, calls[:] = list(calls), []
    monkeypatch.setattr(reranking, "_CELLS", 300)
    make(it, settings)
    assert calls == whole
    assert len(whole) == len(set(it[0].barred.tolist())), "one for each outcome of the rules"


def test_without_a_policy_it_is_the_plain_top_k():
    audience, items, allowed, traits = world(6)
    plain = lists(audience, np.zeros(12, np.uint64), np.ones(12, bool), items, items, allowed, 5)
    traits.hidden[:] = 0
    for u in range(12):
        order = ranking(audience, items, allowed, traits, u)[:5]
        assert plain.indices[u].tolist() == order + [-1] * (5 - len(order))
    assert (plain.propensity == 1).all()
    assert not plain.why.any()
