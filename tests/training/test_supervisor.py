"""The watcher of a training, with children that are plain Python instead of Spark and Horovod."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from errno import EACCES, EIO, ESTALE
from pathlib import Path

import psutil
import pytest
from small import make_plan

from sparkrec.config import TwoTower
from sparkrec.errors import DataError, RetryableError
from sparkrec.models import folders
from sparkrec.training import checkpoint, launcher, supervisor, worker
from sparkrec.training.collective import SingleProcess
from sparkrec.training.plan import Follower, Journal, Plan
from sparkrec.training.supervisor import TOKEN, rank_environment

pytestmark = pytest.mark.unit


def test_an_elastic_training_needs_slots_for_the_fewest_ranks_only():
    assert TwoTower(ranks=4).needed_ranks == 4
    assert TwoTower(ranks=4, elastic=True).needed_ranks == 1
    assert TwoTower(ranks=4, elastic=True, min_ranks=3).needed_ranks == 3
    with pytest.raises(ValueError, match="min_ranks: 5 is more than ranks: 4"):
        TwoTower(ranks=4, min_ranks=5)


def test_a_rank_is_told_the_network_and_what_the_configuration_adds():
    settings = TwoTower(threads=3, network_interface="eth7", environment={"NCCL_DEBUG": "INFO"})
    environment = rank_environment(settings)
    for name in ("HOROVOD_GLOO_IFACE", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        assert environment[name] == "eth7"
        assert name not in rank_environment(TwoTower())
    assert environment["NCCL_DEBUG"] == "INFO"
    assert environment["OMP_NUM_THREADS"] == "3"


@pytest.fixture
def child(monkeypatch, tmp_path):
    """``child(script)`` runs the script in place of the launcher; it sees ``folder``, ``logs`` and ``say(rank, …)``."""
    prelude = (
        "import json, os, pathlib, subprocess, sys, time\n"
        "folder = pathlib.Path(sys.argv[-1]).parent\n"
        "attempt = len(list(folder.glob('attempt*'))); (folder / f'attempt{attempt}').touch()\n"
        "logs = folder / 'ranks' / json.loads(pathlib.Path(sys.argv[-1]).read_text())['attempt']\n"
        "logs.mkdir(parents=True)\n"
        "def say(rank, **event):\n"
        "    with open(logs / f'{rank}.jsonl', 'a') as file:\n"
        "        file.write(json.dumps({'rank': rank} | event) + chr(10))\n"
        "def finish(): (folder / 'result.json').write_text(json.dumps({'hash': 'abc'}))\n"
    )
    popen = supervisor.subprocess.Popen
    tokens = set()

    def run(script: str, listen=lambda _: None, recorded=None, **settings):
        def instead(command, **options):
            tokens.add(options["env"][TOKEN])
            assert command[1:-1] == ["-m", "sparkrec.training.launcher", str(os.getpid())]
            return popen([command[0], "-c", prelude + script, command[-1]], **options)

        monkeypatch.setattr(supervisor.subprocess, "Popen", instead)
        plan = make_plan(tmp_path, **settings)
        events, lines = [], []

        def hear(event):
            events.append(event)
            listen(event)

        try:
            return supervisor.train(plan, hear, lines.append, recorded), events, lines
        finally:
            assert not [p for p in psutil.process_iter() if _started_with(tokens, p)]

    return run


def _started_with(tokens: set[str], process: psutil.Process) -> bool:
    """Only these trainings' processes: another training may run beside the tests."""
    try:
        return process.environ().get(TOKEN) in tokens
    except psutil.Error:
        return False


def test_a_finished_child_hands_over_its_result_and_all_it_said(child):
    result, events, _ = child("say(0, event='note', text='hello'); say(1, event='note', text='there'); finish()")
    assert result == {"hash": "abc"}
    assert [event["text"] for event in events] == ["hello", "there"]


def test_a_training_whose_job_failed_after_it_is_not_repeated(child, tmp_path):
    plan = make_plan(tmp_path)
    plan.path("model").mkdir(parents=True)
    left = {"hash": "left", "fingerprint": plan.fingerprint, "attempt": "a"}
    plan.path("ranks", "a").mkdir(parents=True)
    said = [{"event": event, "rank": 0} for event in ("epoch", "step", "bytes")]
    plan.path("ranks", "a", "0.jsonl").write_text("".join(json.dumps(event) + "\n" for event in said))

    def train_again(recorded, **changed):
        plan.path("result.json").write_text(json.dumps(left | changed))
        result, events, lines = child("finish()", recorded=recorded)
        return result["hash"], [event["event"] for event in events], lines

    taken = "left", ["epoch", "bytes"], ["this training had finished when its job failed: what it left is taken"]
    assert train_again({"b"}) == taken
    assert train_again(set()) == taken
    for recorded, changed in (({"a"}, {}), (None, {}), (set(), {"fingerprint": "another"})):
        assert train_again(recorded, **changed) == ("abc", [], [])
        plan.path("ranks", "a").mkdir(parents=True, exist_ok=True)
    plan.path("model").rmdir()
    assert train_again(set())[0] == "abc"


@pytest.mark.parametrize("left", ["", '{"hash": "le', "\0" * 30])
def test_a_result_that_a_crash_has_torn_is_none_and_the_checkpoint_before_it_stays(child, tmp_path, left):
    plan = make_plan(tmp_path)
    checkpoint.save(
        plan.path("checkpoints"), 7, [], [], {"fingerprint": plan.fingerprint, "score": None}, 2, SingleProcess()
    )
    plan.path("result.json").write_text(left)
    result, _, lines = child("assert list(folder.glob('checkpoints/0*')); finish()", recorded=set(), restarts=0)
    assert (result, lines) == ({"hash": "abc"}, [])


def test_a_result_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(folders.os, "fsync", lambda file: synced.append(Path(f"/proc/self/fd/{file}").read_text()))
    monkeypatch.setattr(folders.os, "replace", lambda source, _: synced.append(source))
    folders.write_json(tmp_path / "result.json", {"hash": "abc"})
    assert synced == ['{"hash": "abc"}', tmp_path / ".result.json.tmp"]


def test_a_child_that_dies_is_started_again_a_bounded_number_of_times(child):
    result, _, lines = child("os._exit(9) if attempt < 2 else finish()", restarts=2)
    assert result == {"hash": "abc"}
    assert len(lines) == 2
    assert "exit code 9" in lines[0]
    assert "Starting again from the beginning, because no checkpoint has been written yet (1 of 2)" in lines[0]


def test_a_child_that_keeps_dying_is_worth_a_retry(child):
    with pytest.raises(
        RetryableError, match=r"failed 2 time\(s\).*ValueError: no luck.*launch.log.*from the beginning"
    ):
        child("raise ValueError('no luck')", restarts=1)


def test_where_the_next_attempt_starts_is_said_as_it_is(child):
    write = "(folder / 'checkpoints' / '0000000007').mkdir(parents=True, exist_ok=True)"
    with pytest.raises(RetryableError, match=r"launch\.log\. Run the job again: it starts from the last checkpoint\."):
        child(f"{write}; os._exit(9)", restarts=0)
    result, _, lines = child(f"{write}; os._exit(9) if attempt < 2 else finish()", restarts=1)
    assert result == {"hash": "abc"}
    assert "are removed" in lines[0], "the empty one, before this job started"
    assert "Starting again from the last checkpoint (1 of 1)" in lines[1]


def test_the_reason_names_the_lost_rank_and_the_lost_executor(child):
    script = (
        "from sparkrec.errors import RetryableError\n"
        "for rank in (0, 1, 2): say(rank, event='note', text='')\n"
        "for rank in (0, 2): say(rank, event='error', kind='lost', text='the peer is gone')\n"
        "print('26/11/21 ERROR TaskSchedulerImpl: Lost executor 3 on b: worker lost', file=sys.stderr)\n"
        "print('java.lang.Exception: an effect, not a cause', file=sys.stderr)\n"
        "raise RetryableError('Horovod saw rank 1 end first.')"
    )
    why = r"time: Rank 1 was lost: Horovod saw rank 1 end first\. Lost executor 3 on b: worker lost\."
    with pytest.raises(RetryableError, match=why):
        child(script, restarts=0)


def test_the_reason_is_not_that_of_the_attempt_before(child):
    with pytest.raises(RetryableError, match=r"exit code 9; it printed nothing\."):
        child("os._exit(9) if attempt else exit('ValueError: no luck')", restarts=1)


def test_a_rank_of_the_attempt_before_that_ends_late_is_not_heard(child, monkeypatch):
    """On another machine it may outlive its launcher, and say then that it has lost the others."""
    monkeypatch.setattr(supervisor, "_LAST_SECONDS", 0.3)
    script = (
        "if not attempt: (folder / 'before').write_text(str(logs)); os._exit(9)\n"
        "say(1, event='note', text='mine')\n"
        "logs = pathlib.Path((folder / 'before').read_text()); logs.mkdir()\n"
        "say(1, event='error', kind='lost', text='late')\n"
        "time.sleep(1.5); finish()"
    )
    result, events, lines = child(script, restarts=1)
    assert result == {"hash": "abc"}
    assert [event["text"] for event in events] == ["mine"]
    assert len(lines) == 1


def test_a_rank_of_the_attempt_before_that_still_beats_hides_no_hang(child):
    """A beat of its keeps nobody waiting who looks after this attempt; here it beats for a minute."""
    script = (
        "say(0, event='note', text='')\n"
        "if not attempt: (folder / 'before').write_text(str(logs)); os._exit(9)\n"
        "before = pathlib.Path((folder / 'before').read_text()); before.mkdir()\n"
        "for _ in range(600): time.sleep(.1); (before / '1.jsonl').touch(); (before / '0.jsonl').touch()\n"
    )
    began = time.monotonic()
    with pytest.raises(RetryableError, match=r"No rank was heard.*heartbeat_seconds=0.5\), and rank 0 the longest not"):
        child(script, restarts=1, heartbeat_seconds=0.5)
    assert time.monotonic() - began < 30


def test_a_rank_whose_attempt_was_given_up_ends_with_its_next_beat(tmp_path):
    plan = dataclasses.replace(make_plan(tmp_path), attempt="first")
    late = Journal(plan, 0)
    late.write("note", text="a")
    shutil.rmtree(plan.path("ranks"))
    with pytest.raises(FileNotFoundError):
        late.beat()
    assert not plan.path("ranks").exists()


def test_a_rank_that_falls_silent_is_hung(child):
    with pytest.raises(RetryableError, match=r"No rank was heard.*heartbeat_seconds=0.5\), and rank 1 the longest not"):
        child(
            "say(0, event='note', text=''); say(1, event='note', text='')\n"
            "for _ in range(8): time.sleep(.05); (logs / '0.jsonl').touch()\n"
            "time.sleep(600)",
            restarts=0, heartbeat_seconds=0.5,
        )  # fmt: skip


def test_a_rank_that_waits_for_one_that_reads_is_not_hung(child):
    result, *_ = child(
        "say(0, event='note', text=''); say(1, event='note', text='')\n"
        "for _ in range(120): time.sleep(.05); (logs / '1.jsonl').touch()\n"
        "finish()",
        restarts=0, heartbeat_seconds=5,
    )  # fmt: skip
    assert result == {"hash": "abc"}


def test_a_second_job_does_not_train_the_same_run(child, tmp_path):
    refused = []

    def another(_):
        try:
            supervisor.train(make_plan(tmp_path), lambda _: None, lambda _: None)
        except RetryableError as error:
            refused.append(str(error))

    result, *_ = child("say(0, event='note', text=''); time.sleep(.5); finish()", listen=another)
    assert result == {"hash": "abc"}
    assert len(refused) == 1
    assert f"Process {os.getpid()} on" in refused[0]
    assert not list(tmp_path.rglob("trained_by.json"))


def test_ranks_that_never_begin_are_hung(child):
    with pytest.raises(RetryableError, match=r"No rank has begun.*start_timeout_seconds=1.*heartbeat_seconds=0.2"):
        child("time.sleep(100)", restarts=0, start_timeout_seconds=1, heartbeat_seconds=0.2)


@pytest.mark.parametrize("end", ["time.sleep(100)", "os._exit(3)"])
def test_a_result_counts_however_its_launcher_ends(child, monkeypatch, end):
    monkeypatch.setattr(supervisor, "_LAST_SECONDS", 0.3)
    script = f"finish(); say(0, event='note', text='done'); {end}"
    assert child(script, restarts=0, heartbeat_seconds=0.1)[0] == {"hash": "abc"}


def test_an_error_counts_however_its_launcher_ends(child, monkeypatch):
    monkeypatch.setattr(supervisor, "_LAST_SECONDS", 0.3)
    with pytest.raises(DataError, match="no event"):
        child("say(0, event='error', kind='DataError', text='no event'); time.sleep(100)", restarts=3)


def test_the_outer_limit(child):
    with pytest.raises(RetryableError, match=r"longer than two_tower.timeout_minutes=0.01"):
        child("time.sleep(100)", timeout_minutes=0.01)


def test_what_a_rank_found_is_raised_as_it_named_it_and_not_tried_again(child):
    script = (
        "say(1, event='error', kind='lost', text='peer closed')\n"
        "say(0, event='error', kind='DataError', text='no event'); os._exit(1)"
    )
    with pytest.raises(DataError, match="no event"):
        child(script, restarts=3)


def test_a_defect_in_a_rank_is_not_hidden_behind_retries(child):
    with pytest.raises(RuntimeError, match="rank 0: Traceback of ours"):
        child("say(0, event='error', kind='defect', text='Traceback of ours'); os._exit(1)", restarts=3)


def test_a_child_that_ends_well_without_a_result_has_failed(child):
    with pytest.raises(RetryableError, match="exit code 0"):
        child("pass", restarts=0)


def test_nothing_is_left_behind_not_even_what_has_left_the_process_group(child):
    """The fixture looks for processes with the training's token; these two have sessions of their own."""
    script = (
        "for _ in range(2): subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'], "
        "start_new_session=True)\nos._exit(3)"
    )
    with pytest.raises(RetryableError):
        child(script, restarts=0)


def test_nothing_is_left_behind_not_even_what_was_started_while_it_was_ended(child):
    """The first is there when the training ends, and starts the second before it is killed."""
    late = "import subprocess, sys, time; time.sleep(1); subprocess.Popen([sys.executable, '-c', sys.argv[1]], "
    late += "start_new_session=True); time.sleep(1000)"
    script = (
        f"subprocess.Popen([sys.executable, '-c', {late!r}, 'import time; time.sleep(1000)'], start_new_session=True)\n"
        "os._exit(3)"
    )
    with pytest.raises(RetryableError):
        child(script, restarts=0)


def test_a_launcher_whose_parent_was_killed_before_it_had_started_ends(tmp_path):
    """It is told who that was: by now its parent is another process, here this one, which lives."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    plan = make_plan(tmp_path, ranks=1)
    command = [sys.executable, "-m", "sparkrec.training.launcher", str(gone.pid), str(plan.save())]
    done = subprocess.run(command, input="{}", text=True, env=os.environ | {TOKEN: uuid.uuid4().hex}, timeout=60)
    assert done.returncode == 1
    assert not plan.path("result.json").exists()


@pytest.mark.parametrize(
    ("number", "kind"), [(EIO, "RetryableError"), (ESTALE, "RetryableError"), (EACCES, "ConfigError")]
)
def test_a_failing_file_system_is_worth_a_retry_and_one_that_refuses_is_not(tmp_path, monkeypatch, number, kind):
    def fail(*_):
        raise OSError(number, "no luck", "/lake/part-0.parquet")

    monkeypatch.setattr(worker, "configure_tensorflow", lambda threads: None)
    monkeypatch.setattr(worker, "Training", fail)
    plan = make_plan(tmp_path, ranks=1)
    with pytest.raises(OSError, match="no luck"):
        worker.main(str(plan.save()), [])
    (event,) = Follower(plan).new()
    assert event["kind"] == kind
    assert f"the file system failed: [Errno {number}] no luck: '/lake/part-0.parquet'" in event["text"]


def test_followers_read_whole_lines_once(tmp_path):
    plan = make_plan(tmp_path)
    follower = Follower(plan)
    assert list(follower.new()) == []
    assert follower.silence() is None
    Journal(plan, 1).write("note", text="a")
    with open(plan.path("ranks", "1.jsonl"), "a") as file:
        file.write('{"event": "no')
        file.flush()
        assert [event["text"] for event in follower.new()] == ["a"]
        file.write('te", "text": "b"}\n')
    assert [event["text"] for event in follower.new()] == ["b"]


def test_a_line_that_a_full_disk_cut_short_does_not_end_the_training(tmp_path):
    """What was written once there was room again stands behind it."""
    plan = make_plan(tmp_path)
    follower, journal = Follower(plan), Journal(plan, 1)
    plan.path("ranks", "1.jsonl").write_text('{"event": "step", "lo')
    for text in ("No space left", "b"):
        journal.write("error", kind="lost", text=text)
    cut, whole = follower.new()
    assert (cut["event"], cut["rank"]) == ("note", 1)
    assert "No space left" in cut["text"]
    assert (whole["event"], whole["text"]) == ("error", "b")


def test_silence_is_measured_by_the_clock_of_the_one_who_listens(tmp_path, monkeypatch):
    """Whatever the time is where the files lie."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    plan = make_plan(tmp_path)
    follower = Follower(plan)
    for rank in (0, 1):
        Journal(plan, rank).write("note", text="a")
        os.utime(plan.path("ranks", f"{rank}.jsonl"), (5e8, 5e8))
    assert follower.silence()[1] == 0
    now[0] += 7
    os.utime(plan.path("ranks", "0.jsonl"), (6e8, 6e8))
    assert follower.silence() == (1, 0)  # rank 0 is heard
    now[0] += 5
    assert follower.silence() == (1, 5)


def test_a_plan_survives_its_file_and_its_fingerprint_names_what_is_learned(tmp_path):
    plan = make_plan(tmp_path)
    assert Plan.load(plan.save()) == plan
    assert json.loads(plan.save().read_text())["sizes"]["users"] == 40
    same = [make_plan(tmp_path, **one) for one in ({"restarts": 9}, {"checkpoint_steps": 3}, {"ranks": 1})]
    assert {p.fingerprint for p in same} == {plan.fingerprint}
    scaled = [make_plan(tmp_path, scale_learning_rate="sqrt", ranks=ranks) for ranks in (1, 2)]
    other = [make_plan(tmp_path, seed=1), make_plan(tmp_path, width=9), *scaled]
    assert len({p.fingerprint for p in [plan, *other]}) == 5


def test_what_spark_is_told_is_not_kept_in_the_lake(tmp_path):
    plan = dataclasses.replace(make_plan(tmp_path), spark_conf={"spark.authenticate.secret": "hush"})
    assert "hush" not in plan.save().read_text()
    assert Plan.load(plan.path("plan.json")).spark_conf == {}


def test_the_rows_of_a_plan_are_dealt_to_fewer_ranks_and_what_is_learned_stays(tmp_path):
    plan = make_plan(tmp_path, ranks=3, scale_learning_rate="linear")
    fewer = plan.on(2)
    assert (plan.ranks, fewer.ranks, fewer.settings.ranks) == (3, 2, 3)
    assert fewer.fingerprint == plan.fingerprint
    pieces = [sorted(sum(p.sequences.ranks, ()), key=lambda piece: piece.row_group) for p in (plan, fewer)]
    assert pieces[0] == pieces[1]


@pytest.mark.parametrize(
    ("code", "how"), [("137", "killed (SIGKILL: no memory"), ("None", "together with its Spark task"), ("1", "code 1.")]
)
def test_what_horovod_says_in_three_lines_is_said_in_one(code, how):
    text = f"Horovod detected that one or more processes exited\nProcess name: 3\nExit code: {code}\n"
    assert how in launcher._why(text)
    assert launcher._why(text).startswith("Horovod saw rank 3 end first, ")
    assert launcher._why("Gloo is not there") == "Horovod says: Gloo is not there"
