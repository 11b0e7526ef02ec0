"""``content``: parts side by side, brought to one width on executors."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from sparkrec import columns as c
from sparkrec.config import Features
from sparkrec.errors import ConfigError, DataError
from sparkrec.features import vectors

SCHEMA = "item_id string, name string, text string, attributes map<string,string>"
ITEMS = [
    ("a", "red lantern", "lantern of brass", {"image": "[3, 4]"}),
    ("b", "red mug", None, {"image": "0 2.5"}),
    ("c", "mug, mug", "brass", {"image": ""}),
    ("d", None, None, None),
]
#: Numbered by index: brass 0, lantern 1, mug 2, red 3; the word of an earlier run is not one of this one.
WORDS = [("word=gone", 0, 0), ("word=brass", 3, 2), ("brand=mug", 4, 9), ("word=lantern", 5, 1), ("word=mug", 7, 2),
         ("word=red", 9, 2)]  # fmt: skip
PARTS = ("tfidf", "word2vec", "sentence", "vector")


def settings(**more):
    return Features(
        **{
            "content": PARTS, "content_width": 3, "vector_attribute": "image",
            "sentence_encoder": "fake_encoder:embed",
        }
        | more
    )  # fmt: skip


@pytest.fixture(scope="module")
def items(spark):
    return spark.createDataFrame(ITEMS, SCHEMA).repartition(2, c.ITEM_ID)


@pytest.fixture(scope="module")
def content(spark, items):
    spark.sparkContext.addPyFile(str(Path(__file__).with_name("fake_encoder.py")))
    words = spark.createDataFrame(WORDS, "feature string, feature_index int, count bigint")
    lists = items.select(c.ITEM_ID).where("item_id != 'd'")

    def make(**more):
        rows = vectors.with_content(lists, items, words, settings(**more), 4).collect()
        return {row[c.ITEM_ID]: row[c.CONTENT] for row in rows}

    return make


def _unit(row):
    return np.array(row) / np.linalg.norm(row) if np.any(row) else np.array(row, float)


@pytest.mark.spark
def test_content_is_the_pca_of_the_parts(content):
    found = content(content=("tfidf", "sentence", "vector"))
    idf = np.log(5 / (1 + np.array([2, 1, 2, 2]))) + 1
    words = {"a": [1, 2, 0, 1], "b": [0, 0, 1, 1], "c": [1, 0, 2, 0], "d": [0, 0, 0, 0]}
    texts = {"a": "red lantern lantern of brass", "b": "red mug", "c": "mug, mug brass", "d": ""}
    images = {"a": [3, 4], "b": [0, 2.5], "c": [0, 0], "d": [0, 0]}
    parts = {
        item: np.concatenate(
            [_unit(words[item] * idf), _unit([len(texts[item]), texts[item].count("e")]), _unit(images[item])]
        )
        for item in "abcd"
    }
    rows = np.array(list(parts.values()))
    mean = rows.mean(axis=0)
    directions = np.linalg.svd(rows - mean)[2][:3]
    for item in "abc":
        # the sign of a direction is open
        expected = np.abs((parts[item] - mean) @ directions.T)
        np.testing.assert_allclose(np.abs(found[item]), expected, atol=2e-6)
    assert found["d"] == [0, 0, 0], "nothing is known of it"


@pytest.mark.spark
def test_every_part_and_the_autoencoder_give_the_same_bits_again(content):
    first = content(content_encoder="autoencoder")
    assert {len(vector) for vector in first.values()} == {3}
    assert len({tuple(vector) for vector in first.values()}) == 4
    assert content(content_encoder="autoencoder") == first


@pytest.mark.spark
@pytest.mark.parametrize(
    ("images", "words"),
    [
        (["1 2", "1 2 3"], "they have 2 to 3 numbers"),
        (["1 2", "1 two"], "that of the item i1 holds something else"),
        ([None, ""], "no item has one"),
    ],
)
def test_ready_made_vectors_that_are_none(spark, images, words):
    rows = [(f"i{n}", "x", None, {"image": image}) for n, image in enumerate(images)]
    items = spark.createDataFrame(rows, SCHEMA)
    none = spark.createDataFrame([], "feature string, feature_index int, count bigint")
    with pytest.raises(DataError, match=r"attribute 'image'.* and " + words):
        vectors.with_content(items.select(c.ITEM_ID), items, none, settings(content=("vector",)), 2)


@pytest.mark.unit
def test_a_sentence_encoder_that_is_not_there():
    with pytest.raises(ConfigError, match=r"'not_installed:embed' .* cannot be imported.*sparkrec\[text\]"):
        vectors.sentence_encoder("not_installed:embed")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"vector_attribute": None}, "vector needs vector_attribute"),
        ({"words": 0}, "words must lie between 1 and"),
    ],
)
def test_parts_without_a_source_are_refused(wrong, words):
    with pytest.raises(ValidationError, match=words):
        settings(**wrong)
