"""The child process that starts the ranks: ``python -m sparkrec.training.launcher PLAN.json``.

A process of its own, because ``horovod.spark.run`` wants the main thread, replaces signal handlers and cannot be
stopped when a rank hangs. ``training.supervisor`` starts it, watches it and ends it with everything below it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from sparkrec.training.plan import Plan
from sparkrec.training.supervisor import TOKEN, rank_environment


def main(plan_path: str) -> None:
    """Train with the plan's number of ranks; exits with an error unless every rank said where its result lies."""
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    plan = Plan.load(plan_path)
    results = [rank(plan_path)] if plan.settings.ranks == 1 else _on_spark(plan, plan_path)
    if len(results) != plan.settings.ranks or not all(results):
        # Horovod swallows some failures and returns None in their place.
        sys.exit(f"of {plan.settings.ranks} ranks these finished: {results}")


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
    conf.setExecutorEnv(TOKEN, os.environ[TOKEN])
    spark = SparkSession.builder.config(conf=conf).getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    settings = plan.settings
    local = plan.spark_conf.get("spark.master", "").startswith("local")
    nics = settings.network_interface or ("lo" if local else None)
    results = horovod.spark.run(
        rank_on_spark,
        args=(plan_path,),
        num_proc=settings.ranks,
        start_timeout=settings.start_timeout_seconds,
        use_gloo=True,
        nics=[nics] if nics else None,
        env=rank_environment(settings),
        executable=os.environ.get("PYSPARK_PYTHON", sys.executable),
        verbose=0,
    )
    spark.stop()
    return list(results)


def _end_with_parent(parent: int) -> None:
    """A job that is killed leaves no training behind: the ranks below end when this process does."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
