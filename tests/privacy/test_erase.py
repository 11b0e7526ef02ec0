"""Users leave a small lake for good: tables, logs, models, reports; the others' rows stay as they were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import Settings
from sparkrec.errors import DataError
from sparkrec.jobs.clean import clean
from sparkrec.jobs.erase import erase
from sparkrec.jobs.export import export
from sparkrec.jobs.ingest import ingest
from sparkrec.pipeline import Run, execute
from sparkrec.privacy import erase as erasure
from sparkrec.privacy import keys, persons, scan
from sparkrec.schemas import Table

pytestmark = [pytest.mark.spark, pytest.mark.slow]

USERS = [f"customer_{i}" for i in range(8)]
GONE = ["customer_0", "customer_7"]  # the least and the greatest: those in the statistics of every file
COLUMNS = {"user_id": "who", "item_id": "item", "event_type": "what", "event_time": "when", "text": "words"}


def settings_of(folder: Path, pseudonymize: bool) -> Settings:
    options = {"events": {"files": "*.csv", "format": "csv", "columns": COLUMNS}}
    return Settings.model_validate(
        {
            "name": "small", "lake": {"path": str(folder / "lake")}, "tracking": {"enabled": False},
            "source": {"name": "generic", "path": str(folder / "logs"), "options": options},
            "spark": {"driver_memory": "1g", "shuffle_partitions": 2}, "privacy": {"pseudonymize": pseudonymize},
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
    run.write(table, run.spark.createDataFrame(rows, table.struct()), where)


def build(folder: Path, pseudonymize: bool) -> Settings:
    """Real bronze, silver and quarantine; gold, vectors and lists by hand, in two runs; a model and reports."""
    (folder / "logs").mkdir(parents=True)
    lines = [f"{user},i{n % 3},view,2024-01-0{1 + n % 5}T10:00:0{n}Z,nice" for user in USERS for n in range(6)]
    lines += [f"{USERS[0]},i1,view,not a time,x", f'{USERS[7]},"torn', f"{USERS[3]},i1,view,never,x"]
    (folder / "logs" / "a.csv").write_text("who,item,what,when,words\n" + "\n".join(lines) + "\n")
    settings = settings_of(folder, pseudonymize)
    for job in (ingest, clean):
        execute(job, Run(settings, job.__name__))
    stored = list(persons.find(Run(settings, "x"), USERS).stored)

    def featurize(run: Run) -> None:
        for table in (schemas.VOCABULARY_USERS, schemas.GOLD_USERS, schemas.GOLD_SEQUENCES, schemas.GOLD_HOLDOUT):
            gold(run, table, stored)
        for table in (schemas.VECTORS_USERS, schemas.RECOMMENDATIONS):
            gold(run, table, stored, {c.RUN_ID: run.run_id, c.MODEL: "als"})
        run.detail(example=f"a.csv, line 3: {stored[0]} did it")

    for name in ("first", "second"):
        execute(featurize, Run(settings, "featurize", run_id=name))
    lake = folder / "lake"
    (lake / "models" / "two_tower" / "second" / "model").mkdir(parents=True)
    np.save(lake / "models" / "two_tower" / "second" / "model" / "user_id.npy", np.ones((8, 4), np.float32))
    for name, user in (("first", stored[7]), ("second", stored[3])):
        (lake / "reports" / name).mkdir(parents=True)
        (lake / "reports" / name / "report.html").write_text(f"<h3>User {user}</h3>")
    return settings


def content(settings: Settings, but: set[str] = frozenset()) -> dict[str, list[str]]:
    """Rows of all tables with persons, of others than ``but``."""
    run = Run(settings, "x")
    found = {}
    for table in persons.tables(run):
        key = c.USER_INDEX if table.person == c.USER_INDEX else table.person
        frame = run.lake.read(table).drop(c.INGEST_TIME)
        found[table.name] = sorted(str(row) for row in frame.collect() if not any(x in str(row[key]) for x in but))
    return found


@pytest.fixture(scope="module", params=[True, False], ids=["pseudonyms", "plain"])
def erased(
    request: Any, spark: Any, tmp_path_factory: Any
) -> tuple[Settings, Path, dict[str, list[str]], tuple[str, ...]]:
    """A lake from which two users were erased, and what it held of the others before."""
    folder = tmp_path_factory.mktemp("erase")
    settings = build(folder, request.param)
    run = Run(settings, "x")
    who = persons.find(run, GONE)
    others = content(settings, {*who.stored})
    sequences = others[schemas.GOLD_SEQUENCES.name]
    others[schemas.GOLD_SEQUENCES.name] = [x for x in sequences if "index=0" not in x and "index=7" not in x]
    if not request.param:  # a torn line in which one of them is named
        others[schemas.BRONZE_EVENTS.name] = [x for x in others[schemas.BRONZE_EVENTS.name] if "customer_7" not in x]
    (folder / "list.txt").write_text("\n".join(GONE) + "\n")
    with pytest.raises(DataError, match="still hold one of the ids"):
        erasure.prove(run, who)
    execute(erase, Run(settings, "erase", arguments={"users": str(folder / "list.txt")}))
    return settings, folder, others, who.stored


def test_the_erased_are_gone_and_the_others_untouched(erased: Any) -> None:
    settings, folder, others, stored = erased
    assert content(settings) == others
    assert others["gold.recommendations" if "gold.recommendations" in others else "recommendations"], (
        "there were others"
    )
    run = Run(settings, "x")
    scanned = scan.scan(run.spark, str(folder / "lake"), scan.Needles.of([*GONE, *stored]))
    assert scanned.found == ()
    assert scanned.files > 50
    weights = np.load(folder / "lake" / "models" / "two_tower" / "second" / "model" / "user_id.npy")
    assert weights.any(axis=1).tolist() == [False, True, True, True, True, True, True, False]
    assert not (folder / "lake" / "reports" / "first" / "report.html").exists()
    assert (folder / "lake" / "reports" / "second" / "report.html").exists()


def test_runs_go_on_and_what_is_gone_is_said(erased: Any) -> None:
    settings, _, _, _ = erased
    second, first = Run(settings, "train_als", run_id="second"), Run(settings, "train_als", run_id="first")
    assert second.read(schemas.GOLD_SEQUENCES).count() == 12
    assert first.read(schemas.RECOMMENDATIONS, {c.RUN_ID: "first"}).count() == 12, "a run's own partitions are there"
    assert second.read(schemas.SILVER_EVENTS).count() == 36
    with pytest.raises(DataError, match=r"gold\.sequences, which this run reads, is gone.*--run-id"):
        first.read(schemas.GOLD_SEQUENCES)


def test_the_record_of_the_erasure_names_nobody(erased: Any) -> None:
    settings, _, _, stored = erased
    run = Run(settings, "x")
    key = keys.load(settings, create=False)
    rows = run.lake.read(schemas.AUDIT).where(f"{c.STAGE} = 'erase'").collect()
    details = json.loads(rows[0][c.DETAILS])
    assert details["users"] == 2
    assert details["digest"] == key.digest("request", "\n".join(sorted(stored)))
    assert details["deleted"]["gold.users"] == 4
    assert details["files_read"] > 50
    assert rows[0][c.ACTOR]
    records = run.lake.read(schemas.RUNS).where(f"{c.STAGE} = 'featurize'").collect()
    assert [json.loads(row[c.DETAILS])["example"] for row in records] == ["a.csv, line 3: [erased] did it"] * 2
    digests = {row[0] for row in run.lake.read(schemas.SUPPRESSED).select(c.DIGEST).collect()}
    assert digests == {key.digest("erased", user) for user in stored}
    with pytest.raises(Exception, match="DELTA_CANNOT_MODIFY_APPEND_ONLY"):
        run.spark.sql(f"DELETE FROM delta.`{run.lake.path(schemas.AUDIT)}`")


def test_what_is_planted_is_found(erased: Any) -> None:
    """A stray file, and the statistics of an old commit."""
    settings, folder, _, stored = erased
    run = Run(settings, "x")
    who = persons.Persons(tuple(GONE), stored)
    log = folder / "lake" / "silver" / "events" / "_delta_log" / "00000000000000000000.json"
    for path, text in (
        (folder / "lake" / "models" / "notes.txt", f"asked by {stored[0]}"),
        (log, json.dumps({"add": {"stats": json.dumps({"minValues": {"user_id": stored[1]}})}})),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=rf"{path.name} \(its bytes\)") as raised:
            erasure.prove(run, who)
        assert not any(user in str(raised.value) for user in (*GONE, *stored))
        path.unlink()
    erasure.prove(run, who)


def test_an_old_file_does_not_bring_them_back_and_the_second_erasure_finds_nothing(erased: Any) -> None:
    settings, folder, _, _ = erased
    lines = [f"{user},i9,view,2024-02-01T10:00:00Z,nice" for user in (GONE[0], USERS[1], GONE[1])]
    (folder / "logs" / "b.csv").write_text("who,item,what,when,words\n" + "\n".join(lines) + "\n")
    run = Run(settings, "ingest")
    ingest(run)
    assert run.counts["rows"] == 1
    run.finish()
    again = Run(settings, "erase", arguments={"users": ",".join(GONE)})
    erase(again)
    assert again.counts["rows_deleted"] == 0
    assert again.lake.read(schemas.SUPPRESSED).count() == 2


def test_a_person_gets_all_and_only_their_own(erased: Any) -> None:
    settings, folder, _, _ = erased
    arguments = {"user": USERS[3], "to": str(folder / "theirs"), "classes": list(schemas.DATA_CLASSES)}
    run = Run(settings, "export", arguments=arguments)
    export(run)
    files = {path.stem: path.read_text().splitlines() for path in (folder / "theirs").glob("*.jsonl")}
    assert {name: len(lines) for name, lines in files.items()} == {
        "bronze.events": 7, "silver.events": 6, "quarantine": 1, "gold.vocabulary_users": 1, "gold.users": 2,
        "gold.sequences": 2, "gold.holdout": 2, "vectors.users": 4, "recommendations": 4,
    }  # fmt: skip
    stored = persons.find(run, [USERS[3]]).stored[0]
    own = {json.loads(line)["user_id"] for name in ("silver.events", "recommendations") for line in files[name]}
    assert own == {stored}
    assert "silver.events.jsonl: 6 row(s)" in (folder / "theirs" / "README.txt").read_text()
    assert (folder / "theirs").stat().st_mode & 0o077 == 0

    shutil.rmtree(folder / "theirs")
    run = Run(settings, "export", arguments=arguments | {"classes": ["personal"]})
    export(run)
    text = "".join(path.read_text() for path in (folder / "theirs").glob("silver*.jsonl"))
    assert stored not in text
    assert '"text":"nice"' in text
    shutil.rmtree(folder / "theirs")
    run = Run(settings, "export", arguments=arguments | {"user": GONE[0]})
    export(run)
    assert [path.name for path in (folder / "theirs").iterdir()] == ["README.txt"]
    shutil.rmtree(folder / "theirs")
