"""train_ranker and recommend on a lake by hand: nothing of the future in a feature; filters hold; in any blocks."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from pathlib import Path

import handmade
import numpy as np
import pytest

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config.recommend import ItemList, Rule
from sparkrec.errors import DataError
from sparkrec.evaluation import reliability
from sparkrec.jobs.recommend import recommend
from sparkrec.jobs.train_ranker import train_ranker
from sparkrec.pipeline import Run, execute
from sparkrec.ranking import known, past, second_stage, serving, training
from sparkrec.ranking.past import Past, of_today
from sparkrec.retrieval import catalogue
from sparkrec.retrieval.planner import Plan

pytestmark = pytest.mark.spark

N_USERS, N_ITEMS, K = 90, 24, 4
SOLD_OUT = 5
AS_OF = dt.datetime(1970, 1, 11)
DAY = 86_400
#: Known since the catalogue told of it; sold out in the past, and in stock today, when another one is sold out.
NEW, SOLD_OUT_THEN = N_ITEMS, 2
COUNTRIES = ("Chile", "Peru", None)
BOTH = ("als", "popularity", "neighbors")


def walks(last):
    """Even users like the first half of the items and odd ones the second; ``last`` says what comes at the end."""
    random, other = np.random.default_rng(4), np.random.default_rng(5)
    users = []
    for user in range(N_USERS):
        own = random.permutation(N_ITEMS // 2)[:7] + (user % 2) * N_ITEMS // 2
        past = [(int(item), c.PURCHASE if t % 3 else c.VIEW, t * DAY) for t, item in enumerate(own[:5])]
        users.append([*past, *[(int(item), c.PURCHASE, 9 * DAY) for item in last(own, other)]])
    return users


def lake(folder, last, late_price, late_country):
    """``last`` is what users did in the validation part, and the late price and country came then."""
    settings = handmade.settings(
        folder,
        features={"neighbors": 3, "neighbor_users": 1},
        split={"kind": "time", "validation_days": 2},
        als={"rank": 2, "iterations": 1, "blocks": 1},
        ranker={"sources": BOTH, "per_source": 6, "train_users": 80, "leaf_rows": 5, "rounds": 20},
        popularity={"segments": ["country"]},
        recommend={"k": K, "models": ["popularity", "ranker"]},
        evaluate={"ks": [K], "primary": f"ndcg@{K}"},
    )
    run = Run(settings, "featurize")
    about = {
        n: {c.AS_OF: AS_OF, c.BRAND_CODE: n % 4, c.CATEGORY_CODES: [100 + n % 2, n % 6]} for n in range(N_ITEMS + 1)
    }
    about[SOLD_OUT][c.STOCK] = 0.0
    today = {n: {c.COUNTRY: late_country, c.N_PURCHASES: 5} for n in range(N_USERS)}
    handmade.gold(run, walks(last), N_ITEMS + 1, items=about, held_out=2, profiles=today)
    early, late = dt.datetime(1970, 1, 1), dt.datetime(1970, 1, 10)
    catalogue = [
        (f"i{SOLD_OUT}", early, {c.STOCK: 5.0}), (f"i{SOLD_OUT}", late, {c.STOCK: 0.0}),
        (f"i{SOLD_OUT_THEN}", early, {c.STOCK: 0.0}), (f"i{SOLD_OUT_THEN}", late, {c.STOCK: 5.0}),
        (f"i{NEW}", late, {c.STOCK: 5.0}),
    ]  # fmt: skip
    handmade.silver(run, walks(last), lambda n, time: late_country if time > 8 * DAY else COUNTRIES[n % 3], catalogue)
    prices = {dt.date(1970, 1, 3): lambda n: 10.0 + n, dt.date(1970, 1, 10): lambda n: late_price + n}
    days = [
        {c.ITEM_ID: f"i{n}", c.EVENT_DATE: day, c.PRICE: price(n), c.COUNT: 2}
        for day, price in prices.items()
        for n in range(0, N_ITEMS, 2)
    ]
    handmade.write(run, schemas.GOLD_ITEM_DAYS, days)
    handmade.write(run, schemas.GOLD_NEIGHBORS, [])
    run.finish()
    return settings


def own_taste(own, _):
    return own[5:]


@pytest.fixture(scope="module")
def settings(spark, tmp_path_factory):
    return lake(tmp_path_factory.mktemp("ranker"), own_taste, 10.0, "Chile")


def test_no_feature_knows_what_came_after(settings, tmp_path, monkeypatch):
    """Two worlds that differ in the validation events alone: the same candidates and features, other choices.

    A rule keeps some items from all but Chileans who had bought three times, as they had then; now it is five times.
    """
    collect, checkpoints = training.collected, Path(settings.lake.path) / "checkpoints" / "als"
    during, thens = [], []

    def spied(rows, width):
        during.append(list(checkpoints.glob("*")))
        return collect(rows, width)

    def kept(run, some):
        thens.append(Past(run, some))
        return thens[-1]

    monkeypatch.setattr(training, "collected", spied)
    monkeypatch.setattr(training, "Past", kept)
    elsewhere = lake(tmp_path, lambda _, random: random.integers(N_ITEMS, size=2), 99.0, "Peru")
    sources = settings.ranker.model_copy(
        update={"sources": ("als", "popularity", "segment_popularity", "neighbors", "recent")}
    )
    rule = Rule(name="club", items="item_index % 6 = 1", only_for="country = 'Chile' and n_purchases = 3")
    asked = settings.recommend.model_copy(update={"rules": (rule,)})
    worlds = [world.model_copy(update={"ranker": sources, "recommend": asked}) for world in (settings, elsewhere)]
    runs = [Run(world, "train_ranker") for world in worlds]
    (one, stage), (other, _) = map(training.past, runs)
    assert runs[0].details["past"] == {"moment": 8 * DAY, "of_today": []}
    assert during[0], "what the vectors of ALS are made from stays until they are read"
    assert not list(checkpoints.glob("*"))
    for name in ("als_score", "als_place", "price", "price_gap"):
        values = one.features[:, stage.names.index(name)]
        assert len(np.unique(values[np.isfinite(values)])) > 5, f"{name}: worth comparing"
    prices = one.features[:, stage.names.index("price")]
    known = np.isfinite(prices)
    np.testing.assert_allclose(prices[known], np.log(10 + one.items[known]), rtol=1e-6)
    np.testing.assert_array_equal(known, one.items % 2 == 0)
    for field in ("index", "users", "items", "features"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field), field)
    assert len(one) > 80 * 6
    assert one.chosen.sum() > 50
    assert (one.chosen != other.chosen).any()

    assert SOLD_OUT in one.items, "it was in stock"
    assert not {SOLD_OUT_THEN, NEW} & set(one.items.tolist())
    club = one.items % 6 == 1
    assert set(one.index[one.users[club]] % 3) == {0}, "Chileans, as they were"
    events = Counter(item for user in walks(own_taste) for item, _, time in user if time < 8 * DAY)
    items = {row[c.ITEM_INDEX]: row for row in thens[0].items.collect()}
    assert {n: row[c.N_EVENTS] for n, row in items.items()} == {n: events[n] for n in range(N_ITEMS + 1)}
    assert [n for n, row in items.items() if not row[c.FOR_SALE]] == [NEW]
    people = thens[0].users.collect()
    assert {row[c.USER_INDEX]: row[c.COUNTRY] for row in people} == {n: COUNTRIES[n % 3] for n in one.index.tolist()}
    assert {(row[c.N_EVENTS], row[c.N_PURCHASES], row[c.ACTIVE_DAYS]) for row in people} == {(5, 3, 5)}


def test_what_bears_no_time_is_said(settings):
    split = settings.split.model_copy(update={"kind": "leave_one_out"})
    given = settings.recommend.model_copy(update={"lists": (ItemList(name="club", kind="allow", path="club.csv"),)})
    found = of_today(settings.model_copy(update={"split": split, "recommend": given}))
    assert found == ["the list 'club' of recommend.lists", "the catalogue (for sale, stock, price)"]


@pytest.mark.parametrize("in_stock_only", [True, False])
def test_without_rules_what_was_offered_is_the_same_without_the_events_of_silver(settings, in_stock_only, monkeypatch):
    run = Run(settings, "train_ranker")
    then = Past(run, run.read(schemas.VOCABULARY_USERS).select(c.USER_INDEX))
    whole = set(catalogue.offered(then.items, in_stock_only).collect())
    monkeypatch.setattr(past.state, "known", pytest.fail)
    then = Past(run, run.read(schemas.VOCABULARY_USERS).select(c.USER_INDEX))
    assert set(catalogue.offered(then.shelf, in_stock_only).collect()) == whole
    gone = {NEW, SOLD_OUT_THEN} if in_stock_only else {NEW}
    assert {row[c.ITEM_INDEX] for row in whole if not row[catalogue.ALLOWED]} == gone


def test_lists_are_filtered_ordered_and_the_same_in_any_blocks(settings, monkeypatch):
    """The items of ALS in two cells, of which one is looked into."""
    monkeypatch.setattr(
        catalogue,
        "plan",
        lambda items, width, memory, probes, *_: Plan(items, width, 1, *((2, 1) if probes else (0, 0))),
    )
    cells = settings.recommend.model_copy(update={"search": "cells", "min_recall": 0.0})
    settings = settings.model_copy(update={"recommend": cells})
    run = Run(settings, "train_popularity")
    counts = np.bincount([item for user in walks(own_taste) for item, _, _ in user], minlength=N_ITEMS)
    ones = {n: [1.0] for n in range(N_USERS)}
    handmade.vectors(run, "popularity", ones, {n: [float(x)] for n, x in enumerate(counts)})
    random = np.random.default_rng(8)
    handmade.vectors(
        run, "als",
        {n: random.normal(size=2).tolist() for n in range(N_USERS) if n != 7},
        {n: random.normal(size=2).tolist() for n in range(N_ITEMS)},
    )  # fmt: skip
    run.finish()
    trained = Run(settings, "train_ranker")
    with monkeypatch.context() as patched:
        patched.setattr(past.state, "known", pytest.fail)  # no rule asks for more of the past than gold has
        execute(train_ranker, trained)
    about = trained.details["ranker"]
    assert set(about["ndcg"]) == {"ranker", *BOTH}
    assert sum(about["users"].values()) == 80
    assert 0 < about["reach"] <= 1
    described = json.loads((serving.folder(trained) / "ranker.json").read_text())
    assert described["settings"]["per_source"] == 6

    tables = []
    for block in (second_stage.BLOCK, 7):
        monkeypatch.setattr(second_stage, "BLOCK", block)
        run = Run(settings, "recommend")
        execute(recommend, run)
        lists = run.read(schemas.RECOMMENDATIONS, {c.MODEL: "ranker"}).orderBy(c.USER_ID, c.RANK).collect()
        tables.append([row.asDict() for row in lists])
    assert tables[0] == tables[1]
    searched = run.details["search"]
    assert {use: "recall" in how for use, how in searched.items()} == {"popularity": False, "als for ranker": True}
    assert searched["als for ranker"]["size"] == 6, "as many as ranker.per_source asks for"
    assert 0 < searched["als for ranker"]["recall"] < 1
    strict = settings.model_copy(update={"recommend": cells.model_copy(update={"min_recall": 1.0})})
    with pytest.raises(DataError, match=r"'als' finds .* of the 6 best"):
        recommend(Run(strict, "recommend"))
    seen = {f"u{n}": {f"i{item}" for item, _, _ in user} for n, user in enumerate(walks(own_taste))}
    by_user = {}
    for row in tables[0]:
        by_user.setdefault(row[c.USER_ID], []).append(row)
    assert set(by_user) == {*seen, c.ANYONE}
    for user, rows in by_user.items():
        items = [row[c.ITEM_ID] for row in rows]
        assert len(set(items)) == K
        assert not set(items) & (seen.get(user, set()) | {f"i{SOLD_OUT}"})
        if user == c.ANYONE:
            assert {row[c.SOURCE] for row in rows} == {"popularity"}
            continue
        scores = [row[c.SCORE] for row in rows]
        assert scores == sorted(scores, reverse=True)
        assert 0 < scores[-1] <= scores[0] < 1
        assert {row[c.SOURCE] for row in rows} == {"ranker"}
    assert {row[c.REASON] for row in tables[0]} >= {"people with your taste chose it", "popular with everyone"}


def test_what_is_missing_is_said(settings):
    ranker = settings.ranker.model_copy(update={"sources": ("two_tower",)})
    with pytest.raises(DataError, match="select_on_validation"):
        train_ranker(Run(settings.model_copy(update={"ranker": ranker}), "train_ranker"))


def test_a_ranker_is_not_served_with_models_that_were_trained_after_it(spark, tmp_path):
    models = {"recommend": {"models": ["popularity", "ranker"]}, "ranker": {"sources": ["als", "popularity"]}}
    settings = handmade.settings(tmp_path, **models)

    def done(stage, **details):
        run = Run(settings, stage)
        run.detail(**details)
        run.finish()

    done("train_als")
    done("train_ranker", ranker={})
    for stage in ("train_popularity", "train_two_tower"):  # the one counts, the other is no source
        done(stage)
    serving.check_sources(Run(settings, "recommend"))
    done("train_als")
    done("train_ranker")  # by settings without a ranker, so that nothing was trained
    with pytest.raises(DataError, match=r"scores of als mean.*Run train_ranker again"):
        serving.lists(Run(settings, "recommend"), None, None)


def test_right_is_what_the_test_part_asks_for_where_no_goal_is_named(settings):
    """All came back to buy."""
    features = settings.features.model_copy(update={"target_types": ("view",)})
    looks = settings.model_copy(update={"features": features})
    buys = looks.model_copy(update={"ranker": settings.ranker.model_copy(update={"goal": ("purchase",)})})
    found = [{len(row["goals"]) for row in known.goals(Run(x, "train_ranker")).collect()} for x in (looks, buys)]
    assert found == [{0}, {2}]


def test_what_lists_said_against_what_happened(spark):
    rows = [("a", "i1", 0.3), ("a", "i2", 0.26), ("b", "i1", 0.5), ("b", "i2", 0.05), ("c", "i1", 0.4)]
    lists = spark.createDataFrame(
        [("ranker", *row, "ranker") for row in rows] + [("ranker", "b", "i9", 9.0, "popularity")],
        f"{c.MODEL} string, {c.USER_ID} string, {c.ITEM_ID} string, {c.SCORE} double, {c.SOURCE} string",
    )
    bought = [("a", "i1", "purchase", "view"), ("b", "i1", "purchase", "purchase"), ("b", "i9", "purchase", "view")]
    looked = [("a", "i2", "cart", "view"), ("b", "i2", "view", "view")]  # no purchase, so not right
    holdout = spark.createDataFrame(
        [*bought, *looked], f"{c.USER_ID} string, {c.ITEM_ID} string, {c.EVENT_TYPE} string, {c.FIRST_TYPE} string"
    )
    # c did not come back, and the popular item has no probability. 0.26 and 0.3 are one group, 0.5 begins the next.
    assert reliability.of_lists(lists, holdout, "ranker", ["purchase"], fewest=1) == [
        {"rows": 1, "said": 0.05, "happened": 0.0},
        {"rows": 2, "said": 0.28, "happened": 0.5},
        {"rows": 1, "said": 0.5, "happened": 1.0},
    ]
    looks = reliability.of_lists(lists, holdout, "ranker", ["view"], fewest=2)
    assert looks == [{"rows": 2, "said": 0.28, "happened": 1.0}], "of a, who bought one of them later"
