"""The DAG under a real Airflow, without a scheduler. Run by ``make test-airflow`` in Airflow's own environment."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pendulum
import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.exceptions import AirflowException
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk.exceptions import AirflowFailException
from airflow.timetables.interval import CronDataIntervalTimetable

HOME = Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope="module")
def configured():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARKREC_CONF", str(HOME / "conf" / "demo.yaml") + " , ")
        yield


@pytest.fixture(scope="module")
def dag(configured):
    bag = DagBag(dag_folder=str(HOME / "dags"))
    assert bag.import_errors == {}
    return bag.dags["sparkrec_daily"]


def _stages_of_the_package() -> list[str]:
    """``sparkrec.pipeline.STAGES``, read as text: sparkrec is not installed beside Airflow."""
    tree = ast.parse((HOME / "sparkrec" / "pipeline.py").read_text())
    values = [node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "STAGES"]
    return list(ast.literal_eval(values[0]))


def test_same_jobs_in_the_same_order(dag) -> None:
    chain, task = [], next(t for t in dag.tasks if not t.upstream_task_ids)
    while task is not None:
        chain.append(task)
        following = [dag.get_task(name) for name in task.downstream_task_ids]
        assert len(following) <= 1
        task = following[0] if following else None
    assert [t.task_id for t in chain] == _stages_of_the_package()
    for t in chain:
        assert Path(t.application).is_file()
        assert t.application_args[-2] == "--date"


def test_lists_are_published_last_where_there_is_a_place_for_them(monkeypatch) -> None:
    monkeypatch.setenv("SPARKREC_PUBLISH_TO", "redis://lists:6379/0")
    task = DagBag(dag_folder=str(HOME / "dags")).dags["sparkrec_daily"].get_task("publish")
    assert task.upstream_task_ids == {_stages_of_the_package()[-1]}
    assert not task.downstream_task_ids
    assert Path(task.application).is_file()
    assert task.application_args[-2:] == ["--set", "publish.to=redis://lists:6379/0"]


@pytest.mark.parametrize(
    ("run_after", "logical_date", "conf", "day"),
    [
        ("2026-11-20 03:00", "2026-11-19 03:00", {}, "2026-11-19"),  # scheduled
        ("2026-11-27 10:00", "2026-11-19 03:00", {}, "2026-11-19"),  # a backfill, or by hand with a logical date
        ("2026-11-20 10:00", None, None, "2026-11-19"),  # by hand, on the command line
        ("2026-11-20 10:00", "2026-11-20 10:00", {}, "2026-11-19"),  # by hand, in the browser
        ("2026-11-20 10:00", None, {"date": "2026-11-01"}, "2026-11-01"),
    ],
)
def test_a_run_is_of_the_day_that_was_asked_for_or_the_last_whole_one(dag, run_after, logical_date, conf, day) -> None:
    run = SimpleNamespace(
        run_after=pendulum.parse(run_after), logical_date=logical_date and pendulum.parse(logical_date), conf=conf
    )
    task = DagBag(dag_folder=str(HOME / "dags")).dags["sparkrec_daily"].get_task("ingest")
    task.render_template_fields({"dag_run": run})
    assert task.application_args[-2:] == ["--date", day]
    assert task.application_args[:2] == ["--conf", str(HOME / "conf" / "demo.yaml")]


def test_the_schedule_gives_each_run_its_day_as_the_logical_date(dag) -> None:
    assert type(dag.timetable).__name__ == CronDataIntervalTimetable.__name__
    timetable = CronDataIntervalTimetable(dag.timetable.expression, timezone=dag.timetable.timezone)
    begins = pendulum.datetime(2026, 11, 20, 3, tz="UTC")
    assert timetable.infer_manual_data_interval(run_after=begins).start == begins.subtract(days=1)


def test_without_a_configuration_airflow_says_so(monkeypatch) -> None:
    monkeypatch.delenv("SPARKREC_CONF")
    (error,) = DagBag(dag_folder=str(HOME / "dags")).import_errors.values()
    assert "SPARKREC_CONF is not set" in error


def test_all_tasks_may_share_a_pool(monkeypatch) -> None:
    monkeypatch.setenv("SPARKREC_POOL", "one_lake")
    dags = DagBag(dag_folder=str(HOME / "dags")).dags
    assert {task.pool for dag in dags.values() for task in dag.tasks} == {"one_lake"}


def test_upkeep_is_weekly_and_by_itself(dag) -> None:
    weekly = DagBag(dag_folder=str(HOME / "dags")).dags["sparkrec_weekly"]
    assert [task.task_id for task in weekly.tasks] == ["maintain"]
    assert Path(weekly.get_task("maintain").application).is_file()
    assert weekly.max_active_runs == 1


def test_only_recommend_announces_new_recommendations(dag) -> None:
    announcing = {t.task_id for t in dag.tasks if t.outlets}
    assert announcing == {"recommend"}


@pytest.mark.parametrize(("code", "final"), [(1, False), (2, True), (3, True), (4, False), (23, False)])
def test_exit_code_decides_about_the_retry(dag, monkeypatch, code: int, final: bool) -> None:
    def fail(self, context):
        raise AirflowException(f"Cannot execute: spark-submit. Error code is: {code}.")

    monkeypatch.setattr(SparkSubmitOperator, "execute", fail)
    with pytest.raises(AirflowException) as raised:
        dag.get_task("clean").execute({})
    assert isinstance(raised.value, AirflowFailException) == final


def test_missing_connection_is_named(dag, monkeypatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_SPARK_DEFAULT")
    with pytest.raises(Exception, match="spark_default"):
        dag.get_task("clean").execute({})


def test_bad_configuration_ends_a_real_run_without_a_retry(tmp_path, monkeypatch) -> None:
    """``spark-submit`` for real: an unknown key is exit code 2, and the task fails once, for good."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: x\nsource: {name: simulator, path: logs}\nclaen: {}\n")
    monkeypatch.setenv("SPARKREC_CONF", str(bad))
    task = DagBag(dag_folder=str(HOME / "dags")).dags["sparkrec_daily"].get_task("ingest")
    run = SimpleNamespace(run_after=pendulum.datetime(2026, 11, 20, 3, tz="UTC"), logical_date=None, conf={})
    context = {"dag_run": run}
    task.render_template_fields(context)
    with pytest.raises(AirflowFailException) as raised:
        task.execute(context)
    assert re.search(r"Error code is: 2\b", str(raised.value))
    assert "claen" in str(raised.value)  # the log of the failed job names the key
    assert os.environ["SPARKREC_PYTHON"]
