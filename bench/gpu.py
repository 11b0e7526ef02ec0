"""The train step on one GPU: against itself on one core, and against PyTorch on the same GPU.

The model and the data of train_step.py (1 M users, 100 k items, width 64, histories of 50, softmax over the targets of
the batch), at a small and at a large batch, in float32 and in bfloat16. It needs a GPU, TensorFlow with CUDA, and
another Python with PyTorch and CUDA, which ``TORCH_PYTHON`` names. Ours is timed with its loader.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _results import HOME, claim, save
from _shop import ITEMS, TEMPERATURE, USERS, WIDTH, draw, settings, steps

WARM, MEASURED, ROUNDS = 10, 30, 3
BATCHES = (1024, 16384)


def ours(batch: int, precision: str, device: str) -> dict[str, list[float]]:
    """Seconds and mean loss of each step."""
    from sparkrec.training.collective import SingleProcess
    from sparkrec.training.device import use_gpu
    from sparkrec.training.worker import configure_tensorflow

    configure_tensorflow(1)
    use_gpu(device, SingleProcess(), [])
    result = steps(SingleProcess(), settings(batch=batch, precision=precision), WARM + MEASURED)
    return {name: result[name] for name in ("seconds", "losses")}


def run(side: list[str], **environment: str) -> dict[str, list[float]]:
    """One side in a process of its own."""
    more = {"TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    printed = subprocess.run(side, env=os.environ | more, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, list[float]] = json.loads(printed.splitlines()[-1])
    return {name: values[WARM:] for name, values in result.items()}


def measured(batch: int, folder: str) -> dict[str, list[dict[str, list[float]]]]:
    """The sides of one batch size, rounds interleaved."""
    users = np.random.default_rng(5).permutation(USERS)[: batch * (WARM + MEASURED)].astype(np.int32)
    items = draw(users)
    data = Path(folder, f"{batch}.npz")
    np.savez(data, users=users, history=items[:, :-1], targets=items[:, -1])
    shape = [str(x) for x in (USERS, ITEMS, WIDTH, batch, TEMPERATURE)]
    mine = [sys.executable, __file__, "ours", str(batch)]
    peer = [os.environ.get("TORCH_PYTHON", sys.executable), str(HOME / "bench" / "peers" / "pytorch.py")]
    sides = {
        "float32": ([*mine, "float32", "gpu"], {}),
        "bfloat16": ([*mine, "bfloat16", "gpu"], {}),
        "CPU": (["taskset", "-c", "0", *mine, "float32", "cpu"], {"CUDA_VISIBLE_DEVICES": ""}),
        "PyTorch": ([*peer, str(data), *shape], {"PEER_DEVICE": "cuda", "PYTHONPATH": ""}),
    }
    results: dict[str, list[dict[str, list[float]]]] = {name: [] for name in sides}
    for number in range(ROUNDS):
        for name, (side, environment) in sides.items():
            if name == "CPU" and number:
                continue  # a minute each
            results[name].append(run(side, **environment))
            last = results[name][-1]
            ms, loss = 1000 * np.median(last["seconds"]), np.mean(last["losses"][-10:])
            print(f"batch {batch}  round {number + 1}  {name:<9} {ms:8.2f} ms a step, loss {loss:.4f}", flush=True)
    return results


def main() -> None:
    if sys.argv[1:2] == ["ours"]:
        print(json.dumps(ours(int(sys.argv[2]), *sys.argv[3:])))
        return
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        gpu = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        print("gpu.py: there is no GPU here; the committed results stay")
        return
    claims: list[dict[str, Any]] = []
    said: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for batch in BATCHES:
            results = measured(batch, folder)
            rate = {name: [batch / float(np.median(r["seconds"])) for r in rounds] for name, rounds in results.items()}
            for name, peer in (("float32", "PyTorch"), ("bfloat16", "PyTorch"), ("float32", "CPU")):
                what = f"{name}, batch {batch:,}, against {'one core' if peer == 'CPU' else 'PyTorch on the same GPU'}"
                claims.append(claim(what, rate[name], rate[peer], "examples/s", 1.0))
            losses = ", ".join(f"{name} {np.mean(r[0]['losses'][-10:]):.4f}" for name, r in results.items())
            said.append(f"mean loss of the last ten steps at batch {batch:,}: {losses}")
            note = f"On one {gpu}. 1 M users, 100 k items, width 64, history 50, in-batch softmax; {'; '.join(said)}."
            save("gpu", claims, note)  # a machine that is lent may be gone before the next batch size is done


if __name__ == "__main__":
    main()
