"""Tables that have grown: old rows are kept, new ones are those of an untrained table, on any number of ranks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from few import FEATURES, events, everywhere
from ranks import on_ranks

from sparkrec.config import TwoTower
from sparkrec.models.two_tower.towers import ItemFeatures, Sizes
from sparkrec.training import checkpoint, grown
from sparkrec.training.collective import SingleProcess
from sparkrec.training.loader import Loader
from sparkrec.training.loop import Trainer
from sparkrec.training.tables import initial_rows

pytestmark = pytest.mark.workers

SMALL, LARGE = Sizes(users=11, items=13, features=3), Sizes(users=24, items=30, features=5)


def trainer_of(collective, sizes, placement, **settings):
    kinds = everywhere(placement)
    config = TwoTower.model_validate(
        {"width": 4, "batch": 8, "average": 0.9, "placement": kinds, "ranks": collective.size, **settings}
    )
    ends = np.minimum(FEATURES.ends[: sizes.items], 1 << 30)
    features = ItemFeatures(ends, FEATURES.features[: ends[-1]] % sizes.features)
    return config, Trainer(config, sizes, features, collective, kinds)


def arrays(trainer):
    """Every array of a checkpoint, whole: a sharded one put together from the ranks' rows."""
    found = {part.name: np.concatenate(list(part.blocks)) for part in trainer.replicated()}
    size = trainer.collective.size
    for part in trainer.shards():
        mine = np.concatenate(list(part.blocks))
        whole = np.zeros((part.rows, mine.shape[1]), np.float32)
        whole[trainer.collective.rank :: size] = mine
        found[part.name] = trainer.collective.allreduce(whole)
    return found


def few_steps(collective, placement, folder, **settings):
    """A training of the small tables, saved; its arrays."""
    config, trainer = trainer_of(collective, SMALL, placement, **settings)
    few = events(collective.rank, collective.size)
    kept = (few.items < SMALL.items) & (few.users[few.owner] < SMALL.users)
    own = dataclasses.replace(few.where(kept), stars=None)
    some = np.flatnonzero(own.users < SMALL.users)
    own = dataclasses.replace(own, users=own.users[some], ends=own.ends[some])
    batches = Loader(own, SMALL.users, SMALL.items, config, collective)
    for number in range(6):
        trainer.step(trainer.prepare(batches.step(*divmod(number, batches.steps_per_epoch))), number, 6)
    state = {"rows": trainer.tables, "steps": trainer.steps, "fingerprint": "x"}
    checkpoint.save(folder, 6, trainer.replicated(), trainer.shards(), state, 1, collective)
    return arrays(trainer)


@pytest.mark.parametrize("placement", ["replicated_dense", "replicated_sparse", "sharded", "mixed"])
def test_old_rows_are_kept_and_new_ones_are_those_of_an_untrained_table(tmp_path, placement):
    """Saved by two ranks, read by one, two and four."""
    before = on_ranks(2, lambda collective: few_steps(collective, placement, tmp_path))[0]

    def grow(collective):
        config, trainer = trainer_of(collective, LARGE, placement)
        untrained = arrays(trainer)
        saved = checkpoint.newest(tmp_path, "x", collective, print)
        trainer.begin(grown.reader(saved, config, trainer.tables), saved.state["steps"])
        assert (trainer.steps, trainer.begun) == (6, 6)
        assert grown.new_rows(saved, trainer.tables) == {
            "item_id": 17, "item_feature": 2, "user_id": 13, "history_item": 17,
        }  # fmt: skip
        return untrained, arrays(trainer), trainer.tables

    for ranks in (1, 2, 4):
        untrained, after, tables = on_ranks(ranks, grow)[0]
        assert set(after) == set(untrained) == set(before)
        for name, values in after.items():
            rows, (kind, table) = len(before[name]), name.split("/")
            np.testing.assert_array_equal(values[:rows], before[name], err_msg=name)
            if kind == "v" and table in tables:  # of tables that are updated whole
                mean = np.tile(before[name].mean(axis=0), (len(values) - rows, 1))
                np.testing.assert_allclose(values[rows:], mean, rtol=1e-5, err_msg=name)
                assert (values[rows:] > 0).any()
                continue
            np.testing.assert_array_equal(values[rows:], untrained[name][rows:], err_msg=name)
            if table in tables:
                first = initial_rows(17, table, np.arange(rows, tables[table]), 4)
                assert len(first)
                np.testing.assert_array_equal(values[rows:], first if kind in ("weights", "average") else 0)
        moved = [name for name in before if np.any(before[name] != untrained[name][: len(before[name])])]
        assert {f"weights/{table}" for table in tables} <= set(moved)


def test_another_optimizer_of_the_tables_and_an_average_begin_with_nothing(tmp_path):
    (before,) = on_ranks(1, lambda x: few_steps(x, "sharded", tmp_path, average=0.0))
    config, trainer = trainer_of(SingleProcess(), LARGE, "sharded", table_optimizer="lazy_adam")
    saved = checkpoint.newest(tmp_path, "x", SingleProcess(), print)
    trainer.begin(grown.reader(saved, config, trainer.tables), 6)
    after = arrays(trainer)
    np.testing.assert_array_equal(after["weights/user_id"][:11], before["weights/user_id"])
    np.testing.assert_array_equal(after["average/user_id"], after["weights/user_id"])
    np.testing.assert_array_equal(after["average/event_type"], before["weights/event_type"])
    for kind in ("m", "v", "count", "averaged_until"):
        assert not after[f"{kind}/user_id"].any()
