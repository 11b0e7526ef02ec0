"""A small lake with persons in every table: real bronze, silver and quarantine, the rest by hand."""

from __future__ import annotations

import json
from collections.abc import Set
from pathlib import Path

import handmade
import numpy as np
from drivers import INTERPRETED

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import Settings
from sparkrec.jobs.clean import clean
from sparkrec.jobs.ingest import ingest
from sparkrec.pipeline import Run, execute
from sparkrec.privacy import persons
from sparkrec.schemas import Table

USERS = [*(f"customer_{i}" for i in range(7)), "customer|7"]
GONE = [USERS[0], USERS[7]]  # the least and the greatest: those in the statistics of every file
COLUMNS = {"user_id": "who", "item_id": "item", "event_type": "what", "event_time": "when", "text": "words"}


def settings_of(folder: Path, pseudonymize: bool) -> Settings:
    options = {"events": {"files": "*.csv", "format": "csv", "columns": COLUMNS}}
    return Settings.model_validate(
        {
            "name": "small", "lake": {"path": str(folder / "lake")}, "tracking": {"enabled": False},
            "source": {"name": "generic", "path": str(folder / "logs"), "options": options},
            "spark": {"driver_memory": "1g", "shuffle_partitions": 2, "conf": INTERPRETED},
            "privacy": {"pseudonymize": pseudonymize},
        }
    )  # fmt: skip


def gold(run: Run, table: Table, stored: list[str], where: dict[str, str] | None = None) -> None:
    """Two rows a user of a table, as a later stage would have written them."""
    rows = []
    for number, user in enumerate(stored):
        for k in range(2):
            item = [k] if table is schemas.GOLD_SEQUENCES else k
            known = {
                c.USER_ID: user, c.USER_INDEX: number, c.ITEM_ID: f"i{k}", c.RUN_ID: run.run_id, c.CHUNK: k,
                c.MODEL: "als", c.RANK: k, c.VECTOR: [1.0], c.ITEM_INDEX: item,
            }  # fmt: skip
            rows.append(tuple(known.get(column.name) for column in table.columns))
            if table is schemas.VOCABULARY_USERS:
                break
    handmade.write(run, table, rows, where=where)


def build(folder: Path, pseudonymize: bool) -> Settings:
    """Real bronze, silver and quarantine; gold and lists by hand, in two runs; a model and reports."""
    (folder / "logs").mkdir(parents=True)
    lines = [f"{user},i{n % 3},view,2024-01-0{1 + n % 5}T10:00:0{n}Z,nice" for user in USERS for n in range(6)]
    lines += [f"{USERS[0]},i1,view,not a time,x", f'{USERS[7]},"torn', f"{USERS[3]},i1,view,never,x"]
    (folder / "logs" / "a.csv").write_text("who,item,what,when,words\n" + "\n".join(lines) + "\n")
    settings = settings_of(folder, pseudonymize)
    for job in (ingest, clean):
        execute(job, Run(settings, job.__name__))
    stored = list(persons.find(Run(settings, "x"), USERS).stored)

    def featurize(run: Run) -> None:
        gold(run, schemas.GOLD_SEQUENCES, stored)
        gold(run, schemas.RECOMMENDATIONS, stored, {c.RUN_ID: run.run_id, c.MODEL: "als"})
        for table in (schemas.VOCABULARY_USERS, schemas.GOLD_USERS) if run.run_id == "second" else ():
            gold(run, table, stored)
        run.detail(example=f"a.csv, line 3: {stored[0]} did it")

    lake = folder / "lake"
    for name in ("first", "second"):
        run = Run(settings, "featurize", run_id=name)
        execute(featurize, run)
        model = lake / "models" / "two_tower" / name / "model"
        model.mkdir(parents=True)
        version = run.outputs[schemas.GOLD_SEQUENCES.name]
        (model / "model.json").write_text(json.dumps({"tables": {schemas.GOLD_SEQUENCES.name: version, "other": 0}}))
    np.save(lake / "models" / "two_tower" / "second" / "model" / "user_id.npy", np.ones((8, 4), np.float32))
    for name, user in (("first", stored[7]), ("second", stored[3])):
        (lake / "reports" / name).mkdir(parents=True)
        (lake / "reports" / name / "report.html").write_text(f"<h3>User {user}</h3>")
    return settings


def content(settings: Settings, but: Set[str] = frozenset()) -> dict[str, list[str]]:
    """Rows of all tables with persons, of others than ``but``."""
    run = Run(settings, "x")
    found = {}
    for table in persons.tables(run):
        key = c.USER_INDEX if table.person == c.USER_INDEX else table.person
        frame = run.lake.read(table).drop(c.INGEST_TIME)
        found[table.name] = sorted(str(row) for row in frame.collect() if not any(x in str(row[key]) for x in but))
    return found
