"""The towers on blocks of users, with only the rows that a block needs, give what the whole tables give."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import untrained

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import TwoTower
from sparkrec.errors import ConfigError, DataError
from sparkrec.models.two_tower import exported, towers
from sparkrec.models.two_tower.encoders import ENCODERS
from sparkrec.models.two_tower.towers import ItemFeatures, Sizes
from sparkrec.retrieval import embed

SIZES = Sizes(users=6, items=9, features=4)
NO_FEATURES = ItemFeatures(np.zeros(9, np.int64), np.zeros(0, np.int32))


def model_of(folder, **settings):
    config = TwoTower(width=6, **settings)
    weights = untrained.weights(config, SIZES)
    exported.save(
        folder, config, SIZES, weights, np.asarray(towers.item_rows(weights, NO_FEATURES.of(np.arange(9)))), {}
    )
    return exported.load(folder)


@pytest.mark.unit
@pytest.mark.parametrize("history", ["none", *ENCODERS])
def test_a_block_of_users(tmp_path, history):
    model = model_of(tmp_path / "model", history=history, max_history=2)
    found = embed.user_vectors(
        model,
        np.asarray([5, 2], np.int32),
        np.asarray([3, 1]),
        np.asarray([0, 8, 8, 4], np.int32),
        np.asarray([0, 3, 1, 3]),
    )
    batch = {
        "users": np.asarray([5, 2], np.int32), "history_items": np.asarray([8, 8, 4], np.int32),
        "history_types": np.asarray([3, 1, 3], np.int32), "history_segment": np.asarray([0, 0, 1], np.int32),
        "history_lag": np.asarray([1, 0, 0], np.int32), "history_rows": np.asarray([8, 8, 4], np.int32),
    }  # fmt: skip
    whole = towers.user_vectors(model.weights, model.settings, batch, np.asarray(model.item_vectors))
    np.testing.assert_allclose(found, whole, atol=1e-6)


@pytest.mark.unit
def test_who_is_not_known_has_no_id_row(tmp_path):
    model = model_of(tmp_path / "model", history="mean", event_types=False)
    met = np.asarray([1, 4], np.int32)
    found = embed.user_vectors(model, np.asarray([-1]), np.asarray([2]), met, np.zeros(2, int))
    alone = model.weights["history_item"][met].sum(axis=0)  # the gate and √count are factors
    np.testing.assert_allclose(found[0], alone / np.linalg.norm(alone), atol=1e-6)


@pytest.mark.unit
def test_a_block_of_items(tmp_path):
    model = model_of(tmp_path / "model")
    features = ItemFeatures(np.asarray([0, 2, 2, 3, 3, 3, 3, 3, 3]), np.asarray([1, 3, 0], np.int32))
    whole = np.asarray(towers.item_rows(model.weights, features.of(np.arange(9))))
    found = embed.item_vectors(model, np.asarray([3, 1, 8]), np.asarray([1, 2, 0]), np.asarray([0, 1, 3], np.int32))
    np.testing.assert_allclose(found, whole[[3, 1, 8]], atol=1e-6)


@pytest.mark.unit
@pytest.mark.parametrize("table", ["item_id", "item_feature"])
def test_of_a_table_only_the_rows_of_a_block_are_read(tmp_path, table):
    class Rows:
        """No array: to read it whole is an error."""

        def __init__(self, table):
            self._table = table

        def __getitem__(self, index):
            return self._table[index]

    model = model_of(tmp_path / "model")
    block = np.asarray([3, 1, 8]), np.asarray([1, 2, 0]), np.asarray([0, 3, 0], np.int32)
    whole = embed.item_vectors(model, *block)
    model.weights[table] = Rows(model.weights[table])
    np.testing.assert_array_equal(embed.item_vectors(model, *block), whole)


@pytest.mark.unit
def test_weights_that_are_not_numbers_are_neither_written_nor_served(tmp_path):
    model = model_of(tmp_path / "model")
    model.weights["item_id"] = np.full((9, 6), np.nan, np.float32)
    with pytest.raises(DataError, match="not finite"):
        embed.item_vectors(model, np.asarray([3]), np.asarray([0]), np.zeros(0, np.int32))
    with pytest.raises(ConfigError, match=r"'item_id' hold NaN.*learning_rate"):
        exported.save(tmp_path / "new", model.settings, SIZES, model.weights, np.zeros((9, 6)), {})
    assert not (tmp_path / "new").exists()


@pytest.mark.unit
def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no two-tower model in .*nowhere.*train_two_tower"):
        exported.load(tmp_path / "nowhere")


@pytest.mark.unit
def test_other_tables_than_it_was_trained_on_are_named(tmp_path):
    model = model_of(tmp_path / "model")
    embed.check_tables(model, {"gold.items": 7})  # nothing is said of it
    model = dataclasses.replace(model, tables={"gold.items": 7, "gold.sequences": 3})
    embed.check_tables(model, {"gold.items": 7, "gold.sequences": 3})
    with pytest.raises(
        DataError, match=r"version 3 of gold.sequences, and featurize .* version 4 since.*train_two_tower"
    ):
        embed.check_tables(model, {"gold.items": 7, "gold.sequences": 4})


@pytest.mark.spark
def test_the_newest_chunks_are_joined_in_time_order(spark):
    rows = [
        (1, 0, 2, [5, 6], [0, 1], [4, 5], [0.0, 0.0], [False, True], 0),
        (1, 2, 1, [1], [3], [1], [0.0], [False], 0),
        (1, 1, 2, [2, 3], [0, 2], [2, 3], [0.0, 0.0], [False, False], 0),
        (2, 0, 1, [9], [1], [1], [0.0], [False], 0),
    ]
    frame = spark.createDataFrame(rows, schemas.GOLD_SEQUENCES.struct())

    def found(chunks):
        kept = embed.newest_first_chunks(frame, chunks).collect()
        return {row[c.USER_INDEX]: (row[c.ITEM_INDEX], row[c.EVENT_TYPE]) for row in kept}

    assert found(1) == {1: ([5, 6], [0, 1]), 2: ([9], [1])}
    assert found(2) == {1: ([2, 3, 5, 6], [0, 2, 0, 1]), 2: ([9], [1])}
    assert found(3)[1] == ([1, 2, 3, 5, 6], [3, 0, 2, 0, 1])
    assert found(None) == found(3)
    times = {
        row[c.USER_INDEX]: row[c.EVENT_TIME] for row in embed.newest_first_chunks(frame, 2, (c.EVENT_TIME,)).collect()
    }
    assert times == {1: [2, 3, 4, 5], 2: [1]}


@pytest.mark.spark
def test_a_history_lies_in_any_chunk_once_events_are_taken_out(spark, tmp_path):
    """As the ranker's past is: the newest two chunks held nothing but validation events."""
    model_of(tmp_path / "model", history="mean", max_history=2)
    emptied = [(1, 0, 0, [], [], [], [], [], 0), (1, 1, 0, [], [], [], [], [], 0)]
    rows = [*emptied, (1, 2, 2, [2, 3], [0, 2], [2, 3], [0.0, 0.0], [False, False], 0)]
    vocabulary = spark.createDataFrame([(1, "a")], f"{c.USER_INDEX} int, {c.USER_ID} string")

    def vector(rows, spare_chunks):
        frame = spark.createDataFrame(rows, schemas.GOLD_SEQUENCES.struct())
        (row,) = embed.users(frame, vocabulary, str(tmp_path / "model"), 2, spare_chunks).collect()
        return row[c.VECTOR]

    found = vector(rows, None)
    assert found == vector([(1, 0, *rows[2][2:])], 0)
    assert found != vector(rows, 1)
