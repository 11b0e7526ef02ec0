"""Every history encoder on Amazon Beauty by the whole path (Delta, loader, two ranks): the best validation NDCG@20.

Settings are recipe B's (conf/amazon_beauty.yaml) for all of them, with one layer; only the encoder differs. Test is
not looked at. The peer of each is the recipe's own encoder, recency, in the same run. Beside it the processor time of
the stage's processes (Spark's, the ranks') until validation had chosen.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from _processes import processor_seconds
from _results import HOME, claim, save

ENCODERS = ("recency", "mean", "cnn", "gru", "lstm", "attention")
SEEDS = (17,)
PEER = ENCODERS[0]
EPOCH = re.compile(r"choose epoch (\d+) done: .*recall@20 ([\d.]+), ndcg@20 ([\d.]+)")


def sparkrec(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.Popen(["sparkrec", *arguments], cwd=HOME, env=environment, stderr=subprocess.PIPE, text=True)


def chosen(*arguments: str) -> dict[str, float]:
    """The epoch that validation chose: its number, recall and NDCG; epochs tried, and seconds of processor time.

    The training on everything, which follows, is for the test: it is stopped.
    """
    curve, seconds = [], 0.0
    with sparkrec(*arguments) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if epoch := EPOCH.search(line):
                curve.append([float(number) for number in epoch.groups()])
                seconds = processor_seconds(process.pid)
            elif "final epoch" in line:
                process.terminate()
    if not curve:
        raise RuntimeError("The training ended without an epoch scored on validation.")
    number, recall, ndcg = max(curve, key=lambda epoch: epoch[2])
    return {"epoch": number, "recall": recall, "ndcg": ndcg, "tried": len(curve), "processor": seconds}


def main() -> None:
    found: dict[str, list[dict[str, float]]] = {encoder: [] for encoder in ENCODERS}
    with tempfile.TemporaryDirectory() as lake:
        common = ["--conf", "conf/amazon_beauty.yaml"]
        for setting in (
            f"lake.path={lake}",
            "tracking.enabled=false",
            "two_tower.layers=1",
            "two_tower.attention_heads=1",
        ):
            common += ["--set", setting]
        prepared = sparkrec("run", *common, "--until", "featurize")
        said = prepared.communicate()[1]
        if prepared.returncode:
            raise RuntimeError(f"The run up to featurize failed: {said[-2000:]}")
        for seed in SEEDS:
            for encoder in ENCODERS:
                changed = [f"two_tower.history={encoder}", f"two_tower.seed={seed}"]
                stage = ["--from", "train_two_tower", "--until", "train_two_tower"]
                found[encoder].append(chosen("run", *common, *stage, *(x for one in changed for x in ("--set", one))))
                print(encoder, seed, found[encoder][-1], flush=True)
    scores = {encoder: [run["ndcg"] for run in runs] for encoder, runs in found.items()}
    claims = [
        claim(f"encoders: {encoder} against {PEER}", scores[encoder], scores[PEER], "validation NDCG@20", 1)
        for encoder in ENCODERS[1:]
    ]
    said = ", ".join(
        f"{encoder} {first['ndcg']:.4f} (recall {first['recall']:.4f}, epoch {first['epoch']:.0f} of {first['tried']}, "
        f"{first['processor']:,.0f} s of processor time)"
        for encoder, (first, *_) in found.items()
    )
    save("encoders", claims, f"Amazon Beauty, recipe B, one layer, seeds {SEEDS}, validation only: {said}.")


if __name__ == "__main__":
    main()
