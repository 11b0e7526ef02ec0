"""What the job says and hands over."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from sparkrec import columns as c
from sparkrec.training import driver
from sparkrec.training.plan import Memory, Question

pytestmark = pytest.mark.unit


def test_progress_lines_have_what_one_wants_to_know():
    step = {
        "event": "step", "rank": 0, "phase": "choose", "epoch": 2, "epochs": 9, "step": 5, "steps": 7,
        "loss": 1.23456, "examples_per_second": 12345.6, "seconds_left": 61.4,
    }  # fmt: skip
    assert driver.describe(step) == "choose epoch 2/9 step 5/7: loss 1.2346, 12,346 examples/s, 61 s left"
    epoch = {"event": "epoch", "rank": 0, "phase": "final", "epoch": 3, "loss": 0.5, "examples_per_second": 10}
    assert driver.describe(epoch) == "final epoch 3 done: loss 0.5000, 10 examples/s"
    assert "ndcg@20 0.2500" in driver.describe(epoch | {"recall": 0.1, "ndcg": 0.25})
    assert driver.describe(epoch | {"rank": 1}) == ""
    sent = {"event": "bytes", "rank": 0, "sent": {"item_id": 12345, "head": 6}}
    assert driver.describe(sent) == "bytes that a rank sent in a step: item_id 12,345, head 6"
    rows = {"event": "rows", "rank": 1, "host": "h", "rows": 1000, "row_groups": 2, "users": 9, "events": 44}
    assert driver.describe(rows) == ("rank 1 on h: read 1,000 rows of 2 row group(s), trains on 9 users with 44 events")


def test_what_a_run_record_tells_of_is_recorded():
    def record(stage, **details):
        return {c.STAGE: stage, c.DETAILS: json.dumps(details)}

    records = [
        record("train_two_tower"), record("train_two_tower", two_tower={"hash": "of an earlier version"}),
        record("train_als", two_tower={"attempt": "c"}),
        *(record("train_two_tower", two_tower={"attempt": attempt}) for attempt in "ab"),
    ]  # fmt: skip
    run = SimpleNamespace(stage="train_two_tower", known_records=lambda: records)
    assert driver.recorded(run) == {"a", "b"}


class Noted:
    """A run and its tracker that note what they are told."""

    def __init__(self):
        self.tracker, self.lines, self.told = self, [], []
        self.say = self.lines.append

    def __getattr__(self, name):
        return lambda *values: self.told.append((name, *values))


def test_the_plan_of_the_tables_and_the_bytes_of_a_step_go_to_the_log_and_to_the_tracker():
    run = Noted()
    listen = driver.Listener(run)
    tables = [
        {"table": "item_id", "rows": 900, "touched": 90, "placement": "sharded", "gb": 0.5, "reason": "so big"},
        {"table": "user_id", "rows": 80, "touched": 8, "placement": "replicated_dense", "gb": 0.1, "reason": "small"},
    ]
    listen({"event": "placement", "rank": 0, "tables": tables})
    assert [line.split()[0] for line in run.lines] == ["table", "item_id", "user_id"]
    assert "sharded            so big" in run.lines[1]
    listen({"event": "bytes", "rank": 0, "sent": {"item_id": 30, "head": 6}})
    assert run.told == [
        ("params", {"placement.item_id": "sharded", "placement.user_id": "replicated_dense"}),
        ("table", tables, "placement.json"),
        ("metrics", {"bytes_a_step.item_id": 30, "bytes_a_step.head": 6, "bytes_a_step": 36}),
    ]


def test_the_ranks_application_gets_the_jobs_settings_and_not_its_identity():
    conf = {
        "spark.master": "spark://m:7077", "spark.executor.memory": "3g", "spark.app.id": "app-1",
        "spark.driver.port": "4040", "spark.driver.host": "10.0.0.1", "spark.sql.extensions": "delta",
        "spark.jars": "a.jar",
    }  # fmt: skip
    assert driver.launch_conf(conf) == {
        "spark.master": "spark://m:7077", "spark.executor.memory": "3g", "spark.driver.host": "10.0.0.1",
        "spark.jars": "a.jar", "spark.ui.enabled": "false",
    }  # fmt: skip


def test_epochs_are_chosen_on_what_recommend_answers_and_evaluate_asks(make_settings):
    assert driver.question(make_settings(), 0) == Question()  # what a plan without one meant
    asked = {"features": {"target_types": ["cart", "purchase"]}, "recommend": {"exclude_seen": ["purchase"]}}
    assert driver.question(make_settings(**asked), 0) == Question(("cart", "purchase"), ("purchase",))
    heads = make_settings(**asked, two_tower={"head": "purchase"})
    assert driver.question(heads, 0) == Question(("purchase",), ("purchase",))


def test_what_recommend_forgets_counts_before_the_validation_events(make_settings):
    """Those of the last 7 days by default; under a split that is not by time there is no such moment."""

    def memory(**sections):
        return driver.question(make_settings(**sections), 1_000_000).memory

    coffee = {"name": "coffee", "items": "brand = 'B'", "again_after_days": 30}
    hidden = {"name": "hidden", "items": "brand = 'C'"}
    assert memory(recommend={"rules": [hidden]}) is None
    assert memory(recommend={"seen_days": 90}) == Memory(1_000_000 - 7 * 86_400, 90, ())
    given = {"recommend": {"rules": [hidden, coffee]}, "split": {"kind": "leave_one_out"}}
    assert memory(**given) == Memory(1_000_000, None, (("brand = 'B'", 30),))
