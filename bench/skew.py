"""One user with 5 % of all events and one item with 20 % of them, against the same shop without them.

``skew.py [EVENTS]``, by default a million: seconds of clean and of featurize on all cores of this machine.
"""

from __future__ import annotations

import random
import re
import shutil
import sys
import tempfile
from pathlib import Path

from _results import claim, save
from featurize import ours

EVENTS = 1_000_000
USER_SHARE, ITEM_SHARE, TARGET = 0.05, 0.20, 1 / 1.5
STAGES = ("clean", "featurize")


def skew(logs: Path) -> None:
    """Gives one user and one item their shares, in place."""
    draw = random.Random(5)
    item = re.search(r'"sku":"([^"]+)"', next(logs.glob("events/*/*.json")).read_text())
    assert item is not None
    for path in sorted(logs.glob("events/*/*.json")):
        lines = path.read_text().splitlines()
        for i, line in enumerate(lines):
            if draw.random() < USER_SHARE:
                line = re.sub(r'"user":"[^"]+"', '"user":"everybody"', line)
            if draw.random() < ITEM_SHARE:
                line = re.sub(r'"sku":"[^"]+"', f'"sku":"{item[1]}"', line)
            lines[i] = line
        path.write_text("\n".join(lines) + "\n")
        path.with_name(f".{path.name}.crc").unlink(missing_ok=True)  # Hadoop's checksum of what was there before


def main() -> None:
    events = int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS
    seconds: dict[bool, dict[str, float]] = {}
    counts = {}
    for skewed in (False, True):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            ours(folder, events, "ingest")  # writes the logs
            if skewed:
                skew(folder / "logs")
                shutil.rmtree(folder / "lake")
                ours(folder, events, "ingest")
            results = {stage: ours(folder, events, stage) for stage in STAGES}
            seconds[skewed] = {stage: result["seconds"] for stage, result in results.items()}
            counts[skewed] = results["featurize"]["counts"]
            print("skewed" if skewed else "even", seconds[skewed], flush=True)
    claims = [
        claim(f"skew: {stage} of a skewed log", [seconds[True][stage]], [seconds[False][stage]], "s", TARGET, False)
        for stage in STAGES
    ]
    both = [sum(seconds[skewed].values()) for skewed in (True, False)]
    claims.append(claim("skew: clean + featurize of a skewed log", [both[0]], [both[1]], "s", TARGET, False))
    trained = " and ".join(f"{counts[skewed]['events_train']:,}" for skewed in (False, True))
    save("skew", claims, f"{events:,} simulated events; training events even and skewed: {trained}.")


if __name__ == "__main__":
    main()
