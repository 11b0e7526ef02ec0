"""Messages between ranks against sums over everybody's arrays."""

from __future__ import annotations

import itertools
import time
from contextlib import closing

import numpy as np
import pytest
import tensorflow as tf
from few import everywhere, make, run
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import on_ranks

from sparkrec.config import TwoTower
from sparkrec.training.embeddings import Embeddings
from sparkrec.training.exchange import Exchange, Merge
from sparkrec.training.optimizer import Sgd
from sparkrec.training.tables import Store, initial_rows

pytestmark = pytest.mark.unit

TABLES = {"a": 11, "b": 6}
WIDTH = 3


@given(st.lists(st.integers(0, 6), max_size=20))
def test_merged_rows_are_sums(slots):
    values = np.random.default_rng(1).standard_normal((len(slots), 2)).astype(np.float32)
    merge = Merge.of(np.asarray(slots, np.int32), np.zeros(7, np.int32))
    assert sorted(merge.slots.tolist()) == sorted(set(slots))
    for slot, total in zip(merge.slots, merge.sums(values).numpy(), strict=True):
        np.testing.assert_allclose(total, values[np.asarray(slots) == slot].sum(axis=0), atol=1e-5)


def asked_by(rank, draw):
    return {name: np.asarray(draw[rank].get(name, []), np.int32) for name in TABLES}


rows = st.fixed_dictionaries({n: st.lists(st.integers(0, k - 1), unique=True, max_size=5) for n, k in TABLES.items()})


@settings(max_examples=25)
@given(draw=st.lists(rows, min_size=1, max_size=4))
def test_rows_come_from_their_owners_and_gradients_go_home(draw):
    """Whatever ranks ask for, nothing included: the rows, and at the owners the sums of what was sent."""
    size = len(draw)

    def rank(collective):
        store = Store(TABLES, WIDTH, Sgd(), None, collective.rank, size)
        store.reset(1)
        exchange = Exchange(collective, False)
        touched = asked_by(collective.rank, draw)
        route = exchange.route(store, touched)
        values = exchange.rows(route, store.gather(route.asked)).numpy()
        flat = np.concatenate([initial_rows(1, name, r, WIDTH) for name, r in touched.items()])
        np.testing.assert_array_equal(values, flat)
        gradient = tf.constant((collective.rank + 1) * np.ones_like(values))
        merge = Merge.of(route.asked, store.scratch)
        sums = exchange.home(store, route, merge, touched, gradient)
        store.apply(merge.slots, sums, 1.0, 1.0, 0)
        return {name: np.concatenate([*store.read(name, "weights"), np.zeros((0, 3))]) for name in TABLES}

    found = on_ranks(size, rank)
    for name, n in TABLES.items():
        expected = initial_rows(1, name, np.arange(n), WIDTH)
        for number, asked in enumerate(draw):
            expected[asked[name]] -= number + 1
        for number in range(size):
            np.testing.assert_allclose(found[number][name], expected[number::size], atol=1e-6)


def test_bytes_are_counted_for_each_variable():
    """Two ranks. Dense: 2 · (W − 1) / W of the buffer; sparse: own rows once; sharded: rows that lie elsewhere."""

    def rank(collective):
        exchange = Exchange(collective, False)
        exchange.dense(tf.zeros(10), {"x": 6, "y": 4})
        sparse, sharded = Store({"a": 11}, 3, Sgd(), None), Store({"b": 6}, 3, Sgd(), None, collective.rank, 2)
        touched = {"a": np.asarray([1, 5], np.int32)}
        merge = Merge.of(exchange.touched_by_all(sparse, touched), sparse.scratch)
        exchange.everywhere(sparse, merge, touched, tf.zeros((2, 3)))
        touched = {"b": np.asarray([0, 1, 4], np.int32)}
        route = exchange.route(sharded, touched)
        merge = Merge.of(route.asked, sharded.scratch)
        exchange.home(sharded, route, merge, touched, tf.zeros((3, 3)))
        return dict(exchange.bytes)

    # A row of a: index and gradient, 4 + 12. Of b: index, row, gradient, 28; rows 0 and 4 lie on rank 0, 1 on rank 1.
    assert on_ranks(2, rank) == [{"x": 24, "y": 16, "a": 32, "b": 28}, {"x": 24, "y": 16, "a": 32, "b": 56}]


def test_one_rank_sends_nothing():
    trainer = run(1, 2, placement=everywhere("mixed"))[2]
    assert sum(trainer.exchange.bytes.values()) == 0


@pytest.mark.parametrize("placement", ["replicated_sparse", "sharded"])
def test_ranks_that_end_early_have_sent_the_same_and_wait_for_nobody(placement):
    """As when an error comes out of a step: one step was prepared ahead on every rank, and no second one."""
    config = TwoTower(width=4, batch=10, ranks=3, in_batch=True, placement=everywhere(placement))

    def rank(collective):
        trainer, loader = make(config, collective)
        prepared = []

        def steps():
            for number in itertools.count():
                prepared.append(number)
                yield loader.step(*divmod(number, loader.steps_per_epoch))

        with closing(trainer.ahead(steps())) as ready:
            for number, step in zip(range(3), ready, strict=False):
                trainer.step(step, number, 9)
                time.sleep(0.01 * collective.rank)
        return prepared

    assert on_ranks(3, rank) == [[0, 1, 2, 3]] * 3


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_norm_is_that_of_the_whole_gradient(ranks, monkeypatch):
    """Of dense, replicated and sharded parts together: clipped by half, all of them move half as far."""
    norms = []
    squares = Embeddings.squares
    monkeypatch.setattr(Embeddings, "squares", lambda self, updates: norms.append(squares(self, updates)) or norms[-1])
    same = {
        "placement": everywhere("mixed"), "table_optimizer": "sgd", "negatives": 8, "learning_rate": 0.1,
        "history": "none", "item_mlp": True,
    }  # fmt: skip
    free = run(ranks, 1, clip_norm=1e9, **same)
    start = run(ranks, 0, **same)
    names = [name for name, kind in same["placement"].items() if kind != "replicated_dense"]
    moved = sum(np.sum((free[1][name] - start[1][name]) ** 2.0) for name in names)
    weight = free[0][0, 1]
    assert np.sqrt(moved) == pytest.approx(0.1 * np.sqrt(norms[0]) / weight, rel=1e-4)
    dense = free[2].optimizer.state
    # After one step Adam's first moment is a tenth of the gradient.
    square = norms[0] / weight**2 + sum(np.sum((10 * v.numpy()) ** 2.0) for k, v in dense.items() if k.startswith("m/"))
    clipped = run(ranks, 1, clip_norm=float(np.sqrt(square)) / 2, **same)
    for name in names:
        half = (clipped[1][name] - start[1][name]) * 2
        np.testing.assert_allclose(half, free[1][name] - start[1][name], atol=2e-6)
