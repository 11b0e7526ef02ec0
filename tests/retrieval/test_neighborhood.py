"""Items alike by what the same users did, as a job, against loops over users and numpy's correlation."""

import datetime as dt
import itertools

import handmade
import numpy as np
import pytest

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.errors import ConfigError
from sparkrec.jobs.similar import similar
from sparkrec.pipeline import Run, execute

pytestmark = pytest.mark.spark

N_USERS, N_ITEMS, K, MOST, MIN_USERS, SHRINKAGE = 60, 12, 4, 7, 3, 10.0
NO_GOODS = 5


def _met():
    """user → item → (last time, sum of the stars, how many); no stars: viewed only."""
    random = np.random.default_rng(11)
    return {
        user: {
            int(item): (int(random.integers(5)), float(n * random.integers(2, 11) / 2), n)
            for item in random.choice(N_ITEMS, random.integers(1, 10), replace=False)
            for n in [int(random.choice([0, 1, 1, 3]))]
        }
        for user in range(N_USERS)
    }


def _newest(items):
    """The newest few; of one time, the lower index."""
    return dict(sorted(items.items(), key=lambda item: (-item[1][0], item[0]))[:MOST])


def _expected(measure):
    """(item, neighbour) → score and users of both."""
    if measure == "jaccard":
        baskets = {user: dict.fromkeys(_newest(items)) for user, items in _met().items()}
    else:
        rated = {user: {i: x for i, x in items.items() if x[2]} for user, items in _met().items()}
        baskets = {user: {i: s / n for i, (_, s, n) in _newest(items).items()} for user, items in rated.items()}
        if measure == "adjusted_cosine":
            means = {user: np.mean([s / n for _, s, n in items.values()]) for user, items in rated.items() if items}
            baskets = {user: {i: x - means[user] for i, x in items.items()} for user, items in baskets.items()}
    found = {}
    for a, b in itertools.permutations(range(N_ITEMS), 2):
        both = [user for user, items in baskets.items() if a in items and b in items]
        if len(both) < MIN_USERS:
            continue
        x, y = (np.array([baskets[user][i] for user in both], float) for i in (a, b))
        if measure == "jaccard":
            score = len(both) / sum(a in items or b in items for items in baskets.values())
        elif measure == "pearson":
            score = np.corrcoef(x, y)[0, 1] if x.std() and y.std() else 0.0
        else:
            score = x @ y / (np.linalg.norm(x) * np.linalg.norm(y))
        if measure != "jaccard":
            score *= len(both) / (len(both) + SHRINKAGE)
        if score > 1e-9:
            found[a, b] = (score, len(both))
    return found


@pytest.fixture(scope="module")
def found(spark, tmp_path_factory):
    """measure → item → its neighbours, best first: item, score, users of both."""
    measures = ("jaccard", "pearson", "adjusted_cosine")
    own = {"models": [], "neighborhood": measures, "k": K, "min_users": MIN_USERS, "shrinkage": SHRINKAGE}
    settings = handmade.settings(
        tmp_path_factory.mktemp("neighborhood"), similar=own, features={"neighbor_items": MOST}
    )  # fmt: skip
    gold = Run(settings, "featurize")
    handmade.gold(gold, [], N_ITEMS, items={NO_GOODS: {c.FOR_SALE: False}}, only=(schemas.GOLD_ITEMS,))
    midnight = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    rows = [
        {
            c.USER_INDEX: user, c.ITEM_ID: f"i{item}", c.LAST_SEEN: midnight + dt.timedelta(days=day), c.N_STARS: n,
            c.STARS: {"whole": int(stars), "rest": round((stars - int(stars)) * 1e6)}, c.USER_BLOCK: 0,
        }
        for user, items in _met().items()
        for item, (day, stars, n) in items.items()
    ]  # fmt: skip
    handmade.write(gold, schemas.GOLD_PAIRS, rows)
    gold.finish()
    run = Run(settings, "similar")
    execute(similar, run)
    lists = {}
    for row in run.read(schemas.SIMILAR_ITEMS).orderBy(c.RANK).collect():
        place = lists.setdefault(row[c.MODEL], {}).setdefault(int(row[c.ITEM_ID][1:]), [])
        place.append((int(row[c.NEIGHBOR_ID][1:]), row[c.SCORE], row[c.COUNT]))
    return lists


@pytest.mark.parametrize("measure", ["jaccard", "pearson", "adjusted_cosine"])
def test_neighbours_are_those_of_a_loop(found, measure):
    expected = _expected(measure)
    for item in range(N_ITEMS):
        able = {b: value for (a, b), value in expected.items() if a == item and b != NO_GOODS}
        best = sorted(able, key=lambda b: (-round(able[b][0], 9), b))[:K]
        got = found[measure].get(item, [])
        assert [(b, n) for b, _, n in got] == [(b, able[b][1]) for b in best], item
        assert [score for _, score, _ in got] == pytest.approx([able[b][0] for b in best], abs=2e-9)
    assert len(found[measure]) > N_ITEMS / 2, "worth comparing"


def test_an_unknown_measure_is_named(tmp_path):
    with pytest.raises((ConfigError, ValueError), match=r"similar\.neighborhood|jaccard"):
        handmade.settings(tmp_path, similar={"neighborhood": ["hamming"]})
