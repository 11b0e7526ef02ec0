"""Which items are met by the same users: against plain Python."""

import random
from collections import Counter
from itertools import combinations
from math import sqrt

import pytest
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.config import Features
from sparkrec.features import neighbors

pytestmark = pytest.mark.spark
SETTINGS = Features(neighbors=4, neighbor_items=6, neighbor_users=2)
GREEDY = -1


def _met():
    """(user, item) → when last met, when last bought (some never); one user has met everything."""
    chance = random.Random(3)
    times = iter(chance.sample(range(10_000), 2_000))
    met = {(user, chance.randrange(15)) for user in range(40) for _ in range(chance.randint(1, 9))}
    met |= {(GREEDY, item) for item in range(15)}
    return {pair: (next(times), next(times) if chance.random() < 0.5 else None) for pair in sorted(met)}


MET = _met()


@pytest.fixture(scope="module")
def found(spark):
    rows = [(user, f"i{item}", *times) for (user, item), times in MET.items()]
    schema = f"user_index int, item_id string, {c.LAST_SEEN} int, {c.LAST_BOUGHT} int"
    ids = F.concat(F.lit("i"), "id").alias(c.ITEM_ID)
    items = spark.range(15).select(ids, F.col("id").cast("int").alias(c.ITEM_INDEX))
    pairs = spark.createDataFrame(rows, schema)
    baskets = neighbors.baskets(pairs, items, SETTINGS.neighbor_items).persist()
    return baskets.collect(), neighbors.neighbors(baskets, SETTINGS).collect()


def _baskets(which):
    by_user = {}
    for (user, item), times in MET.items():
        if times[which] is not None:
            by_user.setdefault(user, []).append((times[which], item))
    return {user: sorted(item for _, item in sorted(met)[-6:]) for user, met in by_user.items()}


@pytest.mark.parametrize(("which", "relation"), enumerate([neighbors.SEEN, neighbors.BOUGHT]))
def test_baskets_hold_the_newest_items(found, which, relation):
    baskets = {row[c.USER_INDEX]: row["_basket"] for row in found[0] if row[c.RELATION] == relation}
    assert baskets == _baskets(which)
    assert len(baskets[GREEDY]) == (6, 4)[which]


@pytest.mark.parametrize(("which", "relation"), enumerate([neighbors.SEEN, neighbors.BOUGHT]))
def test_counts_lift_cosine_and_rank(found, which, relation):
    baskets = _baskets(which).values()
    alone = Counter(item for basket in baskets for item in basket)
    together = Counter(pair for basket in baskets for pair in combinations(basket, 2))
    expected = {}
    for item in alone:
        others = {a + b - item: n for (a, b), n in together.items() if item in (a, b) and n >= 2}
        cosine = {other: n / sqrt(alone[item] * alone[other]) for other, n in others.items()}
        lift = {other: n * len(baskets) / (alone[item] * alone[other]) for other, n in others.items()}
        bound = {other: lift[other] * (1 - 1.645 / sqrt(n)) for other, n in others.items()}
        by, most = (cosine, 4) if relation == neighbors.SEEN else (bound, 16)
        best = sorted(others, key=lambda other: (-round(by[other], 9), -others[other], other))[:most]
        for rank, other in enumerate(best, 1):
            expected[item, rank] = (other, others[other], pytest.approx(lift[other]), pytest.approx(cosine[other]))
    rows = [row for row in found[1] if row[c.RELATION] == relation]
    assert len(rows) == len(expected)
    for row in rows:
        values = (row[c.NEIGHBOR_INDEX], row[c.COUNT], row[c.LIFT], row[c.COSINE])
        assert values == expected[row[c.ITEM_INDEX], row[c.RANK]]


def test_the_accessory_of_a_best_seller_is_kept_before_other_best_sellers(spark):
    """0 is in 60 of 200 baskets, 30 of them with 1 to 5, as chance has it; 6 is bought with 0 alone, six times."""
    baskets = [
        [0] * (n < 60) + [1, 2, 3, 4, 5] * (n < 30 or n >= 130) + [6] * (30 <= n < 36)
        for n in range(200)
    ]  # fmt: skip
    rows = [(n, kind, basket) for kind in (neighbors.SEEN, neighbors.BOUGHT) for n, basket in enumerate(baskets)]
    frame = spark.createDataFrame(rows, f"{c.USER_INDEX} int, {c.RELATION} string, {neighbors.BASKET} array<int>")
    found = neighbors.neighbors(frame, SETTINGS.model_copy(update={"neighbors": 1})).where(f"{c.ITEM_INDEX} = 0")
    kept = {kind: [row[c.NEIGHBOR_INDEX] for row in found.where(f"{c.RELATION} = '{kind}'").orderBy(c.RANK).collect()]
            for kind in (neighbors.SEEN, neighbors.BOUGHT)}  # fmt: skip
    assert kept == {neighbors.SEEN: [1], neighbors.BOUGHT: [6, 1, 2, 3]}
