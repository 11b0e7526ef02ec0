"""What every benchmark writes, and the page made from it.

``save`` writes ``bench/results/NAME.json``; ``python bench/_results.py`` writes docs/benchmarks.md from all of them.
"""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

HOME = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("pyspark", "delta-spark", "tensorflow-cpu", "tensorflow", "horovod", "numpy", "faiss-cpu", "pyarrow")


def claim(
    name: str, ours: list[float], peer: list[float], unit: str, target: float, higher: bool = True
) -> dict[str, Any]:
    """One claim from repeated measurements: medians, and a ratio above 1 where ours is better."""
    mine, theirs = median(ours), median(peer)
    ratio = mine / theirs if higher else theirs / mine
    spread = [min(ours), max(ours)]
    return {
        "name": name, "ours": mine, "peer": theirs, "unit": unit, "ratio": round(ratio, 3), "target": target,
        "repeats": len(ours), "spread": spread,
    }  # fmt: skip


def save(name: str, claims: list[dict[str, Any]], note: str, part: str = "", **more: Any) -> None:
    """Write ``bench/results/NAME.json``, or of a part of a script's claims ``NAME_PART.json``, and the page.

    ``more``: what else was measured, for other pages.
    """
    RESULTS.mkdir(exist_ok=True)
    content = {
        "cores": len(os.sched_getaffinity(0)),
        "versions": {"python": platform.python_version()} | _versions(),
        "command": f"python bench/{name}.py {part}".strip(),
        "note": note,
        "claims": claims,
        **more,
    }
    (RESULTS / f"{'_'.join(filter(None, (name, part)))}.json").write_text(json.dumps(content, indent=1) + "\n")
    page()


def _versions() -> dict[str, str]:
    """Of the packages that are here: with CUDA, tensorflow is one of another name, and Spark need not be there."""
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def page() -> None:
    """docs/benchmarks.md from all results."""
    lines = [
        "# Benchmarks",
        "",
        "Made from `bench/results/*.json` by the scripts in `bench/` (`make bench`). Ours and the peer are measured in "
        "the same run; the figure is the median of the repeats. A ratio above 1 means ours is better; those that miss "
        "their target stay in.",
    ]
    results = sorted(RESULTS.glob("*.json"))
    if not results:
        lines += ["", "No result is committed yet: run `make bench`."]
    for path in results:
        result = json.loads(path.read_text())
        command = result.get("command", f"python bench/{path.stem}.py")
        lines += [
            "",
            f"## {path.stem}",
            "",
            result["note"],
            "",
            f"{result['cores']} cores. `{command}`.",
            "",
        ]
        lines += ["| claim | ours | peer | unit | ratio | target | repeats |", "|---|---|---|---|---|---|---|"]
        lines += [
            f"| {x['name']} | {x['ours']:.4g} | {x['peer']:.4g} | {x['unit']} | {x['ratio']:.2f}"
            f"{'' if x['ratio'] >= x['target'] else ' (missed)'} | {x['target']:g} | {x['repeats']} |"
            for x in result["claims"]
        ]
    (HOME / "docs" / "benchmarks.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    page()
