import json
from pathlib import Path
from typing import Any

import pytest

from sparkrec.errors import DataError
from sparkrec.ingest import formats
from sparkrec.ingest.files import Folder, reading
from sparkrec.ingest.formats import Adjacency, Csv, Delta, Format, JsonLines, JsonObject, Parquet

pytestmark = pytest.mark.spark


def read(spark: Any, root: Path, pattern: str, form: Format, needs: tuple[str, ...] = ()) -> list[Any]:
    """(file, line, fields or None) in order."""
    folder = Folder(spark, str(root))
    raw, headers = form.read(folder, form.files(folder, pattern), needs)
    assert headers == sorted({row.header for row in raw.select("header").collect()} - {None})
    rows = form.parse(raw).collect()
    assert all((row.fields is None) == (row.malformed is not None) for row in rows)
    return sorted((row.source_file, row.line, row.fields) for row in rows)


def test_csv_with_headers_in_another_order(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text(
        'name,id\n"Mug, ""large""",1\nplain,\nonly\none,two,three\nan "open,quote\n"a, 1\n', encoding="utf-8"
    )
    (tmp_path / "b.csv").write_text("id, more ,name\n7,x,Cup\n", encoding="utf-8")
    assert read(spark, tmp_path, "*.csv", Csv(), ("id", "name")) == [
        ("a.csv", 2, {"name": 'Mug, "large"', "id": "1"}),
        ("a.csv", 3, {"name": "plain", "id": None}),
        ("a.csv", 4, None),
        ("a.csv", 5, None),
        ("a.csv", 6, None),
        ("a.csv", 7, None),
        ("b.csv", 2, {"id": "7", "more": "x", "name": "Cup"}),
    ]
    with pytest.raises(DataError, match=r"a\.csv.*missing sku; found name, id; expected id, sku"):
        read(spark, tmp_path, "*.csv", Csv(), ("id", "sku"))
    monkeypatch.setattr(formats, "_MOST_HEADERS", 1)
    folder = Folder(spark, str(tmp_path))
    with pytest.raises(DataError, match=r"more than 1 different header lines\. If they have no header"):
        Csv().read(folder, folder.list("*.csv"), ())  # so nothing of them is in bronze


def test_a_line_of_more_columns_than_spark_reads_is_malformed(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,id\nMug,1\n" + "x," * 30_000 + "\nCup,2\n")
    (tmp_path / "b.csv").write_text("c::d\n" + "x::" * 30_000 + "\n")
    assert [fields for *_, fields in read(spark, tmp_path, "a.csv", Csv())] == [
        {"name": "Mug", "id": "1"}, None, {"name": "Cup", "id": "2"},
    ]  # fmt: skip
    assert [fields for *_, fields in read(spark, tmp_path, "b.csv", Csv("::", ("a", "b"), quote=""))] == [
        {"a": "c", "b": "d"}, None,
    ]  # fmt: skip


def test_a_first_line_that_is_a_person_s_is_not_printed(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("u4711,jane@example.com\n")
    with pytest.raises(DataError, match=r"missing id, name; found 2 others") as refused:
        read(spark, tmp_path, "a.csv", Csv(), ("id", "name"))
    assert "jane" not in str(refused.value)


def test_what_spark_hides_is_no_file(spark: Any, tmp_path: Path) -> None:
    for name in ("a.csv", "_SUCCESS", ".a.csv.crc", "b.csv._COPYING_"):
        (tmp_path / name).write_text("name\n")
    assert [file.name for file in Folder(spark, str(tmp_path)).list("*")] == ["a.csv"]


def test_delimited_text_without_header_and_quotes(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "m.dat").write_bytes('1::"Amélie (2001)::Comedy\n2::x\n'.encode("latin-1"))
    form = Csv("::", ("id", "title", "genres"), "ISO-8859-1", quote="")
    assert read(spark, tmp_path, "m.dat", form) == [
        ("m.dat", 1, {"id": "1", "title": '"Amélie (2001)', "genres": "Comedy"}),
        ("m.dat", 2, None),
    ]


def test_json(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"id": 7, "tags": ["x", 1], "no": null, "t": "é"}\n{"id": 7\n[1]\n{}\n')
    assert read(spark, tmp_path, "a.json", JsonLines()) == [
        ("a.json", 1, {"id": "7", "tags": '["x",1]', "no": None, "t": "é"}),
        ("a.json", 2, None),
        ("a.json", 3, None),
        ("a.json", 4, {}),
    ]
    (tmp_path / "object").write_text(json.dumps({"4": [1, 2], "83": [3]}, indent=1))
    assert read(spark, tmp_path, "object", JsonObject()) == [
        ("object", 1, {"key": "4", "value": "[1,2]"}),
        ("object", 2, {"key": "83", "value": "[3]"}),
    ]
    for text in ('{"4": [1, 2], "83": [3', '{"4": [1, 2]}\n{"83": [3]}', "[1, 2]", ""):
        (tmp_path / "object").write_text(text + "\n")
        with pytest.raises(DataError, match=r"/object \(below .* damaged"), reading(str(tmp_path)):
            read(spark, tmp_path, "object", JsonObject())


def test_adjacency_gives_a_row_for_each_pair(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(b"0 5 6\r\n\r\n1\r\n2  7\t8 9 \r\n")
    expected = [(1, "0", "5", 1), (1, "0", "6", 2), (4, "2", "7", 1), (4, "2", "8", 2), (4, "2", "9", 3)]
    assert read(spark, tmp_path, "*.txt", Adjacency()) == [
        ("train.txt", line * 1_000_000 + position, {"user": user, "item": item, "position": str(position)})
        for line, user, item, position in expected
    ]


def test_parquet_and_delta(spark: Any, tmp_path: Path) -> None:
    frame = spark.createDataFrame(
        [(1, 2.5, None, ["a"]), (2, 0.1, "t", [])], "id bigint, price double, the_text string, tags array<string>"
    ).coalesce(1)
    fields = [
        {"id": "1", "price": "2.5", "tags": '["a"]'},
        {"id": "2", "price": "0.1", "the_text": "t", "tags": "[]"},
    ]
    frame.write.parquet(str(tmp_path / "p"))
    rows = read(spark, tmp_path, "p/*.parquet", Parquet(), ("id",))
    assert [row[1:] for row in rows] == [(1, fields[0]), (2, fields[1])]
    with pytest.raises(DataError, match="missing sku"):
        read(spark, tmp_path, "p/*.parquet", Parquet(), ("sku",))

    # A column came new, another was widened: taken, in one batch too.
    spark.sql("SELECT 1 AS id, CAST(0.1 AS FLOAT) AS price").write.parquet(str(tmp_path / "p" / "1"))
    spark.sql("SELECT 3L AS id, 'new' AS colour").write.parquet(str(tmp_path / "p" / "2"))
    rows = read(spark, tmp_path, "p/{1,2}/*.parquet", Parquet(), ("id",))
    assert [row[1:] for row in rows] == [(1, {"id": "1", "price": "0.1"}), (1, {"id": "3", "colour": "new"})]

    frame.write.format("delta").save(str(tmp_path / "d"))
    frame.where("id = 2").write.format("delta").mode("append").save(str(tmp_path / "d"))
    rows = read(spark, tmp_path, "d", Delta(), ("id",))
    assert sorted((row[1], row[2]["id"]) for row in rows) == [(1, "1"), (1, "2"), (2, "2")]
    assert len({row[0] for row in rows}) == 2
    assert all(row[0].startswith("d/part-") for row in rows)

    hiding = f"delta.`{tmp_path / 'hiding'}`"
    frame.write.format("delta").option("delta.enableDeletionVectors", "true").save(str(tmp_path / "hiding"))
    assert len(Delta().files(Folder(spark, str(tmp_path)), "hiding")) == 1
    spark.sql(f"UPDATE {hiding} SET id = 7 WHERE id = 2")
    with pytest.raises(DataError, match=r"hiding were updated or deleted"):
        Delta().files(Folder(spark, str(tmp_path)), "hiding")
    listed = Delta().files(Folder(spark, str(tmp_path)), "d")
    held = sorted({row[0] for row in rows})
    assert Delta().rewritten("d", listed, [*held, "other/x"]) == []
    assert Delta().rewritten("d", listed[:1], held) == [listed[1].name]


def test_of_a_json_line_the_named_fields_are_those_that_it_has(spark: Any) -> None:
    """What Python's json finds, whether all fields are asked for or some."""
    names = ("user", "a.b", "odd`name", "nested", "none", "absent")
    good = [
        {"user": "u", "a.b": "dot", "odd`name": "tick", "nested": {"x": [1, 2]}, "none": None, "other": "y"},
        {"USER": "another", "_corrupt": "a field of the log", "user": "v"},
        {"nested": ["a", {"b": 1}]},
        {},
    ]
    bad = ["", "null", "[]", '[{"user": "in a list"}]', '"user"', "{", '{"user": "u"', '{"user": u}', "user: u"]
    lines = [*map(json.dumps, good), " \t" + json.dumps(good[0]), *bad]
    rows = spark.createDataFrame(
        [("f", n, line) for n, line in enumerate(lines)], "source_file string, n int, raw string"
    )
    for asked in (names, None, ("user", "USER")):
        parsed = JsonLines().parse(rows, names=asked).orderBy("n").collect()
        assert [row.malformed is not None for row in parsed] == [False] * (len(good) + 1) + [True] * len(bad)
        for row, expected in zip(parsed, [*good, good[0]], strict=False):
            for name in asked or names:
                value = expected.get(name)
                found = row.fields.asDict().get(name) if hasattr(row.fields, "asDict") else row.fields.get(name)
                if isinstance(value, str | None):
                    assert found == value
                else:
                    assert json.loads(found) == value
