"""The similarity join as a job: equal to brute force, in any partitions, twice; the fallback; who is short."""

from __future__ import annotations

import handmade
import numpy as np
import pytest
from joined import (
    AS_OF,
    GOLD,
    ITEMS,
    N_ITEMS,
    N_USERS,
    POSTAGE,
    SAW_ALL,
    SAW_ALL_BUT_TWO,
    SOLD_OUT,
    UNKNOWN_ITEMS,
    UNKNOWN_USERS,
    K,
    best,
    lists,
    table,
    tastes,
    world,
)  # fmt: skip
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import Settings
from sparkrec.errors import ConfigError, DataError
from sparkrec.jobs.audience import audience
from sparkrec.jobs.evaluate import evaluate
from sparkrec.jobs.recommend import recommend
from sparkrec.jobs.similar import similar
from sparkrec.jobs.train_popularity import train_popularity
from sparkrec.pipeline import Run, execute
from sparkrec.privacy import keys, protect, pseudonyms
from sparkrec.retrieval import changes, products, rules

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def done(spark, tmp_path_factory):
    """Gold by hand, popularity by its job, another model's vectors by hand, and the job under test, twice."""
    settings = handmade.settings(
        tmp_path_factory.mktemp("join"),
        recommend={"k": K, "models": ["popularity", "als"], "block_users": 7},
        evaluate={"ks": [K], "primary": f"ndcg@{K}"},
    )
    events, users, items = world()
    gold = Run(settings, "featurize")
    handmade.gold(
        gold, events, N_ITEMS, chunk=4,
        items={n: {c.AS_OF: AS_OF, c.BRAND_CODE: n % 4} | ITEMS.get(n, {}) for n in range(N_ITEMS)},
        only=(*GOLD, schemas.GOLD_USERS, schemas.GOLD_HOLDOUT), profiles=tastes(),
        holdout=[(f"u{n}", f"i{(7 * n) % N_ITEMS}") for n in range(30, 39)],
    )  # fmt: skip
    gold.detail(split={"kind": "leave_one_out"})
    gold.finish()
    execute(train_popularity, Run(settings, "train_popularity"))
    als = Run(settings, "train_als")
    handmade.vectors(
        als, "als",
        {n: users[n].tolist() for n in range(N_USERS) if n not in UNKNOWN_USERS},
        {n: items[n].tolist() for n in range(N_ITEMS) if n not in UNKNOWN_ITEMS},
    )  # fmt: skip
    als.finish()
    runs = [Run(settings, "recommend") for _ in range(2)]
    for run in runs:
        execute(recommend, run)
    return runs


def test_equals_brute_force_with_the_fallback(done):
    events, users, items = world()
    met = [{i for i, kind, _ in user if kind != c.SEARCH} for user in events]
    counts = np.bincount([i for user in events for i, _, _ in user], minlength=N_ITEMS)
    offered = [i for i in range(N_ITEMS) if i not in (POSTAGE, SOLD_OUT)]
    expected = {"popularity": {}, "als": {}}
    for user in range(N_USERS):
        popular = best(counts, met[user], offered)
        known = [i for i in offered if i not in UNKNOWN_ITEMS]
        taste = best(items @ users[user], met[user], known)
        expected["popularity"][f"u{user}"] = (popular, "popularity")
        expected["als"][f"u{user}"] = (popular, "popularity") if user in UNKNOWN_USERS else (taste, "als")
    for model, by_user in expected.items():
        del by_user[f"u{SAW_ALL}"]  # nothing is left for them
        by_user["*"] = (best(counts, set(), offered), "popularity")
        assert lists(done[0], model) == by_user
    assert len(expected["als"][f"u{SAW_ALL_BUT_TWO}"][0]) == 2


def test_every_row_says_where_it_comes_from(done):
    reasons = {(row[1], row[6], row[7]) for row in table(done[0])}
    assert reasons == {
        ("popularity", "popularity", "popular with everyone"),
        ("als", "popularity", "popular with everyone"),
        ("als", "als", "people with your taste chose it"),
    }


def test_ranks_count_from_one_and_scores_fall(done):
    by_list = {}
    for _, model, user, rank, _item, score, *_ in table(done[0]):
        by_list.setdefault((model, user), []).append((rank, score))
    for places in by_list.values():
        assert [rank for rank, _ in places] == list(range(1, len(places) + 1))
        assert sorted((score for _, score in places), reverse=True) == [score for _, score in places]


def test_what_is_missing_is_counted(done):
    # Both models: nobody's list but user 20's is empty, and only user 21's is short.
    assert done[0].counts == {
        "users": 40, "lists": 78, "rows": len(table(done[0])), "fallback_users": 2, "short_lists": 4,
    }  # fmt: skip
    assert done[0].details["lists"]["als"]["short_lists"] == 2
    assert done[0].details["lists"]["als"]["short_because"] == {"most_seen": 2}


def test_rules_lists_and_caps_equal_brute_force(done, tmp_path):
    """Everything at once: rules for some, a consumable, lists for all and for one user, a cap with a pool of one."""
    seconds = 1 / 86400
    (tmp_path / "recalled.csv").write_text("item_id\ni5\nnobody knows it\n")
    (tmp_path / "returned.csv").write_text("user_id,item_id\nu1,i1\nu1,i2\nu9,i6\n")
    (tmp_path / "club.csv").write_text("user_id,item_id\nu2,i4\nu2,i8\nu2,i9\nu2,i5\n")
    wanted = {
        "pool": K, "caps": {"brand": 2},
        "rules": [
            {"name": "adults", "items": "item_index < 8", "only_for": "n_events > 9 AND user_index % 2 = 0"},
            {"name": "region", "items": "brand_code = 3", "hide_from": "user_index % 3 = 0"},
            {"name": "food", "items": "item_index % 2 = 0", "again_after_days": 5 * seconds},
            {"name": "gone", "items": "name = 'Item 14'"},
        ],
        "lists": [
            {"name": "recalled", "kind": "deny", "path": str(tmp_path / "recalled.csv")},
            {"name": "returned", "kind": "deny", "path": str(tmp_path / "returned.csv")},
            {"name": "club", "kind": "allow", "path": str(tmp_path / "club.csv")},
        ],
    }  # fmt: skip
    settings = done[0].settings.model_dump()
    run = Run(Settings.model_validate(settings | {"recommend": settings["recommend"] | wanted}), "recommend")
    execute(recommend, run)
    events, users, items = world()
    denied, club = {"u1": {1, 2}, "u9": {6}}, {"u2": {4, 5, 8, 9}}
    expected = {}
    for user in [*range(N_USERS), None]:
        name = c.ANYONE if user is None else f"u{user}"
        met = {i for i, kind, t in ([] if user is None else events[user])
               if kind != c.SEARCH and (i % 2 or 10 - t <= 5)}  # fmt: skip
        grown_up = user is not None and len(events[user]) > 9 and user % 2 == 0
        known = user is not None and user not in UNKNOWN_USERS
        offered = [
            i for i in range(N_ITEMS)
            if i not in (POSTAGE, SOLD_OUT, 5, 14) and i not in met and i not in denied.get(name, ())
            and (i >= 8 or grown_up) and not (i % 4 == 3 and user is not None and user % 3 == 0)
            and (name not in club or i in club[name]) and not (known and i in UNKNOWN_ITEMS)
        ]  # fmt: skip
        scores = items @ users[user] if known else np.bincount([i for e in events for i, _, _ in e], minlength=N_ITEMS)
        chosen = []
        for i in sorted(offered, key=lambda i: (-scores[i], i)):
            if sum(j % 4 == i % 4 for j in chosen) < 2 and len(chosen) < K:
                chosen.append(i)
        if chosen:
            expected[name] = (chosen, "als" if known else "popularity")
    assert lists(run, "als") == expected
    assert len(expected) > N_USERS - 3


def test_calibrated_lists_equal_brute_force(done):
    """In each place the item that makes the whole objective largest, its divergence computed anew."""
    settings = done[0].settings.model_dump()
    calibrated = {"diversity": {"method": "calibrated", "kind": "brand", "weight": 0.7}}
    run = Run(Settings.model_validate(settings | {"recommend": settings["recommend"] | calibrated}), "recommend")
    execute(recommend, run)
    events, users, items = world()
    expected, known = {}, [i for i in range(N_ITEMS) if i not in (POSTAGE, SOLD_OUT, *UNKNOWN_ITEMS)]
    for user in set(range(N_USERS)) - UNKNOWN_USERS - {SAW_ALL}:
        able = [i for i in known if i not in {i for i, kind, _ in events[user] if kind != c.SEARCH}]
        scores = items @ users[user]
        low, high = min(scores[able]), max(scores[able])
        relevance = (scores - low) / (high - low)
        taste = tastes()[user]
        p = dict(zip(taste.get(c.BRANDS, ()), np.float32(taste.get(c.BRAND_SHARES, ())), strict=True))

        def objective(chosen, p=p, relevance=relevance):
            q = {kind: sum(i % 4 == kind for i in chosen) / len(chosen) for kind in p}
            divergence = sum(float(x) * np.log(x / (0.99 * q[kind] + 0.01 * x)) for kind, x in p.items())
            return 0.3 * sum(relevance[i] for i in chosen) - 0.7 * divergence

        chosen = []
        while len(chosen) < min(K, len(able)):
            left = sorted(set(able) - set(chosen), key=lambda i: (-scores[i], i))
            values = [round(objective([*chosen, i]), 9) for i in left]
            chosen.append(left[int(np.argmax(values))])
        expected[f"u{user}"] = (chosen, "als")
    found = lists(run, "als")
    assert {user: found[user] for user in expected} == expected
    plain = lists(done[0], "als")
    assert sum(found[user] != plain[user] for user in expected) > 20
    assert found["u5"] == plain["u5"]


def test_the_price_of_calibrated_lists_is_measured_by_their_distance_from_the_tastes(done):
    settings = done[0].settings.model_dump()
    changed = {
        "recommend": settings["recommend"] | {"diversity": {"method": "calibrated", "kind": "brand"}},
        "evaluate": settings["evaluate"] | {"bootstrap": 100, "sample_users": 0, "tradeoff_users": 100, "newcomers": 0},
    }
    run = Run(Settings.model_validate(settings | changed), "evaluate")
    execute(evaluate, run)
    traded = run.details["tradeoff"]
    assert (traded["model"], traded["method"], traded["kind"], traded["users"]) == ("als", "calibrated", "brand", 9)
    off = [point["miscalibration"] for point in traded["points"]]
    apart = []
    for user in range(30, 39):  # by score alone, from the lists of the job
        chosen = lists(done[0], "als")[f"u{user}"][0]
        taste = tastes()[user]
        p = dict(zip(taste[c.BRANDS], taste[c.BRAND_SHARES], strict=True))
        q = {kind: sum(i % 4 == kind for i in chosen) / len(chosen) for kind in range(4)}
        middle = {kind: (p.get(kind, 0) + q[kind]) / 2 for kind in range(4)}
        both = [(x, middle[kind]) for shares in (p, q) for kind, x in shares.items() if x]
        apart.append(sum(x * np.log(x / m) for x, m in both) / 2)
    assert off[0] == pytest.approx(np.mean(apart), abs=1e-6)
    assert off[-1] < off[0] / 2


def test_similar_items_equal_brute_force(done, spark):
    settings = done[0].settings.model_dump()
    similar_settings = {"k": 4, "models": ["als"], "similarity": "euclidean"}
    run = Run(Settings.model_validate(settings | {"similar": similar_settings}), "similar")
    execute(similar, run)
    rows = run.lake.read(schemas.SIMILAR_ITEMS, run.outputs["similar_items"]).collect()
    _, _, items = world()
    known = [i for i in range(N_ITEMS) if i not in UNKNOWN_ITEMS]
    found = {(row[c.ITEM_ID], row[c.RANK]): (row[c.NEIGHBOR_ID], row[c.SCORE]) for row in rows}
    expected = {}
    for i in known:  # an item that is not offered has neighbours, and is nobody's
        apart = {j: float(((items[i] - items[j]) ** 2).sum()) for j in known if j not in (i, POSTAGE, SOLD_OUT)}
        for rank, j in enumerate(sorted(apart, key=lambda j: (apart[j], j))[:4], 1):
            expected[f"i{i}", rank] = (f"i{j}", pytest.approx(-np.sqrt(apart[j])))
    assert found == expected

    vectors = run.read(schemas.VECTORS_ITEMS, {c.MODEL: "als"})
    lengths = products.prepared(vectors, "cosine").select(c.VECTOR).collect()
    np.testing.assert_allclose([np.linalg.norm(row[0]) for row in lengths], 1, rtol=1e-6)


def test_lists_by_tastes_and_items_alike_by_them_equal_brute_force(done):
    """−KL of the user's brands from an item's, and Jensen-Shannon of items; of the four brands one is the rest."""
    settings, brands = done[0].settings.model_dump(), np.arange(N_ITEMS) % 4
    changed = {
        "recommend": settings["recommend"] | {"models": ["popularity", "tastes"], "search": "faiss"},
        "tastes": {"by": "brand", "width": 3, "prior": 5, "own": 0.3}, "similar": {"k": 4, "models": ["tastes"]},
    }  # fmt: skip
    runs = {}
    for job in (train_popularity, recommend, similar):
        runs[job] = Run(Settings.model_validate(settings | changed), job.__name__)
        execute(job, runs[job])
    events = world()[0]
    times = np.array([np.bincount([i for i, _, _ in user], minlength=N_ITEMS) for user in events])
    by_brand = np.array([times[:, brands == brand].sum(axis=1) for brand in range(4)])
    order = sorted(range(4), key=lambda brand: (-by_brand[brand].sum(), brand))
    counts = by_brand[order].T
    p, shop = counts / counts.sum(axis=1, keepdims=True), (counts.sum(axis=0) + 1) / (counts.sum() + 4)
    liked = (times.T @ p + 5 * shop) / (times.sum(axis=0)[:, None] + 5)
    q = 0.7 * liked + 0.3 * (brands[:, None] == order)
    assert runs[train_popularity].counts["taste_kinds"] == 4
    assert runs[recommend].details["search"]["tastes"]["plan"].endswith("whole, exact"), "whatever recommend.search is"

    offered = [i for i in range(N_ITEMS) if i not in (POSTAGE, SOLD_OUT)]
    found = lists(runs[recommend], "tastes")
    for user in set(range(N_USERS)) - {SAW_ALL}:
        met = {i for i, kind, _ in events[user] if kind != c.SEARCH}
        with np.errstate(divide="ignore", invalid="ignore"):
            apart = np.where(p[user] > 0, p[user] * np.log(p[user] / q), 0).sum(axis=1)
        assert found[f"u{user}"] == (best(-apart.round(6), met, offered), "tastes")
    assert {row[7] for row in table(runs[recommend]) if row[6] == "tastes"} == {"of the kinds that you like"}

    rows = runs[similar].lake.read(schemas.SIMILAR_ITEMS, runs[similar].outputs["similar_items"])
    alike = {(r[c.ITEM_ID], r[c.RANK]): r for r in rows.where(rows[c.MODEL] == "tastes").collect()}
    assert len(alike) == 4 * N_ITEMS
    for item in range(N_ITEMS):
        middle = (q + q[item]) / 2
        apart = ((q * np.log(q / middle)).sum(axis=1) + (q[item] * np.log(q[item] / middle)).sum(axis=1)) / 2
        expected = sorted((i for i in offered if i != item), key=lambda i, apart=apart: (apart[i], i))[:4]
        chosen = [alike[f"i{item}", rank] for rank in range(1, 5)]
        assert [int(row[c.NEIGHBOR_ID][1:]) for row in chosen] == expected
        assert [row[c.SCORE] for row in chosen] == pytest.approx(1 - apart[expected] / np.log(2), abs=1e-6)


def test_audience_equals_brute_force(done, monkeypatch):
    settings = done[0].settings.model_dump()
    rule = {"name": "region", "items": "item_index = 6", "hide_from": "user_index % 3 = 0"}
    recommending = settings["recommend"] | {"rules": [rule]}
    arguments = {"items": "i6,i1", "campaign": "spring", "top": 7, "model": None}
    run = Run(Settings.model_validate(settings | {"recommend": recommending}), "audience", arguments=arguments)
    sent, broadcast = [], F.broadcast
    with monkeypatch.context() as patched:
        patched.setattr(F, "broadcast", lambda frame: sent.append(frame.count()) or broadcast(frame))
        execute(audience, run)
    assert set(sent) == {2}, "no more than the campaign's items go to the driver"
    rows = run.lake.read(schemas.AUDIENCES, run.outputs["audiences"]).collect()
    events, users, items = world()
    expected = []
    for item in (1, 6):
        able = [
            u for u in range(N_USERS)
            if u not in UNKNOWN_USERS and not (item == 6 and u % 3 == 0)
            and item not in {i for i, kind, _ in events[u] if kind != c.SEARCH}
        ]  # fmt: skip
        score = {u: float(users[u] @ items[item]) for u in able}
        best = sorted(able, key=lambda u: (-score[u], u))[:7]
        expected += [(f"i{item}", rank, f"u{u}", score[u]) for rank, u in enumerate(best, 1)]
    assert sorted((r[c.ITEM_ID], r[c.RANK], r[c.USER_ID], r[c.SCORE]) for r in rows) == expected
    assert {(r[c.CAMPAIGN], r[c.MODEL]) for r in rows} == {("spring", "als")}

    for wanted, model, error, message in (
        ("i6,i99", None, DataError, "'i99' is not in gold.items"),
        (f"i{POSTAGE}", None, DataError, "may not be recommended"),
        ("i3", None, DataError, "no vector of the item 'i3'"),
        (" ,", None, ConfigError, "No item is named"),
        ("i6", "popularity", ConfigError, "the same for every user"),
    ):
        with pytest.raises(error, match=message):
            audience(Run(run.settings, "audience", arguments=arguments | {"items": wanted, "model": model}))


def test_the_run_before_is_another_run_that_came_first(done):
    assert changes.previous(Run(done[0].settings, "recommend")) is None, "a run is not compared with itself"
    later = Run(done[0].settings, "recommend", run_id="tomorrow")
    assert changes.previous(later) == done[0].run_id


def test_a_condition_that_is_none_is_refused_by_name(done):
    settings = done[0].settings.model_dump()
    for items, message in (("prise > 3", "UNRESOLVED_COLUMN.*price"), ("price", "of type double"), ("a >", "rule 'x'")):
        rule = {"rules": [{"name": "x", "items": items}]}
        run = Run(Settings.model_validate(settings | {"recommend": settings["recommend"] | rule}), "recommend")
        with pytest.raises(ConfigError, match=message):
            recommend(run)


def test_a_list_that_is_none_is_refused_by_name(done, tmp_path):
    settings = done[0].settings.model_dump()
    (tmp_path / "a.csv").write_text("sku\n1\n")
    (tmp_path / "b.csv").write_text("item_id,user_id\ni1,\n")
    for path, error, message in (
        ("none.csv", ConfigError, "'x'.*cannot be read"),
        ("a.csv", DataError, "columns sku, and needs item_id"),
        ("b.csv", DataError, "row without user_id: item_id=i1"),
    ):
        named = {"lists": [{"name": "x", "kind": "deny", "path": str(tmp_path / path)}]}
        run = Run(Settings.model_validate(settings | {"recommend": settings["recommend"] | named}), "recommend")
        with pytest.raises(error, match=message):
            recommend(run)


def test_lists_name_users_as_the_log_does_and_say_whom_nobody_knows(done, tmp_path, monkeypatch):
    """In a lake of pseudonyms, where u1 is another word; blanks around an id are no part of it."""
    monkeypatch.setenv(done[0].settings.privacy.key_env, "ab" * 32)
    key = keys.load(done[0].settings, create=False)
    (tmp_path / "club.csv").write_text("user_id,item_id\n u1 ,i4\nu1,i8\nNobody,unheard\n*,i5\n")
    given = {"name": "club", "kind": "allow", "path": str(tmp_path / "club.csv")}
    settings = done[0].settings.model_dump()
    settings = Settings.model_validate(settings | {"recommend": settings["recommend"] | {"lists": [given]}})
    plain = Run(settings, "recommend")
    rules.users(plain, rules.read_lists(plain))
    assert plain.details["named"]["club"] == {"items": 4, "unknown_items": 1, "users": 2, "unknown_users": 1}

    monkeypatch.setattr(protect, "held_key", lambda run: key.id)
    run = Run(settings, "recommend")
    lists = rules.read_lists(run)
    named = {(row[c.USER_ID], row[c.ITEM_ID]) for row in lists["club"].collect()}
    one, other = (pseudonyms.pseudonym(key, c.USER_ID, user) for user in ("u1", "Nobody"))
    assert named == {(one, "i4"), (one, "i8"), (other, "unheard"), (c.ANYONE, "i5")}
    with pytest.raises(DataError, match=r"'club' .* names 2 users, and gold\.vocabulary_users has none of them"):
        rules.users(run, lists)  # this lake's users are none
    (tmp_path / "club.csv").write_text("user_id,item_id\nu1,I4\n")
    with pytest.raises(DataError, match=r"'club' .* names 1 items, and gold\.items has none of them"):
        rules.read_lists(run)


def test_twice_is_the_same_to_the_bit(done):
    first, second = done
    assert first.outputs != second.outputs
    assert table(first) == table(second)


def test_a_model_without_vectors_is_refused_by_name(done):
    run = Run(done[0].settings.model_copy(update={"recommend": done[0].settings.recommend.model_copy(
        update={"models": ("two_tower",)})}), "recommend")  # fmt: skip
    with pytest.raises(DataError, match=r"'two_tower' has no item vectors.*Run the stage that trains it"):
        recommend(run)
