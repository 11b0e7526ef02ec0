"""The similarity join as a job: equal to brute force, in any partitions, twice; the fallback; who is short."""

from __future__ import annotations

import handmade
import numpy as np
import pytest

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import Settings
from sparkrec.errors import DataError
from sparkrec.jobs.recommend import recommend
from sparkrec.jobs.train_popularity import train_popularity
from sparkrec.pipeline import Run, execute
from sparkrec.retrieval import catalogue, join, recall

pytestmark = pytest.mark.spark

N_USERS, N_ITEMS, K, WIDTH = 40, 30, 5, 6
UNKNOWN_USERS, UNKNOWN_ITEMS = {7, 39}, {3}  # ALS has no vector for them
POSTAGE, SOLD_OUT = 11, 12
SAW_ALL, SAW_ALL_BUT_TWO = 20, 21


def world():
    """Users' events and the vectors of a model, drawn once."""
    random = np.random.default_rng(5)
    events = [
        [(int(i), kind, t) for t, i in enumerate(random.choice(N_ITEMS, 8)) for kind in (c.VIEW,)] + [(0, c.SEARCH, 9)]
        for _ in range(N_USERS)
    ]
    events[SAW_ALL] = [(i, c.PURCHASE, i) for i in range(N_ITEMS)]
    events[SAW_ALL_BUT_TWO] = [(i, c.VIEW, i) for i in range(N_ITEMS) if i not in (1, 2)]
    users = random.integers(-3, 4, (N_USERS, WIDTH)).astype(np.float32)  # whole numbers: many ties
    items = random.integers(-3, 4, (N_ITEMS, WIDTH)).astype(np.float32)
    return events, users, items


@pytest.fixture(scope="module")
def done(spark, tmp_path_factory):
    """Gold by hand, popularity by its job, another model's vectors by hand, and the job under test, twice."""
    settings = Settings.model_validate(
        {
            "name": "test",
            "lake": {"path": str(tmp_path_factory.mktemp("join") / "lake")},
            "source": {"name": "simulator", "path": "logs"},
            "recommend": {"k": K, "models": ["popularity", "als"], "block_users": 7},
            "evaluate": {"ks": [K], "primary": f"ndcg@{K}"},
            "tracking": {"enabled": False},
        }
    )
    events, users, items = world()
    gold = Run(settings, "featurize")
    handmade.gold(
        gold, events, N_ITEMS, chunk=4,
        items={POSTAGE: {c.FOR_SALE: False}, SOLD_OUT: {c.STOCK: 0.0}, 13: {c.STOCK: 2.0}},
        only=(schemas.GOLD_SEQUENCES, schemas.VOCABULARY_USERS, schemas.VOCABULARY_ITEMS, schemas.GOLD_ITEMS),
    )  # fmt: skip
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


def table(run):
    rows = run.lake.read(schemas.RECOMMENDATIONS, run.outputs["recommendations"]).collect()
    return sorted(tuple(row.asDict().values()) for row in rows)


def lists(run, model):
    """Item indices of each user's list, with its source."""
    found = {}
    for _, name, user, _rank, item, _score, source, _reason in table(run):
        if name == model:
            found.setdefault(user, ([], source))[0].append(int(item[1:]))
    return found


def best(scores, seen, allowed):
    return sorted((i for i in allowed if i not in seen), key=lambda i: (-scores[i], i))[:K]


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
    for _, model, user, rank, _item, score, _source, _reason in table(done[0]):
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


def test_twice_is_the_same_to_the_bit(done):
    first, second = done
    assert first.outputs != second.outputs
    assert table(first) == table(second)


@pytest.fixture(scope="module")
def toy(spark):
    """200 users who have seen two items each, beside 300 items: published whole, in three parts, and in cells."""
    random = np.random.default_rng(6)
    vectors = [(n, random.normal(size=16).astype(np.float32).tolist()) for n in range(300)]
    named = f"{c.ITEM_INDEX} int, {c.VECTOR} array<float>"
    shelf = spark.createDataFrame(
        [(n, f"i{n}", True) for n in range(300)], f"{c.ITEM_INDEX} int, {c.ITEM_ID} string, {catalogue.ALLOWED} boolean"
    )
    users = spark.createDataFrame(
        [(n, f"u{n}", [n, n + 1]) for n in range(200)],
        f"{c.USER_INDEX} int, {c.USER_ID} string, {join.SEEN} array<int>",
    )
    tastes = spark.createDataFrame(vectors[:200][::-1], f"{c.USER_INDEX} int, {c.VECTOR} array<float>")
    items = [
        catalogue.publish(shelf, spark.createDataFrame(vectors, named), "toy", *how) for how in ((), (0.015,), (1, 1))
    ]
    return join.with_vectors(users, tastes).persist(), items


def rows(frame):
    return sorted(map(tuple, frame.collect()))


def test_any_partitions_blocks_and_parts_give_the_same_to_the_bit(toy):
    frame, (whole, parts, _) = toy
    assert [whole.plan.parts, parts.plan.parts] == [1, 3]
    results = [
        rows(join.similarity_join(frame.repartition(number), items, items, 10, block))
        for items, number, block in ((whole, 2, 4096), (whole, 50, 3), (parts, 2, 70))
    ]
    assert len(results[0]) == 2000
    assert results[0] == results[1] == results[2]


def test_an_approximate_search_is_measured_and_refused_when_it_finds_too_little(toy):
    frame, (whole, _, cells) = toy
    assert (cells.plan.cells, cells.plan.probes) == (4, 1)
    found = rows(join.similarity_join(frame, cells, cells, 10, 4096))
    wanted = set(rows(join.similarity_join(frame, whole, whole, 10, 4096)))
    places = {(row[0], row[2]) for row in wanted}
    share = sum((row[0], row[2]) in places for row in found) / len(wanted)
    assert 0.2 < share < 0.9
    assert recall.measured(frame, cells, 10, minimum=0.2) == pytest.approx(share)
    with pytest.raises(DataError, match=r"'toy' finds 0\.\d+ of the exact lists.*Raise recommend.probes.*1 of 4 cells"):
        recall.measured(frame, cells, 10, minimum=0.99)


def test_a_model_without_vectors_is_refused_by_name(done):
    run = Run(done[0].settings.model_copy(update={"recommend": done[0].settings.recommend.model_copy(
        update={"models": ("two_tower",)})}), "recommend")  # fmt: skip
    with pytest.raises(DataError, match=r"'two_tower' has no item vectors.*Run the stage that trains it"):
        recommend(run)


def test_vectors_of_two_widths_are_refused(spark):
    shelf = spark.createDataFrame(
        [(0, "i0", True), (1, "i1", True)], f"{c.ITEM_INDEX} int, {c.ITEM_ID} string, {catalogue.ALLOWED} boolean"
    )
    vectors = spark.createDataFrame([(0, [1.0]), (1, [1.0, 2.0])], f"{c.ITEM_INDEX} int, {c.VECTOR} array<float>")
    with pytest.raises(DataError, match="different widths"):
        catalogue.publish(shelf, vectors, "toy")


def test_a_gap_in_the_item_indices_is_refused(spark):
    shelf = spark.createDataFrame(
        [(0, "i0", True), (2, "i2", True)], f"{c.ITEM_INDEX} int, {c.ITEM_ID} string, {catalogue.ALLOWED} boolean"
    )
    vectors = spark.createDataFrame([(0, [1.0])], f"{c.ITEM_INDEX} int, {c.VECTOR} array<float>")
    with pytest.raises(DataError, match=r"every item index from 0 to 1"):
        catalogue.publish(shelf, vectors, "toy")
