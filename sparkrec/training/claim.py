"""One job at a time trains a run: a file beside its checkpoints says which, and is touched as long as it lives."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from sparkrec.errors import RetryableError
from sparkrec.lake.place import CLAIM as FILE

#: A job is taken for ended when nothing was seen of it for so long: what a mounted folder shows may be a minute old.
SILENT_SECONDS = 120.0
_TOUCH_SECONDS = 1.0
_NAMESPACE, _BOOT = Path("/proc/self/ns/pid"), Path("/proc/sys/kernel/random/boot_id")


@contextlib.contextmanager
def claimed(folder: Path, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """The training in ``folder`` is this job's. Gives a function that raises when it no longer is.

    What a killed job has left is taken over: at once where its process is known to be gone, which is where process
    numbers mean the same, or else when nothing was seen of it for :data:`SILENT_SECONDS`.

    Raises
    ------
    RetryableError
        Another job trains here; or, from the function, has taken over because nothing was seen of this one.
    """
    path, mine = folder / FILE, _me()
    folder.mkdir(parents=True, exist_ok=True)
    while not _created(path, mine):
        ended = _wait_for_end(path, say)
        if _owner(path) == ended:  # and not one that was faster than this
            path.unlink(missing_ok=True)
    done, lost = threading.Event(), threading.Event()

    def touch() -> None:
        while not done.wait(_TOUCH_SECONDS):
            with contextlib.suppress(OSError):  # the store hangs: what counts is how long nothing was seen
                if _owner(path) != mine:
                    lost.set()
                    return
                os.utime(path)

    def check() -> None:
        if lost.is_set():
            raise RetryableError(
                f"{_name(_owner(path))} has taken over the training in {folder} from this job, of which nothing was "
                f"seen for {SILENT_SECONDS:g} s, or {FILE} was removed there. This one ends, because two at once would "
                "share checkpoints. Wait until no other trains there, and run this job again."
            )

    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield check
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(OSError):  # what stays there is taken over, and what was trained is worth more
            if _owner(path) == mine:
                path.unlink(missing_ok=True)


def _me() -> dict[str, Any]:
    """``world`` : where a process number means one process."""
    process = psutil.Process()
    names = os.readlink(_NAMESPACE) if _NAMESPACE.is_symlink() else ""
    return {
        "pid": process.pid, "since": process.create_time(), "began": _began(process.pid),
        "host": socket.gethostname(), "world": f"{socket.gethostname()} {names}", "token": uuid.uuid4().hex,
    }  # fmt: skip


def _began(pid: int) -> str:
    """Tells a process from another of its number: its start in ticks of this boot, which no clock that is set moves, as
    it moves psutil's time of creation. Empty where there is no such file.
    """
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2]
        return f"{_BOOT.read_text().strip()} {after_name.split()[19]}"
    except OSError:
        return ""


def _created(path: Path, owner: dict[str, Any]) -> bool:
    try:
        with open(path, "x") as file:
            file.write(json.dumps(owner))
    except FileExistsError:
        return False
    return True


def _owner(path: Path) -> dict[str, Any]:
    """Empty where there is none, or it was killed before it had written its name."""
    try:
        return dict(json.loads(path.read_text()))
    except (FileNotFoundError, ValueError):
        return {}


def _wait_for_end(path: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Returns when the job that the file names has ended: its name."""
    owner, seen, since = _owner(path), _touched(path), time.monotonic()
    known = owner.get("world") == _me()["world"]
    if known and not _lives(owner):
        return owner
    if not known:
        say(f"{_name(owner)} has not given this training back; looking for {SILENT_SECONDS:g} s whether it lives")
    while time.monotonic() - since < SILENT_SECONDS and (now := _touched(path)) is not None:
        if known or now != seen:
            raise RetryableError(
                f"{_name(owner)} is training this run in {path.parent}, and two at once would share checkpoints. Wait "
                "until it is done, or stop it, and run this job again."
            )
        time.sleep(0.2)
    return owner


def _touched(path: Path) -> int | None:
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return None


def _lives(owner: dict[str, Any]) -> bool:
    """One that was killed and that nobody has waited for, as in a container without an init, does not."""
    try:
        process = psutil.Process(owner["pid"])
        began = owner.get("began")
        same = _began(process.pid) == began if began else process.create_time() == owner["since"]
        return bool(same) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _name(owner: dict[str, Any]) -> str:
    return f"Process {owner['pid']} on {owner['host']}" if owner else "Another job"
