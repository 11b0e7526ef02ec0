"""All positions of a sequence as targets in one pass against one example a row, with its own copy of the history.

The same model, loss, batches of users, first weights and trainer; 50 events a user, of which the last is held out. The
peer encodes each copy by the encoder's form for whole histories, which asks for the newest token only. As no history is
longer than the window, both learn the same, to rounding: losses and validation NDCG are in the note. One core, rounds
interleaved, seconds of processor time, steps cut in between.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any
from unittest.mock import patch

import numpy as np
from _results import HOME, claim, save
from _shop import draw

USERS, ITEMS, EVENTS, EPOCHS, WARM, ROUNDS = 500, 1000, 50, 3, 5, 3
HISTORIES = ("attention", "recency")


def copied(loader: Any) -> Any:
    """``Loader._by_position`` with a row a target: its user, and its own copy of what came before it."""
    from sparkrec.training import order
    from sparkrec.training.loader import lags

    by_position = loader._by_position

    def by_example(rows: np.ndarray, epoch: int) -> dict[str, np.ndarray]:
        packed = by_position(rows, epoch)
        at, segment = packed["target_segment"], packed["history_segment"]
        length = at - np.searchsorted(segment, segment[at]) + 1
        flat = order.ranges(at + 1 - length, length)
        row = np.repeat(np.arange(len(at), dtype=np.int32), length)
        return packed | {
            "users": packed["users"][at], "key": packed["key"][at], "history_items": packed["history_items"][flat],
            "history_segment": row, "history_lag": lags(row, len(at)),
            "target_segment": np.arange(len(at), dtype=np.int32),
        }  # fmt: skip

    return by_example


def train(side: str, history: str) -> dict[str, Any]:
    """Targets a second; mean loss of the last epoch; validation NDCG@20 after it."""
    from sparkrec import columns as c
    from sparkrec.config import TwoTower
    from sparkrec.models.two_tower import towers
    from sparkrec.training.collective import SingleProcess
    from sparkrec.training.events import Events, without_validation
    from sparkrec.training.loader import Loader
    from sparkrec.training.loop import Trainer
    from sparkrec.training.plan import Question
    from sparkrec.training.validation import Validation
    from sparkrec.training.worker import configure_tensorflow

    configure_tensorflow(1)
    settings = TwoTower.model_validate(
        {
            "ranks": 1, "mode": "position", "history": history, "batch": 50, "width": 64, "max_history": EVENTS,
            "user_id": False, "event_types": False, "repeats": True, "user_weight": 0.0, "learning_rate": 3e-3,
        }
    )  # fmt: skip
    items = draw(np.arange(USERS, dtype=np.int32), ITEMS)[:, -EVENTS:]
    last = np.zeros(items.shape, bool)
    last[:, -1] = True
    ends = np.arange(1, USERS + 1, dtype=np.int64) * EVENTS
    types = np.full(items.size, c.EVENT_TYPES.index("purchase"), np.int8)
    events = Events(np.arange(USERS, dtype=np.int32), ends, items.ravel(), types, last.ravel())
    loader = Loader(without_validation(events), USERS, ITEMS, settings)
    trainer = Trainer(settings, towers.Sizes(USERS, ITEMS, 0), None, SingleProcess())
    encode = towers.encode_positions
    if side == "peer":
        loader._by_position = copied(loader)  # type: ignore[method-assign]
        encode = towers.encode_users
    steps = loader.steps_per_epoch
    sums = np.zeros((EPOCHS * steps, 2))
    with patch.object(towers, "encode_positions", encode):
        for number in range(EPOCHS * steps):
            if number == WARM:
                started, seen = time.process_time(), 0.0
            cut = loader.step(*divmod(number, steps))
            loss, weight, targets = trainer.step(trainer.prepare(cut), number, EPOCHS * steps)
            sums[number] = loss, weight
            if number >= WARM:
                seen += targets
    rate = seen / (time.process_time() - started)
    loss, weight = sums[-steps:].sum(axis=0)
    return {"rate": rate, "loss": loss / weight, "ndcg": Validation(events, trainer, Question()).score()["ndcg"]}


def run(side: str, history: str) -> dict[str, float]:
    """One side in a process of its own, on one core."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
    environment = os.environ | threads | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    command = ["taskset", "-c", "0", sys.executable, __file__, side, history]
    printed = subprocess.run(command, env=environment, cwd=HOME, check=True, stdout=subprocess.PIPE, text=True).stdout
    result: dict[str, float] = json.loads(printed.splitlines()[-1])
    return result


def main() -> None:
    if len(sys.argv) == 3:
        print(json.dumps(train(*sys.argv[1:])))
        return
    results: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(ROUNDS):
        for history in HISTORIES:
            for side in ("ours", "peer"):
                result = run(side, history)
                results.setdefault((side, history), []).append(result)
                print(f"round {number + 1}  {history:<10} {side:<5} {result}", flush=True)
    claims, said = [], []
    for history in HISTORIES:
        ours, peer = results["ours", history], results["peer", history]
        rates, copied = ([result["rate"] for result in side] for side in (ours, peer))
        claims.append(claim(f"sequences, {history}: one pass against one example a row", rates, copied, "targets/s", 5))
        said.append(
            f"{history}: loss {ours[0]['loss']:.4f} and {peer[0]['loss']:.4f}, validation NDCG@20 "
            f"{ours[0]['ndcg']:.4f} and {peer[0]['ndcg']:.4f}"
        )
    shape = f"{USERS:,} users of {EVENTS} events, {ITEMS:,} items, width 64, full softmax, 50 users a step"
    note = f"{shape}, {EPOCHS} epochs. One core, seconds of processor time. In one pass and one example a row: "
    save("sequences", claims, f"{note}{'; '.join(said)}.")


if __name__ == "__main__":
    main()
