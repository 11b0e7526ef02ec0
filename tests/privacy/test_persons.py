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
    for nobody in ("", " , ", str(tmp_path / "empty")):
        (tmp_path / "empty").write_text("\n")
        with pytest.raises(ConfigError, match="No user is named"):
            persons.named(nobody)


def test_a_scheduler_says_for_whom_it_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARKREC_ACTOR", "ann, by Airflow")
    assert audit.actor() == "ann, by Airflow"
    monkeypatch.delenv("SPARKREC_ACTOR")
    assert audit.actor()
