"""Who is named by a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparkrec.errors import ConfigError
from sparkrec.privacy import audit, persons

pytestmark = pytest.mark.unit


def test_ids_from_a_file_or_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(" ann@x.de \n\nJürgen, the second\nann@x.de\n", encoding="utf-8")
    assert persons.named(str(tmp_path / "list.txt")) == ("ann@x.de", "Jürgen, the second")
    assert persons.named("a, b,,a") == ("a", "b")
    (tmp_path / "marked.csv").write_text("ann@x.de\nbob\n", encoding="utf-8-sig")
    assert persons.named(str(tmp_path / "marked.csv")) == ("ann@x.de", "bob")
    many = [f"U{n:07}" for n in range(100)]
    assert persons.named(",".join(many)) == tuple(many)
    for nobody in ("", " , ", str(tmp_path / "empty")):
        (tmp_path / "empty").write_text("\n")
        with pytest.raises(ConfigError, match="No user is named"):
            persons.named(nobody)


def test_a_file_that_is_not_there_is_nobodys_id(tmp_path: Path) -> None:
    for missing in ("leavers.txt", str(tmp_path / "leavers"), "lists/leavers"):
        with pytest.raises(ConfigError, match="There is no file"):
            persons.named(missing)
    assert persons.named("a/b,") == ("a/b",)
    assert persons.named("ann@x.de") == ("ann@x.de",)
    (tmp_path / "latin.txt").write_text("Jürgen\n", encoding="latin-1")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        persons.named(str(tmp_path / "latin.txt"))


def test_a_scheduler_says_for_whom_it_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARKREC_ACTOR", "ann, by Airflow")
    assert audit.actor() == "ann, by Airflow"
    monkeypatch.delenv("SPARKREC_ACTOR")
    assert audit.actor()
