"""Raw logs of the simulated shop to silver and gold: rows/s of each stage, beside DuckDB and Polars on the same files.

``featurize.py [EVENTS …]``, by default 1 and 10 million; 100 million takes hours on two cores, and has no peers: then
the logs are deleted when they are read, for the disk's sake. Everything runs on all cores that this process may use,
one after the other: ours as a driver and one executor. A peer writes the same rows (the counts are compared) as
parquet, without line numbers, reasons, versions or increments. Also measured: the processor time of a row from one
size to the next, peak memory of driver and executor (Python workers are added), bytes shuffled.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _processes import used
from _results import HOME, RESULTS, claim, save

SIZES = (1_000_000, 10_000_000)
STAGES = ("ingest", "clean", "featurize")
LAYERS = ("bronze", "silver", "quarantine", "gold")
TARGET = {"duckdb": 1 / 3, "polars": 1 / 3}
#: Most events at which a peer runs.
PEERS_UP_TO = 10_000_000
DRIVER, MEMORY = "2g", 8
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
    """One stage in a process of its own, as a scheduler starts it: its seconds, what it used, bytes shuffled, counts.

    The processor time is that of the process, Spark's start in it.
    """
    log = folder / f"spark-{stage}"
    log.mkdir(exist_ok=True)
    options = {
        "lake.path": folder / "lake", "source.path": folder / "logs", "tracking.enabled": "false",
        "source.options": json.dumps(shop(events)), "clean.bots": json.dumps(BOTS),
        "spark.master": f"local-cluster[1,{CORES},{MEMORY * 1024}]", "spark.driver_memory": DRIVER,
        "spark.shuffle_partitions": max(4, events // 500_000),
        "spark.conf": json.dumps({
            "spark.executor.memory": f"{MEMORY}g",
            "spark.eventLog.enabled": "true", "spark.eventLog.dir": f"file://{log}", "spark.eventLog.compress": "false",
        }),
    }  # fmt: skip
    command = ["sparkrec", "run", "--conf", "conf/demo.yaml", "--from", stage, "--until", stage]
    for key, value in options.items():
        command += ["--set", f"{key}={value}"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(command, cwd=HOME, env=environment, stderr=subprocess.PIPE, text=True)
    with used(process.pid) as usage:
        printed = process.communicate()[1]
    if process.returncode:
        raise RuntimeError(f"{stage}: {printed[-3000:]}")
    from deltalake import DeltaTable

    rows = DeltaTable(str(folder / "lake" / "runs")).to_pyarrow_table().to_pylist()
    record = max((row for row in rows if row["stage"] == stage), key=lambda row: row["started"])
    return {
        "seconds": record["seconds"], **usage, "shuffled": shuffled(log), "counts": dict(record["counts"]),
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
    command = [python, PEERS / f"{name}_lake.py", folder / "logs", out, str(CORES), f"{MEMORY}GB"]
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    with used(process.pid) as usage:
        printed = process.communicate()[0]
    if process.returncode:
        raise RuntimeError(f"{name} failed")
    result: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return result | usage


def main() -> None:
    sizes = [int(size) for size in sys.argv[1:]] or SIZES
    environment = [".venv-peers-frames", "requirements/peers-frames.lock", "DuckDB and Polars (half a minute)"]
    subprocess.run(["bash", "requirements/environment.sh", *environment], cwd=HOME, check=True)
    peers = [name for name in TARGET if (PEERS / f"{name}_lake.py").exists()]
    for events in sizes:
        with tempfile.TemporaryDirectory() as name:
            measure(Path(name), events, peers)


def measure(folder: Path, events: int, peers: list[str]) -> None:
    if events > PEERS_UP_TO:
        peers = []
    stages, disk = {}, {}
    for stage in STAGES:
        stages[stage] = ours(folder, events, stage)
        print(stage, stages[stage], flush=True)
        if stage == "ingest":
            disk["logs"] = _bytes(folder / "logs")
            if not peers:
                shutil.rmtree(folder / "logs")
    rows = stages["clean"]["counts"]["rows_in"]
    said = [
        f"The simulated shop, cores: {CORES}, {DRIVER} of heap for the driver and {MEMORY}g for the executor. "
        f"{rows:,} raw rows: " + ", ".join(
            f"{stage} {rows / result['seconds']:,.0f} rows/s, {result['driver_gb']:.1f} GB the driver and "
            f"{result['gb']:.1f} in all, {result['shuffled'] / rows:.0f} bytes a row shuffled"
            for stage, result in stages.items()
        ) + "."
    ]  # fmt: skip
    disk |= {part: _bytes(folder / part) for part in (f"lake/{table}" for table in LAYERS)}
    driver = max(result["driver_gb"] for result in stages.values())
    claims = [claim(f"driver's memory, {events:,} events, against 4 GB", [driver], [4.0], "GB", 1, higher=False)]
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
        {"stage": stage, "rows": rows, **{k: result[k] for k in ("seconds", "core_s", "gb", "driver_gb", "shuffled")}}
        for stage, result in stages.items()
    ]
    if before := smaller(rows):
        for now, then in zip(measured, before, strict=True):
            cost, known = ([1e6 * one["core_s"] / one["rows"]] for one in (now, then))
            name = f"{now['stage']}: cost of a row, {rows:,} rows against {then['rows']:,}"
            claims.append(claim(name, cost, known, "core-µs a row", 1 / 1.2, higher=False))
    save("featurize", claims, " ".join(said), str(events), stages=measured, bytes=disk)


def smaller(rows: int) -> list[dict[str, Any]]:
    """The stages of the largest size measured before that is smaller."""
    found = [json.loads(path.read_text())["stages"] for path in RESULTS.glob("featurize_*.json")]
    return max((stages for stages in found if stages[0]["rows"] < rows), key=lambda s: s[0]["rows"], default=[])


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
