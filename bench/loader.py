"""Rows of 50-item histories on disk to the tensors of a step: ours against petastorm and tf.data over TFRecord.

100,000 users of 50 events and a target, once through in batches of 1,024, one core and one thread a side, each side a
process of its own. Every process goes through twice, and the second time is measured, in seconds of processor time.
The peers read for every epoch, ours once for all: hence a claim for an epoch with reading, sorting and all, and one for
every further epoch. Ours shuffles all rows, the peers a buffer of 10,000. A check on what came must be equal.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _results import HOME, claim, save
from _shop import BATCH, HISTORY, ITEMS, draw, settings, steps

ROWS, GROUP, ROUNDS = 100_000, 10_000, 3
PEERS = HOME / "bench" / "peers"
TARGETS = {"petastorm": 20, "tf.data over TFRecord": 3}


def ours(folder: str) -> dict[str, Any]:
    """From the Delta table's log to the tensors of every step of an epoch."""
    import tensorflow as tf

    from sparkrec.training import manifest
    from sparkrec.training.collective import SingleProcess
    from sparkrec.training.events import read_events
    from sparkrec.training.loader import Loader
    from sparkrec.training.worker import configure_tensorflow

    sys.path.append(str(PEERS))
    from _rows import checked

    configure_tensorflow(1)
    for _ in range(2):
        started, waited, total = time.process_time(), 0.0, np.zeros(4, np.uint64)
        pieces = manifest.of_table(folder, 0, "gold.sequences", 1).ranks[0]
        batches = Loader(read_events(pieces, SingleProcess()), ROWS, ITEMS, settings())
        read = time.process_time() - started
        for number in range(batches.steps_per_epoch):
            batch = {name: tf.constant(array) for name, array in batches.step(0, number).parts[0].items()}
            arrived = time.process_time()
            history, targets = batch["history_items"].numpy(), batch["target_items"].numpy()
            found = checked(batch["users"].numpy(), history, targets)
            found[2] -= int(targets.sum(dtype=np.uint64))  # its history holds the target too
            total += np.asarray(found, np.uint64)
            waited += time.process_time() - arrived
        seconds = time.process_time() - started - waited
    return {"seconds": seconds, "read": read, "check": total.tolist()}


def step() -> dict[str, Any]:
    """Milliseconds of a whole training step, cut in between, with 100,000 items and 200,000 users."""
    from unittest.mock import patch

    from sparkrec.training.collective import SingleProcess
    from sparkrec.training.worker import configure_tensorflow

    configure_tensorflow(1)
    with patch("time.perf_counter", time.process_time):
        result = steps(SingleProcess(), settings(prefetch=0), 25, users=200_000)
    return {"step_ms": 1000 * float(np.median(result["seconds"][5:]))}


def write(folder: Path) -> None:
    """The same rows as a Delta table of gold.sequences, as plain parquet, and as arrays."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from deltalake import write_deltalake

    from sparkrec import columns as c

    users = np.random.default_rng(5).permutation(ROWS).astype(np.int32)
    items = draw(users)

    def lists(values: np.ndarray) -> pa.Array:
        flat = pa.array(values.ravel())
        return pa.ListArray.from_arrays(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1], flat)

    types = np.full(items.shape, c.EVENT_TYPES.index("view"), np.int8)
    types[:, -1] = c.EVENT_TYPES.index("purchase")
    table = pa.table(
        {
            c.USER_INDEX: users, c.CHUNK: np.zeros(ROWS, np.int32), c.ITEM_INDEX: lists(items),
            c.EVENT_TYPE: lists(types), c.VALIDATION: lists(np.zeros(items.shape, bool)),
        }
    )  # fmt: skip
    write_deltalake(str(folder / "sequences"), table)
    plain = {"user": users, "history": items[:, :HISTORY], "target": items[:, HISTORY]}
    (folder / "plain").mkdir()
    arrays = {name: lists(x) if x.ndim > 1 else pa.array(x) for name, x in plain.items()}
    pq.write_table(pa.table(arrays), folder / "plain" / "rows.parquet", row_group_size=GROUP)
    np.savez(folder / "rows.npz", **plain)


def run(side: list[str]) -> dict[str, Any]:
    """One side in a process of its own, on one core."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    environment = os.environ | threads | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HOME), os.environ.get("PYTHONPATH")]))
    command = ["taskset", "-c", "0", *side]
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    result: dict[str, Any] = json.loads(printed.splitlines()[-1]) if printed else {}
    return result


def main() -> None:
    if sys.argv[1:2] == ["ours"]:
        print(json.dumps(ours(sys.argv[2])))
        return
    if sys.argv[1:] == ["step"]:
        print(json.dumps(step()))
        return
    environment = [
        ".venv-peers-petastorm",
        "requirements/peers-petastorm.lock",
        "petastorm's environment (a minute, 1.7 GB)",
    ]
    subprocess.run(["bash", "requirements/environment.sh", *environment], cwd=HOME, check=True)
    petastorm = str(HOME / ".venv-peers-petastorm" / "bin" / "python")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        records = [sys.executable, str(PEERS / "tfrecord_rows.py"), str(folder / "rows.tfrecord")]
        run([*records, "write", str(folder / "rows.npz")])
        sides = {
            "ours": [sys.executable, __file__, "ours", str(folder / "sequences")],
            "petastorm": [petastorm, str(PEERS / "petastorm_rows.py"), str(folder / "plain")],
            "tf.data over TFRecord": records,
            "step": [sys.executable, __file__, "step"],
        }
        results: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for number in range(ROUNDS):
            for side, command in sides.items():
                results[side].append(run(command))
                print(f"round {number + 1}  {side:<22} {results[side][-1]}", flush=True)
    checks = {tuple(result["check"]) for rounds in results.values() for result in rounds if "check" in result}
    if len(checks) != 1:
        raise AssertionError(f"the sides do not yield the same rows: {checks}")
    peers = {side: [ROWS / result["seconds"] for result in results[side]] for side in TARGETS}
    first, further = (
        [ROWS / (result["seconds"] - without * result["read"]) for result in results["ours"]] for without in (0, 1)
    )
    claims = [
        claim(f"loader against {peer}, {epoch}", rates, peers[peer], "rows/s", target)
        for peer, target in TARGETS.items()
        for epoch, rates in (("first epoch", first), ("further epochs", further))
    ]
    cut = [1000 * BATCH / rate for rate in further]
    whole = [result["step_ms"] for result in results["step"]]
    claims.append(claim("cutting a step against 5 % of it", cut, [0.05 * ms for ms in whole], "ms", 1, higher=False))
    save(
        "loader",
        claims,
        f"{ROWS:,} rows of {HISTORY} items and a target, batches of {BATCH:,}, one core a side, the same rows by check"
        f"sum. Seconds of processor time. A whole step takes {np.median(whole):.1f} ms.",
    )


if __name__ == "__main__":
    main()
