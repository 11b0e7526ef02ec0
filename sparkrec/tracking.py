"""MLflow at the edge: one parent run a pipeline run, a child a stage.

Without a server the store is sqlite and a folder beside models and reports. Jobs that a scheduler starts one by one
find their parent by the tags ``sparkrec.run_id`` and ``sparkrec.config_hash``.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sparkrec import __version__
from sparkrec.config import Settings
from sparkrec.config.secrets import without_login
from sparkrec.errors import RetryableError
from sparkrec.progress import say

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

T = TypeVar("T")
_LONGEST = 250  # characters of a parameter's name that MLflow takes
_RUN_TAG, _HASH_TAG = "sparkrec.run_id", "sparkrec.config_hash"


class Tracker(Protocol):
    """Where a stage's numbers go besides its run record."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None: ...

    def tags(self, values: Mapping[str, str]) -> None: ...

    def params(self, values: Mapping[str, str]) -> None: ...

    def table(self, rows: Sequence[Mapping[str, Any]], file: str) -> None:
        """Rows as an artifact, a JSON file."""

    def artifact(self, path: str | Path, folder: str = "") -> None:
        """A file or folder."""


class NoTracker:
    """Tracks nothing: tests, and ``tracking.enabled: false``."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        pass

    def tags(self, values: Mapping[str, str]) -> None:
        pass

    def params(self, values: Mapping[str, str]) -> None:
        pass

    def table(self, rows: Sequence[Mapping[str, Any]], file: str) -> None:
        pass

    def artifact(self, path: str | Path, folder: str = "") -> None:
        pass


class MlflowTracker:
    """Writes to one MLflow run, each call through ``attempt``."""

    def __init__(self, client: MlflowClient, run_id: str, attempt: Attempt) -> None:
        self._client, self._run_id, self._attempt = client, run_id, attempt

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        from mlflow.entities import Metric

        now = _milliseconds()
        # MLflow's metric names know no '@'.
        batch = [Metric(name.replace("@", "_at_"), float(value), now, step) for name, value in values.items()]
        self._attempt(lambda: self._client.log_batch(self._run_id, metrics=batch))

    def tags(self, values: Mapping[str, str]) -> None:
        for name, value in values.items():
            self._attempt(partial(self._client.set_tag, self._run_id, name, value))

    def params(self, values: Mapping[str, str]) -> None:
        for name, value in values.items():
            self._attempt(partial(self._client.log_param, self._run_id, name, value))

    def table(self, rows: Sequence[Mapping[str, Any]], file: str) -> None:
        self._attempt(lambda: self._client.log_dict(self._run_id, {"rows": list(rows)}, file))

    def artifact(self, path: str | Path, folder: str = "") -> None:
        log = self._client.log_artifacts if Path(path).is_dir() else self._client.log_artifact
        self._attempt(lambda: log(self._run_id, str(path), folder or None))


class Attempt:
    """Calls MLflow, until that fails: then it says so once, and the rest of the stage is not tracked.

    An hour of training is worth more than its curve, and the run record in the lake has the numbers. Where tracking
    must hold (``tracking.required``) the stage fails.
    """

    def __init__(self, settings: Settings, stage: str) -> None:
        self._settings, self._stage, self._failed, self._said = settings, stage, False, False

    def __call__(self, call: Callable[[], T]) -> T | None:
        if self._failed:
            return None
        try:
            return call()
        except Exception as error:
            again, self._failed, self._said = self._said, True, True
            where, reason = default_uri(self._settings), f"{type(error).__name__}: {error}".partition("\n")[0]
            text = without_login(f"MLflow at {where} (tracking.uri) failed: {reason[:300]}.")
            if self._settings.tracking.required:
                raise RetryableError(
                    f"{text} tracking.required is true, so the stage ends here. Mend it and run the stage again."
                ) from error
            if not again:
                say(self._stage, f"{text} The rest of this stage is not tracked; its run record is kept.", 0)
            return None

    def again(self) -> None:
        """Whatever has failed before is tried once more: an outage may be over."""
        self._failed = False


@contextlib.contextmanager
def stage(settings: Settings, run_id: str, name: str) -> Iterator[Tracker]:
    """The tracker of one stage: a child run, marked finished or failed when the block ends.

    Raises
    ------
    RetryableError
        MLflow failed, and ``tracking.required`` is true.
    """
    attempt = Attempt(settings, name)
    begun = attempt(lambda: _begin(settings, run_id, name)) if settings.tracking.enabled else None
    if begun is None:
        yield NoTracker()
        return
    client, *runs = begun

    def end(status: str) -> None:
        attempt.again()
        for run in runs:
            attempt(partial(client.set_terminated, run, status))

    try:
        yield MlflowTracker(client, runs[0], attempt)
    except BaseException:
        with contextlib.suppress(RetryableError):  # why the stage failed says more
            end("FAILED")
        raise
    end("FINISHED")


def _begin(settings: Settings, run_id: str, name: str) -> tuple[MlflowClient, str, str]:
    """The client, and the ids of the stage's run and its parent's."""
    client, experiment = _connect(settings)
    parent = _parent(client, experiment, settings, run_id).info.run_id
    tags = {"mlflow.parentRunId": parent, _RUN_TAG: run_id, "sparkrec.stage": name}
    return client, client.create_run(experiment, run_name=name, tags=tags).info.run_id, parent


def default_uri(settings: Settings) -> str:
    """The tracking store: as configured, else sqlite beside models and reports."""
    if settings.tracking.uri:
        return settings.tracking.uri
    return f"sqlite:///{settings.lake.folder / 'mlflow.db'}"


def _connect(settings: Settings) -> tuple[MlflowClient, str]:
    """A client and the id of the experiment, which is created if need be."""
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # its own seven would hold each stage for minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    tracking = settings.tracking
    # MLflow reads credentials from the environment only; they never become a parameter or a tag.
    for variable, value in (
        ("MLFLOW_TRACKING_USERNAME", tracking.username),
        ("MLFLOW_TRACKING_PASSWORD", tracking.password and tracking.password.get_secret_value()),
        ("MLFLOW_TRACKING_TOKEN", tracking.token and tracking.token.get_secret_value()),
    ):
        if value:
            os.environ[variable] = value
    import logging

    for noisy in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    uri = default_uri(settings)
    local = uri.startswith("sqlite:")
    if local:
        settings.lake.folder.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(uri)
    name = tracking.experiment or settings.name
    found = client.get_experiment_by_name(name)
    if found is not None:
        return client, found.experiment_id
    location = (settings.lake.folder / "mlruns").as_uri() if local else None
    try:
        return client, client.create_experiment(name, artifact_location=location)
    except MlflowException:  # another job created it in the meantime
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return client, found.experiment_id


def _parent(client: MlflowClient, experiment: str, settings: Settings, run_id: str) -> MlflowRun:
    """The pipeline's run: found by its tags, or created with the whole configuration.

    The same run id with other settings is another one, for MLflow's parameters are written once.
    """
    wanted = {_RUN_TAG: run_id, "sparkrec.stage": "pipeline", _HASH_TAG: settings.hash()}
    query = " AND ".join(f"tags.`{name}` = '{value}'" for name, value in wanted.items())
    found = client.search_runs([experiment], query, max_results=1)
    if found:
        client.update_run(found[0].info.run_id, status="RUNNING")
        return found[0]
    parent = client.create_run(experiment, run_name=run_id, tags={"sparkrec.version": __version__})
    from mlflow.entities import Param

    flat = dict(_flatten(settings.dump()))
    flat["config_hash"] = settings.hash()
    params = [Param(_param(key), str(value)[:6000]) for key, value in flat.items()]
    client.log_batch(parent.info.run_id, params=params)
    for name, value in wanted.items():  # not before: a run that lacks its parameters is not found, and made anew
        client.set_tag(parent.info.run_id, name, value)
    client.log_dict(parent.info.run_id, settings.dump(), "config.json")
    return parent


def _param(key: str) -> str:
    """A key as MLflow's names of parameters may be; of one that has to be changed, its hash keeps it apart."""
    allowed = re.sub(r"[^\w.\- :/]", "_", key)[:_LONGEST]
    return allowed if allowed == key else f"{allowed[: _LONGEST - 9]}-{zlib.crc32(key.encode()):08x}"


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _milliseconds() -> int:
    import time

    return int(time.time() * 1000)
