"""Horovod ranks without Spark: forks of one process that has imported TensorFlow once. And their seeded deaths.

``python forked_ranks.py PLAN`` stands in for ``training.launcher``. ``python forked_ranks.py PLAN SEED KILLS`` trains
the plan, kills a rank, starts all again, and so on; then it lets them finish, and prints what it did as JSON.
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
from typing import Any

import horovod.tensorflow  # noqa: F401  before the forks: that is what makes them cheap
from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
from horovod.runner.gloo_run import create_run_env_vars, create_slot_env_vars
from horovod.runner.http.http_server import RendezvousServer

from sparkrec.training import worker
from sparkrec.training.loop import Trainer
from sparkrec.training.plan import Plan

#: A peer that does not notice the death of another is killed after so long, and its exit code says so.
_SECONDS = 900


def attempt(plan_path: str, ranks: int, doomed: int = -1, doom: Callable[[], None] | None = None) -> list[int]:
    """Each rank's exit code (negative: the signal), when all have ended; rank ``doomed`` calls ``doom`` first."""
    server = RendezvousServer(0)
    slots = get_host_assignments(parse_hosts(f"localhost:{ranks}"), ranks)
    common = create_run_env_vars("127.0.0.1", ["lo"], server.start())
    server.init(slots)
    children = []
    for slot in slots:
        children.append(os.fork())
        if children[-1] == 0:
            os.environ.update({k: str(v) for k, v in (common | create_slot_env_vars(slot)).items()})
            _rank(plan_path, doom if doom and slot.rank == doomed else lambda: None)
    until, codes = time.monotonic() + _SECONDS, {}
    while len(codes) < ranks:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            codes[pid] = os.waitstatus_to_exitcode(status)
        elif time.monotonic() > until:
            for pid in set(children) - set(codes):
                os.kill(pid, signal.SIGTERM)
        time.sleep(0.02)
    server.stop()
    return [codes[pid] for pid in children]


def _rank(plan_path: str, prepare: Callable[[], None]) -> None:
    """Never returns: what is left to the parent to do at its end must not be done here."""
    code = 1
    try:
        prepare()
        worker.main(plan_path, [])
        code = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stderr.flush()
        os._exit(code)


class Countdown:
    """SIGKILL, at the call after ``calls`` others: no exception, no clean-up, no word to the peers."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def __call__(self) -> None:
        self.calls -= 1
        if self.calls < 0:
            os.kill(os.getpid(), signal.SIGKILL)


def at_a_step(countdown: Countdown) -> None:
    step = Trainer.step

    def counted(*arguments):
        countdown()
        return step(*arguments)

    Trainer.step = counted


def in_a_checkpoint(countdown: Countdown) -> None:
    """Before its folder is made, a file of it is opened to be written, it gets its name, or an old one is removed."""

    def see(event: str, arguments: tuple[Any, ...]) -> None:
        changes = event in ("os.mkdir", "os.rename", "shutil.rmtree")
        writes = event == "open" and str(arguments[1]).startswith("w")
        if (changes or writes) and "/checkpoints/" in str(arguments[0]):
            countdown()

    sys.addaudithook(see)


def newest(plan: Plan) -> tuple[int, str]:
    """The number of the newest checkpoint, and the place that it holds as a rank says it; 0 if there is none.

    One that is just replaced lies beside its name, or beside its successor.
    """
    folders = sorted(plan.path("checkpoints").glob("*"))  # the successor last
    found = {path.name.removeprefix(".").removesuffix(".old"): path for path in folders}
    number = max(filter(str.isdigit, found), default="")
    if not number:
        return 0, ""
    state = json.loads((found[number] / "manifest.json").read_text())
    return int(number), f"phase {state['phase']}, epoch {state['place']['epoch'] + 1}, step {state['place']['step']}"


def tried(plan: Plan, *doomed: Any) -> dict[str, Any]:
    """:func:`attempt`: the ranks' codes, the newest checkpoints before and after, and from where it said to go on."""
    log, found = plan.path("ranks", "0.jsonl"), newest(plan)
    before = len(log.read_text().splitlines()) if log.exists() else 0
    codes = attempt(str(plan.path("plan.json")), 2, *doomed)
    said = [json.loads(line).get("text", "") for line in log.read_text().splitlines()[before:]]
    resumed = [text.split(" at ")[1] for text in said if text.startswith("resumed from the checkpoint at ")]
    return {"codes": codes, "found": found, "left": newest(plan), "resumed": resumed}


def main(plan_path: str, seed: int, kills: int) -> list[dict[str, Any]]:
    plan, rng, done = Plan.load(plan_path), random.Random(seed), []
    for number in range(kills):
        rank, kind = number % 2, (at_a_step, in_a_checkpoint)[number // 2 % 2]
        # Rank 0 does some 30 things to a checkpoint, rank 1 opens the files of its rows.
        calls = rng.randrange(6 if kind is at_a_step else 4 if rank else 60)
        result = tried(plan, rank, lambda kind=kind, calls=calls: kind(Countdown(calls)))
        checkpoints = sorted(path.name for path in plan.path("checkpoints").glob("*"))
        last = json.loads(plan.path("ranks", f"{1 - rank}.jsonl").read_text().splitlines()[-1])
        done.append({
            **result, "rank": rank, "kind": kind.__name__, "calls": calls, "checkpoints": checkpoints,
            "said": (last["event"], last.get("kind")),
        })  # fmt: skip
    return [*done, tried(plan)]


if __name__ == "__main__":
    if len(sys.argv) == 2:
        sys.exit(max(map(abs, attempt(sys.argv[1], 2))))
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
