"""Who is new: lists by segment, lists of a few events, and both measured, with a tower that has learned nothing."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import handmade
import numpy as np
import pytest
import untrained

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.errors import ConfigError, DataError
from sparkrec.evaluation import new_items
from sparkrec.evaluation import newcomers as new_users
from sparkrec.jobs.embed import embed as embed_job
from sparkrec.jobs.evaluate import evaluate
from sparkrec.jobs.newcomers import newcomers
from sparkrec.jobs.recommend import recommend
from sparkrec.jobs.train_popularity import train_popularity
from sparkrec.models.two_tower import exported, towers
from sparkrec.models.two_tower.towers import ItemFeatures, Sizes
from sparkrec.pipeline import Run, execute
from sparkrec.retrieval import embed
from sparkrec.retrieval.shop import Shop
from sparkrec.training.driver import model_folder

pytestmark = pytest.mark.spark

N_ITEMS, K, NEW, SOLD_OUT, PRIOR = 14, 4, (10, 11, 12, 13), 2, 1.5
CHOSEN = 10  # of the new items, by u0
COUNTRIES = ["A", "A", "A", "B", None]
EVENTS = [
    [(0, c.VIEW, 1), (1, c.VIEW, 2), (2, c.VIEW, 3)],
    [(0, c.VIEW, 1), (1, c.VIEW, 2)],
    [(0, c.VIEW, 1)],
    [(5, c.VIEW, 1), (6, c.VIEW, 2), (5, c.CART, 3), (7, c.VIEW, 4)],
    [(n, c.VIEW, n) for n in range(10)],
]
#: Of a stranger: country, and items in the order of their times. One item is unheard of.
STRANGERS = {"x": ("B", ["i5", "i8", "i0", "i3", "unheard"]), "y": ("C", ["i1"]), "z": (None, ["i4", "i9", "i6"])}
HANDMADE = (schemas.VOCABULARY_USERS, schemas.VOCABULARY_ITEMS, schemas.GOLD_ITEMS, schemas.GOLD_SEQUENCES)
RULES = [{"name": "b", "items": "item_index = 7", "only_for": "country = 'B'"}]


@pytest.fixture(scope="module")
def settings(spark, tmp_path_factory):
    """Gold by hand; popularity, vectors and lists by their jobs."""
    settings = handmade.settings(
        tmp_path_factory.mktemp("newcomers"),
        popularity={"segments": ["country"], "segment_prior": 6},
        two_tower={"history": "recency", "width": 6, "max_history": 2},
        recommend={"k": K, "models": ["two_tower"], "rules": RULES, "newcomer_prior": PRIOR},
        evaluate={"ks": [2, K], "primary": f"ndcg@{K}", "bootstrap": 100, "sample_users": 0, "tradeoff_users": 0},
    )
    gold = Run(settings, "featurize")
    items = {n: {c.N_EVENTS: sum(i == n for e in EVENTS for i, _, _ in e), c.FEATURES: [n % 3]} for n in range(N_ITEMS)}
    items[SOLD_OUT] |= {c.STOCK: 0.0}
    handmade.gold(gold, EVENTS, N_ITEMS, items=items, only=HANDMADE)
    handmade.write(
        gold, schemas.GOLD_USERS,
        [{c.USER_INDEX: n, c.USER_ID: f"u{n}", c.COUNTRY: x, c.N_EVENTS: 1} for n, x in enumerate(COUNTRIES)],
    )  # fmt: skip
    asked = [(user, item, None, time, country) for user, (country, list_) in STRANGERS.items()
             for time, item in enumerate(list_)]  # fmt: skip
    asked += [("u0", f"i{CHOSEN}", 0, 9, "A"), ("u3", "i4", 3, 9, "B")]
    handmade.write(
        gold, schemas.GOLD_HOLDOUT,
        [{c.USER_ID: user, c.ITEM_ID: item, c.USER_INDEX: index, c.COUNTRY: country,
          c.EVENT_TYPE: c.PURCHASE, c.FIRST_TYPE: c.VIEW,  # bought later, which nobody knew when the next was asked for
          c.ITEM_INDEX: int(item[1:]) if item != "unheard" else None, c.EVENT_TIME: dt.datetime(2026, 1, 1, 0, time)}
         for user, item, index, time, country in asked],
    )  # fmt: skip
    gold.finish()
    _untrained(Run(settings, "train_two_tower"))
    for job in (train_popularity, embed_job, recommend):
        execute(job, Run(settings, job.__name__))
    return settings


def _untrained(run):
    sizes = Sizes(users=5, items=N_ITEMS, features=3)
    weights = untrained.weights(run.settings.two_tower, sizes)
    features = ItemFeatures(np.arange(1, N_ITEMS + 1), np.arange(N_ITEMS, dtype=np.int32) % 3)
    vectors = np.asarray(towers.item_rows(weights, features.of(np.arange(N_ITEMS))))
    exported.save(model_folder(run) / "model", run.settings.two_tower, sizes, weights, vectors, {})


def table(run, model):
    rows = run.lake.read(schemas.RECOMMENDATIONS).where(f"model = '{model}'").orderBy(c.USER_ID, c.RANK).collect()
    found = {}
    for row in rows:
        found.setdefault(row[c.USER_ID], []).append((int(row[c.ITEM_ID][1:]), row[c.SOURCE]))
    return {user: ([i for i, _ in list_], {source for _, source in list_}) for user, list_ in found.items()}


def popular(country=None, seen=()):
    """What is most popular, of what is not seen, by the formula."""
    counts = np.bincount([i for e in EVENTS for i, _, _ in e], minlength=N_ITEMS)
    own = np.bincount(
        [i for e, x in zip(EVENTS, COUNTRIES, strict=True) if x == country for i, _, _ in e], minlength=N_ITEMS
    )
    score = counts if country is None else (own + 6 * counts / counts.sum()) / (own.sum() + 6)
    barred = {SOLD_OUT, *seen} | ({7} if country != "B" else set())
    return sorted((i for i in range(N_ITEMS) if i not in barred), key=lambda i: (-score[i], i))[:K]


def by_tower(settings, history, seen):
    model = exported.load(model_folder(Run(settings, "x")) / "model")
    lengths, types = np.asarray([len(history)]), np.zeros(len(history), int)
    own = embed.user_vectors(model, np.asarray([-1]), lengths, np.asarray(history, np.int32), types)[0]
    known = Run(settings, "x").read(schemas.VECTORS_USERS, {c.MODEL: "two_tower"}).collect()
    mean, n = np.mean([row[c.VECTOR] for row in known], axis=0), len(history)
    vector = (n * own + PRIOR * mean) / (n + PRIOR)
    score = np.asarray(model.item_vectors) @ vector
    return sorted((i for i in range(N_ITEMS) if i not in {SOLD_OUT, 7, *seen}), key=lambda i: (-score[i], i))[:K]


@pytest.fixture(scope="module")
def evaluated(settings):
    run = Run(settings, "evaluate")
    execute(evaluate, run)
    rows = run.read(schemas.METRICS).where(f"{c.METRIC} IN ('recall', 'mrr')").collect()
    found = {"recall": {}, "mrr": {}}
    for r in rows:
        found[r[c.METRIC]][r[c.SEGMENT], r[c.MODEL], r[c.K]] = (r[c.VALUE], r[c.N_USERS])
    return run, found["recall"], found["mrr"]


def test_segments_have_lists_under_the_rules(settings):
    found = table(Run(settings, "x"), "two_tower")
    assert found["*"] == (popular(), {"popularity"})
    assert found["*country=A"] == (popular("A"), {"segment_popularity"})
    assert found["*country=B"] == (popular("B"), {"segment_popularity"})
    assert 7 in found["*country=B"][0], "the rule lets them have it"
    assert found["u0"][1] == {"two_tower"}
    record = [row for row in Run(settings, "x").records() if row[c.STAGE] == "recommend"][-1]
    assert record[c.COUNTS]["users"] == 5


def test_lists_of_a_few_events(settings, tmp_path):
    """n1 has met two items that are known; n2 none, and is of B; n3 none, and of nowhere; u0 is no newcomer."""
    (tmp_path / "events.csv").write_text(
        "user_id,item_id,event_type,event_time,country\n"
        "n1,i3,view,2026-01-02 10:00:00,A\nn1,i0,cart,2026-01-01 10:00:00,\nn2,unheard,view,2026-01-01 10:00:00,B\n"
        "n3,unheard,view,2026-01-01 10:00:00,\nu0,i3,view,2026-01-01 10:00:00,A\n"
    )
    approximate = settings.recommend.model_copy(update={"search": "faiss"})
    settings = settings.model_copy(update={"recommend": approximate})
    run = Run(settings, "newcomers", arguments={"events": str(tmp_path / "events.csv")})
    execute(newcomers, run)
    assert run.details["search"]["two_tower"]["plan"].endswith("whole, exact"), "no index is made for three"
    found = table(run, "newcomers")
    assert found["n1"][1] == {"two_tower"}
    assert len({0, 3} & set(found["n1"][0])) == 0
    assert found["n2"] == (popular("B", [7]), {"segment_popularity"}), "rules know nothing of strangers"
    assert found["n3"] == (popular(), {"popularity"})
    assert set(found) == {"n1", "n2", "n3"}
    assert (run.counts["users"], run.counts["already_known"]) == (3, 1)
    (tmp_path / "bad.csv").write_text("user_id,item_id,event_type,event_time\nn1,i3,look,2026-01-02 10:00:00\n")
    with pytest.raises(DataError, match=r"event_type=look.*A type is one of view, click"):
        newcomers(Run(settings, "newcomers", arguments={"events": str(tmp_path / "bad.csv")}))


def test_new_users_are_measured_as_brute_force_would(settings, evaluated):
    _, recall, _ = evaluated
    for n in new_users.GIVEN:
        expected = {"popularity": [], "segment_popularity": [], "two_tower": []}
        for country, list_ in STRANGERS.values():
            known, asked = list_[:n], list_[n:]
            if not asked:
                continue
            history = [int(item[1:]) for item in known]
            segment = country if country in ("A", "B") else None
            # Rules know nothing of a stranger: the item for B alone is not offered.
            in_segment = popular(segment, [*history, 7])
            lists = {
                "popularity": popular(None, history),
                "segment_popularity": in_segment,
                "two_tower": by_tower(settings, history, history) if history else in_segment,
            }
            for model, chosen in lists.items():
                expected[model].append(len({f"i{i}" for i in chosen} & set(asked)) / len(asked))
        for model, values in expected.items():
            if values:
                assert recall[f"new_users_{n}", model, K] == (pytest.approx(np.mean(values)), len(values)), (n, model)
    assert ("new_users_5", "popularity", K) not in recall


def test_new_items_are_ranked_among_themselves(settings, evaluated):
    """Where the item that u0 chose stands among the four, by each of the three."""
    run, _, mrr = evaluated
    assert run.details["new_items"] == len(NEW)
    counts = np.bincount([i for e in EVENTS for i, _, _ in e], minlength=N_ITEMS)
    kinds = [np.mean([counts[i] for i in range(N_ITEMS) if i % 3 == n % 3 and counts[i]]) for n in NEW]
    model = exported.load(model_folder(Run(settings, "x")) / "model")
    (own,) = Run(settings, "x").read(schemas.VECTORS_USERS, {c.MODEL: "two_tower", c.USER_ID: "u0"}).collect()
    taste = [float(model.item_vectors[n] @ np.array(own[c.VECTOR])) for n in NEW]
    hashed = f"xxhash64({settings.evaluate.seed}, 'chance', 'u0')"
    lots = np.array([run.spark.sql(f"SELECT {hashed}").head()[0]]).view(np.uint64)
    orders = {
        "chance": new_items.by_lot(lots, len(NEW), K)[0].tolist(),
        "kind_popularity": sorted(range(len(NEW)), key=lambda n: (-kinds[n], n)),
        "two_tower": sorted(range(len(NEW)), key=lambda n: (-taste[n], n)),
    }
    places = {name: order.index(NEW.index(CHOSEN)) + 1 for name, order in orders.items()}
    assert {name: mrr["new_items", name, K] for name in places} == {
        name: (pytest.approx(1 / place), 1) for name, place in places.items()
    }
    assert len(set(places.values())) == 3, "none can be taken for another"
    gains = {(row[c.SEGMENT], row[c.MODEL]) for row in run.details["newcomers"]}
    assert ("new_users_3", "two_tower") in gains
    assert ("new_items", "two_tower") in gains
    kinds = run.spark.createDataFrame(
        [(0, 4, [1, 2]), (1, 2, [1]), (2, 0, [1, 2]), (3, 0, None), (4, 0, [9])],
        f"{c.ITEM_INDEX} int, {c.N_EVENTS} int, {c.FEATURES} array<int>",
    )
    scores = {row[0]: row[1][0] for row in new_items.of_kinds(kinds).collect()}
    assert scores == {0: 3.5, 1: 3.0, 2: 3.5, 3: 0.0, 4: 0.0}, "feature 1: (4 + 2) / 2, feature 2: 4"


def test_a_model_trained_again_since_embed_is_not_measured(settings, monkeypatch):
    run = Run(settings, "evaluate")
    again = replace(exported.load(model_folder(run) / "model"), hash="another")
    monkeypatch.setattr(exported, "load", lambda folder: again)
    with pytest.raises(DataError, match="was trained again since embed"):
        new_users.measured(run, Shop(run, few=True), run.read(schemas.GOLD_HOLDOUT))


def test_a_model_of_id_rows_alone_is_refused(settings):
    from sparkrec.retrieval.newcomers import require_history

    with pytest.raises(ConfigError, match="can say nothing of users"):
        require_history(settings.two_tower.model_copy(update={"history": "none"}))
