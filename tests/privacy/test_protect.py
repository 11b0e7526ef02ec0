"""Raw rows between the file and bronze: nothing of an id is left, and all else parses as it did."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import Source as SourceSettings
from sparkrec.errors import ConfigError
from sparkrec.ingest import canonical, sources
from sparkrec.ingest.formats import FIELDS, Adjacency, Csv, Format, JsonLines
from sparkrec.ingest.sources.base import Files
from sparkrec.jobs.ingest import ingest
from sparkrec.lake.tables import ABSENT
from sparkrec.pipeline import Run
from sparkrec.privacy import erase, keys, persons, protect, pseudonyms, suppressed

pytestmark = pytest.mark.spark

KEY = keys.Key(b"0123456789abcdef0123456789abcdef", "here")
RAW = f"{c.SOURCE_FILE} string, {c.LINE} bigint, {c.HEADER} string, {c.RAW} string, {c.SOURCE_BYTES} bigint"
HEADER = "who,what,words,secret,what"
LINES = {
    "json": [
        '{"who":" Ann ","what":"x1","words":"mail a@b.de, \\"ok\\"","secret":"ip 1","n":null}',
        '{"what":"x2","who":"Bob, Jr","words":"é\\n2"}', '{"what":"x3"}', '{"who":"Ann","what":"torn', "[1]",
    ],
    "csv": [
        'Ann,x1,"mail a@b.de, ""ok""",ip 1,dup', '"Bob, Jr",x2,,"",dup', ",x3,words,,dup", "Ann,x4", 'Ann,"x5,w,s,d',
        '"",x6, blanks ,s,d',
    ],
    "plain": ["Ann\tx1\tmail a@b.de", "Bob\tx2\t", "Ann\tx3", "\tx4\tw"],
    "pairs": ["Ann x1", "Bob x2"],
}  # fmt: skip
FORMATS: dict[str, Format] = {
    "json": JsonLines(), "csv": Csv(), "plain": Csv("\t", ("who", "what", "words"), quote=""), "pairs": Adjacency(),
}  # fmt: skip


def to(field: canonical.Field) -> dict[str, Any]:
    from pyspark.sql import functions as F

    return {c.USER_ID: F.regexp_replace(field("who"), ", Jr$", ""), c.ITEM_ID: field("what"), c.TEXT: field("words")}


def pair(field: canonical.Field) -> dict[str, Any]:
    return {c.USER_ID: field("user"), c.ITEM_ID: field("item")}


@pytest.fixture(scope="module")
def outcome(spark: Any) -> dict[str, tuple[list[Any], list[Any], list[str]]]:
    """By format: canonical rows of the lines as they were and as they are written, and these lines."""
    found = {}
    for name, lines in LINES.items():
        rows = [("f", n * 1_000_000 + 1, HEADER if name == "csv" else None, line, 1) for n, line in enumerate(lines, 1)]
        raw = spark.createDataFrame(rows, RAW)
        user = "user" if name == "pairs" else "who"
        files = Files("*", FORMATS[name], pair if name == "pairs" else to, ids={c.USER_ID: user}, texts=("words",))
        written = protect.protect(files, raw, [HEADER] if name == "csv" else [], KEY, True, True, None)
        both = [
            canonical.select(files.format.parse(frame), canonical.EVENTS, files.to).orderBy(c.LINE).collect()
            for frame in (raw, written)
        ]
        found[name] = (*both, [row[c.RAW] for row in written.orderBy(c.LINE).collect()])
    return found


@pytest.mark.parametrize("name", LINES)
def test_only_ids_and_free_text_change(outcome: Any, name: str) -> None:
    before, after, _ = outcome[name]
    assert len(before) == len(after) == len(LINES[name])
    for old, new in zip(before, after, strict=True):
        user = (old[c.USER_ID] or "").strip()
        assert new[c.USER_ID] == (pseudonyms.pseudonym(KEY, c.USER_ID, user) if user else new[c.USER_ID])
        assert not user or user not in new[c.RAW]
        assert (new[c.USER_ID] or "") == "" or user, "no user remains no user"
        text = old[c.TEXT] and old[c.TEXT].replace("a@b.de", "[e-mail]")
        assert (new[c.TEXT], new[c.ITEM_ID], new[c.MALFORMED]) == (text, old[c.ITEM_ID], old[c.MALFORMED])
    assert any(row[c.USER_ID] for row in before)


def test_what_nobody_reads_is_dropped_and_torn_lines_are_withheld(outcome: Any) -> None:
    for name in ("json", "csv"):
        lines = outcome[name][2]
        assert "ip 1" not in "".join(lines), name
        torn = [line for line, row in zip(lines, outcome[name][1], strict=True) if row[c.MALFORMED]]
        assert len(torn) == 2, name
        assert all(line.startswith("withheld_") and "Ann" not in line for line in torn)
    length = len(LINES["csv"][3])
    assert outcome["csv"][2][3] == f"withheld_{length}_characters_{KEY.digest('withheld', LINES['csv'][3])}"


def test_no_plan_shows_the_key(spark: Any, capsys: pytest.CaptureFixture) -> None:
    few = "spark.sql.debug.maxToStringFields"  # our default shows no expression at all
    before = spark.conf.get(few)
    spark.conf.set(few, "100")
    rows = spark.createDataFrame([("Ann",), (None,), ("",), ("Ann",)], "who string")
    hashed = rows.select(pseudonyms.pseudonyms(KEY, c.USER_ID)(rows.who).alias("p"), "who")
    hashed.explain("extended")
    spark.conf.set(few, before)
    plan = capsys.readouterr().out
    assert "pseudonym(who" in plan
    assert KEY.secret.decode() not in plan
    ann = pseudonyms.pseudonym(KEY, c.USER_ID, "Ann")
    assert [row[0] for row in hashed.collect()] == [ann, None, "", ann]


def test_every_source_says_which_field_is_the_user(spark: Any) -> None:
    """The field that is replaced is the one from which the source takes its user id."""
    from pyspark.sql import functions as F

    options: dict[str, dict[str, Any]] = {
        "generic": {"events": {"files": "*", "format": "json", "columns": {
            "user_id": "u", "item_id": "i", "event_type": "t", "event_time": "w"}}},
    }  # fmt: skip
    for name in sources.known():
        source = sources.get(SourceSettings(name=name, path="x", options=options.get(name, {})))
        for files in source.event_files:
            own = files.ids[c.USER_ID]
            fields = F.create_map(F.lit(own), F.lit("them"))
            row = spark.range(1).select(fields.alias(FIELDS)).select(files.to(lambda x: F.col(FIELDS)[x])[c.USER_ID])
            assert row.first()[0] == "them", name


def test_no_row_is_read_until_the_rows_are_written(spark: Any) -> None:
    from pyspark.sql import functions as F

    poison = F.raise_error(F.lit("read")).cast("string")
    texts = {c.SOURCE_FILE: F.lit("f"), c.LINE: F.lit(2), c.HEADER: poison, c.RAW: poison, c.SOURCE_BYTES: F.lit(1)}
    raw = spark.range(1).select(*[column.alias(name) for name, column in texts.items()])
    erased = spark.createDataFrame([("x",)], f"{c.DIGEST} string")
    files = Files("*", Csv(), to, ids={c.USER_ID: "who"}, texts=("words",))
    rows = protect.protect(files, raw, [HEADER], KEY, True, True, erased)
    with pytest.raises(Exception, match="read"):
        rows.collect()


def test_a_lake_keeps_its_key(make_run: Callable[..., Run], tmp_path: Path, monkeypatch: Any) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "a.csv").write_text("who,item,what,when\nAnn,i1,view,t\nBob,i1,view,t\n")
    columns = {"user_id": "who", "item_id": "item", "event_type": "what", "event_time": "when"}
    options = {"events": {"files": "*.csv", "format": "csv", "columns": columns}}

    def run(on: bool) -> Run:
        source = {"name": "generic", "path": str(logs), "options": options}
        return make_run("ingest", source=source, privacy={"pseudonymize": on})

    ingest(run(True))
    first = run(True)
    key = keys.load(first.settings, create=False)
    held = [row[c.RAW] for row in first.lake.read(schemas.BRONZE_EVENTS).orderBy(c.LINE).collect()]
    assert held == [f"{pseudonyms.pseudonym(key, c.USER_ID, user)},i1,view,t" for user in ("Ann", "Bob")]
    assert protect.held_key(first) == key.id

    (logs / "b.csv").write_text("who,item,what,when\nAnn,i2,view,t\nEve,i1,view,t\n")
    with pytest.raises(
        ConfigError, match=rf"are pseudonyms of the key {key.id}, and this run would write .* as they came"
    ):
        ingest(run(False))
    monkeypatch.setenv("SPARKREC_PRIVACY_KEY", "another secret key, long".replace(" ", "_"))
    with pytest.raises(ConfigError, match="the same person would be two"):
        ingest(run(True))
    monkeypatch.delenv("SPARKREC_PRIVACY_KEY")

    ann = pseudonyms.pseudonym(key, c.USER_ID, "Ann")
    digest = first.spark.createDataFrame([(key.digest("erased", ann), None)], schemas.SUPPRESSED.struct())
    first.lake.append(schemas.SUPPRESSED, digest)
    second = run(True)
    ingest(second)
    rows = second.lake.read(schemas.BRONZE_EVENTS).where(f"{c.SOURCE_FILE} = 'b.csv'").collect()
    assert [row[c.RAW] for row in rows] == [f"{pseudonyms.pseudonym(key, c.USER_ID, 'Eve')},i1,view,t"]
    assert "Ann" not in str(second.details)


def test_what_comes_past_ingest_is_called_as_the_lake_does(make_run: Callable[..., Run], spark: Any) -> None:
    run = make_run("newcomers", privacy={"pseudonymize": True})
    key = keys.load(run.settings, create=True)
    table = schemas.BRONZE_EVENTS
    run.append(table, spark.createDataFrame([], table.struct()), ABSENT, protect.properties(run, table))
    ann, gone = (pseudonyms.pseudonym(key, c.USER_ID, name) for name in ("Ann", "gone"))
    erase.suppress(run, persons.Persons(("gone",), (gone,)), key)
    rows = spark.createDataFrame([(" Ann", 1), (ann, 2), ("gone", 3)], f"{c.USER_ID} string, n int")
    assert sorted(map(tuple, persons.as_stored(run, rows).collect())) == [(ann, 1), (ann, 2)]


def test_ids_are_trimmed_as_silver_trims_them(spark: Any) -> None:
    lines = [json.dumps({"who": who, "what": "x"}) for who in ("Ann", "Ann\t", "\u00a0Ann", "Ann\ufeff ", "An n")]
    rows = [("f", n, None, line, 1) for n, line in enumerate(lines)]
    raw = spark.createDataFrame(rows, RAW)
    files = Files("*", JsonLines(), to, ids={c.USER_ID: "who"})
    written = protect.protect(files, raw, [], KEY, True, False, None).orderBy(c.LINE).collect()
    users = [json.loads(row[c.RAW])["who"] for row in written]
    assert users[:4] == [pseudonyms.pseudonym(KEY, c.USER_ID, "Ann")] * 4
    assert users[4] != users[0]


def test_no_line_of_the_erased_comes_back(make_run: Callable[..., Run], tmp_path: Path) -> None:
    """Without pseudonyms: their lines, whatever blanks are around the id; torn lines are withheld. All are found."""
    logs = tmp_path / "logs"
    logs.mkdir()
    lines = ["u17,i1,view,t", "u17\t,i2,view,t", "\u00a0u17,i3,view,t", 'u17,"torn', "u170,i1,view,t", 'u18,"torn',
             'x|5f,"torn']  # fmt: skip
    (logs / "a.csv").write_text("\n".join(["who,item,what,when", *lines, ""]))
    columns = {"user_id": "who", "item_id": "item", "event_type": "what", "event_time": "when"}
    options = {"events": {"files": "*.csv", "format": "csv", "columns": columns}}
    run = make_run("ingest", source={"name": "generic", "path": str(logs), "options": options})
    ingest(run)
    source = sources.get(run.settings.source)
    for users, expected in ((("u17",), [2, 3, 4, 5]), (("x|5f", "nobody"), [8])):
        found = persons.lines(run, persons.Persons(users, users), source, users).collect()
        assert sorted(row[c.LINE] for row in found) == expected
    # An export leaves out a torn line whose "u17" may be anything.
    exported = dict(persons.rows_of(run, persons.Persons(("u17",), ("u17",)), source))[schemas.BRONZE_EVENTS]
    assert sorted(row[c.LINE] for row in exported.collect()) == [2, 3, 4]
    erased = run.spark.createDataFrame([(KEY.digest(pseudonyms.ERASED, "u17"),)], f"{c.DIGEST} string")
    raw = run.lake.read(schemas.BRONZE_EVENTS)
    kept = protect.protect(source.event_files[0], raw, ["who,item,what,when"], KEY, False, False, erased).collect()
    torn = [line for line in lines if line.endswith('"torn')]
    withheld = [f"withheld_{len(line)}_characters_{KEY.digest(protect.WITHHELD, line)}" for line in torn]
    assert sorted(row[c.RAW] for row in kept) == sorted(["u170,i1,view,t", *withheld])


def test_the_list_of_the_erased_knows_its_key(make_run: Callable[..., Run], spark: Any, monkeypatch: Any) -> None:
    """In a lake without pseudonyms: with another key nobody on the list would be known, and all would come back."""
    run = make_run("erase")
    gone = persons.Persons(("u17",), ("u17",))
    key = suppressed.key(run, create=True)
    erase.suppress(run, gone, key)
    erase.suppress(run, gone, key)
    assert run.lake.read(schemas.SUPPRESSED).count() == 1
    rows = spark.createDataFrame([("u17",), ("u18",)], f"{c.USER_ID} string")
    assert [row[0] for row in persons.as_stored(run, rows).collect()] == ["u18"]
    protect.guard(run, schemas.BRONZE_EVENTS)

    def each_is_refused(why: str) -> None:
        for act in (
            lambda: protect.guard(run, schemas.BRONZE_EVENTS),
            lambda: persons.as_stored(run, rows),
            lambda: suppressed.key(run, create=True),
        ):
            with pytest.raises(ConfigError, match=why):
                act()

    with monkeypatch.context() as patch:
        patch.setenv("SPARKREC_PRIVACY_KEY", "another_secret_key,_long_enough")
        each_is_refused(rf"was made with the key {key.id}, and the key in the environment variable")
    place = keys.place(run.settings)
    place.unlink()
    each_is_refused("cannot be read")
    assert not place.exists(), "no new key was made in the place of the one that is lost"


def test_a_field_that_is_user_and_session_holds_the_user(spark: Any) -> None:
    """By the pseudonym that erase looks for, whatever else is read from the field."""
    raw = spark.createDataFrame([("f", 1, None, '{"who": "Ann", "words": "a@b.de", "what": "x"}', 1)], RAW)
    for ids in ({c.USER_ID: "who", c.SESSION_ID: "who"}, {c.SESSION_ID: "who", c.USER_ID: "who"}):
        files = Files("*", JsonLines(), lambda x: to(x) | {c.SESSION_ID: x("who")}, ids=ids, texts=("who", "words"))
        (row,) = protect.protect(files, raw, [], KEY, True, True, None).collect()
        found = json.loads(row[c.RAW])
        assert found == {"who": pseudonyms.pseudonym(KEY, c.USER_ID, "Ann"), "words": "[e-mail]", "what": "x"}
