"""More than a billion parameters, sharded over two ranks: trained, checkpointed, restored; the peak memory of both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from _results import HOME, claim, save
from _shop import BATCH, settings, steps

USERS, ITEMS, EVERY, COUNT, LIMIT_GB = 16_000_000, 1_000_000, 100, 20, 24.0
TABLES = ("item_id", "history_item", "user_id")


def rank(out: str) -> None:
    """What each of two processes runs: train, save, spoil, restore, compare."""
    from sparkrec.training import checkpoint
    from sparkrec.training.collective import Horovod
    from sparkrec.training.worker import configure_tensorflow

    configure_tensorflow(1)
    collective, folder = Horovod(), Path(out).parent
    configured = settings(ranks=2, placement=dict.fromkeys(TABLES, "sharded"))
    result = steps(collective, configured, COUNT, USERS, ITEMS, EVERY)
    trainer = result["trainer"]
    before = trainer.hash_of_all(trainer.hash())
    started = time.perf_counter()
    state = {"fingerprint": "billion", "score": None}
    checkpoint.save(folder / "checkpoints", COUNT, trainer.replicated(), trainer.shards(), state, 1, collective)
    saved = time.perf_counter() - started
    trainer.reset()
    spoiled = trainer.hash_of_all(trainer.hash())
    started = time.perf_counter()
    found = checkpoint.newest(folder / "checkpoints", "billion", collective, print)
    assert found, "the checkpoint just saved is not found"
    trainer.restore(found.read, COUNT)
    restored = time.perf_counter() - started
    after = trainer.hash_of_all(trainer.hash())
    assert spoiled != before == after, "what was restored is not what was saved"
    if collective.rank == 0:
        ms = 1000 * float(np.median(result["seconds"][5:]))
        said = {"parameters": trainer.parameters, "ms": ms, "save": saved, "restore": restored}
        Path(out).write_text(json.dumps(said))
    collective.barrier()


def proportional_gb() -> float:
    """Of this process and all its children; shared pages once."""
    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue  # it has ended
    return total / 1e9


def main() -> None:
    if len(sys.argv) == 2:
        rank(sys.argv[1])
        return
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": folders, "PYTHONPATH": str(HOME), "TF_CPP_MIN_LOG_LEVEL": "3"}
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            peak[0] = max(peak[0], proportional_gb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "rank0.json")
        try:
            subprocess.run(
                [
                    sys.executable, "-m", "horovod.runner.launch", "--gloo", "-np", "2", "-H", "localhost:2",
                    sys.executable, __file__, str(out),
                ],
                env=environment, check=True,
            )  # fmt: skip
        finally:
            done.set()
            watcher.join()
        said = json.loads(out.read_text())
    note = (
        f"{said['parameters']:,} parameters (16 M users and 1 M items of width 64, twice), row-sharded over two ranks: "
        f"{said['ms']:.0f} ms a step of about {BATCH:,} users; checkpoint {said['save']:.0f} s, restore "
        f"{said['restore']:.0f} s, equal to what was saved. The peer is the limit."
    )
    print(note, f"Peak {peak[0]:.1f} GB.")
    save("billion", [claim("billion: peak memory of both ranks", peak, [LIMIT_GB], "GB", 1, higher=False)], note)


if __name__ == "__main__":
    main()
