"""What the driver tells the ranks, and the files through which they answer; all of it JSON in one folder.

    plan.json            the plan
    trained_by.json      which job trains, while it does (training.claim)
    ranks/ATTEMPT/       0.jsonl …: what each rank logs in this attempt; its modification time is the rank's heartbeat
    checkpoints/         training.checkpoint
    tensorboard/         training.curves
    result.json          written when every rank is done
    model/               models.two_tower.exported
    chosen/              the same, of the epoch that validation chose, before the training on everything
    memory/              training.memory: for how long items count as seen, where recommend forgets

The folder lies in the lake and must be reachable by every rank under the same path.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sparkrec.config import TwoTower
from sparkrec.config.base import EventType
from sparkrec.config.features import Features
from sparkrec.config.recommend import Recommend
from sparkrec.training.manifest import Manifest, deal

CHOSEN = "chosen"
#: Settings that do not change what is learned: another value may resume a checkpoint. (A warm start is in ``base``.)
_OPERATIONAL = {
    "checkpoint_epochs", "checkpoint_steps", "keep_checkpoints", "start_timeout_seconds", "timeout_minutes",
    "heartbeat_seconds", "restarts", "network_interface", "ranks", "threads", "accumulate", "memory_gb", "prefetch",
    "device", "environment", "elastic", "min_ranks", "warm_start",
}  # fmt: skip


@dataclass(frozen=True)
class Memory:
    """For how long what a user has met counts as seen, which is what ``recommend`` says of ``moment`` (unix seconds).

    days : None: for ever. rules : conditions on gold.items, each with the days for its items, if those are fewer.
    """

    moment: int
    days: float | None
    rules: tuple[tuple[str, float], ...]

    @classmethod
    def load(cls, plain: dict[str, Any]) -> Memory:
        return cls(plain["moment"], plain["days"], tuple((items, days) for items, days in plain["rules"]))


@dataclass(frozen=True)
class Question:
    """What validation asks, so that the epochs are chosen on what ``recommend`` answers and ``evaluate`` asks.

    asked : event types of the items to be found. seen : an item that was met in these ways is neither offered nor
    asked for. memory : unless that was too long ago; None: nothing ever is.
    """

    asked: tuple[EventType, ...] = Features().target_types
    seen: tuple[EventType, ...] = Recommend().exclude_seen
    memory: Memory | None = None

    @property
    def plain(self) -> dict[str, Any]:
        """For JSON, and for fingerprints, which are what they were before there was a memory where there is none."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def load(cls, plain: dict[str, Any]) -> Question:
        memory = plain.get("memory")
        types = {name: tuple(value) for name, value in plain.items() if name != "memory"}
        return cls(**types, memory=Memory.load(memory) if memory else None)


@dataclass(frozen=True)
class Base:
    """The finished training that a warm start begins with.

    folder, fingerprint, steps : where its last checkpoint lies, and which one that is; hash : of its variables.
    since : events from this time on are new to it, unix seconds. placement : where its tables are kept.
    full : the training from nothing that the line of warm starts began with; times : warm starts since, with this one.
    """

    run_id: str
    folder: str
    fingerprint: str
    hash: str
    steps: int
    since: int
    placement: dict[str, str]
    full: str
    times: int


@dataclass(frozen=True)
class Plan:
    """``sizes``: rows of the embedding tables: users, items, features. ``spark_conf`` may hold secrets: never saved.

    ``as_of`` : the events lie before this time, unix seconds. ``base`` : None for a training from nothing.
    ``question`` : what validation asks. ``keep_chosen`` : the model that it chose is exported too.
    ``attempt`` : names the launch and the folder of its logs, so that ranks of the one before, which may not have ended
    yet, are neither heard nor taken for alive.
    """

    folder: str
    two_tower: dict[str, Any]
    sizes: dict[str, int]
    sequences: Manifest
    items: Manifest
    spark_conf: dict[str, str] = field(default_factory=dict)
    as_of: int = 0
    base: Base | None = None
    keep_chosen: bool = False
    question: Question = Question()
    attempt: str = ""

    @property
    def settings(self) -> TwoTower:
        return TwoTower.model_validate(self.two_tower)

    @property
    def ranks(self) -> int:
        """Those that the rows are dealt to: in an elastic training they may be fewer than ``settings.ranks``."""
        return len(self.sequences.ranks)

    def on(self, ranks: int) -> Plan:
        """The same training, its rows dealt to another number of ranks."""
        pieces = [piece for hand in self.sequences.ranks for piece in hand]
        return replace(self, sequences=replace(self.sequences, ranks=deal(pieces, ranks)))

    @property
    def versions(self) -> dict[str, int]:
        return {manifest.table: manifest.version for manifest in (self.sequences, self.items)}

    @property
    def fingerprint(self) -> str:
        """Equal for two trainings that would learn, and leave, the same."""
        learned = {key: value for key, value in self.two_tower.items() if key not in _OPERATIONAL}
        if self.settings.scale_learning_rate != "none":
            learned["ranks"] = self.settings.ranks
        begun = [self.base.run_id, self.base.hash, self.base.since] if self.base else []
        chosen: list[Any] = []  # only what is not as it always was: a warm start finds the trainings of long ago
        if self.settings.select_on_validation:
            chosen += [CHOSEN] if self.keep_chosen else []
            chosen += [self.question.plain] if self.question != Question() else []
        plain = json.dumps([learned, self.sizes, self.versions, *begun, *chosen], sort_keys=True)
        return hashlib.sha256(plain.encode()).hexdigest()[:16]

    def path(self, *parts: str) -> Path:
        return Path(self.folder, *parts)

    @property
    def logs(self) -> Path:
        """Where the ranks of this attempt log."""
        return self.path("ranks", self.attempt)

    def save(self) -> Path:
        path = self.path("plan.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({name: value for name, value in asdict(self).items() if name != "spark_conf"}))
        return path

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        plain = json.loads(Path(path).read_text())
        sequences, items = Manifest.load(plain.pop("sequences")), Manifest.load(plain.pop("items"))
        base, question = plain.pop("base", None), Question.load(plain.pop("question", {}))
        base = Base(**base) if base else None
        return cls(**plain, sequences=sequences, items=items, base=base, question=question)


class Journal:
    """One rank's log: a JSON object a line.

    Another attempt removes the folder, and a rank that still writes or beats there ends with a FileNotFoundError.
    """

    def __init__(self, plan: Plan, rank: int) -> None:
        plan.logs.mkdir(parents=True, exist_ok=True)
        self._path, self._rank, self._beat = plan.logs / f"{rank}.jsonl", rank, 0.0

    def write(self, event: str, **values: Any) -> None:
        with open(self._path, "a") as file:
            file.write(json.dumps({"event": event, "rank": self._rank, **values}) + "\n")

    def beat(self) -> None:
        """I am alive; at most once a second."""
        if time.monotonic() - self._beat > 1:
            self._beat = time.monotonic()
            self._path.touch()


class Follower:
    """Hears the ranks of the plan's attempt, and no others."""

    def __init__(self, plan: Plan) -> None:
        self._folder = plan.logs
        self._read: dict[str, int] = {}
        self._beats: dict[int, tuple[int, float]] = {}

    def new(self) -> Iterator[dict[str, Any]]:
        """What they have logged since this was last asked."""
        for path in sorted(self._folder.glob("*.jsonl")):
            with open(path) as file:
                file.seek(self._read.get(path.name, 0))
                while (line := file.readline()).endswith("\n"):
                    self._read[path.name] = file.tell()
                    yield _event(line, int(path.stem))

    def silence(self) -> tuple[int, float] | None:
        """The rank that has been silent the longest, and for how many seconds all are; None before any spoke.

        One that waits for the others is silent too: while any of them is heard, none hangs. Measured here from one
        question to the next: the store may have another clock.
        """
        now = time.monotonic()
        for path in self._folder.glob("*.jsonl"):
            rank, beat = int(path.stem), os.stat(path).st_mtime_ns
            if rank not in self._beats or self._beats[rank][0] != beat:
                self._beats[rank] = (beat, now)
        heard = sorted((last, rank) for rank, (_, last) in self._beats.items())
        return (heard[0][1], now - heard[-1][0]) if heard else None


def _event(line: str, rank: int) -> dict[str, Any]:
    """What a rank has logged. A full disk cuts a line short, and the next one then stands behind it: that is a note."""
    try:
        return dict(json.loads(line))
    except ValueError:
        return {"event": "note", "rank": rank, "text": f"rank {rank} wrote what cannot be read: {line.strip()}"}
