"""MLflow: one parent a run, a child a stage, found again by a second process; no secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from sparkrec import tracking
from sparkrec.config import Settings
from sparkrec.errors import RetryableError

pytestmark = pytest.mark.unit


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "name": "shop",
            "lake": {"path": str(tmp_path / "lake")},
            "source": {"name": "simulator", "path": "logs"},
            "tracking": {"password": "hunter2", "required": True},
        }
    )


def runs(settings: Settings) -> dict[str, Any]:
    client = MlflowClient(tracking.default_uri(settings))
    experiment = client.get_experiment_by_name("shop")
    assert experiment is not None
    return {run.data.tags["sparkrec.stage"]: run for run in client.search_runs([experiment.experiment_id])}


def test_stages_share_a_parent_and_keep_what_they_logged(settings: Settings, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text("<p>")
    with tracking.stage(settings, "shop-all", "clean") as tracker:
        tracker.metrics({"ndcg@20": 0.5, "seconds": 3}, step=2)
        tracker.tags({"input.silver.events": "4"})
        for _ in range(2):  # a training that is started again says the same again
            tracker.params({"placement.item_id": "sharded"})
            tracker.table([{"table": "item_id", "rows": 3}], "placement.json")
        tracker.artifact(report)
    with pytest.raises(RuntimeError), tracking.stage(settings, "shop-all", "featurize"):
        raise RuntimeError("the stage failed")
    found = runs(settings)
    parent = found["pipeline"]
    assert {name: run.info.status for name, run in found.items()} == {
        "pipeline": "FAILED",
        "clean": "FINISHED",
        "featurize": "FAILED",
    }
    assert found["clean"].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert found["clean"].data.metrics == {"ndcg_at_20": 0.5, "seconds": 3}
    assert parent.data.params["als.rank"] == "64"
    assert "hunter2" not in str(parent.data.params)
    assert found["clean"].data.params == {"placement.item_id": "sharded"}
    client, run_id = MlflowClient(tracking.default_uri(settings)), found["clean"].info.run_id
    assert [a.path for a in client.list_artifacts(run_id)] == ["placement.json", "report.html"]
    table = json.loads(Path(client.download_artifacts(run_id, "placement.json", str(tmp_path))).read_text())
    assert table == {"rows": [{"table": "item_id", "rows": 3}]}


def test_other_settings_are_another_parent_and_the_same_ones_the_same(settings: Settings) -> None:
    other = settings.model_copy(update={"als": settings.als.model_copy(update={"rank": 128})})
    for chosen in (settings, other, settings, other):
        with tracking.stage(chosen, "shop-all", "clean"):
            pass
    client = MlflowClient(tracking.default_uri(settings))
    experiment = client.get_experiment_by_name("shop")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    ranks = {run.info.run_id: run.data.params["als.rank"] for run in found if "als.rank" in run.data.params}
    assert sorted(ranks.values()) == ["128", "64"]
    of = [ranks[run.data.tags["mlflow.parentRunId"]] for run in found if "mlflow.parentRunId" in run.data.tags]
    assert sorted(of) == ["128", "128", "64", "64"]


def test_a_rerun_ends_the_parent_well(settings: Settings) -> None:
    with pytest.raises(RuntimeError), tracking.stage(settings, "shop-all", "clean"):
        raise RuntimeError
    with tracking.stage(settings, "shop-all", "clean"):
        pass
    assert runs(settings)["pipeline"].info.status == "FINISHED"


@pytest.fixture
def unreachable(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A server that refuses connections."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    address = {"uri": "http://someone:hunter2@127.0.0.1:9", "required": False}
    return settings.model_copy(update={"tracking": settings.tracking.model_copy(update=address)})


def test_a_stage_outlives_its_tracking(unreachable: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with tracking.stage(unreachable, "shop-all", "clean") as tracker:
        tracker.metrics({"seconds": 3})
    said = capsys.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if "MLflow at http://**********@127.0.0.1:9" in line]
    assert len(lines) == 1
    assert "not tracked" in lines[0]
    assert "hunter2" not in said.out + said.err


def test_tracking_that_stops_in_the_middle_is_said_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def fails(*_: object, **__: object) -> None:
        calls.append(1)
        raise ConnectionError("gone\nand more")

    loose = settings.model_copy(update={"tracking": settings.tracking.model_copy(update={"required": False})})
    with tracking.stage(loose, "shop-all", "clean") as tracker:
        monkeypatch.setattr(MlflowClient, "log_batch", fails)
        for step in range(3):
            tracker.metrics({"loss": 1.0}, step)
            tracker.artifact(__file__)
    said = capsys.readouterr()
    assert (said.out + said.err).count("ConnectionError: gone.") == 1
    assert len(calls) == 1
    assert {run.info.status for run in runs(settings).values()} == {"FINISHED"}, "an outage may be over"


def test_any_configuration_is_logged(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of mappings are anything; and a parent that died without its configuration is not found again."""
    options = {"values": {"country": {"Côte d'Ivoire": "CI", "€": "1", "£": "2", "x" * 300: "3"}}}
    odd = settings.model_copy(update={"source": settings.source.model_copy(update={"options": options})})
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", lambda *_, **__: 1 / 0)
        with pytest.raises(RetryableError):
            tracking.stage(odd, "shop-all", "clean").__enter__()
    with tracking.stage(odd, "shop-all", "clean"):
        pass
    client = MlflowClient(tracking.default_uri(settings))
    found = client.search_runs(["1"], "tags.`sparkrec.stage` = 'pipeline'")
    assert len(found) == 1
    of_source = {key: value for key, value in found[0].data.params.items() if key.startswith("source.options.values")}
    assert sorted(of_source.values()) == ["1", "2", "3", "CI"]


def test_where_tracking_must_hold_the_stage_fails_and_its_own_error_comes_first(unreachable: Settings) -> None:
    must = unreachable.model_copy(update={"tracking": unreachable.tracking.model_copy(update={"required": True})})
    with pytest.raises(
        RetryableError, match=r"MLflow at http://\*+@127.0.0.1:9 \(tracking.uri\) failed.*tracking.required"
    ):
        tracking.stage(must, "shop-all", "clean").__enter__()


def test_the_error_of_the_stage_is_told_and_not_that_of_its_tracking(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ConnectionError("gone")

    stage, cause = tracking.stage(settings, "shop-all", "clean"), ValueError("the cause")
    stage.__enter__()
    monkeypatch.setattr(MlflowClient, "set_terminated", fails)
    assert stage.__exit__(ValueError, cause, None) is False, "the cause goes on to whoever called, and nothing else"
