"""Users leave a small lake for good: tables, logs, models, reports; the others' rows stay as they were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from people_lake import GONE, USERS, build, content

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

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.fixture(scope="module")
def erased(spark: Any, tmp_path_factory: Any) -> tuple[Settings, Path, dict[str, list[str]], tuple[str, ...]]:
    """A lake of pseudonyms from which two users were erased, and what it held of the others before.

    Ids as they are: test_killed_erase.py.
    """
    folder = tmp_path_factory.mktemp("erase")
    settings = build(folder, pseudonymize=True)
    run = Run(settings, "x")
    who = persons.find(run, GONE)
    others = content(settings, {*who.stored})
    sequences = others[schemas.GOLD_SEQUENCES.name]
    others[schemas.GOLD_SEQUENCES.name] = [x for x in sequences if "index=0" not in x and "index=7" not in x]
    (folder / "list.txt").write_text("\n".join(GONE) + "\n")
    torn = folder / "lake" / "audiences" / "run_id=first" / "part-0.parquet"
    torn.parent.mkdir(parents=True)
    pq.write_table(pa.table({c.USER_ID: list(who.stored)}), torn)
    with pytest.raises(DataError, match="still hold one of the ids"):
        erasure.prove(run, who)
    assert (persons.known(run, who), persons.known(run, persons.find(run, [*GONE, "U-typo"]))) == (2, 2)
    for name, size in ((schemas.SUPPRESSED.name, 0), (schemas.AUDIT.name, 9), (schemas.GOLD_USERS.name, 4)):
        half = folder / "lake" / name.replace(".", "/") / f"part-00000-{size}.snappy.parquet"
        half.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(b"PAR1 and more"[:size])
    seen: list[str] = []
    purge = erasure.purge

    def looked(run: Run) -> None:
        feed = (folder / "lake" / "bronze" / "events" / "_change_data").rglob("*.parquet")
        seen.extend(place for file in feed for place in scan.in_file(str(file), erasure.needles(who))[1])
        purge(run)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(erasure, "purge", looked)
        execute(erase, Run(settings, "erase", arguments={"users": str(folder / "list.txt")}))
    assert f"column {c.RAW}" in seen, "the change feed told whose rows were deleted, until the purge"
    return settings, folder, others, who.stored


def test_the_erased_are_gone_and_the_others_untouched(erased: Any) -> None:
    settings, folder, others, stored = erased
    assert content(settings) == others
    assert others["gold.recommendations" if "gold.recommendations" in others else "recommendations"], (
        "there were others"
    )
    run = Run(settings, "x")
    scanned = scan.scan(run.spark, [str(folder / "lake")], scan.Needles.of([*GONE, *stored]))
    assert scanned.found == ()
    assert scanned.files > 50
    assert not (folder / "lake" / "audiences").exists(), "a first write that was killed had left them"
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
    folders = {run.run_id: run.folder("models", "two_tower", run.run_id, "model") for run in (first, second)}
    trained = {name: json.loads((folder / "model.json").read_text())["tables"] for name, folder in folders.items()}
    assert trained["second"] == {schemas.GOLD_SEQUENCES.name: second.pin(schemas.GOLD_SEQUENCES), "other": 0}
    assert trained["first"][schemas.GOLD_SEQUENCES.name] < trained["second"][schemas.GOLD_SEQUENCES.name]
    assert persons.known(second, persons.find(second, GONE)) == 0
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
        (folder / "lake" / "models" / "notes.txt", f"asked by {GONE[0]}"),  # as the log has it, not as the lake
        (log, json.dumps({"add": {"stats": json.dumps({"minValues": {"user_id": stored[1]}})}})),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=rf"{path.name} \(its bytes\)") as raised:
            erasure.prove(run, who)
        assert not any(user in str(raised.value) for user in (*GONE, *stored))
        path.unlink()
    erasure.prove(run, who)


def test_an_old_file_does_not_bring_them_back(erased: Any, tmp_path: Path) -> None:
    """In a copy: the other tests count rows."""
    settings, folder, _, stored = erased
    shutil.copytree(folder, tmp_path / "copy")
    folder = tmp_path / "copy"
    settings = settings.model_copy(
        update={
            "lake": settings.lake.model_copy(update={"path": str(folder / "lake")}),
            "source": settings.source.model_copy(update={"path": str(folder / "logs")}),
        }
    )
    lines = [f"{user},i9,view,2024-02-01T10:00:00Z,nice" for user in (GONE[0], USERS[1], GONE[1])]
    (folder / "logs" / "b.csv").write_text("who,item,what,when,words\n" + "\n".join(lines) + "\n")
    run = Run(settings, "ingest")
    execute(ingest, run)
    assert run.counts["rows"] == 1
    again = Run(settings, "clean")
    execute(clean, again)
    assert again.counts["kept"] == 37
    assert not {row[0] for row in again.read(schemas.SILVER_EVENTS).select(c.USER_ID).collect()} & {*stored}


def test_a_person_gets_all_and_only_their_own(erased: Any) -> None:
    settings, folder, _, _ = erased
    arguments = {"user": USERS[3], "to": str(folder / "theirs"), "classes": list(schemas.DATA_CLASSES)}
    run = Run(settings, "export", arguments=arguments)
    export(run)
    files = {path.stem: path.read_text().splitlines() for path in (folder / "theirs").glob("*.jsonl")}
    assert {name: len(lines) for name, lines in files.items()} == {
        "bronze.events": 7, "silver.events": 6, "quarantine": 1, "gold.vocabulary_users": 1, "gold.users": 2,
        "gold.sequences": 2, "recommendations": 4,
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
