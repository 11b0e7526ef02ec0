"""Who decides a setting of Spark: spark-submit, then the configuration, then our defaults; some nobody may change."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import shop

from sparkrec.config import Spark
from sparkrec.errors import ConfigError
from sparkrec.session import check_place, configuration, too_small

PRINT = """
import json
from sparkrec.config import Spark
from sparkrec.session import configuration
conf = configuration(Spark(shuffle_partitions=4, conf={"spark.x.ours": "1", "spark.x.both": "1"}), "ours")
print(json.dumps(dict(conf.getAll())))
"""


@pytest.mark.spark
def test_what_spark_submit_was_given_wins_over_ours(tmp_path):
    (tmp_path / "show.py").write_text(PRINT)
    options = {
        "spark.sql.shuffle.partitions": "77", "spark.x.both": "2", "spark.sql.session.timeZone": "Asia/Tokyo",
        "spark.sql.extensions": "of.Theirs", "spark.python.worker.reuse": "false", "spark.driver.memory": "1g",
        "spark.sql.sources.partitionOverwriteMode": "dynamic",
    }  # fmt: skip
    given = [part for key, value in options.items() for part in ("--conf", f"{key}={value}")]
    command = ["spark-submit", "--master", "spark://far:7077", *given, str(tmp_path / "show.py")]
    done = subprocess.run(command, env=shop.environment(), capture_output=True, text=True, check=True, cwd=shop.HOME)
    conf = json.loads(done.stdout.splitlines()[-1])
    assert conf["spark.master"] == "spark://far:7077"
    assert not {"spark.driver.host", "spark.driver.bindAddress"} & set(conf), "executors are on other machines"
    assert conf["spark.sql.shuffle.partitions"] == "77"
    assert conf["spark.python.worker.reuse"] == "false"
    assert conf["spark.driver.memory"] == "1g"
    assert (conf["spark.x.ours"], conf["spark.x.both"]) == ("1", "2")
    assert conf["spark.sql.session.timeZone"] == "UTC", "nobody may change what the tables mean"
    assert conf["spark.sql.sources.partitionOverwriteMode"] == "static", "or old partitions would stay"
    assert conf["spark.sql.extensions"] == "of.Theirs,io.delta.sql.DeltaSparkSessionExtension"


LOOK = """
import json, psutil
from sparkrec.config import Spark
from sparkrec.session import get_session
conf = {"spark.hadoop.fs.azure.account.key.shop": "hunter2"}
conf |= {"spark.hadoop.fs.s3a.secret.key": "hunter2", "spark.executorEnv.API_TOKEN": "hunter2"}
spark = get_session(Spark(master="local[1]", driver_memory="700m", shuffle_partitions=5, conf=conf))
lines = [open(f"/proc/{process.pid}/cmdline").read() for process in psutil.Process().children(recursive=True)]
runtime = spark._jvm.java.lang.Runtime.getRuntime()
print(json.dumps({
    "java": sum("java" in line for line in lines), "shown": sum("hunter2" in line for line in lines),
    "secret": spark.sparkContext._jsc.hadoopConfiguration().get("fs.s3a.secret.key"),
    "partitions": spark.conf.get("spark.sql.shuffle.partitions"), "memory": runtime.maxMemory() >> 20,
}))
"""


@pytest.mark.spark
def test_secrets_stand_on_no_command_line():
    done = subprocess.run(
        [sys.executable, "-c", LOOK], env=shop.environment(), capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["java"] >= 1, "nothing was looked at"
    assert found["shown"] == 0
    assert (found["secret"], found["partitions"]) == ("hunter2", "5")
    assert 600 <= found["memory"] <= 700, "the JVM was started with what was asked for"


@pytest.mark.spark
def test_a_driver_that_was_started_too_small_is_told_of(spark):
    assert too_small(spark, Spark(driver_memory="1g")) is None
    assert "Pass --driver-memory 64g" in too_small(spark, Spark(driver_memory="64g"))


@pytest.mark.spark
def test_a_path_that_would_be_two_places_is_refused(spark):
    check_place(spark, "/mnt/lake")
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    before = hadoop.get("fs.defaultFS")
    hadoop.set("fs.defaultFS", "hdfs://n1:8020")
    try:
        check_place(spark, "file:///mnt/lake")
        with pytest.raises(
            ConfigError, match=r"default file system \(hdfs://n1:8020\).*file:///mnt/lake, or .*:8020/mnt"
        ):
            check_place(spark, "/mnt/lake")
    finally:
        hadoop.set("fs.defaultFS", before)


@pytest.mark.unit
def test_without_spark_submit_the_configuration_decides(monkeypatch):
    from pyspark import SparkContext

    monkeypatch.setattr(SparkContext, "_jvm", None)
    conf = configuration(Spark(master="local[3]", shuffle_partitions=5, conf={"spark.ui.enabled": "true"}), "x")
    assert conf.get("spark.master") == "local[3]"
    assert conf.get("spark.driver.host") == "localhost"
    assert conf.get("spark.sql.shuffle.partitions") == "5"
    assert conf.get("spark.ui.enabled") == "true"
