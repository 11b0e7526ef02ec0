"""Words of names and texts: as tokens, weighed by TF-IDF, and as vectors learned from the words beside them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pyspark.ml.feature import StopWordsRemover
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c

TOKENS = "_tokens"
_SHORTEST_WORD = 3
#: Words so far apart in a text still are neighbours.
_WINDOW = 5

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def words() -> Column:
    """The words of an item's name and text, in order, repeats and all: three letters or more, no English stop words."""
    text = F.lower(F.concat_ws(" ", c.NAME, c.TEXT))
    stop = StopWordsRemover.loadDefaultStopWords("english")
    parts = F.split(text, r"[^\p{L}\p{N}]+")
    return F.filter(parts, lambda word: (F.length(word) >= _SHORTEST_WORD) & ~word.isin(*stop))


def tokens(items: DataFrame, known: DataFrame) -> DataFrame:
    """item_id and ``_tokens``: the numbers of its known words, in order. ``known``, which is small: word, number."""
    found = items.select(c.ITEM_ID, F.posexplode(words()).alias("_position", "word"))
    numbered = found.join(F.broadcast(known), "word")
    in_order = F.sort_array(F.collect_list(F.struct("_position", "number"))).getField("number")
    return numbered.groupBy(c.ITEM_ID).agg(in_order.alias(TOKENS))


def word_pairs(item_tokens: DataFrame) -> DataFrame:
    """a ≤ b and count: how often two words stand within five known words of each other."""
    first = item_tokens.select(F.posexplode(TOKENS).alias("_position", "_a"), TOKENS)
    beside = F.explode(F.slice(TOKENS, F.col("_position") + 2, _WINDOW)).alias("_b")
    pair = (F.least("_a", "_b").alias("a"), F.greatest("_a", "_b").alias("b"))
    return first.select("_a", beside).groupBy(*pair).count()


def idf(in_items: Ints, items: int) -> Floats:
    """ln((1 + items) / (1 + items with the word)) + 1, as scikit-learn's TfidfTransformer smooths it."""
    weights: Floats = np.log((1 + items) / (1 + in_items)) + 1
    return weights


def tf_idf(lengths: Ints, numbers: Ints, weights: Floats) -> Floats:
    """(texts, words), rows of length 1: occurrences × idf. Text i has the next ``lengths[i]`` of the ``numbers``."""
    rows, width = np.repeat(np.arange(len(lengths)), lengths), len(weights)
    counts = np.bincount(rows * width + numbers, minlength=len(lengths) * width).reshape(len(lengths), width)
    return unit(counts * weights)


def word_vectors(a: Ints, b: Ints, counts: Ints, words: int, width: int) -> Floats:
    """(words, width): what word2vec's skip-gram with negative sampling converges to, in closed form.

    Levy and Goldberg, Neural word embedding as implicit matrix factorization, NIPS 2014: that model factorises the
    matrix of pointwise mutual information ln(n_ab · n / (n_a · n_b)). Here its positive part is factorised as U √Σ by
    an eigenvalue decomposition, so that the same counts give the same vectors: no seed, no threads, no order of texts.
    """
    together = np.zeros((words, words))
    np.add.at(together, (a, b), counts)
    np.add.at(together, (b, a), counts)
    alone = together.sum(axis=1)
    expected = np.outer(alone, alone) / max(alone.sum(), 1.0)
    information = np.log(np.divide(together, expected, out=np.ones_like(together), where=together > 0))
    values, vectors = np.linalg.eigh(np.maximum(information, 0.0))
    largest = np.argsort(-np.abs(values), kind="stable")[:width]
    found = signed(vectors[:, largest]) * np.sqrt(np.abs(values[largest]))
    return np.pad(found, ((0, 0), (0, width - found.shape[1])))


def unit(rows: Floats) -> Floats:
    """Each row divided by its length; a row of zeros stays."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows, dtype=np.float64), where=length > 0)


def signed(vectors: Floats) -> Floats:
    """Columns turned so that the entry farthest from zero is positive: a decomposition leaves the sign open."""
    if not vectors.size:
        return vectors
    # The first of those that are as far but for rounding.
    size = np.abs(vectors)
    farthest = np.argmax(size > size.max(axis=0) * (1 - 1e-9), axis=0)
    sign: Floats = np.where(vectors[farthest, np.arange(vectors.shape[1])] < 0, -1.0, 1.0)
    return vectors * sign
