"""What the job says and hands over."""

from __future__ import annotations

import socket

import pytest

from sparkrec.errors import ConfigError
from sparkrec.training import driver


@pytest.mark.unit
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


@pytest.mark.unit
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


@pytest.mark.unit
def test_a_lake_that_is_not_a_folder_is_refused(make_settings):
    from sparkrec.pipeline import Run

    settings = make_settings(lake={"path": "s3://bucket/lake"})
    with pytest.raises(ConfigError, match=r"s3://bucket/lake.*Mount"):
        driver.model_folder(Run(settings, "train_two_tower"))


@pytest.mark.unit
def test_too_few_slots_name_what_is_needed_what_is_there_and_what_to_do():
    with pytest.raises(ConfigError, match=r"ranks=3 needs 3 Spark slots.*local\[2\] has 2.*local\[3\].*ranks=2"):
        driver.check_slots(3, 2, {"spark.master": "local[2]"})
    asked = {"spark.executor.resource.gpu.amount": "4", "spark.task.resource.gpu.amount": "1", "spark.task.cpus": "2"}
    with pytest.raises(ConfigError, match=r"spark://m:7077 has 0.*2 core\(s\) and 1 GPU\(s\).*gpu.amount=4\)\.$"):
        driver.check_slots(2, 0, {"spark.master": "spark://m:7077"} | asked)
    driver.check_slots(2, 2, {"spark.master": "local[2]"})


@pytest.mark.unit
def test_a_host_name_that_others_cannot_reach_is_refused():
    with pytest.raises(ConfigError, match=r"On b its own name resolves to 127.0.1.1, so ranks on a, c cannot"):
        driver._check_names({("a", "10.0.0.7"), ("b", "127.0.1.1"), ("c", "10.0.0.9")})
    with pytest.raises(ConfigError, match="On b its own name resolves to nothing"):
        driver._check_names({("a", "10.0.0.7"), ("b", "nothing")})
    driver._check_names({("a", "10.0.0.7"), ("b", "10.0.0.8")})
    driver._check_names({("alone", "127.0.1.1")})


@pytest.mark.spark
def test_executors_are_asked_before_the_launch(spark, monkeypatch):
    context = spark.sparkContext
    driver.check_executors(context, 2)
    monkeypatch.setattr(driver, "_IMPORTED", ("sparkrec", "no_such_package"))
    with pytest.raises(ConfigError, match=rf"finds no no_such_package on {socket.gethostname()}"):
        driver.check_executors(context, 2)
    monkeypatch.setattr(context, "pythonExec", "./env/bin/python")
    with pytest.raises(ConfigError, match=r"\./env/bin/python \(PYSPARK_PYTHON\): Cannot run program .*No such file"):
        driver.check_executors(context, 2)
