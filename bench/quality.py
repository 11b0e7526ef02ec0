"""Quality on public data, by the whole pipeline: the two-tower model and ALS against most-popular and each other.

And against what is known: the score of most-popular on MovieLens (a published number: a path that loses or adds events
misses it), and the scores that the recipes reached alone, before there was a pipeline around them.
Settings are those of conf/*.yaml, chosen on validation. Test is looked at once for each seed, and every seed counts.
``quality.py [SET …]``; each set has results of its own, which are written after each seed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

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
NOTE = "Test metrics over all test users and the whole catalogue, by the whole pipeline with two ranks; seeds {}."


def sparkrec(*arguments: str) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["sparkrec", *arguments], cwd=HOME, env=environment, check=True)


def measured(lake: str, metric: str, k: int) -> dict[str, float]:
    """Model → the metric over all test users."""
    rows = DeltaTable(f"{lake}/metrics").to_pyarrow_table().to_pylist()
    wanted = (metric, k, "all")
    return {row[c.MODEL]: row[c.VALUE] for row in rows if (row[c.METRIC], row[c.K], row[c.SEGMENT]) == wanted}


def claims(name: str, runs: list[dict[str, float]]) -> list[dict[str, Any]]:
    """What the runs of a set, one a seed, come to."""
    scores = {model: [run[model] for run in runs] for model in runs[0]}
    metric, k = SETS[name]
    unit = f"{metric.upper()}@{k}"
    pairs = [("als", "popularity", 1.5), ("two_tower", "popularity", 1.5), ("two_tower", "als", 1.0)]
    found = [claim(f"{name}: {a} against {b}", scores[a], scores[b], unit, target) for a, b, target in pairs]
    for (of, model), (value, share) in KNOWN.items():
        if of == name:
            found.append(claim(f"{name}: {model} against what is known", scores[model], [value], unit, share))
    return found


def main() -> None:
    for name in sys.argv[1:] or SETS:
        with tempfile.TemporaryDirectory() as lake:
            common = ["--conf", f"conf/{name}.yaml", "--set", f"lake.path={lake}", "--set", "tracking.enabled=false"]
            sparkrec("run", *common, "--until", "train_als")
            runs = []
            for seed in SEEDS:
                sparkrec("run", *common, "--from", "train_two_tower", "--set", f"two_tower.seed={seed}")
                runs.append(measured(lake, *SETS[name]))
                save("quality", claims(name, runs), NOTE.format(SEEDS[: len(runs)]), name)


if __name__ == "__main__":
    main()
