"""The lake's part of docs/scaling.md: what clean and featurize cost at a billion events, from what was measured.

The cost of a row is the slope between the two sizes that bench/featurize.py measured, so what every run costs however
few its rows are is left out. Nobody has run it at these sizes.
"""

from __future__ import annotations

import json
from typing import Any

from _results import RESULTS

EVENTS = {"1 billion": 1e9, "100 billion": 1e11}
CORES = {"1 billion": 64, "100 billion": 2_000}
#: Compressed bytes of a shuffle that one task reads: three to four times as much in memory, which it sorts in place.
PARTITION = 128e6
#: Of what clean shuffles, its widest exchange: rows by user, to merge and to link them; 104 bytes at 100 M events.
WIDEST = 0.44
#: Bytes a row of the two frames that clean keeps in memory or on disk, compressed: typed and linked rows.
PERSISTED = 140 + 100


def section() -> str:
    """Markdown; empty until two sizes were measured."""
    results = [json.loads(path.read_text()) | {"name": path.stem} for path in RESULTS.glob("featurize_*.json")]
    results.sort(key=lambda result: int(result["stages"][0]["rows"]))
    if len(results) < 2:
        return ""
    many = results[-1]
    cores, on = many["cores"], "core" if many["cores"] == 1 else "cores"
    measured, lines = [], []
    for number, now in enumerate(many["stages"]):
        known = [result["stages"][number] for result in results if result["stages"][number]["core_s"] is not None]
        work = 1e6 * slope(known[-2], known[-1], "core_s")
        then = results[-2]["stages"][number]
        wire = slope(then, now, "shuffled")
        measured.append(
            f"| {now['stage']} | {now['rows'] / now['seconds']:,.0f} | {work:.0f} | {wire:.0f} | {now['gb']:.1f}, "
            f"{now['driver_gb']:.1f} |"
        )
        for name, events in EVENTS.items():
            hours = events * work / 1e6 / 3600
            lines.append(
                f"| {name} | {now['stage']} | {hours:,.0f} | {hours / CORES[name]:,.1f} | {events * wire / 1e12:,.2f} |"
            )
    rows = many["stages"][0]["rows"]
    disk = {name.rpartition("/")[2]: size / rows for name, size in many["bytes"].items()}
    clean = [next(one for one in result["stages"] if one["stage"] == "clean") for result in results[-2:]]
    shuffled = slope(clean[0], clean[1], "shuffled")
    widest = WIDEST * shuffled
    tasks = {name: events * widest / PARTITION for name, events in EVENTS.items()}
    kept = {name: events * (PERSISTED + shuffled) / 1e12 for name, events in EVENTS.items()}
    stored = " | ".join(f"{name} {size:.0f}" for name, size in disk.items())
    return f"""
# The lake, on paper

Made by `python bench/scaling.py` from `bench/featurize.py` at {results[-2]["stages"][0]["rows"]:,} and {rows:,} rows on
{cores} {on} ([benchmarks.md](benchmarks.md#{many["name"]})). The cost of a row is the slope between the two, so what
every run costs, however few its rows are, is left out; ingest's is that of the sizes below, because at the largest it
ran beside other work. It holds while sorts fit: their cost grows with the logarithm of
a partition's rows, so keep partitions of one size.

| stage | rows/s at {rows:,} | core-µs a row | bytes a row shuffled | GB of memory at most: in all, the driver |
|---|---|---|---|---|
{chr(10).join(measured)}

Bytes a row on disk: {stored}.

For all of the events at once, {" and ".join(f"{CORES[name]:,} cores for {name}" for name in EVENTS)}; a day costs
what its own rows and the days that late rows touch cost, and what every run does:

| events | stage | core-hours | hours | TB shuffled |
|---|---|---|---|---|
{chr(10).join(lines)}

| what to change | 1 billion | 100 billion | why |
|---|---|---|---|
| `spark.shuffle_partitions` | {tasks["1 billion"]:,.0f} | {tasks["100 billion"]:,.0f} | \
{PARTITION / 1e6:.0f} MB of the widest exchange ({widest:.0f} bytes a row) for a task; adaptive execution merges the \
small ones, and does not split |
| memory of an executor | 4 GB a core | 4 GB a core | as here: a task sorts about half a gigabyte, and frames are \
kept |
| local disk, all executors | {kept["1 billion"]:.1f} TB | {kept["100 billion"]:.0f} TB | clean keeps \
{PERSISTED} bytes a row, and the {shuffled:.0f} that it shuffles |
| `spark.sql.autoBroadcastJoinThreshold` | 1g | 1g | 10 M item ids, by estimate 0.7 GB as a hash table (a \
catalogue of up to 2 M rows is broadcast whatever this says): with less, every row is shuffled once more, its raw \
text too, to find out whether its item is known |
| `spark.databricks.delta.snapshotPartitions` | 10 | 50 | files of silver: \
{1e9 * disk["silver"] / PARTITION:,.0f} and {1e11 * disk["silver"] / PARTITION:,.0f} of {PARTITION / 1e6:.0f} MB |
| driver's memory | 4 GB | 8 GB | days, files and counts come to it; users, items and events do not |

What does not grow with the events: 100 M users and 10 M items are rows of the vocabularies, users and items of gold,
each written once and then only where they change. A user's events are sorted together, and so are an item's: one user
with a twentieth of all events is one task of that size ([bench/skew.py](../bench/skew.py)); bots are why `clean.bots`
judges days, and the count of a user's day, which is spread over all tasks, comes first.
"""


def slope(then: dict[str, Any], now: dict[str, Any], what: str) -> float:
    """What one more row costs."""
    return float((now[what] - then[what]) / (now["rows"] - then["rows"]))
