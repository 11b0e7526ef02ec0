"""The proof can fail: ids planted in every kind of file are found, and what only looks like one is not."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkrec.errors import DataError
from sparkrec.privacy import scan
from sparkrec.privacy.scan import Needles

pytestmark = pytest.mark.unit
ANN = Needles.of(["U0000042"])


def places(path: Path, needles: Needles = ANN) -> list[str]:
    return scan.in_file(str(path.absolute()), needles)[1]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"user":"U0000042"}', True), ("U0000042", True), ("x/U0000042/y", True), ("S-U0000042-1", True),
        ("U00000421", False), ("XU0000042", False), ("U0000042_a", False), ("u0000042", False), ("", False),
    ],
)  # fmt: skip
def test_whole_words_in_bytes(tmp_path: Path, text: str, found: bool) -> None:
    (tmp_path / "00000000000000000007.json").write_text(text)
    assert bool(places(tmp_path / "00000000000000000007.json")) is found
    with gzip.open(tmp_path / "log.gz", "wt") as file:
        file.write(text)
    assert places(tmp_path / "log.gz") == (["its decompressed bytes"] if found else [])


def test_a_match_across_two_windows_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_WINDOW", 16)
    for before in range(40):
        (tmp_path / "file").write_bytes(b"." * before + b"U0000042" + b"." * 30)
        assert places(tmp_path / "file"), before
        (tmp_path / "file").write_bytes(b"." * before + b"U00000421" + b"." * 30)
        assert not places(tmp_path / "file"), before


@pytest.mark.parametrize("codec", ["zstd", "snappy", "none"])
def test_parquet_is_decoded_nested_columns_too(tmp_path: Path, codec: str) -> None:
    def written(**columns: list) -> Path:
        path = tmp_path / "part.parquet"
        pq.write_table(
            pa.table(columns), path, compression=codec, use_dictionary=codec != "snappy", write_statistics=False
        )
        return path

    assert "column raw" in places(written(raw=['{"u":"U0000042"}'], item=["a"]))
    assert "column x" in places(written(x=[{"a": [["-U0000042-"]]}], item=["a"]))
    assert "column m" in places(written(m=pa.array([[("k", "U0000042")]], pa.map_(pa.string(), pa.string()))))
    assert "column b" in places(written(b=[b"U0000042"]))
    assert places(written(raw=["U000004", "2"], n=[42, 42])) == [], "two values are not one"


def test_numeric_ids_count_only_where_they_are_users(tmp_path: Path) -> None:
    needles, path = Needles.of(["42"]), tmp_path / "part.parquet"
    pq.write_table(pa.table({"item_id": ["42"], "text": ["42 strings"], "user_id": ["4"]}), path)
    assert places(path, needles) == []
    pq.write_table(pa.table({"item_id": ["1"], "user_id": ["42"]}), path)
    assert places(path, needles) == ["column user_id"]
    commit = tmp_path / "00000000000000000001.json"
    for user, found in (("42", True), ("421", False)):
        stats = json.dumps({"minValues": {"user_id": user, "item_id": "42"}}, separators=(",", ":"))
        commit.write_text(json.dumps({"add": {"stats": stats}}, separators=(",", ":")))
        assert bool(places(commit, needles)) is found
    (tmp_path / "report.html").write_text("<h3>User 42</h3> met 42")
    assert places(tmp_path / "report.html", needles) == ["its bytes"]


def test_the_name_of_a_file_counts(tmp_path: Path) -> None:
    folder = tmp_path / "user=U0000042"
    folder.mkdir()
    (folder / "part").write_text("")
    assert places(folder / "part") == ["its name"]


def test_damaged_files_are_no_proof(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.gz"):
        (tmp_path / name).write_bytes(b"PAR1 not really")
        with pytest.raises(DataError, match="nobody knows what is in it"):
            places(tmp_path / name)


WORDS = st.text("ab_.@é1 ", min_size=1, max_size=5).map(str.encode)


LINES = st.text('ab_.@|é1 0\\"\n', max_size=12)


@given(st.lists(st.one_of(st.none(), LINES), max_size=6), st.lists(LINES.filter(bool), min_size=1, max_size=5))
def test_many_lines_are_searched_as_each_would_be(lines: list[str | None], ids: list[str]) -> None:
    """The pattern of all ids at once against the search of the proof, byte by byte."""
    words = [spelling.encode() for user in ids for spelling in scan.spellings(user)]
    for at_once in (2, 200):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scan, "_AT_ONCE", at_once)
            patterns = scan._patterns(ids)
        found = scan._matches(pa.array(lines, pa.string()), patterns).to_pylist()
        assert found == [line is not None and scan.occurs(line.encode(), words) for line in lines]


def test_an_id_with_separators_is_one_id() -> None:
    lines = ['1,"auth0|5f7c,x', "auth0,5f7c", "auth0|5f7c0", '5,"WHITE,6,17850.0,UK', "117850", "1785", None]
    for user, expected in (("auth0|5f7c", [0]), ("17850", [3])):
        found = scan._matches(pa.array(lines), scan._patterns([user])).to_pylist()
        assert [n for n, hit in enumerate(found) if hit] == expected


@given(st.binary(max_size=10), WORDS, st.lists(WORDS, max_size=60))
def test_many_needles_find_what_one_by_one_find(data: bytes, word: bytes, others: list[bytes]) -> None:
    for text in (data, data + word + data, b"-" + word + b"-"):
        few = any(scan.occurs(text, [needle]) for needle in [word, *others])
        assert scan.occurs(text, [word, *others], scan._index([word, *others])) == few
    assert scan.occurs(b"-" + word + b"-", [word])


def test_links_are_followed_and_what_cannot_be_read_is_no_proof(tmp_path: Path) -> None:
    for name in ("lake/a/one", "disk/b/two"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "lake" / "models").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "again").symlink_to(tmp_path / "lake")
    (tmp_path / "lake" / "gone").symlink_to(tmp_path / "nowhere")
    assert [path.name for path in sorted(scan.below(tmp_path / "lake"))] == ["one", "two"]
    assert list(scan.below(tmp_path / "none")) == []

    def walk(folder: Path, followlinks: bool, onerror: Any) -> Any:
        onerror(PermissionError(13, "Permission denied", str(folder / "a")))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan.os, "walk", walk)
        with pytest.raises(DataError, match=r"lake/a cannot be read"):
            list(scan.below(tmp_path / "lake"))


@pytest.mark.spark
def test_a_lake_among_the_logs_is_searched(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "x").write_text("U0000042")
    found = scan.scan(spark, [str(tmp_path / "lake")], ANN, leave_out=[str(tmp_path)])
    assert [Path(file).name for file, _ in found.found] == ["x"]
    assert scan.scan(spark, [str(tmp_path)], ANN, leave_out=[str(tmp_path / "lake")]).files == 0
