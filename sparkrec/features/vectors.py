"""``content`` of gold.items: what is known of an item without any event, as one vector of fixed width.

Parts (``features.content``), each a row of length 1: TF-IDF, word vectors, a sentence encoder's vector of name and
text, a ready-made vector that the catalogue brings (of an image, say). An encoder brings them together to
``features.content_width``. It is fitted on ``content_sample`` items, those of the smallest hash, so memory does not
grow with the catalogue; the rest goes through Arrow in blocks.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec import columns as c
from sparkrec.config import Features
from sparkrec.errors import ConfigError, DataError
from sparkrec.features import encoders, text
from sparkrec.features.text import TOKENS, Floats
from sparkrec.persistence import persisted

_BLOCK = 1024
_READY = "_ready"
_WORD = "word="
# The last bits of a matrix product depend on the shape of its blocks.
_DECIMALS = 6

SentenceEncoder = Callable[[list[str]], Floats]


@dataclass(frozen=True)
class Parts:
    """What a block of items is made into numbers with: idf (words,), word vectors (words, width)."""

    settings: Features
    idf: Floats
    word_vectors: Floats
    ready_width: int

    def __call__(self, block: pa.RecordBatch, sentences: SentenceEncoder | None) -> Floats:
        """(items, all parts' widths)."""
        found: list[Floats] = []
        words = _lists(block.column(TOKENS))
        for part in self.settings.content:
            if part == "tfidf":
                found.append(text.tf_idf(*words, self.idf))
            elif part == "word2vec":
                found.append(text.unit(text.tf_idf(*words, self.idf) @ self.word_vectors))
            elif part == "sentence" and sentences is not None:
                texts = block.column(c.TEXT).to_pylist()
                # What has no text is not like an empty text: it is nothing.
                some = np.array([bool(line) for line in texts])[:, None]
                found.append(text.unit(np.asarray(sentences(texts), np.float64).reshape(len(texts), -1)) * some)
            elif part == "vector":
                lengths, values = _lists(block.column(_READY))
                rows = np.zeros((len(lengths), self.ready_width))
                rows[lengths > 0] = values.reshape(-1, self.ready_width)
                found.append(text.unit(rows))
        return np.concatenate(found, axis=1)


def with_content(lists: DataFrame, items: DataFrame, words: DataFrame, settings: Features, n_items: int) -> DataFrame:
    """Adds ``content`` to the feature lists of ``items``; null where ``features.content`` asks for nothing.

    ``words`` is the feature vocabulary of this run: the words in it, with the number of items that each is in.

    Raises
    ------
    ConfigError
        The sentence encoder cannot be imported.
    DataError
        A ready-made vector is not a list of numbers, or they are of different lengths.
    """
    if not settings.content:
        return lists.withColumn(c.CONTENT, F.lit(None).cast("array<float>"))
    if "sentence" in settings.content:
        sentence_encoder(settings.sentence_encoder)  # before anything is computed
    known = _known_words(words)
    numbered = [(word, n) for n, (word, _) in enumerate(known)]
    numbers = items.sparkSession.createDataFrame(numbered, "word string, number int")
    ready = _ready(settings)
    described = items.select(c.ITEM_ID, F.concat_ws(" ", c.NAME, c.TEXT).alias(c.TEXT), ready.alias(_READY))
    tokens = persisted(text.tokens(items, numbers))
    rows = described.join(tokens, c.ITEM_ID, "left").withColumn(
        TOKENS, F.coalesce(TOKENS, F.array().cast("array<int>"))
    )
    idf = text.idf(np.array([n for _, n in known], np.int64), n_items)
    parts = Parts(settings, idf, _word_vectors(tokens, len(known), settings), _ready_width(rows, settings))
    sample = rows.orderBy(F.xxhash64(c.ITEM_ID), c.ITEM_ID).limit(settings.content_sample)
    encoder = _fit(np.concatenate(list(_collected(sample, parts))), settings)
    vectors = rows.mapInArrow(_kernel(parts, encoder), f"{c.ITEM_ID} string, {c.CONTENT} array<float>")
    return lists.join(vectors, c.ITEM_ID, "full")


def sentence_encoder(name: str) -> SentenceEncoder:
    """The function from texts to rows that ``features.sentence_encoder`` names: wordllama, or module:function."""
    try:
        if name == "wordllama":
            importlib.import_module("wordllama")
            return _wordllama
        module, _, function = name.partition(":")
        found: SentenceEncoder = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"features.content asks for a sentence encoder, and '{name}' (features.sentence_encoder) cannot be "
            f"imported: {error}. Install it (pip install 'sparkrec[text]' brings wordllama, with its weights), "
            "name another one as module:function, or leave 'sentence' out of features.content."
        ) from None
    return found


def _wordllama(texts: list[str]) -> Floats:
    return np.asarray(_wordllama_model().embed(texts), np.float64)


@lru_cache(maxsize=1)
def _wordllama_model() -> Any:
    """Once a process, and without the internet: weights and tokenizer come with the package.

    It looks for its tokenizer in a folder of its own that is not the one it ships (0.3.9, 0.4.0), and then in the cache
    folder: so that is the package.
    """
    import wordllama

    return wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)


def _known_words(words: DataFrame) -> list[tuple[str, int]]:
    """The words of the vocabulary and how many items each is in, by index: at most ``features.words`` of them."""
    own = words.where(F.col(c.FEATURE).startswith(_WORD) & (F.col(c.COUNT) > 0)).orderBy(c.FEATURE_INDEX)
    return [(row[0][len(_WORD) :], row[1]) for row in own.select(c.FEATURE, c.COUNT).collect()]


def _word_vectors(tokens: DataFrame, words: int, settings: Features) -> Floats:
    if "word2vec" not in settings.content:
        return np.zeros((words, 0))
    # At most words² / 2 rows, whatever the number of items.
    pairs = text.word_pairs(tokens).toArrow()
    a, b, n = (pairs.column(name).to_numpy() for name in ("a", "b", "count"))
    return text.word_vectors(a, b, n, words, settings.content_width)


def _ready(settings: Features) -> Column:
    if "vector" not in settings.content:
        return F.array().cast("array<float>")
    numbers = F.filter(F.split(F.col(c.ATTRIBUTES)[settings.vector_attribute], r"[\s,;\[\]]+"), lambda x: x != "")
    return F.coalesce(F.transform(numbers, lambda x: x.cast("float")), F.array().cast("array<float>"))


def _ready_width(rows: DataFrame, settings: Features) -> int:
    if "vector" not in settings.content:
        return 0
    some = rows.where(F.size(_READY) > 0)
    bad = F.exists(_READY, lambda x: x.isNull() | F.isnan(x))
    row = some.agg(F.min(F.size(_READY)), F.max(F.size(_READY)), F.min(F.when(bad, F.col(c.ITEM_ID)))).first()
    assert row is not None
    if row[0] is None or row[0] != row[1] or row[2] is not None:
        found = "no item has one" if row[0] is None else f"they have {row[0]} to {row[1]} numbers"
        found = f"that of the item {row[2]} holds something else" if row[2] is not None else found
        raise DataError(
            f"The catalogue attribute '{settings.vector_attribute}' (features.vector_attribute) should hold vectors "
            f"of one width, numbers with blanks or commas between them, and {found}. Mend the catalogue, or leave "
            "'vector' out of features.content."
        )
    return int(row[1])


def _fit(sample: Floats, settings: Features) -> encoders.Encoder:
    if settings.content_encoder == "autoencoder":
        return encoders.autoencoder(sample, settings.content_width, settings.content_seed)
    return encoders.pca(sample, settings.content_width)


def _collected(sample: DataFrame, parts: Parts) -> Iterator[Floats]:
    """The sample's rows of numbers, on the driver, in the sample's order."""
    sentences = sentence_encoder(parts.settings.sentence_encoder) if "sentence" in parts.settings.content else None
    for batch in sample.toArrow().to_batches(max_chunksize=_BLOCK):
        yield parts(batch, sentences)


def _kernel(parts: Parts, encoder: encoders.Encoder) -> Callable[[Iterable[pa.RecordBatch]], Iterable[pa.RecordBatch]]:
    def vectors(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sentences = sentence_encoder(parts.settings.sentence_encoder) if "sentence" in parts.settings.content else None
        for batch in batches:
            for start in range(0, batch.num_rows, _BLOCK):
                block = batch.slice(start, _BLOCK)
                numbers = parts(block, sentences)
                # An item of which nothing is known is zero, not the mean of all.
                encoded = np.where(numbers.any(axis=1, keepdims=True), encoder(numbers), 0.0)
                rounded = np.round(encoded, _DECIMALS).astype(np.float32) + np.float32(0)  # no −0
                offsets = np.arange(0, rounded.size + 1, rounded.shape[1], dtype=np.int32)
                lists = pa.ListArray.from_arrays(offsets, rounded.ravel())
                yield pa.RecordBatch.from_arrays([block.column(c.ITEM_ID), lists], names=[c.ITEM_ID, c.CONTENT])

    return vectors


def _lists(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Lengths, and all values one after another."""
    return column.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64), column.flatten().to_numpy()
