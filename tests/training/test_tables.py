"""Rows of tables: where they begin, where they lie, and the gradients that reach them."""

from __future__ import annotations

import numpy as np
import pytest
from few import FEATURES, SIZES, events, everywhere, make
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import on_ranks

from sparkrec.config import TwoTower
from sparkrec.training.exchange import pack, unpack
from sparkrec.training.negatives import Columns
from sparkrec.training.optimizer import Decay, Sgd
from sparkrec.training.tables import Store, initial_rows

pytestmark = pytest.mark.workers


def test_first_rows_are_normal_and_each_its_own():
    rows = initial_rows(17, "item_id", np.arange(20_000), 7)
    assert rows.dtype == np.float32
    # 140,000 draws of deviation 0.1: four standard errors.
    assert abs(rows.mean()) < 4 * 0.1 / np.sqrt(rows.size)
    assert rows.std() == pytest.approx(0.1, abs=4 * 0.1 / np.sqrt(2 * rows.size))
    assert np.mean(np.abs(rows) > 0.2) == pytest.approx(0.0455, abs=0.003)
    correlation = np.corrcoef(rows.T) - np.eye(7)
    assert np.abs(correlation).max() < 5 / np.sqrt(len(rows))
    assert np.abs(np.corrcoef(rows[:-1].ravel(), rows[1:].ravel())[0, 1]) < 5 / np.sqrt(rows.size)
    assert np.any(rows[:5] != initial_rows(18, "item_id", np.arange(5), 7))
    assert np.any(rows[:5] != initial_rows(17, "user_id", np.arange(5), 7))


def test_a_row_begins_alike_in_a_shard_a_grown_table_and_the_whole():
    whole = initial_rows(1, "a", np.arange(50), 4)
    np.testing.assert_array_equal(initial_rows(1, "a", np.asarray([40, 3]), 4), whole[[40, 3]])
    for size in (1, 2, 3):
        for rank in range(size):
            store = Store({"b": 9, "a": 50}, 4, Sgd(), None, rank, size)
            store.reset(1)
            np.testing.assert_array_equal(read(store, "a"), whole[rank::size])
            np.testing.assert_array_equal(read(store, "b"), initial_rows(1, "b", np.arange(rank, 9, size), 4))


@pytest.mark.parametrize("history", ["none", "mean"])
@pytest.mark.parametrize(
    ("placement", "optimizer"),
    [("replicated_dense", "adagrad"), ("replicated_sparse", "sgd"), ("sharded", "adagrad"), ("sharded", "lazy_adam")],
)
def test_who_was_asked_for_nothing_is_shipped_as_a_stranger_where_a_history_is_read(placement, optimizer, history):
    """By position the first event asks for nothing, so that nobody with one event has a target."""
    config = TwoTower(
        width=4, batch=10, max_history=5, ranks=2, mode="position", history=history, average=0.9,
        placement=everywhere(placement), table_optimizer=optimizer,
    )  # fmt: skip

    def rank(collective):
        trainer, loader = make(config, collective)
        for number in range(2 * loader.steps_per_epoch):
            trainer.step(trainer.prepare(loader.step(*divmod(number, loader.steps_per_epoch))), number, 9)
        return whole(trainer, "user_id").any(axis=1).tolist()

    asked = np.diff(events().ends, prepend=0) > 1
    assert 0 < asked.sum() < len(asked)
    for learned in on_ranks(2, rank):
        assert learned == [history == "none" or x for x in asked]


@settings(max_examples=20)
@given(touches=st.lists(st.lists(st.integers(0, 4), unique=True), max_size=12), decay=st.sampled_from([0.3, 0.9]))
def test_the_lazy_average_is_the_one_kept_at_every_step(touches, decay):
    store = Store({"a": 5}, 2, Sgd(), Decay(decay))
    store.reset(3)
    weights = average = read(store, "a").astype(np.float64)
    for step, rows in enumerate(touches):
        gradient = np.full((len(rows), 2), 1.0 + step, np.float32)
        store.apply(np.asarray(rows, np.int32), gradient, 0.5, 0.1, step)
        weights = weights.copy()
        weights[rows] -= 0.1 * 0.5 * (1 + step)
        now = min(decay, (1 + step) / (10 + step))
        average = now * average + (1 - now) * weights
    np.testing.assert_allclose(store.shipped(np.arange(5, dtype=np.int32), len(touches)), average, atol=1e-6)
    np.testing.assert_allclose(read(store, "a"), weights, atol=1e-6)


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), max_size=5))
def test_half_precision_keeps_each_row_to_its_largest_element(rows):
    values = np.asarray(rows, np.float32).reshape(-1, 3)
    packed = pack(values).numpy()
    assert (packed.dtype, packed.shape) == (np.int16, (len(values), 5))
    found = unpack(packed).numpy()
    largest = np.abs(values).max(axis=1, initial=0)
    assert (np.abs(found - values) <= largest[:, None] * 2.0**-11 * 1.01 + 1e-30).all()


LOSSES = {
    "full": {},
    "in batch": {"in_batch": True},
    "both": {"in_batch": True, "negatives": 6, "mode": "position"},
    "mse": {"loss": "mse", "weights": {"rating": 1.0}},
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("placement", ["replicated_sparse", "sharded"])
def test_gradients_that_arrive_at_the_rows_are_numerical_ones(loss, placement):
    """SGD of rate 1: what a row lost in a step, against differences of the whole batch's loss on one rank."""
    config = {
        "width": 3,
        "batch": 7,
        "max_history": 4,
        "learning_rate": 1.0,
        "table_optimizer": "sgd",
        "temperature": 0.5,
        **LOSSES[loss],
    }

    def settings_of(ranks, kind):
        return TwoTower.model_validate({**config, "ranks": ranks, "placement": everywhere(kind)})

    def moved(collective):
        trainer, loader = make(settings_of(3, placement), collective)
        touched = {name: np.arange(rows, dtype=np.int32) for name, rows in trainer.tables.items()}
        routes = trainer.embeddings.routes(touched)
        before = trainer.embeddings.lookup(touched, routes)
        weight = trainer.step(trainer.prepare(loader.step(0, 0)), 0, 1)[1]
        after = trainer.embeddings.lookup(touched, routes)
        return {name: weight * (before[name] - after[name]).numpy() for name in trainer.tables}

    found = on_ranks(3, moved)[0]
    (single,) = on_ranks(1, lambda collective: [make(settings_of(1, "replicated_sparse"), collective)])
    (trainer, loader) = single[0]
    step = trainer.prepare(loader.step(0, 0))
    rng = np.random.default_rng(0)
    for name, gradient in found.items():
        rows = np.flatnonzero(np.abs(gradient).max(axis=1) > 1e-4)
        assert len(rows) > 1
        for row in rng.choice(rows, 2, replace=False):
            direction = rng.standard_normal(3).astype(np.float32)
            slope = difference(trainer, step, name, row, direction)
            assert gradient[row] @ direction == pytest.approx(slope, rel=0.02, abs=0.02), (name, row)


def read(store, name):
    return np.concatenate(list(store.read(name, "weights")))


def whole(trainer, name):
    return np.concatenate([trainer.collective.allgather(rows) for _, rows in trainer.table_blocks(name)])


def difference(trainer, step, name, row, direction, h=0.002):
    """Of Σ weight · loss, symmetric, when a row moves along a direction; the row is put back."""
    store = trainer.embeddings.replicated
    at = np.asarray([row])
    before = read(store, name)[row]
    losses = []
    for sign in (1, -1):
        store.write(name, "weights", at, (before + sign * h * direction)[None])
        losses.append(trainer.loss(step)[0])
    store.write(name, "weights", at, before[None])
    return (losses[0] - losses[1]) / (2 * h)


def test_the_log_q_correction_by_hand():
    """Targets of two ranks: item 1 three times, item 4 once; drawn: 4 and 0. Shares of training: 1/2, 1/10."""

    def columns(collective):
        settings = TwoTower(in_batch=True, negatives=2)
        made = Columns(settings, 20, collective)
        counts = np.zeros(20, np.int64)
        counts[[1, 4, 9]] = [[5, 0, 0], [0, 1, 4]][collective.rank]
        made.count(counts)
        parts = [{"target_items": np.asarray([[1, 1], [1, 4]][collective.rank], np.int32)}]
        return [x.tolist() for x in made.of(parts, np.asarray([4, 0], np.int32))]

    first, second = on_ranks(2, columns)
    assert first == second
    items, bias = first
    assert items == [0, 1, 4]
    # Expected: four targets times the share, and two drawn of twenty items.
    assert bias == pytest.approx(np.log([1 / 0.1, 3 / (4 * 0.5 + 0.1), 2 / (4 * 0.1 + 0.1)]), rel=1e-6)


@pytest.mark.parametrize("negatives", [20, 2048])
def test_as_many_negatives_as_items_are_all_items(negatives):
    """Also beside the targets of the batch: their union is all items, each once and as expected."""

    def columns(collective):
        made = Columns(TwoTower(in_batch=True, negatives=negatives), 20, collective)
        made.count(np.eye(20, dtype=np.int64)[3])
        assert made.whole
        return [x.tolist() for x in made.of([{"target_items": np.asarray([3], np.int32)}], np.zeros(0, np.int32))]

    assert on_ranks(2, columns) == [[list(range(20)), [0.0] * 20]] * 2


def test_the_few_are_what_they_say():
    """The test problem itself: every user has events, features are known, some items are never met."""
    assert len(events().users) == SIZES.users
    assert FEATURES.features.max() < SIZES.features
    assert len(set(events().items.tolist())) < SIZES.items
