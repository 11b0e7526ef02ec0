"""Exit codes and messages: what a scheduler and a person see."""

from __future__ import annotations

import datetime as dt
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from sparkrec import cli
from sparkrec.errors import ConfigError, DataError, NoData, RetryableError
from sparkrec.ingest import files

pytestmark = pytest.mark.unit


def raising(error: BaseException) -> int:
    def work() -> None:
        raise error

    return cli._guard(work)


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (ConfigError("the key x"), 2, "bad configuration"),
        (DataError("the file y"), 3, "bad data"),
        (RetryableError("the host z"), 4, "worth a retry"),
        (OSError(28, "No space left on device", "some/file"), 4, "some/file"),
        (OSError(13, "Permission denied", "some/lake"), 2, "(some/lake): Permission denied. Look at lake.path"),
        (OSError(30, "Read-only file system", "some/lake"), 2, "Read-only"),
        (ConnectionRefusedError(111, "Connection refused"), 4, "A connection failed: Connection refused"),
        (Exception("An error occurred: Answer from Java side is empty"), 4, "Java process has ended"),
        (KeyboardInterrupt(), 4, "Stopped from outside (Ctrl-C)"),
        (Exception("Py4J: ConcurrentAppendException: two writers"), 4, "ConcurrentAppendException"),
        (Exception("Caused by: java.io.IOException: Disk quota exceeded"), 4, "A disk is full (Disk quota exceeded)"),
        (Exception("java.io.EOFException: Unexpected end of input stream"), 3, "damaged"),
        (Exception("worker:\n  sparkrec.errors.DataError: Row 3 holds NaN.\nstack"), 3, "bad data: Row 3 holds NaN.\n"),
        (ZeroDivisionError("oops"), 1, "defect"),
    ],
)
def test_exit_code_and_one_paragraph(error: BaseException, code: int, kind: str, capsys: pytest.CaptureFixture) -> None:
    assert raising(error) == code
    assert kind in capsys.readouterr().err


def test_sigterm_is_worth_a_retry_and_the_handler_is_put_back(capsys: pytest.CaptureFixture) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert cli._guard(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 4
    assert "SIGTERM" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_success_is_zero() -> None:
    assert cli._guard(lambda: None) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--conf", "x", "--date", "20261120x"], ["run", "--conf", "x", "--run-id", "a/b"], ["nonsense"],
        ["run", "--from", "nowhere"], [],
        ["erase", "--conf", "x"], ["export", "--conf", "x", "--user", "u"],
        ["export", "--conf", "x", "--user", "u", "--to", "y", "--classes", "secret"],
    ],
)  # fmt: skip
def test_bad_usage_is_bad_configuration(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == 2


def test_stages_the_wrong_way_round_are_bad_configuration(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["run", "--conf", "conf/demo.yaml", "--from", "recommend", "--until", "clean"]) == 2
    assert "--from recommend comes after --until clean" in capsys.readouterr().err


@pytest.fixture
def days(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What a backfill runs, where only the 2nd and the 4th have a log."""
    done: list[tuple[str, str]] = []

    def execute(job: str, run: Any) -> None:
        if run.stage == "ingest" and run.date.day not in (2, 4):
            raise NoData(f"no log of {run.date}")
        done.append((str(run.date), job))

    monkeypatch.setattr(cli, "execute", execute)
    monkeypatch.setattr(cli, "_job", lambda stage: stage)
    return done


def test_backfill_leaves_out_days_without_a_log(days: list[tuple[str, str]], capsys: pytest.CaptureFixture) -> None:
    options = ["backfill", "--conf", "conf/demo.yaml", "--from-date", "2026-11-01", "--to-date", "2026-11-05"]
    assert cli.main(options) == 0
    assert days == [(f"2026-11-0{day}", stage) for day in (2, 4) for stage in ("ingest", "clean")]
    assert "2026-11-03 is left out: no log of 2026-11-03" in capsys.readouterr().err
    days.clear()
    assert cli.main([*options, "--until", "featurize"]) == 0
    assert [stage for _, stage in days[:3]] == ["ingest", "clean", "featurize"]


@pytest.mark.parametrize(
    ("first", "last", "code", "said"),
    [("2026-11-05", "2026-11-07", 3, "no log for any day"), ("2026-11-05", "2026-11-01", 2, "Exchange them")],
)
def test_a_backfill_of_nothing_is_refused(
    days: list[tuple[str, str]], capsys: pytest.CaptureFixture, first: str, last: str, code: int, said: str
) -> None:
    assert cli.main(["backfill", "--conf", "conf/demo.yaml", "--from-date", first, "--to-date", last]) == code
    assert said in capsys.readouterr().err
    assert days == []


def test_a_log_that_may_still_come_is_worth_a_retry() -> None:
    """By UTC's today, and no longer after two days."""
    today = dt.datetime.now(dt.UTC).date()
    found = {}
    for days in (-900, -1, 0, 1, 2, 30):
        with pytest.raises(NoData) as raised:
            files.up_to([], "{date}.csv", today - dt.timedelta(days=days), held=set())
        found[days] = raised.value.exit_code
    assert found == {-900: 3, -1: 4, 0: 4, 1: 4, 2: 3, 30: 3}


def test_unknown_key_is_exit_two_and_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(f"name: x\nlake: {{path: {tmp_path}/lake}}\nsource: {{name: simulator, path: logs}}\nclaen: {{}}\n")
    assert cli.main(["run", "--conf", str(path)]) == 2
    assert "'claen' is not a known key, did you mean 'clean'?" in capsys.readouterr().err
    assert not (tmp_path / "lake").exists()


def test_help_names_the_exit_codes(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["run", "--help"])
    assert raised.value.code == 0
    out = capsys.readouterr().out
    assert "--date" in out
    assert "worth a retry" in out
