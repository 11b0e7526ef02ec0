"""What is found before the launch: slots, GPUs, Pythons, host names."""

from __future__ import annotations

import socket

import pytest

from sparkrec.config import TwoTower
from sparkrec.errors import ConfigError, RetryableError
from sparkrec.training import preflight


@pytest.mark.unit
def test_too_few_slots_name_what_is_needed_what_is_there_and_what_to_do():
    with pytest.raises(ConfigError, match=r"ranks=3 needs 3 Spark slots.*local\[2\] has 2.*local\[3\].*ranks=2"):
        preflight.check_slots(TwoTower(ranks=3), 2, {"spark.master": "local[2]"})
    asked = {"spark.executor.resource.gpu.amount": "4", "spark.task.resource.gpu.amount": "1", "spark.task.cpus": "2"}
    with pytest.raises(RetryableError, match=r"spark://m:7077 has 0.*2 core\(s\) and 1 GPU\(s\).*gpu.amount=4\)\.$"):
        preflight.check_slots(TwoTower(ranks=2), 0, {"spark.master": "spark://m:7077"} | asked)
    preflight.check_slots(TwoTower(ranks=2), 2, {"spark.master": "local[2]"})
    elastic = TwoTower(ranks=4, elastic=True, min_ranks=3)
    with pytest.raises(ConfigError, match=r"min_ranks=3 needs 3 Spark slots.*or set two_tower.min_ranks=2"):
        preflight.check_slots(elastic, 2, {"spark.master": "local[2]"})
    preflight.check_slots(elastic, 3, {"spark.master": "local[3]"})


@pytest.mark.unit
def test_a_host_name_that_others_cannot_reach_is_refused():
    with pytest.raises(ConfigError, match=r"On b its own name resolves to 127.0.1.1, so ranks on a, c cannot"):
        preflight.check_names({("a", "10.0.0.7"), ("b", "127.0.1.1"), ("c", "10.0.0.9")})
    with pytest.raises(ConfigError, match="On b its own name resolves to nothing"):
        preflight.check_names({("a", "10.0.0.7"), ("b", "nothing")})
    preflight.check_names({("a", "10.0.0.7"), ("b", "10.0.0.8")})
    preflight.check_names({("alone", "127.0.1.1")})


@pytest.mark.spark
def test_slots_are_waited_for_not_in_silence_and_not_for_ever(spark, monkeypatch):
    said = []
    monkeypatch.setattr(preflight, "_SILENT_SECONDS", 0)
    assert preflight.slots(spark.sparkContext, 2, 60, said.append) == 2
    assert said == []
    assert preflight.slots(spark.sparkContext, 3, 1, said.append) == 2
    assert said == ["2 of 3 slots are there; waiting for the others, up to 1 s"]


@pytest.mark.spark
def test_executors_are_asked_for_what_a_rank_needs(spark, monkeypatch, tmp_path):
    context = spark.sparkContext
    preflight.check_executors(context, 2)
    (tmp_path / "only_for_sparks_workers.py").touch()
    context.addPyFile(str(tmp_path / "only_for_sparks_workers.py"))
    assert context.parallelize([0], 1).map(lambda _: __import__("only_for_sparks_workers").__name__).collect()
    monkeypatch.setattr(preflight, "_LOOK", preflight._LOOK.replace('"horovod"', '"only_for_sparks_workers"'))
    with pytest.raises(ConfigError, match=rf"finds no only_for_sparks_workers on {socket.gethostname()}"):
        preflight.check_executors(context, 2)
    monkeypatch.setattr(context, "pythonExec", "./env/bin/python")
    with pytest.raises(ConfigError, match=r"\./env/bin/python \(PYSPARK_PYTHON\): Cannot run program .*No such file"):
        preflight.check_executors(context, 2)
