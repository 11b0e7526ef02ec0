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
from sparkrec.training import checkpoint, grown, warm_start, worker
from sparkrec.training.collective import SingleProcess
from sparkrec.training.events import read_events
from sparkrec.training.item_features import read_item_features
from sparkrec.training.loop import Trainer
from sparkrec.training.manifest import Manifest, Piece
from sparkrec.training.plan import Base, Journal, Plan
from sparkrec.training.validation import Validation

SEEDS = (17, 18, 19)
SHOP: dict[str, Any] = {"users": 12_000, "items": 3000, "days": 60, "events": 720_000, "seed": 17}
SUNDAY, WEEK = 46, 7
DAY = 86_400
TYPES = {behaviour.VIEW: c.VIEW, behaviour.CART: c.CART, behaviour.PURCHASE: c.PURCHASE, behaviour.RATING: c.RATING}
FEATURES = ("category", "brand", "colour", "series")
SETTINGS: dict[str, Any] = {"ranks": 1, "temperature": 0.2, "checkpoint_epochs": 100, "validation_users": 10**6}


class Shop:
    """The log as arrays in time order: user, item, type and second; and each item's features."""

    def __init__(self, **options: Any) -> None:
        shop = SimulatorOptions.model_validate(options)
        items = catalogue.build(shop)
        people = [behaviour.users(shop, block) for block in range(shop.blocks)]
        parts = [behaviour.events(shop, items, who, block) for block, who in enumerate(people)]
        log = {name: np.concatenate([part[name] for part in parts]) for name in ("user", "item", "type", "time")}
        persons = np.concatenate([who.number[~who.bot] for who in people])
        kept = np.isin(log["type"], list(TYPES)) & np.isin(log["user"], persons)
        rows = np.flatnonzero(kept)[np.lexsort([log[name][kept] for name in ("item", "user", "time")])]
        log = {name: values[rows] for name, values in log.items()}
        codes = np.asarray([c.EVENT_TYPES.index(TYPES.get(code, c.VIEW)) for code in range(max(TYPES) + 1)])
        self.type, self.second = codes[log["type"]], log["time"] // 1000
        (self.user, users), (self.item, known) = numbered(log["user"]), numbered(log["item"])
        columns = [getattr(items, name) for name in FEATURES]
        offsets = np.cumsum([0, *(column.max() + 1 for column in columns)])
        self.n_users, self.n_features = len(users), int(offsets[-1])
        self.features = np.stack([column[known] for column in columns], axis=1) + offsets[:-1]

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
        self, folder: Path, day: int, base: Base | None = None, *, exam: np.ndarray | None = None, **settings: Any
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
        features = pa.array(self.features[: sizes["items"]].tolist(), pa.list_(pa.int32()))
        items = pa.table({c.ITEM_INDEX: np.arange(sizes["items"], dtype=np.int32), c.FEATURES: features})
        config = TwoTower.model_validate(SETTINGS | settings)
        config = warm_start.adjusted(config) if base else config
        manifests = []
        for name, table in (("gold.sequences", sequences), ("gold.items", items)):
            path = folder / f"{name}.parquet"
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, path, row_group_size=len(table))
            manifests.append(Manifest(name, day, ((Piece(str(path), 0, len(table)),),)))
        return Plan(
            str(folder), config.model_dump(mode="json"), sizes, manifests[0], manifests[1], as_of=day * DAY, base=base
        )


def numbered(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each value as 0, 1, … in the order in which values first appear, and the values in that order."""
    distinct, first, place = np.unique(values, return_index=True, return_inverse=True)
    by_time = np.argsort(first)
    number = np.empty(len(first), np.int64)
    number[by_time] = np.arange(len(first))
    return number[place], distinct[by_time]


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
    trainer = Trainer(plan.settings, sizes, read_item_features(exam.items, sizes), one, placed)
    trainer.begin(grown.reader(saved, plan.settings, trainer.tables), saved.state["steps"])
    events = {name: read_events(exam.sequences.ranks[0], one) for name, exam in exams.items()}
    return {name: Validation(asked, trainer, exam.question).score()["ndcg"] for name, asked in events.items()}


def week(shop: Shop, folder: Path, seed: int) -> dict[str, Any]:
    """NDCG of Sunday's model, of the full training at the end and of the warm starts, with seconds of those two."""
    end = SUNDAY + WEEK
    absent = shop.absent(SUNDAY, end)
    exams = {name: shop.exam(folder / name, end, asked) for name, asked in (("all", absent | True), ("absent", absent))}
    sunday = shop.plan(folder / "sunday", SUNDAY, seed=seed)
    epochs = train(sunday)[0]["epochs"]
    again = shop.plan(folder / "full", end, seed=seed, epochs=epochs, select_on_validation=False)
    ways: dict[str, dict[str, Any]] = {"warm": {}, "no_replay": {"replay": 0.0}}
    found: dict[str, Any] = {"epochs": epochs, "full_seconds": train(again)[1]}
    found |= {"stale": quality(sunday, exams), "full": quality(again, exams)}
    for name, settings in ways.items():
        last, seconds = sunday, []
        for day in range(SUNDAY + 1, end + 1):
            base = base_of(last, shop.sizes(day), day * DAY)
            last = shop.plan(folder / name / str(day), day, base, seed=seed, **settings)
            seconds.append(train(last)[1])
        found |= {name: quality(last, exams), f"{name}_seconds": float(np.median(seconds))}
    return found


def main() -> None:
    worker.configure_tensorflow(1)
    shop, weeks = Shop(**SHOP), []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            weeks.append(week(shop, Path(folder), seed))
        print(f"seed {seed}: {weeks[-1]}", flush=True)
    day, full = [x["warm_seconds"] for x in weeks], [x["full_seconds"] for x in weeks]
    claims = [claim("seconds of a day's warm start against a full training", day, full, "s", 4, higher=False)]
    for asked, who in (("all", "all users"), ("absent", "users absent all week")):
        ours = [x["warm"][asked] for x in weeks]
        for peer, words, target in (
            ("full", "a full training", 0.98),
            ("stale", "the model of a week before", 1.0),
            ("no_replay", "as many without replay", 1.0),
        ):
            theirs = [x[peer][asked] for x in weeks]
            claims.append(claim(f"NDCG of seven warm starts against {words}, {who}", ours, theirs, "NDCG@20", target))
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
