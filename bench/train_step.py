"""One training step at shop size: ours against TensorFlow Recommenders' two-tower and a plain Keras fit.

1 M users, 100 k items, width 64, histories of 50, 1,024 users a step, softmax over the targets of the batch; one thread
a side. Every side is a process of its own and runs the same users, rounds interleaved. Ours is timed with its loader;
the peers get ready arrays.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _results import HOME, claim, save

USERS, ITEMS, WIDTH, HISTORY, BATCH, TEMPERATURE = 1_000_000, 100_000, 64, 50, 1024, 0.2
WARM, MEASURED, ROUNDS = 10, 40, 3
PEERS = {"Keras": "keras_fit", "TensorFlow Recommenders": "recommenders"}
GROUPS = 100


def draw(users: np.ndarray, seed: int) -> np.ndarray:
    """int32 [n, HISTORY + 1]: half of a user's items from the group's own, the rest from all; few items are popular."""
    rng = np.random.default_rng(seed)
    shape = (len(users), HISTORY + 1)
    place = rng.random(shape, np.float32) ** 3
    own = (users % GROUPS)[:, None] * (ITEMS // GROUPS) + (place * (ITEMS // GROUPS)).astype(np.int32)
    of_all = (np.int64(7919) * (place * ITEMS).astype(np.int64) % ITEMS).astype(np.int32)
    return np.where(rng.random(shape, np.float32) < 0.5, own, of_all).astype(np.int32)


def ours() -> dict[str, list[float]]:
    """Seconds and mean loss of each measured step."""
    from sparkrec import columns as c
    from sparkrec.config import TwoTower
    from sparkrec.models.two_tower.towers import Sizes
    from sparkrec.training import placement
    from sparkrec.training.collective import SingleProcess
    from sparkrec.training.embeddings import table_sizes
    from sparkrec.training.loader import Events, Loader
    from sparkrec.training.loop import Place, Trainer, finish_epoch
    from sparkrec.training.worker import configure_tensorflow

    configure_tensorflow(1)
    settings = TwoTower(
        ranks=1, batch=BATCH, width=WIDTH, max_history=HISTORY + 1, history_keep=1.0, event_types=False,
        in_batch=True, log_q=False, temperature=TEMPERATURE, user_weight=0.0,
        weights={"purchase": 1.0}, learning_rate=0.1, epochs=1,
    )  # fmt: skip
    users = np.arange(USERS, dtype=np.int32)
    items = np.concatenate([draw(block, seed) for seed, block in enumerate(np.array_split(users, 20))])
    types = np.full(items.shape, c.EVENT_TYPES.index("view"), np.int8)
    types[:, -1] = c.EVENT_TYPES.index("purchase")
    ends = np.arange(1, USERS + 1, dtype=np.int64) * (HISTORY + 1)
    events = Events(users, ends, items.ravel(), types.ravel(), np.zeros(items.size, bool))
    loader = Loader(events, USERS, ITEMS, settings)
    sizes = Sizes(USERS, ITEMS, 0)
    tables = table_sizes(settings, sizes)
    touched = placement.touched_rows(settings, tables, USERS, items.size, USERS)
    planned = {table.table: table.placement for table in placement.plan(settings, tables, touched)}
    trainer = Trainer(settings, sizes, None, SingleProcess(), planned)
    trainer.columns.count(np.bincount(items[:, -1], minlength=ITEMS))
    seconds, losses, place, before = [], [], Place(), [time.perf_counter(), 0.0, 0.0]

    class Enough(Exception):
        pass

    def after_step(now: Place, done: int) -> None:
        seconds.append(time.perf_counter() - before[0])
        losses.append((now.loss - before[1]) / (now.weight - before[2]))
        before[:] = [time.perf_counter(), now.loss, now.weight]
        if done == WARM + MEASURED:
            raise Enough

    try:
        finish_epoch(trainer, loader, place, after_step)
    except Enough:
        return {"seconds": seconds, "losses": losses}
    raise AssertionError("the epoch is too short")


def run(side: list[str]) -> dict[str, list[float]]:
    """One side in a process of its own, on one thread."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    environment = os.environ | threads | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    printed = subprocess.run(side, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, list[float]] = json.loads(printed.splitlines()[-1])
    return {name: values[WARM:] for name, values in result.items()}


def main() -> None:
    if sys.argv[1:] == ["ours"]:
        print(json.dumps(ours()))
        return
    subprocess.run(["bash", "requirements/peers.sh", ".venv-peers"], cwd=HOME, check=True)
    python = str(HOME / ".venv-peers" / "bin" / "python")
    with tempfile.TemporaryDirectory() as folder:
        users = np.random.default_rng(5).permutation(USERS)[: BATCH * (WARM + MEASURED)].astype(np.int32)
        items = draw(users, 5)
        data = Path(folder, "steps.npz")
        np.savez(data, users=users, history=items[:, :-1], targets=items[:, -1])
        shape = [str(x) for x in (USERS, ITEMS, WIDTH, BATCH, TEMPERATURE)]
        sides = {"ours": [sys.executable, __file__, "ours"]} | {
            name: [python, str(HOME / "bench" / "peers" / f"{script}.py"), str(data), *shape]
            for name, script in PEERS.items()
        }
        results: dict[str, list[dict[str, list[float]]]] = {name: [] for name in sides}
        for number in range(ROUNDS):
            for name, side in sides.items():
                result = run(side)
                results[name].append(result)
                ms, loss = 1000 * np.median(result["seconds"]), np.mean(result["losses"][-10:])
                print(
                    f"round {number + 1}  {name:<24} {ms:8.1f} ms a step, loss of the last ten steps {loss:.3f}",
                    flush=True,
                )
    times = {name: [1000 * float(np.median(r["seconds"])) for r in rounds] for name, rounds in results.items()}
    losses = {name: np.mean([r["losses"][-10:] for r in rounds]) for name, rounds in results.items()}
    claims = [claim(f"train_step against {name}", times["ours"], times[name], "ms", 3, higher=False) for name in PEERS]
    said = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
    note = "1 M users, 100 k items, width 64, history 50, batch 1,024, in-batch softmax, one thread a side."
    save(
        "train_step",
        claims,
        f"{note} Mean loss of the last ten of {WARM + MEASURED} steps: {said} (optimizers differ).",
    )


if __name__ == "__main__":
    main()
