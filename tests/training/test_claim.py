"""Who trains a run: one job, whatever the others were doing when they were killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from errno import EIO

import psutil
import pytest

from sparkrec.errors import RetryableError
from sparkrec.training import claim
from sparkrec.training.claim import FILE, claimed

pytestmark = pytest.mark.unit

HOLD = (
    "import pathlib, sys, time\n"
    "from sparkrec.training.claim import claimed\n"
    "with claimed(pathlib.Path(sys.argv[1]), print): print('mine', flush=True); time.sleep(600)"
)


@pytest.fixture
def holder(tmp_path):
    """Another job that trains in the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "mine\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_one_at_a_time_and_a_killed_one_is_taken_over_at_once(holder, tmp_path):
    said = []
    with pytest.raises(RetryableError, match=rf"Process {holder.pid} on .* is training this run in {tmp_path}"):
        claimed(tmp_path, said.append).__enter__()
    holder.kill()
    holder.wait()
    assert (tmp_path / FILE).exists()
    with claimed(tmp_path, said.append) as check:
        check()
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()
    assert not said
    assert not list(tmp_path.iterdir())


def test_one_that_was_killed_and_that_nobody_has_waited_for_is_taken_over_at_once(holder, tmp_path):
    """As in a container without an init: its number stays, and it does nothing any more."""
    holder.kill()
    while psutil.Process(holder.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    said = []
    with claimed(tmp_path, said.append) as check:
        check()
    assert not said


def test_a_clock_that_is_set_ends_no_job(holder, tmp_path, monkeypatch):
    created = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: created(process) + 3600)
    with pytest.raises(RetryableError, match=rf"Process {holder.pid} on .* is training this run"):
        claimed(tmp_path, pytest.fail).__enter__()


@pytest.mark.parametrize("without_proc", [False, True])
def test_a_name_that_says_the_time_of_creation_only_is_understood(holder, tmp_path, monkeypatch, without_proc):
    """As where there is no /proc, and as all names once were."""
    record = json.loads((tmp_path / FILE).read_text())
    if without_proc:
        monkeypatch.setattr(claim, "_BOOT", tmp_path / "no such file")
        record["began"] = ""
    else:
        del record["began"]
    (tmp_path / FILE).write_text(json.dumps(record))
    with pytest.raises(RetryableError, match=rf"Process {holder.pid} on .* is training this run"):
        claimed(tmp_path, pytest.fail).__enter__()
    (tmp_path / FILE).write_text(json.dumps(record | {"since": 0.0}))
    with claimed(tmp_path, pytest.fail):
        pass


def test_what_was_trained_is_not_lost_with_the_file_that_cannot_be_removed(tmp_path, monkeypatch):
    def away(_):
        raise OSError(EIO, "Input/output error")

    with claimed(tmp_path, pytest.fail):
        monkeypatch.setattr(claim, "_owner", away)
    assert (tmp_path / FILE).exists()
    monkeypatch.undo()
    record = json.loads((tmp_path / FILE).read_text()) | {"began": "earlier"}  # this process has not ended
    (tmp_path / FILE).write_text(json.dumps(record))
    with claimed(tmp_path, pytest.fail):
        pass


def elsewhere(tmp_path):
    owner = {"pid": 1, "since": 0.0, "host": "b", "world": "b pid:[1]", "token": "x"}
    (tmp_path / FILE).write_text(json.dumps(owner))


def test_of_another_machine_what_counts_is_whether_anything_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "SILENT_SECONDS", 1.0)
    elsewhere(tmp_path)
    said = []
    with claimed(tmp_path, said.append):
        pass
    assert said == ["Process 1 on b has not given this training back; looking for 1 s whether it lives"]

    monkeypatch.setattr(claim, "SILENT_SECONDS", 60.0)
    elsewhere(tmp_path)
    touching = f"import os, time\nwhile True: os.utime({str(tmp_path / FILE)!r}); time.sleep(.1)"
    process = subprocess.Popen([sys.executable, "-c", touching])
    try:
        with pytest.raises(RetryableError, match="Process 1 on b is training this run"):
            claimed(tmp_path, said.append).__enter__()
    finally:
        process.kill()
        process.wait()
    assert json.loads((tmp_path / FILE).read_text())["token"] == "x"


def test_killed_before_it_had_written_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "SILENT_SECONDS", 0.5)
    (tmp_path / FILE).touch()
    with claimed(tmp_path, lambda _: None):
        assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()


def until(condition, seconds=60):
    """Waits: a busy machine may be late."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)


def refuses(check):
    try:
        check()
    except RetryableError:
        return True
    return False


def test_who_was_taken_over_hears_of_it_and_takes_nothing_back(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "_TOUCH_SECONDS", 0.05)
    with claimed(tmp_path, lambda _: None) as check:
        before = os.stat(tmp_path / FILE).st_mtime_ns
        until(lambda: os.stat(tmp_path / FILE).st_mtime_ns > before)
        check()
        elsewhere(tmp_path)
        until(lambda: refuses(check))
        with pytest.raises(RetryableError, match="Process 1 on b has taken over the training"):
            check()
    assert json.loads((tmp_path / FILE).read_text())["token"] == "x"
