"""The daily pipeline: the same jobs in the same order as ``sparkrec run``, one Spark application each; weekly upkeep.

Where things are comes from the environment of the scheduler and its workers:

- ``SPARKREC_HOME``: the folder that holds ``jobs/`` and ``conf/`` (default: this file's parent's parent);
- ``SPARKREC_CONF``: configurations, later over earlier, separated by commas; it must be set;
- ``SPARKREC_PYTHON``: the Python of drivers and executors (default: whatever Spark finds);
- ``SPARKREC_DRIVER_MEMORY``: of each job's driver, such as ``8g`` (default: Spark's, 1 GB);
- ``SPARKREC_TRAIN_SUBMIT``: JSON of extra Spark settings for training alone: it is its own application, so its
  GPUs and its slots are asked for here and not from the other jobs;
- ``SPARKREC_PUBLISH_TO``: where the day's lists are published to in the end (``publish.to``; default: nowhere);
- ``SPARKREC_POOL``: the Airflow pool of every task (default: Airflow's own). One lake bears one writer: with a pool of
  one slot neither a backfill, which does not know ``max_active_runs``, nor the weekly upkeep runs beside a daily run.

A run is of the last whole day: it begins at three in the night after it, and passes on that day as ``--date``. One that
is started by hand is of the day that it is given (``--conf '{"date": "2026-11-19"}'``, or a logical date), else of the
last whole one.

The connection ``spark_default`` must exist: without it Airflow would silently submit to YARN.
"""

from __future__ import annotations

import json
import os
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.exceptions import AirflowException
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import DAG, Asset, BaseHook, CronDataIntervalTimetable
from airflow.sdk.exceptions import AirflowFailException

STAGES = (
    "ingest",
    "clean",
    "featurize",
    "train_popularity",
    "train_als",
    "train_two_tower",
    "embed",
    "train_ranker",
    "recommend",
    "evaluate",
)
HOME = Path(os.environ.get("SPARKREC_HOME", Path(__file__).resolve().parents[1]))
CONFIGURATIONS = [path.strip() for path in os.environ.get("SPARKREC_CONF", "").split(",") if path.strip()]
if not CONFIGURATIONS:
    raise AirflowException("SPARKREC_CONF is not set: the configurations of your shop, such as /etc/shop.yaml.")
PYTHON = os.environ.get("SPARKREC_PYTHON")
TRAIN_SUBMIT = json.loads(os.environ.get("SPARKREC_TRAIN_SUBMIT", "{}"))
PUBLISH_TO = os.environ.get("SPARKREC_PUBLISH_TO")
DAY = "{{ day(dag_run) }}"
RECOMMENDATIONS = Asset("sparkrec://recommendations")


def day(run: Any) -> str:
    """The day that a run is of: what it was told, else its logical date, but no day that is not over."""
    if told := (run.conf or {}).get("date"):
        return str(told)
    over = run.run_after - timedelta(days=1)
    return f"{min(run.logical_date or over, over):%Y-%m-%d}"


class SparkrecJob(SparkSubmitOperator):
    """One stage. A bad configuration (exit 2) or bad data (exit 3) fails at once; all else is retried."""

    def execute(self, context: Any) -> Any:
        BaseHook.get_connection(self._conn_id)  # raises, by name, where it does not exist
        try:
            return super().execute(context)
        except AirflowException as error:
            if re.search(r"Error code is: [23]\b", str(error)):
                raise AirflowFailException(str(error)) from error
            raise


def job(stage: str, *arguments: str) -> SparkrecJob:
    """The task of one stage or command."""
    return SparkrecJob(
        task_id=stage,
        name=f"sparkrec_{stage}_{DAY}",
        application=str(HOME / "jobs" / f"{stage}.py"),
        application_args=[*(part for path in CONFIGURATIONS for part in ("--conf", path)), *arguments],
        driver_memory=os.environ.get("SPARKREC_DRIVER_MEMORY"),
        conf=TRAIN_SUBMIT if stage == "train_two_tower" else {},
        env_vars={"PYSPARK_PYTHON": PYTHON, "PYSPARK_DRIVER_PYTHON": PYTHON} if PYTHON else None,
        outlets=[RECOMMENDATIONS] if stage == "recommend" else [],
    )


ALWAYS = {
    "start_date": datetime(2026, 1, 1),
    "catchup": False,
    "max_active_runs": 1,
    "default_args": {
        "retries": 2,
        "retry_delay": timedelta(minutes=5),
        "retry_exponential_backoff": True,
        "pool": os.environ.get("SPARKREC_POOL", "default_pool"),
    },
    "user_defined_macros": {"day": day},
    "tags": ["sparkrec"],
}

with DAG(
    dag_id="sparkrec_daily",
    description="Raw logs in; recommendations, a report and a run record out",
    # Not the bare text: of that Airflow 3 makes runs that are dated by the day on which they begin.
    schedule=CronDataIntervalTimetable("0 3 * * *", timezone="UTC"),
    **ALWAYS,
) as dag:
    previous = None
    for stage in STAGES:
        task = job(stage, "--date", DAY)
        if previous is not None:
            previous >> task
        previous = task
    if PUBLISH_TO:
        previous >> job("publish", "--date", DAY, "--set", f"publish.to={PUBLISH_TO}")

with DAG(
    dag_id="sparkrec_weekly",
    description="Small files joined, old ones removed; far from the hour of the daily run",
    schedule="0 15 * * 0",
    **ALWAYS,
):
    job("maintain")
