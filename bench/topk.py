"""The similarity join: 100 k items, width 64, lists of 100, what each user has seen removed.

Our kernel against bare faiss (which removes nothing) and implicit's recommend, on all cores; our job from Delta to
Delta against the same faiss and against Spark's recommendForUserSubset, which is asked for k + the most that anyone has
seen, and an anti-join. Approximate search and the cost of more users and items in processor time on one core, because
other work runs on the machine. Lists of a sample of users must equal a brute force in double precision.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import faiss
import numpy as np
from _results import HOME, claim, save

from sparkrec.config.recommend import Faiss
from sparkrec.retrieval import cells, indexes, kernel, topk
from sparkrec.retrieval.kernel import F32

ITEMS, WIDTH, K, SEEN, USERS, ROUNDS = 100_000, 64, 100, 50, 8192, 3
JOB_USERS, SPARK_USERS = (100_000, 300_000), 2000
CORES = len(os.sched_getaffinity(0))
WALL, CPU = time.perf_counter, time.process_time
Lists = tuple[np.ndarray, np.ndarray]


def directions(random: np.random.Generator, n: int, heads: F32 | None = None) -> F32:
    """Unit vectors: anywhere, or around the heads of tastes as trained towers have them."""
    points = random.normal(size=(n, WIDTH)).astype(np.float32)
    if heads is not None:
        points = heads[random.integers(0, len(heads), n)] + np.float32(0.7) * points
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points


def shop(users: int, items: int, tastes: int = 1000) -> tuple[F32, F32, Lists]:
    """Vectors of users and items, and what each user has seen; ``tastes`` 0: directions without order."""
    random = np.random.default_rng(5)
    heads = random.normal(size=(tastes, WIDTH)).astype(np.float32) if tastes else None
    lengths = np.minimum(random.geometric(1 / SEEN, users), 4 * SEEN)
    seen = (random.integers(0, items, lengths.sum(), np.int64), np.append(0, np.cumsum(lengths)))
    return directions(random, users, heads), directions(random, items, heads), (seen[1], seen[0].astype(np.int32))


def on_all_cores(users: F32, items: topk.Catalogue, seen: Lists) -> Lists:
    """Our kernel, a thread a core."""
    cuts = np.linspace(0, len(users), CORES + 1).astype(int)

    def part(i: int) -> Lists:
        inside = slice(cuts[i], cuts[i + 1])
        return topk.top_k(users[inside], items, K, (seen[0][cuts[i] : cuts[i + 1] + 1], seen[1]))

    with ThreadPoolExecutor(CORES) as pool:
        found = list(pool.map(part, range(CORES)))
    return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])


def hits(found: np.ndarray, wanted: np.ndarray) -> int:
    """Places of ``wanted`` [n, k] whose item is in the same row of ``found`` [n, k]."""
    rows = np.arange(len(found))[:, None].astype(np.int64) << 32
    return int(np.isin(rows + wanted, rows + found).sum())


def rate(act: Callable[..., Any], users: F32, *rest: Any, clock: Callable[[], float] = CPU) -> tuple[float, Any]:
    """Users a second of ``act(users, *rest)``, and what came of it."""
    start = clock()
    result = act(users, *rest)
    return len(users) / (clock() - start), result


def check(users: F32, items: F32, seen: Lists, found: np.ndarray, sample: int = 50) -> None:
    """Lists of a sample against a brute force in double precision."""
    for user in range(0, len(users), max(1, len(users) // sample)):
        scores = (items.astype(np.float64) @ users[user].astype(np.float64)).astype(np.float32)
        scores[seen[1][seen[0][user] : seen[0][user + 1]]] = -np.inf
        best = np.lexsort((np.arange(len(items)), -scores))[:K]
        if not np.array_equal(best, found[user]):
            # Sums in another order round to another float32 now and then: the scores decide.
            np.testing.assert_allclose(scores[best], scores[found[user]], rtol=3e-7)


def against_processes() -> tuple[list[dict[str, Any]], list[str]]:
    """Claims against faiss and implicit, and words for the note."""
    subprocess.run(
        ["bash", "requirements/environment.sh", ".venv-peers-implicit", "requirements/peers-implicit.lock",
         "implicit (half a minute, 0.3 GB)"], cwd=HOME, check=True,
    )  # fmt: skip
    claims, words = [], []
    for kind, tastes in (("1,000 tastes", 1000), ("no order", 0)):
        users, items, seen = shop(USERS, ITEMS, tastes)
        packed, flat = topk.pack(items), faiss.IndexFlatIP(WIDTH)
        flat.add(items)
        rates: dict[str, list[float]] = {"ours": [], "faiss": [], "implicit": []}
        with tempfile.TemporaryDirectory() as folder:
            data, out = Path(folder, "data.npz"), Path(folder, "lists.npy")
            np.savez(data, users=users, items=items, indptr=seen[0], seen=seen[1])
            for _ in range(ROUNDS):
                speed, ours = rate(on_all_cores, users, packed, seen, clock=WALL)
                rates["ours"].append(speed)
                rates["faiss"].append(rate(flat.search, users, K, clock=WALL)[0])
                command = [str(HOME / ".venv-peers-implicit" / "bin" / "python"), "bench/peers/implicit_topk.py"]
                printed = subprocess.run(
                    [*command, str(data), str(K), str(out)], cwd=HOME, check=True, stdout=subprocess.PIPE, text=True,
                    env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
                ).stdout  # fmt: skip
                rates["implicit"].append(float(printed))
            theirs = np.load(out)
        check(users, items, seen, ours[0])
        overlap = hits(theirs.astype(np.int32), ours[0]) / ours[0].size
        words.append(f"{kind}: implicit's lists overlap ours by {overlap:.4f}")
        print(kind, {name: [round(x) for x in values] for name, values in rates.items()}, flush=True)
        for peer, target in (("faiss", 1.5), ("implicit", 3.0)):
            name = {"faiss": "bare faiss IndexFlatIP", "implicit": "implicit's recommend"}[peer]
            claims.append(claim(f"kernel alone against {name}, {kind}", rates["ours"], rates[peer], "users/s", target))
    return claims, words


def looks() -> tuple[list[dict[str, Any]], list[str]]:
    """The exact search that looks at bytes first, or at what it measures to be faster, against one that never does."""
    claims: list[dict[str, Any]] = []
    n = 4096  # users of a block of the job
    for kind, tastes, constant in (("1,000 tastes", 1000, 0), ("no order", 0, 0), ("a constant beside them", 1000, 5)):
        users, items, seen = shop(n, ITEMS, tastes)
        if constant:  # one number much larger than the others: what bytes are bad at
            users, items = (np.pad(x, ((0, 0), (0, 1)), constant_values=constant) for x in (users, items))
        packed = topk.pack(items)
        rates: dict[str, list[float]] = {"words": [], "measured": []}
        for _ in range(ROUNDS):
            for look, values in rates.items():
                with patch.object(kernel, "_LOOK", look):
                    values.append(rate(topk.top_k, users, packed, K, seen)[0])
        said = f"exact search with int8 first where that is faster against bfloat16 alone, {kind}"
        claims.append(claim(said, rates["measured"], rates["words"], "users/s a core", 1.0 if constant else 2.0))
        print(kind, rates, flush=True)
    return claims, []


def approximate() -> tuple[list[dict[str, Any]], list[str]]:
    """Cells against our own exact search, 100 k items and a million."""
    claims, words = [], []
    items_of = {"100 k": 100_000, "1 M": 1_000_000}
    for name, count in items_of.items():
        n = 2048
        users, items, seen = shop(n, count)
        exact = topk.pack(items)
        order, starts, centres = cells.build(items, topk.lengths(items, "item"), np.arange(count), 4 * int(count**0.5))
        part, heads = kernel.pack(items, order, starts), topk.pack(centres).parts
        best: tuple[int, float] | None = None
        wanted, _ = topk.top_k(users, exact, K, seen)
        for probes in (4, 6, 8, 16, 32, 64):
            catalogue = topk.Catalogue(items, (part,), heads, probes)
            recall = hits(topk.top_k(users, catalogue, K, seen)[0], wanted) / wanted.size
            if recall >= 0.97:
                best = probes, recall
                break
        if best is None:
            raise SystemExit(f"no number of probes reaches recall .97 with {name} items")
        catalogue = topk.Catalogue(items, (part,), heads, best[0])
        rates: dict[str, list[float]] = {"exact": [], "cells": []}
        for _ in range(ROUNDS):
            for side, how in (("exact", exact), ("cells", catalogue)):
                rates[side].append(rate(topk.top_k, users, how, K, seen)[0])
        said = f"cells of {name} items against our exact search"
        claims.append(claim(said, rates["cells"], rates["exact"], "users/s a core", 5.0))
        words.append(f"{name} items: {best[0]} of {len(centres):,} cells, recall@{K} {best[1]:.4f}")
        print(words[-1], rates, flush=True)
    return claims, words


#: An index of faiss, what makes it find more and by how much, the recall that it is to reach, and the target.
INDEXES = (
    ("SQ8", "candidates", (1.2, 1.5, 2, 3), 0.99, 2.0), ("IVF1024,Flat", "nprobe", (4, 8, 16, 32, 64, 128), 0.97, 5.0),
    ("HNSW32", "efSearch", (64, 128, 256, 512), 0.97, 1.0), ("PQ32x4fs", "candidates", (2, 4, 8, 16), 0.97, 1.0),
)  # fmt: skip


def proposed() -> tuple[list[dict[str, Any]], list[str]]:
    """faiss's indexes as what proposes our candidates, against our exact search: 100 k items, one core."""
    claims, words = [], []
    users, items, seen = shop(2048, ITEMS)
    exact = topk.pack(items)
    part = exact.parts[0]
    wanted, _ = topk.top_k(users, exact, K, seen)
    with tempfile.TemporaryDirectory() as folder:
        for name, effort, steps, enough, target in INDEXES:
            file = Path(folder, "index")
            start = time.perf_counter()
            indexes.write(items, part.order[part.order >= 0], Faiss(index=name), file)
            built = time.perf_counter() - start
            for step in steps:
                how = Faiss(index=name, candidates=step)
                if effort != "candidates":  # its scores are not rounded: none to spare
                    how = Faiss(index=name, candidates=1, parameters=f"{effort}={step}")
                catalogue = topk.Catalogue(items, (part,), indexes=(indexes.read(str(file), part, how),))
                recall = hits(topk.top_k(users, catalogue, K, seen)[0], wanted) / wanted.size
                if recall >= enough:
                    break
            rates: dict[str, list[float]] = {"exact": [], "index": []}
            for _ in range(ROUNDS):
                for side, what in (("exact", exact), ("index", catalogue)):
                    rates[side].append(rate(topk.top_k, users, what, K, seen)[0])
            said = f"faiss's {name}, filtered and re-scored, 100 k items, against our exact search"
            claims.append(claim(said, rates["index"], rates["exact"], "users/s a core", target))
            words.append(f"{name}: {effort} {step}, recall@{K} {recall:.4f}, built in {built:.0f} s")
            print(words[-1], rates, flush=True)
    return claims, words


def slopes() -> tuple[list[dict[str, Any]], list[str]]:
    """Processor time over users and over items, and the worst distance from a straight line through it."""
    sizes, counts, n = (4096, 16_384, 65_536), (10_000, 30_000, 100_000, 300_000, 1_000_000), 2048
    users, items, seen = shop(sizes[-1], ITEMS)
    packed = topk.pack(items)
    cases = [(users[:size], packed, (seen[0][: size + 1], seen[1])) for size in sizes]
    for count in counts:
        users, items, seen = shop(n, count)
        cases.append((users, topk.pack(items), seen))
    # Sizes interleaved, and the best of many: other work on the machine makes single times longer, never shorter.
    times = [min(c) for c in zip(*([seconds(*case) for case in cases] for _ in range(3 * ROUNDS)), strict=True)]
    by_users, by_items = times[: len(sizes)], [t / n for t in times[len(sizes) :]]
    per_user = np.array(by_users) / sizes
    fixed, slope = line(np.array(counts, float), np.array(by_items))
    print("seconds a user by users", per_user, "by items", by_items, "fixed", fixed, "slope", slope, flush=True)
    worst_users = float(np.abs(per_user / np.median(per_user) - 1).max())
    worst_items = float(np.abs(np.array(by_items) / (fixed + slope * np.array(counts)) - 1).max())
    claims = [
        claim("cost of more users, furthest from a straight line", [worst_users], [0.1], "share", 1.0, higher=False),
        claim("cost of more items, furthest from a straight line", [worst_items], [0.1], "share", 1.0, higher=False),
    ]
    words = [
        "µs a user and core by items: "
        + ", ".join(f"{m:,} {1e6 * t:.1f}" for m, t in zip(counts, by_items, strict=True))
    ]
    large = fixed + slope * 1e6
    words.append(
        f"10 M users × 1 M items: {1 / large:,.0f} users/s a core, {1e6 * large / 3600:.3f} core hours a million users"
    )
    return claims, words


def seconds(users: F32, items: topk.Catalogue, seen: Lists) -> float:
    """Processor time of one search."""
    return len(users) / rate(topk.top_k, users, items, K, seen)[0]


def line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Least squares of relative errors."""
    design = np.stack([np.ones_like(x), x], axis=1) / y[:, None]
    fixed, slope = np.linalg.lstsq(design, np.ones_like(y), rcond=None)[0]
    return float(fixed), float(slope)


def whole_job(users: int, sample: int, against_spark: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """Our job from Delta to Delta beside bare faiss, and Spark's way to the lists of some; theirs are ours."""
    import _topk_job as job

    from sparkrec.session import get_session

    vectors, items, seen = shop(users, ITEMS)
    flat = faiss.IndexFlatIP(WIDTH)
    flat.add(items)
    rates: dict[str, list[float]] = {"ours": [], "faiss": [], "spark": []}
    known = topk.top_k(vectors[:sample], items, K, (seen[0][: sample + 1], seen[1][: seen[0][sample]]))[0]
    check(vectors[:sample], items, seen, known)
    words = []
    with tempfile.TemporaryDirectory() as folder:
        chosen = job.settings(Path(folder), K)
        get_session(chosen.spark)
        job.lake(chosen, vectors, items, seen)
        for _ in range(ROUNDS):
            speed, run = job.ours(chosen, users)
            rates["ours"].append(speed)
            rates["faiss"].append(rate(flat.search, vectors[:USERS], K, clock=WALL)[0])
        written = job.written(run, range(sample))
        if any(written[user] != known[user].tolist() for user in range(sample)):
            raise SystemExit("the job's lists are not the kernel's")
        if against_spark:
            speed, theirs = job.sparks(run, K, int(np.diff(seen[0]).max()), sample)
            rates["spark"].append(speed)
            same = np.mean([theirs[user] == known[user].tolist() for user in range(sample)])
            words.append(
                f"whole job: {users:,} users, Spark's way {sample} users once, {same:.3f} of its lists are ours"
            )
            mapped = job.memory(run)
            each = "; ".join(f"{row['Rss']:.0f} MB mapped, its share {row['Pss']:.0f} MB" for row in mapped)
            words.append(f"item files in the {len(mapped)} Python workers of one join: {each}")
    print("job", rates, flush=True)
    what = f"whole job, Delta to Delta, {users:,} users, against"
    claims = [claim(f"{what} bare faiss", rates["ours"], rates["faiss"], "users/s", 0.8)]
    if against_spark:
        peer = f"{what} Spark's recommendForUserSubset and an anti-join"
        claims.append(claim(peer, rates["ours"], rates["spark"], "users/s", 40.0))
    return claims, words


def main() -> None:
    claims, words = against_processes()
    jobs = [whole_job(users, SPARK_USERS, users == JOB_USERS[0]) for users in JOB_USERS]
    for found, said in (*jobs, looks(), approximate(), proposed(), slopes()):
        claims += found
        words += said
    note = (
        f"Width {WIDTH}, lists of {K}, {SEEN} items seen on average and up to {4 * SEEN}; {ITEMS:,} items unless it "
        f"says otherwise; unit {kernel.best_unit()}; {CORES} cores shared with other work, sides interleaved, wall "
        "time unless it says a core: that is processor time. "
    )
    save("topk", claims, note + ". ".join(words) + ".")


if __name__ == "__main__":
    main()
