"""Raw logs of the simulated shop to silver and gold: rows/s of each stage, beside DuckDB and Polars on the same files.

``featurize.py [EVENTS …]``, by default 1 and 10 million; 100 million takes hours on two cores. Everything runs on all
cores that this process may use, one after the other. A peer writes the same rows (the counts are compared) as parquet,
without line numbers, reasons, versions or increments. Also measured: the cost of a row from one size to the next, peak
memory of the processes of a stage (driver and executors are one in local mode; Python workers are added), bytes
shuffled.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _processes import peak_memory
from _results import HOME, RESULTS, claim, save

SIZES = (1_000_000, 10_000_000)
STAGES = ("ingest", "clean", "featurize")
LAYERS = ("bronze", "silver", "quarantine", "gold")
TARGET = {"duckdb": 1 / 3, "polars": 1 / 3}
MEMORY = "8g"
CORES = len(os.sched_getaffinity(0))
PEERS = HOME / "bench" / "peers"
#: Counts that every side must agree on: ours → the peer's.
SAME = {"kept": "kept", "quarantined": "quarantined", "users": "users", "items": "items", "test_pairs": "test_pairs"}


#: The peers know one sign of a bot, the number of events. Ours are all computed, and the others weigh nothing.
BOTS = {"events_per_day": 200} | {
    sign: {"person": 0, "bot": 1, "weight": 0}
    for sign in ("rate", "regularity", "breadth", "no_purchase", "around_the_clock")
}


def ours(folder: Path, events: int, stage: str) -> dict[str, Any]:
    """One stage in a process of its own, as a scheduler starts it: seconds of the stage, GB, bytes shuffled, counts."""
    log = folder / f"spark-{stage}"
    log.mkdir(exist_ok=True)
    options = {
        "lake.path": folder / "lake", "source.path": folder / "logs", "tracking.enabled": "false",
        "source.options": json.dumps(shop(events)), "clean.bots": json.dumps(BOTS),
        "spark.master": f"local[{CORES}]", "spark.driver_memory": MEMORY,
        "spark.shuffle_partitions": max(4, events // 500_000),
        "spark.conf": json.dumps({
            "spark.eventLog.enabled": "true", "spark.eventLog.dir": f"file://{log}", "spark.eventLog.compress": "false",
        }),
    }  # fmt: skip
    command = ["sparkrec", "run", "--conf", "conf/demo.yaml", "--from", stage, "--until", stage]
    for key, value in options.items():
        command += ["--set", f"{key}={value}"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(command, cwd=HOME, env=environment, stderr=subprocess.PIPE, text=True)
    with peak_memory(process.pid) as peak:
        printed = process.communicate()[1]
    if process.returncode:
        raise RuntimeError(f"{stage}: {printed[-3000:]}")
    from deltalake import DeltaTable

    rows = DeltaTable(str(folder / "lake" / "runs")).to_pyarrow_table().to_pylist()
    record = max((row for row in rows if row["stage"] == stage), key=lambda row: row["started"])
    return {
        "seconds": record["seconds"], "gb": peak["gb"], "shuffled": shuffled(log), "counts": dict(record["counts"]),
    }  # fmt: skip


def shop(events: int) -> dict[str, int]:
    """A shop whose users and items grow with its events."""
    return {"users": events // 60, "items": max(1000, events // 1000), "days": 60, "events": events, "seed": 23}


def shuffled(log: Path) -> int:
    """Bytes that the tasks of an event log wrote to shuffles."""
    total = 0
    for path in log.rglob("*"):
        if not path.is_file():
            continue
        for line in path.open():
            if '"SparkListenerTaskEnd"' in line:
                metrics = json.loads(line).get("Task Metrics") or {}
                total += metrics.get("Shuffle Write Metrics", {}).get("Shuffle Bytes Written", 0)
    return total


def peer(name: str, folder: Path) -> dict[str, Any]:
    out = folder / name
    out.mkdir()
    python = HOME / ".venv-peers-frames" / "bin" / "python"
    command = [python, PEERS / f"{name}_lake.py", folder / "logs", out, str(CORES), MEMORY.upper() + "B"]
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    with peak_memory(process.pid) as peak:
        printed = process.communicate()[0]
    if process.returncode:
        raise RuntimeError(f"{name} failed")
    result: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return result | {"gb": peak["gb"]}


def main() -> None:
    sizes = [int(size) for size in sys.argv[1:]] or SIZES
    environment = [".venv-peers-frames", "requirements/peers-frames.lock", "DuckDB and Polars (half a minute)"]
    subprocess.run(["bash", "requirements/environment.sh", *environment], cwd=HOME, check=True)
    peers = [name for name in TARGET if (PEERS / f"{name}_lake.py").exists()]
    for events in sizes:
        with tempfile.TemporaryDirectory() as name:
            measure(Path(name), events, peers)


def measure(folder: Path, events: int, peers: list[str]) -> None:
    stages = {stage: ours(folder, events, stage) for stage in STAGES}
    rows = stages["clean"]["counts"]["rows_in"]
    said = [f"The simulated shop, cores: {CORES}, {MEMORY} for the driver. {rows:,} raw rows: " + ", ".join(
        f"{stage} {rows / result['seconds']:,.0f} rows/s, {result['gb']:.1f} GB, "
        f"{result['shuffled'] / rows:.0f} bytes a row shuffled" for stage, result in stages.items()
    ) + "."]  # fmt: skip
    print(said[0], flush=True)
    disk = {part: _bytes(folder / part) for part in ("logs", *(f"lake/{table}" for table in LAYERS))}
    claims = []
    counts = stages["clean"]["counts"] | stages["featurize"]["counts"]
    for other in peers:
        theirs = peer(other, folder)
        differ = {k: (counts[k], theirs["counts"][v]) for k, v in SAME.items() if counts[k] != theirs["counts"][v]}
        if differ:
            raise AssertionError(f"{other} does not write the same rows: {differ}")
        both = sum(stages[stage]["seconds"] for stage in ("clean", "featurize"))
        rates = [rows / both], [rows / (theirs["clean"] + theirs["featurize"])]
        claims.append(claim(f"clean + featurize against {other}, {events:,} events", *rates, "rows/s", TARGET[other]))
        said.append(
            f"{other}: clean {theirs['clean']:.0f} s, featurize {theirs['featurize']:.0f} s, {theirs['gb']:.1f} GB."
        )
        print(said[-1], claims[-1]["ratio"], flush=True)
    measured = [
        {"stage": stage, "rows": rows, **{k: result[k] for k in ("seconds", "gb", "shuffled")}}
        for stage, result in stages.items()
    ]
    if before := smaller(rows):
        for now, then in zip(measured, before, strict=True):
            cost = [[1e6 * one["seconds"] / one["rows"]] for one in (now, then)]
            name = f"{now['stage']}: cost of a row, {rows:,} rows against {then['rows']:,}"
            claims.append(claim(name, *cost, "µs a row", 1 / 1.2, higher=False))
    save("featurize", claims, " ".join(said), str(events), stages=measured, bytes=disk)


def smaller(rows: int) -> list[dict[str, Any]]:
    """The stages of the largest size measured before that is smaller."""
    found = [json.loads(path.read_text())["stages"] for path in RESULTS.glob("featurize_*.json")]
    return max((stages for stages in found if stages[0]["rows"] < rows), key=lambda s: s[0]["rows"], default=[])


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
