"""The job on two days of a gold lake: which training is found, what is recorded, what the report makes of it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from gold_lake import histories, write_gold

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import Settings
from sparkrec.errors import ConfigError
from sparkrec.evaluation import records
from sparkrec.evaluation.comparison import Measure
from sparkrec.jobs.train_two_tower import train_two_tower
from sparkrec.models.two_tower import exported
from sparkrec.pipeline import Run, execute
from sparkrec.training import driver, warm_start

pytestmark = pytest.mark.workers

USERS, MORE_USERS, BACK = 60, 64, range(0, 64, 5)
SIZES = {"users": MORE_USERS, "items": 42, "features": 2}


def settings_of(folder, **two_tower):
    sections = {
        "name": "test", "lake": {"path": str(folder / "lake")}, "source": {"name": "simulator", "path": str(folder)},
        "spark": {"driver_memory": "1g", "shuffle_partitions": 2}, "tracking": {"enabled": False},
        "two_tower": {"ranks": 1, "width": 8, "batch": 16, "epochs": 4, "select_on_validation": False, **two_tower},
    }  # fmt: skip
    return Settings.model_validate(sections)


@pytest.fixture(scope="module")
def folder(spark, tmp_path_factory):
    """Monday in full, Tuesday from Monday's model; in the session of the tests, which outlives the jobs."""
    folder = tmp_path_factory.mktemp("week")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "release_session", lambda run: None)
        write_gold(settings_of(folder), run_id="monday")
        execute(train_two_tower, Run(settings_of(folder), warm_start.STAGE, run_id="monday"))
        write_gold(settings_of(folder), MORE_USERS, 42, run_id="tuesday", back=BACK)
        warm = settings_of(folder, warm_start="last", warm_epochs=3, replay=0.0)
        execute(train_two_tower, Run(warm, warm_start.STAGE, run_id="tuesday"))
    return folder


def run_of(folder, run_id, **two_tower):
    return Run(settings_of(folder, **two_tower), warm_start.STAGE, run_id=run_id)


def model_of(folder, run_id):
    return exported.load(driver.model_folder(run_of(folder, run_id)) / "model")


def found(run, as_of=10**10):
    said = []
    run.say = said.append
    base = warm_start.find(run, driver.model_folder(run).parent, SIZES, as_of)
    return base, " ".join(said)


def test_tuesday_grew_out_of_monday(folder):
    monday, tuesday = (model_of(folder, run_id) for run_id in ("monday", "tuesday"))
    assert (tuesday.sizes["users"], tuesday.sizes["items"]) == (MORE_USERS, 42)
    new = np.arange(USERS, MORE_USERS)
    # Users who did not come back: their own rows were touched by nobody, but dense Adam goes on by its momentum.
    checkpoints = driver.model_folder(run_of(folder, "monday")) / "checkpoints"
    last = sorted(checkpoints.iterdir())[-1]
    m, v = (np.load(last / f"{name}.user_id.npy").astype(np.float64) for name in ("m", "v"))
    rows, done = monday.weights["user_id"].astype(np.float64), json.loads((last / "manifest.json").read_text())["steps"]
    for step in range(done + 1, done + 4):  # three epochs of a step
        m, v = 0.9 * m, 0.999 * v
        rows = rows - 0.01 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step) * m / (np.sqrt(v) + 1e-7)
    away = np.asarray([user for user in range(USERS) if user not in BACK])
    np.testing.assert_allclose(tuesday.weights["user_id"][away], rows[away], atol=1e-5)
    assert np.abs(tuesday.weights["user_id"][:USERS] - monday.weights["user_id"]).max() > 1e-3
    moved = tuesday.weights["user_id"][USERS:].any(axis=1)
    assert moved.tolist() == [user in BACK for user in new]


def test_the_record_says_what_was_done(folder):
    run = run_of(folder, "tuesday")
    (record,) = [row for row in run.records() if row[c.STAGE] == warm_start.STAGE]
    counts = record[c.COUNTS]
    back = [set(walk[2:] if user % 3 == 0 else walk) for user, walk in enumerate(histories(MORE_USERS, 42))]
    assert counts["new_rows_user_id"] == MORE_USERS - USERS
    assert (counts["new_rows_item_id"], counts["new_rows_item_feature"]) == (2, 0)
    assert counts["new_users"] == len(BACK)
    assert counts["new_targets"] == 3 * sum(len(back[user]) for user in BACK)
    assert (counts["replayed_targets"], counts["epochs"]) == (0, 3)


def test_the_newest_training_on_earlier_events_is_found(folder):
    base, _ = found(run_of(folder, "wednesday", warm_start="last"))
    assert (base.run_id, base.full, base.times) == ("tuesday", "monday", 2)
    # The same days again begin with what they began with, not with themselves and not with what came later.
    base, _ = found(run_of(folder, "tuesday", warm_start="last"), as_of=base.since)
    assert base.run_id == "monday"
    base, said = found(run_of(folder, "monday", warm_start="last"), as_of=base.since)
    assert base is None
    assert "begins with nothing (no other run has finished one on events before 2020-01-01" in said
    assert found(run_of(folder, "wednesday")) == (None, "")


def test_a_model_that_does_not_fit_is_passed_over_and_refused_where_it_is_named(folder):
    base, said = found(run_of(folder, "wednesday", warm_start="last", width=16))
    assert base is None
    assert "run tuesday: two_tower.width was 8 and is 16" in said
    with pytest.raises(ConfigError, match=r"warm_start=monday.*two_tower.width was 8 and is 16.*tuesday, monday"):
        found(run_of(folder, "wednesday", warm_start="monday", width=16))
    with pytest.raises(ConfigError, match=r"no finished training lies in"):
        found(run_of(folder, "wednesday", warm_start="sunday"))
    with pytest.raises(ConfigError, match=r"run monday: it is this one"):
        found(run_of(folder, "monday", warm_start="monday"))
    assert found(run_of(folder, "wednesday", warm_start="monday"))[0].run_id == "monday"


def test_the_report_sets_it_beside_the_full_training(folder):
    run = run_of(folder, "tuesday")
    row = {
        c.RUN_ID: "monday", c.MODEL: "two_tower", c.METRIC: "ndcg", c.K: 20, c.SEGMENT: "all", c.VALUE: 0.25,
        c.LOW: None, c.HIGH: None, c.N_USERS: 7,
    }  # fmt: skip
    rows = run.spark.createDataFrame([row, row | {c.K: 10, c.VALUE: 0.1}], schemas.METRICS.struct())
    comparison = SimpleNamespace(measures=lambda: [Measure("two_tower", "ndcg", 20, "all", 0.3, None, None, 7)])
    assert "gain" not in records.warm_start(run, comparison, "ndcg", 20)  # Monday was not evaluated
    run.write(schemas.METRICS, rows, {c.RUN_ID: "monday"})
    warm = records.warm_start(run, comparison, "ndcg", 20)
    assert warm["gain"] == pytest.approx(0.05)
    assert warm["same_test"] is False
    assert [(x["run"], x["epochs"], x["ranks"], x["value"]) for x in warm["trainings"]] == [
        ("tuesday", 3, 1, 0.3), ("monday", 4, 1, 0.25),
    ]  # fmt: skip
    seconds = [x["seconds"] for x in warm["trainings"]]
    assert warm["seconds_saved"] == seconds[1] - seconds[0]
    assert records.warm_start(run_of(folder, "monday"), comparison, "ndcg", 20) is None
