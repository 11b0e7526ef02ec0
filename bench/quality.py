"""Quality on public data, by the whole pipeline: the two-tower model and ALS against most-popular and each other.

And against what is known: the score of most-popular on MovieLens (a published number: a path that loses or adds events
misses it), and the scores that the recipes reached alone, before there was a pipeline around them.
Settings are those of conf/*.yaml, chosen on validation. Test is looked at once for each seed, and every seed counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from _results import HOME, claim, save
from deltalake import DeltaTable

from sparkrec import columns as c

SEEDS = (17, 18, 19)
SETS = {"movielens_1m_lcfn": ("ndcg", 20), "amazon_beauty": ("ndcg", 10)}
#: (set, model) → what is known of it, and the share of it that is to be reached.
KNOWN = {
    ("movielens_1m_lcfn", "popularity"): (0.11760, 0.9999),
    ("movielens_1m_lcfn", "two_tower"): (0.2658, 0.98),
    ("amazon_beauty", "two_tower"): (0.0570, 0.98),
}


def sparkrec(*arguments: str) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["sparkrec", *arguments], cwd=HOME, env=environment, check=True)


def measured(lake: str, metric: str, k: int) -> dict[str, float]:
    """Model → the metric over all test users."""
    rows = DeltaTable(f"{lake}/metrics").to_pyarrow_table().to_pylist()
    wanted = (metric, k, "all")
    return {row[c.MODEL]: row[c.VALUE] for row in rows if (row[c.METRIC], row[c.K], row[c.SEGMENT]) == wanted}


def main() -> None:
    claims = []
    for name, (metric, k) in SETS.items():
        with tempfile.TemporaryDirectory() as lake:
            common = ["--conf", f"conf/{name}.yaml", "--set", f"lake.path={lake}", "--set", "tracking.enabled=false"]
            sparkrec("run", *common, "--until", "train_als")
            scores: dict[str, list[float]] = {"popularity": [], "als": [], "two_tower": []}
            for seed in SEEDS:
                sparkrec("run", *common, "--from", "train_two_tower", "--set", f"two_tower.seed={seed}")
                for model, value in measured(lake, metric, k).items():
                    scores[model].append(value)
        unit = f"{metric.upper()}@{k}"
        for ours, peer, target in (
            ("als", "popularity", 1.5),
            ("two_tower", "popularity", 1.5),
            ("two_tower", "als", 1.0),
        ):
            claims.append(claim(f"{name}: {ours} against {peer}", scores[ours], scores[peer], unit, target))
        for (of, model), (value, share) in KNOWN.items():
            if of == name:
                claims.append(claim(f"{name}: {model} against what is known", scores[model], [value], unit, share))
    save("quality", claims, "Test metrics over all test users and the whole catalogue; seeds 17, 18, 19.")


if __name__ == "__main__":
    main()
