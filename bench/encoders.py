"""Every history encoder on Amazon Beauty by the whole path (Delta, loader, two ranks): the best validation NDCG@20.

Settings are recipe B's (conf/amazon_beauty.yaml) for all of them, with one layer; only the encoder differs. Test is
not looked at. The peer of each is the recipe's own encoder, recency, in the same run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _results import HOME, claim, save

ENCODERS = ("recency", "mean", "cnn", "gru", "lstm", "attention")
SEEDS = (17,)
PEER = ENCODERS[0]


def sparkrec(*arguments: str) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["sparkrec", *arguments], cwd=HOME, env=environment, check=True)


def chosen(lake: str) -> dict[str, Any]:
    """The epoch that validation chose: its number, NDCG and recall, and users with events per second until then."""
    folder = Path(lake, "models", "two_tower", "amazon_beauty-all")
    curve = [row for row in json.loads((folder / "result.json").read_text())["curve"] if row["phase"] == "choose"]
    best = max(curve, key=lambda row: row["ndcg"])
    speeds = sorted(row["examples_per_second"] for row in curve)
    return best | {"speed": speeds[len(speeds) // 2], "tried": len(curve)}


def main() -> None:
    found: dict[str, list[dict[str, Any]]] = {encoder: [] for encoder in ENCODERS}
    with tempfile.TemporaryDirectory() as lake:
        common = ["--conf", "conf/amazon_beauty.yaml"]
        for setting in (
            f"lake.path={lake}",
            "tracking.enabled=false",
            "two_tower.layers=1",
            "two_tower.attention_heads=1",
        ):
            common += ["--set", setting]
        sparkrec("run", *common, "--until", "featurize")
        for seed in SEEDS:
            for encoder in ENCODERS:
                changed = [f"two_tower.history={encoder}", f"two_tower.seed={seed}"]
                stage = ["--from", "train_two_tower", "--until", "train_two_tower"]
                sparkrec("run", *common, *stage, *(x for one in changed for x in ("--set", one)))
                found[encoder].append(chosen(lake))
                print(encoder, seed, found[encoder][-1], flush=True)
    scores = {encoder: [run["ndcg"] for run in runs] for encoder, runs in found.items()}
    claims = [
        claim(f"encoders: {encoder} against {PEER}", scores[encoder], scores[PEER], "validation NDCG@20", 1)
        for encoder in ENCODERS[1:]
    ]
    said = ", ".join(
        f"{encoder} {first['ndcg']:.4f} (recall {first['recall']:.4f}, epoch {first['epoch']} of {first['tried']}, "
        f"{first['speed']:,.0f} targets/s)"
        for encoder, (first, *_) in found.items()
    )
    save("encoders", claims, f"Amazon Beauty, recipe B, one layer, seeds {SEEDS}, validation only: {said}.")


if __name__ == "__main__":
    main()
