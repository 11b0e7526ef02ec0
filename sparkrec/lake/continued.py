"""Going on where the last run left a table: at the version that its record names, and at no other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparkrec import columns as c
from sparkrec.schemas import Table

if TYPE_CHECKING:
    from sparkrec.lake.tables import Commit
    from sparkrec.pipeline import Run


def recorded(records: Sequence[Any], table: Table) -> int:
    """The version of a table that the newest of the records which wrote it names."""
    return next(int(row[c.OUTPUTS][table.name]) for row in reversed(records) if table.name in row[c.OUTPUTS])


def foreign(since: Mapping[str, Iterable[Commit]]) -> str | None:
    """The first table that something changed which was no run that died, whose writes can be taken back.

    ``since``: by table name, the commits after the recorded version. What else they are must not come back to life.
    """
    return next((name for name, commits in since.items() if any(_is_foreign(commit) for commit in commits)), None)


def base(run: Run, table: Table, version: int, since: Sequence[Commit]) -> int:
    """The version to write on: what holds the recorded rows; what a run that died has left is taken back."""
    if all(commit.keeps_content for commit in since):
        return since[-1].version if since else version
    run.say(f"{table.name}: taking back what a run that did not finish left after version {version}")
    return run.lake.restore(table, version)


def _is_foreign(commit: Commit) -> bool:
    return not commit.keeps_content and commit.operation not in ("WRITE", "RESTORE")
