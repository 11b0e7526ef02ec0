"""One training step at shop size: ours against TensorFlow Recommenders' two-tower, a plain Keras fit, and PyTorch.

1 M users, 100 k items, width 64, histories of 50, 1,024 users a step, softmax over the targets of the batch; one core a
side. Every side is a process of its own and runs the same users, rounds interleaved. Ours is timed with its loader;
the peers get ready arrays.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from _results import HOME, claim, save
from _shop import BATCH, ITEMS, TEMPERATURE, USERS, WIDTH, draw, settings, steps

WARM, MEASURED, ROUNDS = 5, 20, 3
#: Name → script, environment, target.
PEERS = {
    "Keras": ("keras_fit", "peers", 3.0),
    "TensorFlow Recommenders": ("recommenders", "peers", 3.0),
    "PyTorch": ("pytorch", "peers-torch", 1.5),
}


def ours() -> dict[str, list[float]]:
    """Seconds and mean loss of each step."""
    from sparkrec.training.collective import SingleProcess
    from sparkrec.training.worker import configure_tensorflow

    configure_tensorflow(1)
    result = steps(SingleProcess(), settings(), WARM + MEASURED)
    return {name: result[name] for name in ("seconds", "losses")}


def run(side: list[str]) -> dict[str, list[float]]:
    """One side in a process of its own, on one core."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    environment = os.environ | threads | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    command = ["taskset", "-c", "0", *side]
    printed = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, list[float]] = json.loads(printed.splitlines()[-1])
    return {name: values[WARM:] for name, values in result.items()}


def main() -> None:
    if sys.argv[1:] == ["ours"]:
        print(json.dumps(ours()))
        return
    for name, size in (("peers", "two minutes, 1.5 GB"), ("peers-torch", "five minutes, 7 GB")):
        environment = [f".venv-{name}", f"requirements/{name}.lock", f"an environment of peers ({size})"]
        subprocess.run(["bash", "requirements/environment.sh", *environment], cwd=HOME, check=True)
    with tempfile.TemporaryDirectory() as folder:
        users = np.random.default_rng(5).permutation(USERS)[: BATCH * (WARM + MEASURED)].astype(np.int32)
        items = draw(users)
        data = Path(folder, "steps.npz")
        np.savez(data, users=users, history=items[:, :-1], targets=items[:, -1])
        shape = [str(x) for x in (USERS, ITEMS, WIDTH, BATCH, TEMPERATURE)]
        sides = {"ours": [sys.executable, __file__, "ours"]} | {
            name: [
                str(HOME / f".venv-{environment}" / "bin" / "python"),
                str(HOME / "bench" / "peers" / f"{script}.py"),
                str(data),
                *shape,
            ]
            for name, (script, environment, _) in PEERS.items()
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
    claims = [
        claim(f"train_step against {name}", times["ours"], times[name], "ms", target, higher=False)
        for name, (_, _, target) in PEERS.items()
    ]
    said = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
    note = "1 M users, 100 k items, width 64, history 50, batch 1,024, in-batch softmax, one core a side."
    save(
        "train_step",
        claims,
        f"{note} Mean loss of the last ten of {WARM + MEASURED} steps: {said} (optimizers differ).",
    )


if __name__ == "__main__":
    main()
