"""Starts a training in a child process, watches it, ends it, and starts it again from the last checkpoint."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

import sparkrec
from sparkrec import errors
from sparkrec.config import TwoTower
from sparkrec.errors import RetryableError
from sparkrec.training import checkpoint
from sparkrec.training.claim import claimed
from sparkrec.training.collective import SingleProcess
from sparkrec.training.plan import CHOSEN, Follower, Plan

#: Every process of one training carries this in its environment, so that none is left behind.
TOKEN = "SPARKREC_TRAINING"
#: What names the network interface to the libraries below Horovod.
_INTERFACES = ("HOROVOD_GLOO_IFACE", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
_POLL_SECONDS = 0.2
_GRACE_SECONDS = 10.0
#: So often those that are left are looked for. What the kernel does not let go (a store hangs) is not waited for.
_ROUNDS = 3
#: A launcher has so long to end by itself once its ranks are done, or one of them has failed.
_LAST_SECONDS = 30.0

Listener = Callable[[dict[str, Any]], None]


class Lost(Exception):
    """This attempt failed in a way that another may not."""


def train(
    plan: Plan, listen: Listener, say: Callable[[str], None], recorded: Collection[str] | None = None
) -> dict[str, Any]:
    """The result of the plan's training: ``ranks``, ``curve``, ``epochs``, ``hash``, ``parameters``.

    An interrupted training of the same plan goes on from its checkpoint. A finished one starts again, unless it is none
    of the attempts that are ``recorded``: then its job failed after it, and its result is taken. None: it starts again.

    Raises
    ------
    ConfigError, DataError
        As a rank found them: a diverged loss, tables that do not fit together.
    RetryableError
        Ranks were lost or hung more often than ``two_tower.restarts`` allows, the time limit is over, the
        ``spark-submit`` that started this job has ended, or another job trains this run.
    """
    parent = os.getppid()
    with claimed(plan.path(), say) as check_claim:
        if (result := _unrecorded(plan, recorded)) is not None:
            say("this training had finished when its job failed: what it left is taken")
            for event in Follower(replace(plan, attempt=result["attempt"])).new():
                if event["event"] != "step":
                    listen(event)
            return result
        _prepare(plan, say)
        deadline = time.monotonic() + 60 * plan.settings.timeout_minutes

        def check() -> None:
            check_claim()
            _check_parent(parent)

        for attempt in range(plan.settings.restarts + 1):
            try:
                return _attempt(plan, listen, deadline, check)
            except Lost as error:
                reason, restarts = str(error), plan.settings.restarts
                if attempt < restarts:
                    say(f"{reason} Starting again {_from_where(plan)} ({attempt + 1} of {restarts}).")
    raise RetryableError(
        f"The two-tower training failed {plan.settings.restarts + 1} time(s). The last time: {reason} What the ranks "
        f"printed is in {plan.path('launch.log')}. Run the job again: it starts {_from_where(plan)}."
    )


def rank_environment(settings: TwoTower) -> dict[str, str]:
    """What a rank needs beside what its executor has: no library with threads of its own, the network."""
    return {
        "OMP_NUM_THREADS": str(settings.threads),
        "OPENBLAS_NUM_THREADS": str(settings.threads),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **dict.fromkeys(_INTERFACES if settings.network_interface else (), settings.network_interface or ""),
        **settings.environment,
    }


def _unrecorded(plan: Plan, recorded: Collection[str] | None) -> dict[str, Any] | None:
    """What a training of the same plan left, of which no run record tells."""
    path = plan.path("result.json")
    if recorded is None or not path.exists():
        return None
    try:
        result = dict(json.loads(path.read_text()))
    except ValueError:  # a crash of the machine tore it: the checkpoint before it is what there is
        path.unlink()
        return None
    same = result.get("fingerprint") == plan.fingerprint and plan.path("model").exists()
    return result if same and result["attempt"] not in recorded else None


def _prepare(plan: Plan, say: Callable[[str], None]) -> None:
    """Whether to go on or to start anew is decided here, once; then the folder says nothing about the past."""
    finished, checkpoints = plan.path("result.json"), plan.path("checkpoints")
    anew, damaged = finished.exists(), list[str]()
    if anew or checkpoint.newest(checkpoints, plan.fingerprint, SingleProcess(), damaged.append) is None:
        if not anew and checkpoint.any_in(checkpoints):
            why = "; ".join(damaged) or "they are of other settings or tables"
            say(f"the training begins anew, and the checkpoints in {checkpoints} are removed: {why}")
        checkpoint.clear(checkpoints)
        shutil.rmtree(plan.path(CHOSEN), ignore_errors=True)  # an earlier training's
    if anew:
        finished.unlink()


def _from_where(plan: Plan) -> str:
    """Where the next attempt starts. Whether a checkpoint is whole the ranks find out, and say."""
    try:
        some = checkpoint.any_in(plan.path("checkpoints"))
    except OSError:  # the store is away, which may be why this is asked
        return "from the last checkpoint, if there is one"
    return "from the last checkpoint" if some else "from the beginning, because no checkpoint has been written yet"


def _attempt(plan: Plan, listen: Listener, deadline: float, check: Callable[[], None]) -> dict[str, Any]:
    old = plan.path(f".ranks.{uuid.uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):  # all at once: a late rank must not find its file again
        os.rename(plan.path("ranks"), old)
    shutil.rmtree(old, ignore_errors=True)
    token = uuid.uuid4().hex
    plan = replace(plan, attempt=token)
    path, result = plan.save(), plan.path("result.json")
    # Spark's settings may hold secrets: the launcher reads them from a file without a name.
    with open(plan.path("launch.log"), "ab") as log_file, tempfile.TemporaryFile() as settings:
        settings.write(json.dumps(plan.spark_conf).encode())
        settings.seek(0)
        log_file.write(f"\n=== {time.strftime('%F %T')}: up to {plan.ranks} rank(s)\n".encode())
        log_file.flush()
        before = log_file.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "sparkrec.training.launcher", str(os.getpid()), str(path)],
            env=_environment(plan, token), stdin=settings, stdout=log_file, stderr=log_file,
            start_new_session=True,
        )  # fmt: skip
    follower, started, settled = Follower(plan), time.monotonic(), 0.0
    said: list[dict[str, Any]] = []

    def hear() -> None:
        for event in follower.new():
            if event["event"] == "error":
                said.append(event)
            listen(event)

    try:
        while child.poll() is None:
            hear()
            check()
            if not said and not result.exists():
                _check_alive(plan, follower, started, deadline)
                settled = time.monotonic()
            elif time.monotonic() - settled > _LAST_SECONDS:
                break
            time.sleep(_POLL_SECONDS)
        hear()
    finally:
        _end(child, token)
    if not result.exists():
        _raise_said(said)
        raise Lost(f"{_who(plan, said)}: {_last_word(plan, before, child.returncode)}")
    return dict(json.loads(result.read_text()))


def _check_parent(parent: int) -> None:
    """A killed spark-submit leaves the job's Python behind, and here is nothing that would ask the JVM for anything."""
    if "PYSPARK_GATEWAY_PORT" in os.environ and os.getppid() != parent:
        raise RetryableError("spark-submit has ended, and the training with it. Submit the job again to go on.")


def _check_alive(plan: Plan, follower: Follower, started: float, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise RetryableError(
            f"The two-tower training took longer than two_tower.timeout_minutes={plan.settings.timeout_minutes:g} and "
            f"was stopped. Run the job again, which starts {_from_where(plan)}, or raise the limit."
        )
    silent, limit = follower.silence(), plan.settings.heartbeat_seconds
    if silent and silent[1] > limit:
        raise Lost(
            f"No rank was heard for {silent[1]:.0f} s (two_tower.heartbeat_seconds={limit:g}), and rank {silent[0]} "
            "the longest not: it hangs, or waits for one that does."
        )
    if not silent and time.monotonic() - started > limit + plan.settings.start_timeout_seconds:
        raise Lost(
            f"No rank has begun in two_tower.start_timeout_seconds={plan.settings.start_timeout_seconds} and "
            f"two_tower.heartbeat_seconds={limit:g}."
        )


def _raise_said(said: list[dict[str, Any]]) -> None:
    """The error that a rank named, the most telling first; none, if they only named the loss of another."""
    known = [event for event in said if event["kind"] not in ("lost", "defect")]
    for event in known:
        error = getattr(errors, event["kind"])
        if error is RetryableError:
            raise Lost(event["text"])
        raise error(event["text"])
    defects = [event for event in said if event["kind"] == "defect"]
    if defects:
        raise RuntimeError(f"rank {defects[0]['rank']}: {defects[0]['text']}")


def _environment(plan: Plan, token: str) -> dict[str, str]:
    """The job's own, less what ties a process to the job's JVM, and MLflow's login, which no rank needs."""
    without = ("PYSPARK_GATEWAY", "_PYSPARK", "MLFLOW_TRACKING_")
    ours = {key: value for key, value in os.environ.items() if not key.startswith(without)}
    for key in ("PYSPARK_SUBMIT_ARGS", "SPARK_ENV_LOADED"):
        ours.pop(key, None)
    path = [str(Path(sparkrec.__file__).parents[1]), *filter(None, ours.get("PYTHONPATH", "").split(os.pathsep))]
    ours["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path))
    return {"PYSPARK_PYTHON": sys.executable} | ours | rank_environment(plan.settings) | {TOKEN: token}


def _end(child: subprocess.Popen[bytes], token: str) -> None:
    """Ask, wait, kill; then whatever still carries the token, wherever it has moved in the process tree."""
    if child.poll() is None:
        _signal_group(child, signal.SIGTERM)
        try:
            child.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            _signal_group(child, signal.SIGKILL)
            child.wait()
    for _ in range(_ROUNDS):  # one of them may have started another before it was killed
        if not (left := list(carriers(token))):
            return
        _, alive = psutil.wait_procs(left, timeout=2.0)
        kill(alive)
        psutil.wait_procs(alive, timeout=_GRACE_SECONDS)


def _signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        return


def kill(processes: Iterable[psutil.Process]) -> None:
    """Those that have ended in the meantime are as good as killed."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def carriers(token: str, name: str = TOKEN) -> Iterator[psutil.Process]:
    """The processes of this machine that carry the token in their environment: those of a training."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == token:
                yield process
        except psutil.Error:
            continue  # it has ended, or it is somebody else's


def _who(plan: Plan, said: list[dict[str, Any]]) -> str:
    """Those that ended without a word, when the others had one to say about it."""
    heard = {event["rank"] for event in said}
    silent = [path.stem for path in sorted(plan.logs.glob("*.jsonl")) if int(path.stem) not in heard]
    return f"Rank {', '.join(silent)} was lost" if heard and silent else "The ranks were lost"


def _last_word(plan: Plan, start: int, code: int) -> str:
    """Why the launcher ended, from byte ``start`` of its log on: its own error and Spark's, else any, else its end."""
    with open(plan.path("launch.log"), "rb") as file:
        file.seek(start)
        log = file.read().decode(errors="replace")
    told = re.findall(rf"^{errors.__name__}\.\w+: (.+)", log, re.M)[-1:]
    told += [f"{lost}." for lost in re.findall(r"Lost executor .+", log)[:1]]
    named = re.findall(r"^\s*(\S*(?:Error|Exception|Timeout)\S*: .+)", log, re.M)[-1:]
    lines = [f"its last line is '{line.strip()}'." for line in log.splitlines() if line.strip()]
    ended = f"the launcher ended with exit code {code}; {['it printed nothing.', *lines][-1]}"
    return " ".join(told or named or [ended])[:500]
