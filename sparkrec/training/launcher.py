"""The child process that starts the ranks: ``python -m sparkrec.training.launcher PARENT PLAN.json``, with the process
number of who watches it, and Spark's settings, which may hold secrets, as JSON on standard input.

A process of its own, because ``horovod.spark.run`` wants the main thread, replaces signal handlers and cannot be
stopped when a rank hangs. ``training.supervisor`` starts it, watches it and ends it with everything below it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sparkrec.errors import RetryableError
from sparkrec.session import known_classes, start_jvm
from sparkrec.training.plan import Plan
from sparkrec.training.preflight import slots
from sparkrec.training.supervisor import TOKEN, carriers, kill, rank_environment

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from sparkrec.config import TwoTower


def main(parent: int, plan_path: str) -> None:
    """Train with the plan's number of ranks; exits with an error unless every rank said where its result lies.

    ``parent`` : told by itself, because it may have been killed before this process could ask who it is.
    """
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    plan = dataclasses.replace(Plan.load(plan_path), spark_conf=json.load(sys.stdin))
    results = [rank(plan_path)] if plan.settings.ranks == 1 else _on_spark(plan, plan_path)
    if len(results) != Plan.load(plan_path).ranks or not all(results):
        # Horovod swallows some failures and returns None in their place.
        raise RetryableError(f"Not every rank finished: {results}.")


def rank(plan_path: str) -> str:
    """The one process that needs no others. TensorFlow is imported there, and not where ranks are only watched."""
    from sparkrec.training import worker

    return worker.main(plan_path, [])


def rank_on_spark(plan_path: str) -> str:
    """What each of several processes runs: it knows the GPUs that Spark gave to its task, if any."""
    from horovod.spark.task import get_available_devices

    from sparkrec.training import worker

    return worker.main(plan_path, [str(address) for address in get_available_devices()])


def _on_spark(plan: Plan, plan_path: str) -> list[str]:
    import horovod.spark
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

    conf = SparkConf().setAll(list(plan.spark_conf.items())).setAppName(f"sparkrec ranks {Path(plan.folder).name}")
    conf.set("spark.driver.extraJavaOptions", known_classes()).setExecutorEnv(TOKEN, os.environ[TOKEN])
    start_jvm(conf)
    spark = SparkSession.builder.config(conf=conf).getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    settings = plan.settings
    ranks = _ranks(spark, settings)
    if ranks < settings.ranks:
        plan.on(ranks).save()
    local = plan.spark_conf.get("spark.master", "").startswith("local")
    nics = settings.network_interface or ("lo" if local else None)
    try:
        results = horovod.spark.run(
            rank_on_spark,
            args=(plan_path,),
            num_proc=ranks,
            start_timeout=settings.start_timeout_seconds,
            use_gloo=True,
            nics=[nics] if nics else None,
            env=rank_environment(settings),
            executable=os.environ.get("PYSPARK_PYTHON", sys.executable),
            verbose=0,
        )
    except RuntimeError as error:
        raise RetryableError(_why(str(error))) from None
    spark.stop()
    return list(results)


def _why(text: str) -> str:
    """In a line, what Horovod says in three."""
    ended = re.search(r"Process name: (\d+)\s+Exit code: (\w+)", text)
    if ended is None:
        return f"Horovod says: {text}"
    known = {"137": "killed (SIGKILL: no memory was left, or somebody did it)", "None": "together with its Spark task"}
    how = known.get(ended[2], f"with exit code {ended[2]}")
    return f"Horovod saw rank {ended[1]} end first, {how}."


def _ranks(spark: SparkSession, settings: TwoTower) -> int:
    """All, or in an elastic training as many as this application has slots for by the end of the start timeout.

    Spark counts slots by cores, GPUs and ``spark.task.cpus``. Horovod would wait for them in silence; that is left to
    it where executors come only when tasks ask for them.

    Raises
    ------
    RetryableError
        There are fewer than are needed: a machine was lost, or others use it.
    """
    context = spark.sparkContext
    if context.getConf().get("spark.dynamicAllocation.enabled") == "true":
        return settings.ranks
    limit = settings.start_timeout_seconds
    there = slots(context, settings.ranks, limit, print)
    if there < settings.needed_ranks:
        raise RetryableError(
            f"{settings.needed_ranks} rank(s) need a Spark slot each at once, and {context.master} has given {there} "
            f"slot(s) in two_tower.start_timeout_seconds={limit}."
        )
    return min(there, settings.ranks)


def _end_with_parent(parent: int) -> None:
    """A job that is killed leaves no training behind: the ranks below end when this process does."""
    while os.getppid() == parent:
        time.sleep(0.5)
    # A rank that hangs would not notice.
    kill(process for process in carriers(os.environ.get(TOKEN, "")) if process.pid != os.getpid())
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
