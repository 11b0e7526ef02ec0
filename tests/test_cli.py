"""Exit codes and messages: what a scheduler and a person see."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from sparkrec import cli
from sparkrec.errors import ConfigError, DataError, RetryableError

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
        (Exception("Py4J: ConcurrentAppendException: two writers"), 4, "ConcurrentAppendException"),
        (Exception("Caused by: java.io.IOException: Disk quota exceeded"), 4, "A disk is full (Disk quota exceeded)"),
        (Exception("java.io.EOFException: Unexpected end of input stream"), 3, "damaged"),
        (Exception("worker:\n  sparkrec.errors.DataError: Row 3 holds NaN.\nstack"), 3, "bad data: Row 3 holds NaN.\n"),
        (ZeroDivisionError("oops"), 1, "defect"),
    ],
)
def test_exit_code_and_one_paragraph(error: Exception, code: int, kind: str, capsys: pytest.CaptureFixture) -> None:
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
        ["run", "--conf", "x", "--date", "20261120x"], ["nonsense"], ["run", "--from", "nowhere"], [],
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
