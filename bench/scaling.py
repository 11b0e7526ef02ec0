"""docs/scaling.md: what a step of many ranks sends and how long that takes, on paper, from the model of bench/ranks.py.

Rows are counted, by drawing the users of a step; a rank's milliseconds are those that bench/ranks.py measured with one
rank. Bytes follow ``training.exchange``, whose count of two ranks was measured and stands beside the formula's.
And what clean and featurize cost at a billion events, from what bench/featurize.py measured.
"""

from __future__ import annotations

import json
import re
from functools import cache

import numpy as np
from _lake_scaling import section
from _results import HOME, RESULTS
from _shop import BATCH, ITEMS, USERS, WIDTH, draw

RANKS = (2, 8, 64, 512)
INDEX, ROW = 4, 4 * WIDTH
#: Bytes a second of a rank, both ways at once, and seconds until a message is there.
NETWORKS = {"10 Gbit/s": (1.25e9, 50e-6), "100 Gbit/s": (12.5e9, 20e-6)}
#: Messages that a step waits for, one after the other: rows, their gradients, and two rounds of the dense gradient.
#: Which rows and which targets is sent while the step before is computed.
ROUNDS = 4


@cache
def rows(users: int) -> tuple[int, int]:
    """Distinct items in the histories and among the targets of so many users of a step."""
    chosen = np.random.default_rng(5).choice(USERS, users, replace=False).astype(np.int32)
    items = draw(chosen)
    return len(np.unique(items[:, :-1])), len(np.unique(items[:, -1]))


def rows_of(users: int) -> int:
    """Rows that a rank's users touch in a step of ``BATCH`` users, whose targets are the columns of all ranks."""
    return rows(users)[0] + rows(BATCH)[1] + users


def sent(ranks: int, batch: int = BATCH) -> dict[str, float]:
    """Bytes that a rank sends in a step of ``batch`` users a rank, by placement; its users' rows are its own."""
    history, _ = rows(batch)
    _, columns = rows(min(batch * ranks, USERS))
    touched = history + columns
    return {
        "replicated": (ranks - 1) * (touched + batch) * (INDEX + ROW),
        "sharded": (ranks - 1) / ranks * touched * (INDEX + 2 * ROW),
        "sharded, fp16_rows": (ranks - 1) / ranks * touched * (INDEX + 2 * (2 * WIDTH + 4)),
        "columns": columns,
    }


def main() -> None:
    result = json.loads((RESULTS / "ranks.json").read_text())
    alone = {one["name"]: BATCH / one["peer"] for one in result["claims"]}
    compute = alone["ranks sharded, mean"]
    counted = dict(re.findall(r"(replicated|sharded), mean: ([\d.]+) MB", result["note"]))
    found = re.search(r"sharded, mean: .*? ([\d.]+) ms of processor time against ([\d.]+), (\d+%) of", result["note"])
    if found is None:
        raise SystemExit("bench/results/ranks.json tells of no processor time: run bench/ranks.py first.")
    work = found.groups()
    step = BATCH / 2 / next(x["ours"] for x in result["claims"] if x["name"] == "ranks sharded, mean")
    half = rows_of(BATCH // 2) / rows_of(BATCH)
    formula = {kind: f"{size / 1e6:.1f}" for kind, size in sent(2, BATCH // 2).items() if kind in counted}
    efficiency = {
        kind: next(x["ratio"] for x in result["claims"] if x["name"] == f"ranks {kind}, mean") for kind in counted
    }
    lines = []
    for ranks in RANKS:
        for kind, size in sent(ranks).items():
            if kind == "columns":
                continue
            times = [1000 * (size / rate + ROUNDS * (ranks - 1) * latency) for rate, latency in NETWORKS.values()]
            shares = " | ".join(f"{ms:,.1f}" for ms in times)
            lines.append(f"| {ranks} | {kind} | {size / 1e6:,.1f} | {shares} | {sent(ranks)['columns']:,} |")
    text = f"""# Weak scaling, on paper

Made by `python bench/scaling.py` from the model of `bench/ranks.py`: {USERS:,} users, {ITEMS:,} items, width {WIDTH},
histories of 50, {BATCH:,} users **a rank** and step, the targets of all ranks as negatives. Nobody has run it on so
many ranks: the rows are counted, the bytes follow the formulas below, and time is bytes over bandwidth plus latency.

| placement | a rank sends in a step |
|---|---|
| replicated sparse | (W − 1) · n · (4 + 4d): every touched row's gradient goes to every rank |
| sharded | (W − 1)/W · n · (4 + 8d): a row comes, its gradient goes; a user's row lies where the user is |
| dense | 2 (W − 1)/W · 4 · elements |

n: distinct rows that a rank's step touches, d: width. For two ranks of {BATCH // 2} users the formulas give
{formula["replicated"]} and {formula["sharded"]} MB, and the ranks counted {counted["replicated"]} and
{counted["sharded"]}. One rank alone computes {BATCH:,} users in {compute:.0f} ms on one core. Messages that a step
waits for, one after the other (which rows and which targets is sent ahead): {ROUNDS} (W − 1), each of
{NETWORKS["10 Gbit/s"][1] * 1e6:.0f} µs at 10 Gbit/s and
{NETWORKS["100 Gbit/s"][1] * 1e6:.0f} µs at 100 Gbit/s.

**What paper leaves out**: on two cores of one machine two ranks reached {efficiency["replicated"]:.0%} (replicated) and
{efficiency["sharded"]:.0%} (sharded) of one rank's speed a core ([benchmarks.md](benchmarks.md#ranks)). Most of it is
work, not waiting: with sharded rows a step of {BATCH // 2} users takes {step:.0f} ms, {work[0]} of it processor time,
and one rank takes {work[1]} ms for {BATCH:,}. {work[2]} of the work are Horovod's own threads; half of the users
touch {half:.0%} of the rows; the rest is packed and added up beside the messages. A rank with cores beside its GPU does
that while the GPU computes; nobody has measured it.

| ranks | placement | MB a rank and step | ms at 10 Gbit/s | ms at 100 Gbit/s | negatives |
|---|---|---|---|---|---|
{chr(10).join(lines)}

What follows from it:

- **Replicated rows do not scale**: bytes grow with the ranks. The planner's `memory_gb` decides today; from 8 ranks on
  set `placement: {{item_id: sharded, history_item: sharded}}`.
- **Sharded rows do**: bytes of a rank are nearly constant. What grows is the number of messages; at 512 ranks latency
  is most of the time, so give each rank more users (`batch`), which are sent in the same number of messages.
- **Negatives of all ranks grow with the ranks**, and with them the scores that each computes: {BATCH:,} × negatives.
  Beyond 8 ranks `in_batch: false` with `negatives: 4096` keeps a rank's work what it was.
- `fp16_rows: true` halves the bytes.

What lists for 10 M users × 1 M items cost: [retrieval.md](retrieval.md#cost).
"""
    text += section()
    (HOME / "docs" / "scaling.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
