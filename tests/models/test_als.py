"""ALS: weights by hand, planted taste found, the same factors twice."""

from __future__ import annotations

import handmade
import numpy as np
import pytest

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import Als
from sparkrec.errors import DataError
from sparkrec.jobs.train_als import train_als
from sparkrec.models import als
from sparkrec.pipeline import Run, execute
from sparkrec.retrieval.topk import top_k

pytestmark = pytest.mark.spark

N_USERS, N_ITEMS, TASTES = 60, 40, 4
ONLY = (schemas.GOLD_SEQUENCES, schemas.VOCABULARY_USERS, schemas.VOCABULARY_ITEMS)


def planted(seed=0):
    """Users who like every fourth item and view all of those but one, held out, and two items at random."""
    random = np.random.default_rng(seed)
    liked, held_out = [], []
    for user in range(N_USERS):
        own = random.permutation(np.arange(user % TASTES, N_ITEMS, TASTES))
        noise = random.choice(N_ITEMS, 2, replace=False)
        held_out.append(int(own[0]))
        items = [int(i) for i in [*own[1:], *noise] if i != own[0]]
        liked.append([(item, c.VIEW, t) for t, item in enumerate(items)])
    return liked, held_out


@pytest.fixture(scope="module")
def trained(spark, tmp_path_factory):
    from sparkrec.config import Settings

    root = tmp_path_factory.mktemp("als")
    settings = Settings.model_validate(
        {
            "name": "test",
            "lake": {"path": str(root / "lake")},
            "source": {"name": "simulator", "path": str(root)},
            "als": {"rank": 8, "iterations": 4, "blocks": 2, "checkpoint_interval": 2},
            "tracking": {"enabled": False},
        }
    )
    liked, held_out = planted()
    gold = Run(settings, "featurize")
    handmade.gold(gold, [*liked, []], N_ITEMS + 1, only=ONLY)
    gold.finish()
    runs = [Run(settings, "train_als") for _ in range(2)]
    for run in runs:
        execute(train_als, run)
    return runs, liked, held_out, root


def matrix(run, table, index, version):
    rows = run.lake.read(table, version).orderBy(index).collect()
    return [row[index] for row in rows], np.array([row[c.VECTOR] for row in rows], np.float32)


def test_planted_taste_is_found_and_popularity_is_far_behind(trained):
    (run, _), liked, held_out, _ = trained
    known_users, users = matrix(run, schemas.VECTORS_USERS, c.USER_INDEX, run.outputs["vectors.users"])
    known_items, items = matrix(run, schemas.VECTORS_ITEMS, c.ITEM_INDEX, run.outputs["vectors.items"])
    assert known_users == list(range(N_USERS))  # nobody whom ALS cannot know: user 60 and item 40 have no events
    assert known_items == list(range(N_ITEMS))
    assert users.shape == (N_USERS, 8)
    seen = [[item for item, _, _ in events] for events in liked]
    exclude = np.cumsum([0, *map(len, seen)]), np.array([i for s in seen for i in s])
    hits = (top_k(users, items, 1, exclude)[0][:, 0] == held_out).mean()
    counts = np.bincount(exclude[1], minlength=N_ITEMS).astype(np.float32)[:, None]
    popular = (top_k(np.ones((N_USERS, 1), np.float32), counts, 1, exclude)[0][:, 0] == held_out).mean()
    assert hits > 0.9
    assert popular < 0.3


def test_twice_is_the_same_to_the_bit_and_leaves_no_checkpoints(trained):
    (first, second), _, _, root = trained
    for table, index in ((schemas.VECTORS_USERS, c.USER_INDEX), (schemas.VECTORS_ITEMS, c.ITEM_INDEX)):
        _, before = matrix(first, table, index, first.outputs[table.name])
        _, after = matrix(second, table, index, second.outputs[table.name])
        np.testing.assert_array_equal(before, after)
    assert list((root / "lake" / "checkpoints" / "als").iterdir()) == []


def sequence(spark, items, types, values):
    row = (0, 0, len(items), items, [c.EVENT_TYPES.index(t) for t in types], [0] * len(items), values, [], 0)
    return spark.createDataFrame([row], schemas.GOLD_SEQUENCES.struct())


def test_confidence_is_the_sum_of_weights(spark):
    nan = float("nan")
    frame = sequence(spark, [7, 7, 8, 9], [c.VIEW, c.PURCHASE, c.CART, c.CLICK], [nan, 2.0, nan, nan])
    pairs = als.confidences(frame, {c.VIEW: 1.0, c.PURCHASE: 5.0, c.CART: 0.1, c.CLICK: 0.0}).collect()
    # Item 9 was only clicked, and a click weighs nothing.
    assert {row[c.ITEM_INDEX]: row[c.VALUE] for row in pairs} == {7: 6.0, 8: pytest.approx(0.1)}


def test_stars_are_averaged_and_the_rest_is_left_out(spark):
    frame = sequence(spark, [7, 7, 8, 9], [c.RATING, c.REVIEW, c.PURCHASE, c.RATING], [5.0, 2.0, 3.0, float("nan")])
    pairs = als.mean_stars(frame).collect()
    assert {row[c.ITEM_INDEX]: row[c.VALUE] for row in pairs} == {7: 3.5}


def test_ratings_are_computed_once(spark, make_settings):
    """They are what a training shuffles most for."""
    computed = spark.sparkContext.accumulator(0)
    rows = [(user, item, 1.0) for user in range(20) for item in range(user % 3, 12, 3)]

    def counted(row):
        computed.add(1)
        return row

    ratings = spark.createDataFrame(
        spark.sparkContext.parallelize(rows, 2).map(counted), f"{c.USER_INDEX} int, {c.ITEM_INDEX} int, {c.VALUE} float"
    )
    settings = make_settings(als={"rank": 2, "iterations": 2, "blocks": 2}).als
    assert als.train(ratings, settings).userFactors.count() == 20
    assert computed.value == len(rows)


def test_nothing_to_learn_from_is_said(spark, make_settings):
    empty = als.confidences(sequence(spark, [7], [c.VIEW], [1.0]), {c.PURCHASE: 1.0})
    with pytest.raises(DataError, match=r"als\.weights"):
        als.train(empty, make_settings().als)


def test_explicit_factors_give_the_stars_back(spark):
    """Stars of rank one, from 1 to 5: a pair that was left out is predicted, and not as an interest from 0 to 1."""
    random = np.random.default_rng(3)
    stars = 1 + 4 * np.outer(random.uniform(0.2, 1, 24), random.uniform(0.2, 1, 16))
    pairs = [(u, i) for u in range(24) for i in range(16)]
    left_out = {(u, (5 * u) % 16) for u in range(24)}
    rows = [(u, i, float(stars[u, i])) for u, i in pairs if (u, i) not in left_out]
    frame = spark.createDataFrame(rows, f"{c.USER_INDEX} int, {c.ITEM_INDEX} int, {c.VALUE} float")
    settings = Als(implicit=False, rank=3, iterations=10, regularization=0.01, blocks=2)
    model = als.train(frame, settings)
    users, items = (
        np.array([row["features"] for row in factors.orderBy("id").collect()])
        for factors in (model.userFactors, model.itemFactors)
    )
    errors = [abs(users[u] @ items[i] - stars[u, i]) for u, i in left_out]
    assert max(errors) < 0.5
    assert (users @ items.T).max() > 3
