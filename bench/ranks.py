"""Two Horovod ranks of one core each against one rank of one core: the same batch, the same users.

The ratio is the efficiency: users/s and core with two ranks over users/s with one. In the note: bytes a step, the
share of time spent in messages (with the wait for the other rank), a step's processor time, and the share of it that
Horovod's own threads take (they talk to the other rank; the kernel's copies of a message are on their account).

Two models: a mean of the history, in which looking rows up is most of the work, and attention, in which computing is.
"twice the batch": each of the two ranks has as many users as the one (weak scaling), and twice as many negatives.

Last, two ranks on a network that takes 2 ms more for a message (each sleeps so long): with the messages of indices
sent ahead, as they are, against all messages in turn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from _results import HOME, claim, save
from _shop import BATCH, settings, steps

WARM, MEASURED, ROUNDS = 5, 20, 3
PLACEMENTS = {"replicated": ("replicated_sparse", 0.9), "sharded": ("sharded", 0.8)}
TABLES = ("item_id", "user_id", "history_item")
ATTENTION = {"history": "attention", "batch": BATCH // 8, "learning_rate": 0.001, "table_learning_rate": 0.1}
#: A model → its settings, its tables, how many times the batch of one rank two ranks have.
MODELS: dict[str, tuple[dict[str, Any], tuple[str, ...], int]] = {
    "mean": ({"batch": BATCH}, TABLES, 1),
    "mean, twice the batch": ({"batch": BATCH}, TABLES, 2),
    "attention": (ATTENTION, TABLES[:2], 1),
}
#: Seconds that a message takes longer; whether indices are sent ahead.
NEAR, FAR, IN_TURN = (0.0, True), (0.002, True), (0.002, False)


class Timed:
    """A collective that adds up the seconds of its messages; the step does not wait for those that are sent ahead."""

    def __init__(self, collective: Any, delay: float) -> None:
        self._collective, self.seconds, self._delay = collective, 0.0, delay
        self.rank, self.size = collective.rank, collective.size

    def channel(self, name: str) -> Timed:
        return Timed(self._collective.channel(name), self._delay)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._collective, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            if self._delay:
                time.sleep(self._delay)
            result = method(*arguments, **options)
            self.seconds += time.perf_counter() - started
            return result

        return timed


def processor_ms() -> dict[str, float]:
    """Thread of this process → milliseconds of processor time that it has had."""
    found = {}
    for folder in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread that has just ended
            found[folder.name] = int((folder / "schedstat").read_text().split()[0]) / 1e6
    return found


def rank(changed: str, delay: str, ahead: str, out: str) -> None:
    """What each process runs, pinned to a core of its own; ``changed`` : settings, as JSON."""
    import tensorflow as tf

    from sparkrec.training.collective import Horovod
    from sparkrec.training.worker import configure_tensorflow

    configure_tensorflow(1)
    tf.function(tf.identity)(0.0)
    before = processor_ms()  # TensorFlow's threads are there: those that come with the first message are Horovod's
    collective = Timed(Horovod(), float(delay))
    collective.barrier()
    of_horovod = processor_ms().keys() - before.keys()
    watched: list[tuple[float, dict[str, float]]] = []
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[collective.rank % len(cores)]})
    result = steps(
        collective, settings(ranks=collective.size, **json.loads(changed)), WARM + MEASURED,
        after_step=lambda: watched.append((collective.seconds, processor_ms())), in_turn=ahead == "False",
    )  # fmt: skip
    if collective.rank == 0:
        exchange = result["trainer"].exchange
        (waited, first), (waited_in_all, last) = watched[WARM], watched[-1]
        spent = {thread: ms - first.get(thread, 0.0) for thread, ms in last.items()}
        said = {
            "ms": 1000 * float(np.median(result["seconds"][WARM:])),
            "messages": (waited_in_all - waited) / sum(result["seconds"][WARM + 1 :]),
            "processor": sum(spent.values()) / (MEASURED - 1),
            "horovod": sum(ms for thread, ms in spent.items() if thread in of_horovod) / sum(spent.values()),
            "bytes": sum(exchange.bytes.values()) / max(exchange.steps, 1),
            "loss": float(np.mean(result["losses"][-10:])),
        }
        Path(out).write_text(json.dumps(said))
    collective.barrier()


def launch(ranks: int, kind: str, model: str, network: tuple[float, bool] = NEAR) -> dict[str, float]:
    """Of a step: milliseconds, of processor time, share of messages and Horovod's threads, bytes; the last losses."""
    changed, tables, times = MODELS[model]
    batch = changed["batch"] * (times if ranks > 1 else 1)
    given = json.dumps({**changed, "batch": batch, "placement": dict.fromkeys(tables, kind)})
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": folders, "PYTHONPATH": str(HOME), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "rank0.json")
        subprocess.run(
            [
                sys.executable, "-m", "horovod.runner.launch", "--gloo", "-np", str(ranks), "-H", f"localhost:{ranks}",
                sys.executable, __file__, given, *map(str, network), str(out),
            ],
            env=environment, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        result: dict[str, float] = json.loads(out.read_text())
    return result


def main() -> None:
    if len(sys.argv) > 1:
        rank(*sys.argv[1:])
        return
    claims, said = [], []
    for model, (changed, _, times) in MODELS.items():
        for name, (kind, target) in PLACEMENTS.items():
            one, two = [], []
            for number in range(ROUNDS):
                one.append(launch(1, kind, model))
                two.append(launch(2, kind, model))
                print(f"round {number + 1}  {model} {name:<12} one {one[-1]}, two {two[-1]}", flush=True)
            ours = [changed["batch"] * times / 2 / result["ms"] for result in two]
            peer = [changed["batch"] / result["ms"] for result in one]
            claims.append(claim(f"ranks {name}, {model}", ours, peer, "users/ms and core", target))
            keys = ("messages", "bytes", "processor", "horovod")
            share, sent, work, own = (np.median([result[key] for result in two]) for key in keys)
            alone = np.median([result["processor"] for result in one])
            losses = f"{one[-1]['loss']:.4f} and {two[-1]['loss']:.4f}"
            said.append(
                f"{name}, {model}: {sent / 1e6:.1f} MB a rank and step, {share:.0%} in messages, {work:.1f} ms of "
                f"processor time against {alone:.1f}, {own:.0%} of it Horovod's threads, losses {losses}."
            )
    for name, (kind, _) in PLACEMENTS.items():
        ahead, in_turn = [], []
        for _ in range(ROUNDS):
            ahead.append(1000 / launch(2, kind, "mean", FAR)["ms"])
            in_turn.append(1000 / launch(2, kind, "mean", IN_TURN)["ms"])
        print(f"{name}, 2 ms a message: ahead {ahead}, in turn {in_turn} steps/s", flush=True)
        claims.append(claim(f"ranks {name}, 2 ms a message: ahead against in turn", ahead, in_turn, "steps/s", 1))
    shape = f"1 M users, 100 k items, width 64, history 50; batch over all ranks {BATCH:,}, attention {BATCH // 8}."
    save("ranks", claims, " ".join([shape, *said]))


if __name__ == "__main__":
    main()
