"""The bootstrap without users against theory, scipy's bootstrap, and itself in other blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sparkrec.evaluation import bootstrap

pytestmark = pytest.mark.unit


def keys_of(n, seed=0):
    return np.random.default_rng(seed).integers(0, 2**63, n, dtype=np.uint64)


def test_weights_are_poisson_with_mean_one():
    drawn = bootstrap.weights(keys_of(20_000), 50).ravel()
    expected = [math.exp(-1) / math.factorial(n) for n in range(5)]
    observed = [np.mean(drawn == n) for n in range(5)]
    np.testing.assert_allclose(observed, expected, atol=0.002)  # four standard errors of a million draws
    assert drawn.mean() == pytest.approx(1, abs=0.004)
    assert drawn.var() == pytest.approx(1, abs=0.008)


def test_weights_of_neighbouring_keys_and_resamples_are_independent():
    drawn = bootstrap.weights(np.arange(4000, dtype=np.uint64), 60).astype(float)
    for table in (drawn, drawn.T):
        correlation = np.corrcoef(table[:60])
        off_diagonal = correlation[~np.eye(60, dtype=bool)]
        n = table.shape[1]
        assert np.abs(off_diagonal).max() < 5 / math.sqrt(n)
        assert abs(off_diagonal.mean()) < 0.01


def test_a_user_has_the_same_weights_in_any_company():
    keys = keys_of(100)
    whole = bootstrap.weights(keys, 10)
    np.testing.assert_array_equal(bootstrap.weights(keys[40:41], 10), whole[40:41])
    np.testing.assert_array_equal(bootstrap.weights(keys, 7), whole[:, :7])


def test_sums_are_the_same_to_the_bit_in_any_blocks_and_order():
    random = np.random.default_rng(1)
    values, keys = random.random((5000, 3)), keys_of(5000)
    whole = bootstrap.sums(values, keys, 20)
    order = random.permutation(5000)
    parts = sum(bootstrap.sums(values[part], keys[part], 20) for part in np.array_split(order, 37))
    np.testing.assert_array_equal(whole, parts)
    np.testing.assert_allclose(bootstrap.means(whole)[0], values.mean(axis=0), atol=1e-9)


def test_interval_agrees_with_theory_and_with_scipy():
    values = np.random.default_rng(2).beta(0.5, 2, (3000, 1))
    resampled = bootstrap.means(bootstrap.sums(values, keys_of(3000), 2000))[1:, 0]
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert resampled.std() == pytest.approx(error, rel=0.06)
    low, high = bootstrap.interval(resampled)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.25 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.25 * error)
    reference = stats.bootstrap((values[:, 0],), np.mean, n_resamples=2000, method="percentile", rng=3)
    assert low == pytest.approx(reference.confidence_interval.low, abs=0.25 * error)
    assert high == pytest.approx(reference.confidence_interval.high, abs=0.25 * error)


def test_a_difference_is_paired():
    # The second model is the first plus .01 for everyone: the difference has no noise at all, each mean has much.
    first = np.random.default_rng(4).random((500, 1)) * 0.9
    both = np.concatenate([first, first + 0.01], axis=1)
    resampled = bootstrap.means(bootstrap.sums(both, keys_of(500), 200))[1:]
    low, high = bootstrap.interval(resampled[:, 1] - resampled[:, 0])
    assert (low, high) == (pytest.approx(0.01, abs=1e-8), pytest.approx(0.01, abs=1e-8))
    one_low, one_high = bootstrap.interval(resampled[:, 0])
    assert one_high - one_low > 0.03


def test_intervals_cover_the_truth_as_often_as_they_say():
    covered = 0
    for trial in range(200):
        values = (np.random.default_rng(trial).random((400, 1)) < 0.3).astype(float)
        resampled = bootstrap.means(bootstrap.sums(values, keys_of(400, trial), 300))[1:, 0]
        low, high = bootstrap.interval(resampled)
        covered += low <= 0.3 <= high
    assert 0.90 < covered / 200 < 0.985  # 95 % give or take three standard errors


def test_words():
    enough = bootstrap.FEWEST
    assert bootstrap.verdict((0.001, 0.1), enough, enough) == "ahead"
    assert bootstrap.verdict((-0.2, -0.1), enough, 100) == "behind"
    assert bootstrap.verdict((-0.2, 0.1), enough, 100) == "inside the noise"
    assert bootstrap.verdict((0.2, 0.2), enough - 1, 100) == "too few to tell"
    assert bootstrap.verdict((0.0, 0.0), 0, enough) == "inside the noise", "the same results for everybody"
    assert bootstrap.verdict((0.0, 0.0), 0, enough - 1) == "too few to tell", "as much by chance"
    assert bootstrap.verdict(None, 1, 1) == bootstrap.verdict(None, enough, enough) == "not tested"


def _called_one(apart, trials=600, resamples=400):
    """How often a difference is called one where there is none: gaps of NDCG, of either sign alike."""
    random, called = np.random.default_rng(6), 0
    for _ in range(trials):
        gaps = random.choice([-1.0, 1.0], apart) / np.log2(random.integers(2, 22, apart))
        sums = random.poisson(1, (resamples, apart)) @ gaps
        called += bootstrap.verdict(bootstrap.interval(sums), apart, apart) in ("ahead", "behind")
    return called / trials


def test_a_difference_is_seldom_called_one_where_there_is_none():
    # A sign test of four users who all gain has p = .125; a bootstrap of them would be sure.
    assert bootstrap.verdict((0.1, 0.2), 4, 4) == "too few to tell"
    assert _called_one(bootstrap.FEWEST) < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 600)
    assert _called_one(200) == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 600))


def test_nobody_gives_no_mean_and_no_interval():
    empty = bootstrap.sums(np.zeros((0, 2)), np.zeros(0, np.uint64), 3)
    assert np.isnan(bootstrap.means(empty)).all()
    assert bootstrap.interval(bootstrap.means(empty)[1:, 0]) is None
