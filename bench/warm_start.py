"""A week of daily warm starts against a full training at its end: processor seconds and NDCG on the week that follows.

The simulated shop, its users and items numbered as they first appear. Sunday's model is trained in full, with its
epochs chosen on validation; then seven warm starts follow, each on one more day, and on the last day a full training
from nothing with as many epochs as were chosen on Sunday. All are asked for what users met for the first time in the
week after; "absent" are the users who had not come back in the week of warm starts, who could be forgotten. One
process of one thread; seconds are the process's own and hold everything from reading to export.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _results import claim, save

from sparkrec import columns as c
from sparkrec.config import TwoTower
from sparkrec.ingest.simulator import behaviour, catalogue
from sparkrec.ingest.simulator.options import SimulatorOptions
from sparkrec.models.two_tower.towers import Sizes
from sparkrec.training import checkpoint, grown, loader, warm_start, worker
from sparkrec.training.collective import SingleProcess
from sparkrec.training.loop import Trainer
from sparkrec.training.manifest import Manifest, Piece
from sparkrec.training.plan import Base, Journal, Plan
from sparkrec.training.validation import Validation

SEEDS = (17, 18, 19)
SHOP: dict[str, Any] = {"users": 12_000, "items": 3000, "days": 60, "events": 720_000, "seed": 17}
SUNDAY, WEEK = 46, 7
DAY = 86_400
TYPES = {behaviour.VIEW: c.VIEW, behaviour.CART: c.CART, behaviour.PURCHASE: c.PURCHASE, behaviour.RATING: c.RATING}
SETTINGS: dict[str, Any] = {"ranks": 1, "temperature": 0.2, "checkpoint_epochs": 100, "validation_users": 10**6}


class Shop:
    """The log as arrays in time order: user, item, type and second; and each item's features."""

    def __init__(self, **options: Any) -> None:
        shop = SimulatorOptions.model_validate(options)
        items = catalogue.build(shop)
        parts = [behaviour.events(shop, items, behaviour.users(shop, block), block) for block in range(shop.blocks)]
        log = {name: np.concatenate([part[name] for part in parts]) for name in ("user", "item", "type", "time")}
        kept = np.isin(log["type"], list(TYPES)) & (log["item"] >= 0)
        kept &= np.isin(log["user"], np.concatenate([who.number[~who.bot] for who in map_users(shop)]))
        log = {name: values[kept] for name, values in log.items()}
        log = {name: values[np.lexsort((log["item"], log["user"], log["time"]))] for name, values in log.items()}
        codes = np.asarray([c.EVENT_TYPES.index(TYPES.get(code, c.VIEW)) for code in range(max(TYPES) + 1)])
        self.type, self.second = codes[log["type"]], log["time"] // 1000
        self.user, self.n_users = numbered(log["user"]), len(set(log["user"].tolist()))
        self.item, first = numbered(log["item"]), np.unique(log["item"], return_index=True)
        known = first[0][np.argsort(first[1])]  # the items in the order in which they appear
        offsets = np.cumsum([0, *(int(getattr(items, name).max()) + 1 for name in FEATURES)])
        self.features = [
            [int(getattr(items, name)[item] + offset) for name, offset in zip(FEATURES, offsets, strict=False)]
            for item in known
        ]
        self.n_features = int(offsets[-1])

    def sizes(self, day: int) -> dict[str, int]:
        before = self.second < day * DAY
        return {
            "users": int(self.user[before].max()) + 1, "items": int(self.item[before].max()) + 1,
            "features": self.n_features,
        }  # fmt: skip

    def absent(self, since: int, day: int) -> np.ndarray:
        """Users without an event from one day to another; bool [n]."""
        between = (self.second >= since * DAY) & (self.second < day * DAY)
        return np.bincount(self.user[between], minlength=self.n_users) == 0

    def exam(self, folder: Path, day: int, asked: np.ndarray) -> Plan:
        """As ``plan``, and what some users did in the week that follows, as validation."""
        return self.plan(folder, day, exam=(self.second < (day + WEEK) * DAY) & asked[self.user])

    def plan(
        self, folder: Path, day: int, base: Base | None = None, exam: np.ndarray | None = None, **settings: Any
    ) -> Plan:
        """The training on all events before a day."""
        sizes, before = self.sizes(day), self.second < day * DAY
        known = before if exam is None else before | exam
        known = known & (self.user < sizes["users"]) & (self.item < sizes["items"])
        rows = np.flatnonzero(known)
        rows = rows[np.argsort(self.user[rows], kind="stable")]
        ends = np.cumsum(np.bincount(self.user[rows], minlength=sizes["users"]))
        held = self.second[rows] >= (day - WEEK if exam is None else day) * DAY
        columns = {
            c.ITEM_INDEX: pa.array(self.item[rows], pa.int32()), c.EVENT_TYPE: pa.array(self.type[rows], pa.int8()),
            c.EVENT_TIME: pa.array(self.second[rows]), c.VALIDATION: pa.array(held),
        }  # fmt: skip
        offsets = pa.array(np.append(0, ends), pa.int32())
        index, chunk = np.arange(sizes["users"], dtype=np.int32), np.zeros(sizes["users"], np.int32)
        lists = {name: pa.ListArray.from_arrays(offsets, values) for name, values in columns.items()}
        sequences = pa.table({c.USER_INDEX: index, c.CHUNK: chunk, **lists})
        features = pa.array(self.features[: sizes["items"]], pa.list_(pa.int32()))
        items = pa.table({c.ITEM_INDEX: np.arange(sizes["items"], dtype=np.int32), c.FEATURES: features})
        config = TwoTower.model_validate(SETTINGS | settings)
        config = warm_start.adjusted(config) if base else config
        manifests = []
        for name, table in (("gold.sequences", sequences), ("gold.items", items)):
            path = folder / f"{name}.parquet"
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, path, row_group_size=len(table))
            manifests.append(Manifest(name, day, ((Piece(str(path), 0, len(table)),),)))
        return Plan(str(folder), config.model_dump(mode="json"), sizes, *manifests, as_of=day * DAY, base=base)


FEATURES = ("category", "brand", "colour", "series")


def map_users(shop: SimulatorOptions) -> list[behaviour.Users]:
    return [behaviour.users(shop, block) for block in range(shop.blocks)]


def numbered(values: np.ndarray) -> np.ndarray:
    """0, 1, … in the order in which values first appear."""
    _, first, place = np.unique(values, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[place]


def train(plan: Plan) -> tuple[dict[str, Any], float]:
    """The result, and processor seconds."""
    plan.save()
    before = time.process_time()
    result = worker.Training(plan, SingleProcess(), Journal(plan, 0)).run()
    return result, time.process_time() - before


def base_of(plan: Plan, sizes: dict[str, int], as_of: int) -> Base:
    found = warm_start._open(plan.path(), plan.path().name, plan.settings, sizes, as_of)
    assert isinstance(found, Base), found
    return found


def quality(plan: Plan, exams: dict[str, Plan]) -> dict[str, float]:
    """NDCG@20 of a finished training on each exam, histories up to it; tables grown if need be."""
    one, exam = SingleProcess(), exams["all"]
    sizes = Sizes(**exam.sizes)
    saved = checkpoint.newest(plan.path("checkpoints"), plan.fingerprint, one, print)
    assert saved
    placed = saved.state["placement"]
    trainer = Trainer(plan.settings, sizes, worker.read_item_features(exam.items, sizes), one, placed)
    trainer.restore(grown.reader(saved, plan.settings, trainer.tables), saved.state["steps"])
    events = {name: loader.read(exam.sequences.ranks[0], one) for name, exam in exams.items()}
    return {name: Validation(asked, trainer).score()["ndcg"] for name, asked in events.items()}


def week(shop: Shop, folder: Path, seed: int, **warm: Any) -> dict[str, Any]:
    """Seconds and NDCG of Sunday's model, of seven warm starts and of the full training at the end."""
    end = SUNDAY + WEEK
    absent = shop.absent(SUNDAY, end)
    exams = {name: shop.exam(folder / name, end, asked) for name, asked in (("all", absent | True), ("absent", absent))}
    sunday = shop.plan(folder / "sunday", SUNDAY, seed=seed)
    result, _ = train(sunday)
    again = shop.plan(folder / "full", end, seed=seed, epochs=result["epochs"], select_on_validation=False)
    found: dict[str, Any] = {"epochs": result["epochs"], "full_seconds": train(again)[1]}
    found |= {"stale": quality(sunday, exams), "full": quality(again, exams), "seconds": []}
    last = sunday
    for day in range(SUNDAY + 1, end + 1):
        base = base_of(last, shop.sizes(day), day * DAY)
        last = shop.plan(folder / f"day{day}", day, base, seed=seed, **warm)
        result, seconds = train(last)
        found["seconds"].append(seconds)
    return found | {"warm": quality(last, exams)}


def main() -> None:
    worker.configure_tensorflow(1)
    shop, weeks = Shop(**SHOP), []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            found = week(shop, Path(folder), seed)
        weeks.append(found)
        print(f"seed {seed}: {found}", flush=True)
    day = [float(np.median(x["seconds"])) for x in weeks]
    full = [x["full_seconds"] for x in weeks]
    claims = [claim("seconds of a day's warm start against a full training", day, full, "s", 4, higher=False)]
    for asked, who in (("all", "all users"), ("absent", "users absent all week")):
        scores = {name: [x[name][asked] for x in weeks] for name in ("warm", "full", "stale")}
        for peer, words in (("full", "a full training"), ("stale", "the model of a week before")):
            name = f"NDCG of seven warm starts against {words}, {who}"
            claims.append(claim(name, scores["warm"], scores[peer], "NDCG@20", 0.98 if peer == "full" else 1.0))
    epochs = ", ".join(str(x["epochs"]) for x in weeks)
    save(
        "warm_start",
        claims,
        "Simulated shop, 12,000 users, 3,000 items, 720,000 events in 60 days; a warm start a day for a week after day "
        "46, test on days 53 to 60, on users and items known by then; seeds 17, 18, 19. The full training is given its "
        f"epochs ({epochs}); choosing them comes on top. Processor seconds of one thread, reading to export.",
    )


if __name__ == "__main__":
    main()
