"""Two Horovod ranks without Spark, as forks of a process that has imported TensorFlow once; and their seeded deaths.

``python forks.py PLAN SEED KILLS`` trains the plan, kills one rank after the other, starts both again from the last
checkpoint each time, and prints a JSON list of what it did.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import horovod.tensorflow  # noqa: F401  before the forks
from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
from horovod.runner.gloo_run import create_run_env_vars, create_slot_env_vars
from horovod.runner.http.http_server import RendezvousServer

from sparkrec.training import checkpoint, worker
from sparkrec.training.loop import Trainer
from sparkrec.training.plan import Plan

Death = Callable[[], None]


def attempt(plan_path: str, ranks: int, deaths: dict[int, Death], seconds: float = 120) -> dict[int, int]:
    """Trains until every rank has ended, and gives their exit codes (negative: the signal); ``deaths`` by rank."""
    server = RendezvousServer(0)
    slots = get_host_assignments(parse_hosts(f"localhost:{ranks}"), ranks)
    port = server.start()
    server.init(slots)
    common = create_run_env_vars("127.0.0.1", ["lo"], port)
    children = {}
    for slot in slots:
        child = os.fork()
        if child == 0:
            os.environ.update({k: str(v) for k, v in (common | create_slot_env_vars(slot)).items()})
            _rank(plan_path, deaths.get(slot.rank, lambda: None))
        children[child] = slot.rank
    codes: dict[int, int] = {}
    until = time.monotonic() + seconds
    while len(codes) < ranks:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            codes[children.pop(pid)] = os.waitstatus_to_exitcode(status)
        elif time.monotonic() > until:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
        else:
            time.sleep(0.02)
    server.stop()
    return codes


def _rank(plan_path: str, prepare: Death) -> None:
    """Never returns: what the parent would do at its end is not this process's business."""
    code = 1
    try:
        prepare()
        worker.main(plan_path, [])
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(number: int) -> Death:
    """Before the ``number``-th step from here, counted from 0, has been made."""

    def prepare() -> None:
        step, made = Trainer.step, iter(range(number))

        def counted(self, *arguments):
            if next(made, None) is None:
                die()
            return step(self, *arguments)

        Trainer.step = counted

    return prepare


def in_checkpoint(number: int, torn: bool) -> Death:
    """At the ``number``-th thing done to the folder of checkpoints from here; ``torn``: with half of a file written."""

    def prepare() -> None:
        done = iter(range(number))
        write = checkpoint._write

        def count(event: str, arguments: tuple) -> None:
            writes = event == "open" and str(arguments[1]).startswith("w")
            if (writes or event in ("os.mkdir", "os.rename", "os.rmdir")) and "checkpoints" in str(arguments[0]):
                if next(done, None) is None:
                    die()

        def half(path: Path, part: checkpoint.Part) -> str:
            checksum = write(path, part)
            if next(done, None) is None:
                os.truncate(path, path.stat().st_size // 2)
                die()
            return checksum

        if torn:
            checkpoint._write = half
        else:
            sys.addaudithook(count)

    return prepare


def main(plan_path: str, seed: str, kills: str) -> None:
    plan, rng, done = Plan.load(plan_path), random.Random(int(seed)), []
    for number in range(int(kills)):
        rank, kind = number % plan.ranks, ("step", "step", "checkpoint", "torn")[number // plan.ranks % 4]
        place = rng.randrange(1, 6) if kind == "step" else rng.randrange(3 if rank else 25 if kind == "torn" else 40)
        death = at_step(place) if kind == "step" else in_checkpoint(place, kind == "torn")
        started = time.monotonic()
        codes = attempt(plan_path, plan.ranks, {rank: death})
        whole = [path.name for path in checkpoint._all(plan.path("checkpoints"))]
        left = [path.name for path in plan.path("checkpoints").glob(".*")]
        done.append({"rank": rank, "kind": kind, "place": place, "codes": codes, "whole": whole, "left": left, "s": time.monotonic() - started})
        print(done[-1], file=sys.stderr, flush=True)
    codes = attempt(plan_path, plan.ranks, {})
    print(json.dumps({"kills": done, "end": codes}))


if __name__ == "__main__":
    main(*sys.argv[1:])
