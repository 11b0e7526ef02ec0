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
from sparkrec.errors import DataError
from sparkrec.models.two_tower import exported
from sparkrec.training import worker
from sparkrec.training.plan import Memory, Plan, Question

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


def test_another_epochs_model_is_not_taken_for_the_chosen_one(tmp_path, monkeypatch):
    plan = dataclasses.replace(small.make_plan(tmp_path, ranks=1, epochs=2), keep_chosen=True)
    newest = worker.checkpoint.newest

    def another(*arguments):
        found = newest(*arguments, print)
        found.state["place"]["epoch"] = 7
        return found

    for given in (another, lambda *_: None):
        monkeypatch.setattr(worker.checkpoint, "best", given)
        with pytest.raises(DataError, match=r"Validation chose epoch [12],.*checkpoints is damaged or gone"):
            small.train(plan)
        assert not plan.path("chosen").exists()


def test_checkpoints_of_another_question_or_without_the_chosen_model_are_not_gone_on_with(tmp_path):
    plan = small.make_plan(tmp_path, ranks=1)
    others = [
        dataclasses.replace(plan, keep_chosen=True),
        dataclasses.replace(plan, question=Question(("purchase",), plan.question.seen)),
        dataclasses.replace(plan, question=Question(plan.question.asked, ("purchase",))),
        *(
            dataclasses.replace(plan, question=Question(memory=Memory(*memory)))
            for memory in ((7, None, (("brand = 'B'", 30.0),)), (8, None, (("brand = 'B'", 30.0),)), (7, 30.0, ()))
        ),
    ]
    assert len({plan.fingerprint, *(other.fingerprint for other in others)}) == 7
    assert others[1].question.plain.keys() == {"asked", "seen"}, "so it is what it was before there was a memory"
    for other in others:
        assert Plan.load(other.save()) == other
        unasked = dataclasses.replace(other, two_tower=plan.two_tower | {"select_on_validation": False})
        assert unasked.fingerprint == dataclasses.replace(plan, two_tower=unasked.two_tower).fingerprint
