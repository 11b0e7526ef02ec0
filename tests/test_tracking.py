"""MLflow: one parent a run, a child a stage, found again by a second process; no secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from sparkrec import tracking
from sparkrec.config import Settings

pytestmark = pytest.mark.unit


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {
            "name": "shop",
            "lake": {"path": str(tmp_path / "lake")},
            "source": {"name": "simulator", "path": "logs"},
            "tracking": {"password": "hunter2"},
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
