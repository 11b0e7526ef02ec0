"""The model that validation chose is kept for the ranker: as if there had never been validation events."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import small

from sparkrec import columns as c
from sparkrec.models.two_tower import exported

pytestmark = pytest.mark.workers


@pytest.mark.parametrize(("ranks", "every"), [(1, 5), (2, 1)])
def test_it_is_the_model_of_the_best_epoch_without_validation_events(tmp_path, ranks, every):
    """Whether or not there would be a checkpoint after the best epoch."""
    plan = dataclasses.replace(
        small.make_plan(tmp_path / "both", ranks=ranks, epochs=6, patience=2, checkpoint_epochs=every), keep_chosen=True
    )
    best = small.train(plan)[0]["epochs"]
    assert 0 < best <= 6

    rows = pq.read_table(tmp_path / "both" / "data" / "gold.sequences.parquet")
    for name in (c.ITEM_INDEX, c.EVENT_TYPE, c.VALIDATION):  # the last event of each user is the one held out
        shorter = [values[:-1] for values in rows[name].to_pylist()]
        field = rows.schema.field(name)
        rows = rows.set_column(rows.schema.get_field_index(name), field, pa.array(shorter, field.type))
    assert not pc.any(pc.list_flatten(rows[c.VALIDATION])).as_py()
    alone = small.plan_of(
        tmp_path / "alone", rows, small.ITEMS, ranks=ranks, epochs=6, select_on_validation=False, checkpoint_epochs=1
    )

    def stop(training):  # the learning rate may depend on the planned epochs, so these stay six
        training.settings = training.settings.model_copy(update={"epochs": best})

    small.train(alone, stop)
    chosen, wanted = (exported.load(folder) for folder in (plan.path("chosen"), alone.path("model")))
    assert set(chosen.weights) == set(wanted.weights)
    np.testing.assert_array_equal(chosen.item_vectors, wanted.item_vectors)
    for name, weight in wanted.weights.items():
        np.testing.assert_array_equal(chosen.weights[name], weight, name)
    assert not alone.path("chosen").exists()
