"""TF-IDF, word vectors and encoders against scikit-learn, finite differences and plain Python."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfTransformer

from sparkrec.features import encoders, text

pytestmark = pytest.mark.unit


def test_tf_idf_is_scikit_learns():
    rng = np.random.default_rng(1)
    lengths = rng.integers(0, 9, 40)
    lengths[:2] = 0, 1
    numbers = rng.integers(0, 12, lengths.sum())
    counts = np.zeros((40, 12))
    for row, words in enumerate(np.split(numbers, np.cumsum(lengths)[:-1])):
        for word in words:
            counts[row, word] += 1
    expected = TfidfTransformer().fit_transform(counts).toarray()
    weights = text.idf((counts > 0).sum(axis=0), 40)
    np.testing.assert_allclose(text.tf_idf(lengths, numbers, weights), expected, atol=1e-12)


def test_word_vectors_factorise_the_positive_mutual_information():
    # Words 0 and 1 stand together 3 times, 1 and 2 once, 2 and 2 once.
    a, b, counts = np.array([0, 1, 2]), np.array([1, 2, 2]), np.array([3, 1, 1])
    # Each pair counts in both directions: 10 in all; word 0 is in 3, 1 in 4, 2 in 3.
    information = np.array([[0, np.log(3 * 10 / (3 * 4)), 0], [0, 0, 0], [0, 0, np.log(2 * 10 / (3 * 3))]])
    information += np.triu(information, 1).T  # 1 and 2: ln(1 · 10 / (4 · 3)) is negative, so nothing
    found = text.word_vectors(a, b, counts, 3, 3)
    # U √|Λ|, so signs of the eigenvalues apart its square is the matrix: compare the absolute value of the matrix.
    values, vectors = np.linalg.eigh(information)
    np.testing.assert_allclose(found @ found.T, (vectors * np.abs(values)) @ vectors.T, atol=1e-12)


def test_word_vectors_have_the_width_that_was_asked_for():
    found = text.word_vectors(np.array([0]), np.array([1]), np.array([2]), 2, 5)
    assert found.shape == (2, 5)
    assert text.word_vectors(*np.zeros((3, 0), int), 0, 5).shape == (0, 5)


def test_the_sign_of_a_decomposition_is_settled():
    vectors = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 4)))[0]
    flipped = vectors * [1, -1, -1, 1]
    np.testing.assert_array_equal(text.signed(vectors), text.signed(flipped))


def test_pca_is_scikit_learns_but_for_the_sign():
    rows = np.random.default_rng(3).normal(size=(50, 7)) @ np.diag([5, 4, 3, 2, 1, 0.5, 0.1])
    found, expected = encoders.pca(rows, 3)(rows), PCA(3).fit_transform(rows)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-9)
    assert encoders.pca(rows, 9)(rows).shape == (50, 9)


def test_gradients_of_the_autoencoder():
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(5, 4))
    weights = {"in": rng.normal(size=(4, 3)), "bias": rng.normal(size=3), "out": rng.normal(size=(3, 4))}

    def loss():
        rebuilt = np.tanh(rows @ weights["in"] + weights["bias"]) @ weights["out"]
        return ((rebuilt - rows) ** 2).sum() / (2 * len(rows))

    for name, gradient in encoders._gradients(rows, weights).items():
        for place in np.ndindex(gradient.shape):
            value = weights[name][place]
            weights[name][place] = value + 1e-6
            above = loss()
            weights[name][place] = value - 1e-6
            below = loss()
            weights[name][place] = value
            assert gradient[place] == pytest.approx((above - below) / 2e-6, rel=1e-4, abs=1e-7)


def test_the_autoencoder_keeps_what_matters_and_repeats_itself():
    rng = np.random.default_rng(5)
    hidden = rng.normal(size=(400, 2))
    rows = np.tanh(hidden) @ rng.normal(size=(2, 10)) + 0.01 * rng.normal(size=(400, 10))
    encoder = encoders.autoencoder(rows, 3, seed=1)
    codes = encoder(rows)
    rebuilt = np.linalg.lstsq(np.c_[codes, np.ones(400)], rows, rcond=None)[0]
    left = rows - np.c_[codes, np.ones(400)] @ rebuilt
    assert left.var() < 0.05 * rows.var()
    np.testing.assert_array_equal(codes, encoders.autoencoder(rows, 3, seed=1)(rows))
