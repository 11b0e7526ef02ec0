"""Calibration, the parts, the orders, and both rankers on choices that follow a known law."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from sparkrec import columns as c
from sparkrec.config.ranker import Ranker
from sparkrec.config.recommend import Recommend
from sparkrec.errors import DataError
from sparkrec.ranking import calibration, model, neural, second_stage, training, trees
from sparkrec.ranking.calibration import Platt
from sparkrec.ranking.candidates import Candidates
from sparkrec.ranking.examples import Examples, lists, parted
from sparkrec.ranking.model import RankingModel
from sparkrec.ranking.second_stage import Block, SecondStage
from sparkrec.retrieval.filters import Audience
from sparkrec.retrieval.reranking import Policy

pytestmark = pytest.mark.unit


def test_platt_finds_the_law_that_made_the_choices():
    random = np.random.default_rng(1)
    scores = random.normal(size=200_000)
    chosen = random.random(200_000) < Platt(2.0, -1.0).probability(scores)
    assert calibration.fit(scores, chosen) == pytest.approx((2.0, -1.0), abs=0.05)


def test_platt_never_turns_an_order_round():
    fitted = calibration.fit(np.array([1.0, 2, 3, 4]), np.array([True, True, False, False]))
    assert fitted.slope > 0
    assert fitted.probability(np.array([1.0]))[0] == pytest.approx(0.5, abs=0.01)
    assert calibration.fit(np.zeros(8), np.zeros(8, bool)).probability(np.zeros(1))[0] == pytest.approx(1 / 10)


def test_nobody_is_measured_by_numbers_that_were_fitted_to_them():
    random = np.random.default_rng(5)
    scores, side = random.normal(size=400), random.random(400) < 0.5
    chosen = random.random(400) < 0.3
    found = calibration.crossed(scores, chosen, side)
    np.testing.assert_array_equal(found[side], calibration.fit(scores[~side], chosen[~side]).probability(scores[side]))
    other = np.where(np.arange(400) == np.flatnonzero(side)[0], ~chosen, chosen)
    changed = calibration.crossed(scores, other, side)
    np.testing.assert_array_equal(changed[side], found[side])
    assert (changed[~side] != found[~side]).all()


def test_reliability_by_hand():
    said = np.array([0.1, 0.1, 0.6, 0.8])
    table = calibration.reliability(said, np.array([False, True, True, True]), bins=2)
    assert table == [(2, pytest.approx(0.1), 0.5), (2, pytest.approx(0.7), 1.0)]


def examples(n=300, each=40, width=4, seed=0):
    """A choice follows the first feature and the product of the vectors; the second feature is noise."""
    random = np.random.default_rng(seed)
    users = np.repeat(np.arange(n), each)
    features = random.normal(size=(n * each, 2)).astype(np.float32)
    vectors, items = (random.normal(size=(m, width)).astype(np.float32) for m in (n, 50))
    index = random.integers(0, 50, n * each)
    z = 1.5 * features[:, 0] + np.einsum("pd,pd->p", vectors[users], items[index]) - 2
    chosen = random.random(n * each) < Platt(1, 0).probability(z)
    asked = np.bincount(users[chosen], minlength=n) + 1
    return Examples(users, index, features, chosen, asked, vectors, np.arange(n) * 3), items, z


def test_a_user_is_in_one_part():
    data, _, _ = examples(50)
    tickets = np.random.default_rng(2).random(50)
    parts = parted(data, tickets)
    held = [set(part.users.tolist()) for part in parts.values()]
    assert set.union(*held) == set(range(50))
    assert sum(map(len, held)) == 50
    assert held[0] == set(np.flatnonzero(tickets < 0.7).tolist())


def test_nothing_chosen_is_nothing_to_learn_from():
    data, _, _ = examples(50)
    nobody = replace(data, chosen=np.zeros(len(data), bool))
    with pytest.raises(DataError, match=r"0 were chosen, and none in the part 'fit'.*widen ranker\.goal"):
        training.train(nobody, SimpleNamespace(settings=Ranker()))


def test_a_model_of_other_features_is_refused():
    trained = SimpleNamespace(names=("als_score", "promoted_place"))
    with pytest.raises(DataError, match=r"promotions \(promoted_place\)\. Run train_ranker again"):
        second_stage.lists(None, SimpleNamespace(names=("als_score",)), trained, 5)


class Found(SecondStage):
    """One user with four candidates, whose one feature is the probability."""

    def found(self, users):
        nobody = np.zeros(2, np.int64), np.zeros(0, np.int64)
        audience = Audience(np.zeros((1, 0), np.float32), nobody, np.zeros(1, np.int64), np.zeros(1, bool), nobody)
        places = {"als": np.arange(1, 5, dtype=np.float32)}
        chances = np.array([[0.9], [0.8], [0.7], [0.1]], np.float32)
        return Block(audience, Candidates(np.zeros(4, np.int64), np.arange(4), places), chances, audience.vectors)


@pytest.mark.parametrize(("weight", "expected"), [(0.0, ["a", "b"]), (0.5, ["a", "c"])])
def test_without_a_two_tower_model_lists_are_diverse_by_the_vectors_of_als(weight, expected):
    """b is a once more, c is like neither: (.7 − .1) / .8 / 2 − 0 against (.8 − .1) / .8 / 2 − 1 / 2."""
    vectors = np.array([[1, 0], [2, 0], [0, 1], [1, 1]], np.float32)
    popular = SimpleNamespace(allowed=np.ones(4, bool), ids=pa.chunked_array([["a", "b", "c", "d"]]))
    traits = SimpleNamespace(hidden=np.zeros(4, np.int64), fresh=np.zeros(4, bool), promoted=np.zeros(4, bool))
    settings = Recommend(k=2, pool=4, diversity={"method": "mmr", "weight": weight})
    matrices = {"popularity": popular, "als": SimpleNamespace(vectors=vectors)}
    ranker = Ranker(sources=("popularity", "als"), per_source=4)
    stage = Found(ranker, matrices, SimpleNamespace(events=np.zeros(4)), Policy(settings, traits))
    assert stage.item_vectors().shape == (4, 0), "NeuMF is given none"
    user = pa.RecordBatch.from_pydict({c.USER_ID: ["u"]})
    model_of = SimpleNamespace(probability=lambda features, *_: features[:, 0])
    rows = second_stage._ranked(user, stage, model_of, 2)
    assert rows.column(c.ITEM_ID).to_pylist() == expected


def test_among_promoted_candidates_are_such_as_fit_into_one_list():
    """Four of one brand suit best, and a list has room for one of them: others come with the best three."""
    vectors, settings = np.arange(9, 0, -1, dtype=np.float32)[:, None], {"k": 3, "pool": 3, "caps": {"brand": 1}}
    traits = SimpleNamespace(
        hidden=np.zeros(9, np.int64), promoted=np.arange(9) > 0, kinds=lambda _: np.array([0, 0, 0, 0, 0, 1, 1, 2, 2])
    )
    policy = Policy(Recommend(**settings, promotions={"items": "x", "quota": 2}), traits)
    matrices = {"als": SimpleNamespace(vectors=vectors, allowed=np.ones(9, bool))}
    stage = SecondStage(Ranker(sources=("als",)), matrices, SimpleNamespace(), policy)
    nobody = np.zeros(2, np.int64), np.zeros(0, np.int64)
    audience = Audience(np.zeros((1, 0), np.float32), nobody, np.zeros(1, np.int64), np.zeros(1, bool), nobody)
    found = stage._promoted(audience, (np.ones((1, 1), np.float32), np.ones(1, bool)))
    assert found.tolist() == [[1, 2, 3, 5, 7, -1]]


def test_lists_by_hand():
    data = Examples(
        np.array([0, 0, 0, 2, 2]), np.array([7, 3, 5, 1, 2]), np.zeros((5, 1), np.float32),
        np.array([True, False, True, False, True]), np.array([3, 9, 1]), np.zeros((3, 0), np.float32), np.arange(3),
    )  # fmt: skip
    found, asked = lists(data, np.array([0.5, 0.5, 0.1, np.nan, -9.0]), 2)
    assert found.tolist() == [[False, True], [True, False]]  # of equal scores the lower item; NaN comes last
    assert asked.tolist() == [3, 1]


@pytest.mark.parametrize("kind", ["trees", "neural"])
def test_both_learn_the_law_and_are_the_same_twice_and_after_a_trip_to_disk(kind, tmp_path):
    data, items, law = examples()
    settings = Ranker(model=kind, leaf_rows=20, rounds=60, layers=(16, 8), epochs=8, batch=256, step_size=1e-2)
    parts = parted(data, np.random.default_rng(3).random(len(data.asked)))

    def fit():
        if kind == "trees":
            return trees.fit(parts, ("signal", "noise"), settings)
        return neural.fit(parts, items, settings)

    scorer, rounds = fit()
    assert 0 < rounds <= 60
    held = parts["held"]
    pair = held.vectors[held.users], items[held.items]
    scores = scorer.scores(held.features, *pair)
    np.testing.assert_array_equal(scores, fit()[0].scores(held.features, *pair))
    told = law[np.isin(data.users, held.users)]
    # Trees do not see the vectors, which carry most of the law.
    assert np.corrcoef(scores, told)[0, 1] > (0.45 if kind == "trees" else 0.85)
    fitted = RankingModel(("signal", "noise"), scorer, calibration.fit(scores, held.chosen))
    model.save(tmp_path / "ranker", fitted, {"why": "a test"})
    model.save(tmp_path / "ranker", fitted, {"why": "again"})
    again = model.load(tmp_path / "ranker")
    np.testing.assert_array_equal(again.probability(held.features, *pair), fitted.probability(held.features, *pair))
    table = calibration.reliability(fitted.probability(held.features, *pair), held.chosen)
    assert sum(row.rows * abs(row.said - row.happened) for row in table) / len(held) < 0.03
    if kind == "trees":
        importance = scorer.importance()
        assert importance["signal"] > 0.8
        assert sum(importance.values()) == pytest.approx(1, abs=1e-3)


def test_a_neural_score_does_not_depend_on_the_rows_beside_it():
    """To the bit: whole, in pieces of any size, and in another order."""
    random = np.random.default_rng(4)
    shapes = {"w0": (42, 64), "b0": (64,), "w1": (64, 16), "b1": (16,), "h": (32, 1), "c": (1,)}
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    fixed = {"mean": np.zeros(10, np.float32), "spread": np.ones(10, np.float32)}
    ranker = neural.NeuMF(weights | fixed)
    rows = [random.normal(size=(2503, d)).astype(np.float32) for d in (10, 16, 16)]
    whole = ranker.scores(*rows)
    cuts = [0, 1, 8, 409, 1004, 2503]
    pieces = [ranker.scores(*(x[a:b] for x in rows)) for a, b in pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    other = random.permutation(2503)
    np.testing.assert_array_equal(ranker.scores(*(x[other] for x in rows)), whole[other])
    assert len(ranker.scores(*(x[:0] for x in rows))) == 0
