"""Hits and sums in Spark against a plain loop over users; in any partitions the same to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.evaluation import bootstrap, exposure, metrics, outcomes
from sparkrec.evaluation.comparison import Comparison

pytestmark = pytest.mark.spark

MODELS, KS = ("popularity", "als"), (2, 4)
# User: index (None: new), training events, held-out items. Item "new" was not known before the split.
USERS = {"a": (0, 4, {"i1", "i2", "new"}), "b": (1, 60, {"i3"}), "c": (None, 0, {"i1"}), "d": (2, 7, {"i9"})}
LISTS = {
    ("popularity", "*"): ["i0", "i1", "i2", "i3"],
    ("popularity", "a"): ["i2", "i0", "i1", "i3"],
    ("popularity", "b"): ["i0", "i1"],  # a short list
    ("popularity", "other"): ["i1", "i2", "i3", "i4"],  # not a test user
    ("als", "*"): ["i0", "i1", "i2", "i3"],
    ("als", "a"): ["i7", "i1", "i2", "i5"],
    ("als", "b"): ["i3", "i2", "i1", "i0"],
}  # and nothing at all for d: everything was seen


@pytest.fixture(scope="module")
def frames(spark):
    pairs = [
        (user, item, index, None if item == "new" else 1, c.VIEW, None, None, None, c.VIEW)
        for user, (index, _, items) in USERS.items()
        for item in items
    ]
    holdout = spark.createDataFrame(pairs, schemas.GOLD_HOLDOUT.struct())
    events = [(index, n) for index, n, _ in USERS.values() if index is not None]
    users = spark.createDataFrame(events, f"{c.USER_INDEX} int, {c.N_EVENTS} bigint")
    rows = [
        (model, user, rank, item) for (model, user), items in LISTS.items() for rank, item in enumerate(items, start=1)
    ]
    lists = spark.createDataFrame(rows, f"{c.MODEL} string, {c.USER_ID} string, {c.RANK} int, {c.ITEM_ID} string")
    return holdout, users, lists


def served(model, user):
    index = USERS[user][0]
    return LISTS.get((model, "*" if index is None else user), [])


@pytest.fixture(scope="module")
def sums(frames):
    holdout, users, lists = frames
    tested = outcomes.test_users(holdout, users, seed=7)
    found = outcomes.hits(holdout, lists, MODELS, max(KS))
    return [outcomes.totals(tested.repartition(parts), found, len(MODELS), KS, resamples=40) for parts in (1, 5)]


def test_means_are_those_of_a_plain_loop_over_all_test_users(sums):
    expected = {}
    for model in MODELS:
        tables = []
        for user, (_, _, wanted) in USERS.items():
            places = np.array([[item in wanted for item in served(model, user)] + [False] * 4])[:, :4]
            tables.append(metrics.table(places, np.array([len(wanted)]), KS)[0])
        for (metric, k), value in zip(metrics.names(KS), np.mean(tables, axis=0), strict=True):
            expected[model, metric, k] = value
    measured = [m for m in Comparison(sums[0], MODELS, KS).measures() if m.segment == "all"]
    assert {(m.model, m.metric, m.k): m.value for m in measured} == pytest.approx(expected, abs=1e-8)
    assert {m.n_users for m in measured} == {4}


def test_worked_by_hand(sums):
    found = {(m.model, m.metric, m.k, m.segment): m.value for m in Comparison(sums[0], MODELS, KS).measures()}
    # Recall@2, popularity: a has i2 of three relevant, b nothing, c (the list of anyone) its one, d nothing.
    assert found["popularity", "recall", 2, "all"] == pytest.approx((1 / 3 + 0 + 1 + 0) / 4, abs=1e-8)
    assert found["als", "recall", 4, "all"] == pytest.approx((2 / 3 + 1 + 1 + 0) / 4, abs=1e-8)
    assert found["als", "mrr", 4, "light"] == pytest.approx(1 / 2)
    assert found["als", "ndcg", 4, "heavy"] == 1
    assert found["als", "hit_rate", 4, "regular"] == 0
    assert found["popularity", "recall", 2, "new"] == 1


def test_each_user_is_in_one_segment(sums):
    assert sums[0].sums[:, 0, 0].tolist() == [1, 1, 1, 1]


def test_partitions_do_not_matter_to_the_bit(sums):
    for one, other in zip(*sums, strict=True):
        np.testing.assert_array_equal(one, other)


def test_resamples_are_those_of_the_users_own_weights(sums, frames):
    holdout, users, _ = frames
    keys = outcomes.test_users(holdout, users, seed=7).orderBy(c.USER_ID).select(outcomes.KEY).toArrow()[0]
    drawn = bootstrap.weights(keys.to_numpy().view(np.uint64), 40)
    np.testing.assert_array_equal(sums[0].sums.sum(axis=0)[1:, 0], drawn.sum(axis=0))


def test_differences_are_paired_and_signed(sums):
    found = {(d.model, d.other): d for d in Comparison(sums[0], MODELS, KS).differences("recall", 4)}
    one, back = found["als", "popularity"], found["popularity", "als"]
    assert one.value == pytest.approx((2 / 3 + 1 + 1) / 4 - (2 / 3 + 0 + 1) / 4, abs=1e-8)
    assert back.value == pytest.approx(-one.value)
    # b alone has another recall by the two: one of four users, of whom any resample would be sure.
    assert [(d.apart, d.verdict, d.low, d.high) for d in (one, back)] == [(1, "too few to tell", None, None)] * 2
    # At 4 a has a hit in another place: NDCG tells two users apart.
    assert {d.apart for d in Comparison(sums[0], MODELS, KS).differences("ndcg", 4)} == {2}
    assert {d.apart for d in Comparison(sums[0], MODELS, KS).differences("ndcg", 4, "heavy")} == {1}


def test_intervals_of_two_differences_mirror_each_other():
    random, keys = np.random.default_rng(1), np.arange(300, dtype=np.uint64)
    values = random.random((300, 2 * 6)) * (random.random((300, 1)) < 0.5)
    apart = (values[:, :6] != values[:, 6:]).sum(axis=0)
    totals = outcomes.Totals(bootstrap.sums(values, keys, 100)[None], apart[None])
    found = Comparison(totals, MODELS, (4,), ("everyone",)).differences("recall", 4)
    one, back = found
    assert (back.value, back.low, back.high) == pytest.approx((-one.value, -one.high, -one.low))
    assert one.low < one.value < one.high
    assert one.apart == back.apart == apart[0]


def test_exposure_counts_what_everyone_is_shown(frames, spark):
    shown = exposure.of_lists(frames[2], KS, catalogue=10)
    # Popularity@2 without the list of anyone: i2, i0 | i0, i1 | i1, i2: three items of ten, twice each.
    assert shown["popularity", 2].coverage == pytest.approx(0.3)
    assert shown["popularity", 2].gini == pytest.approx(0.7)
    assert shown["als", 4].coverage == pytest.approx(6 / 10)
    items = spark.createDataFrame([(5,), (0,), (None,), (5,)], f"{c.N_EVENTS} bigint")
    assert exposure.of_log(items).curve()[50] == pytest.approx(1)
