"""Going on where the last run left a table: at the version that its record names, and at no other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sparkrec.errors import RetryableError
from sparkrec.schemas import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from sparkrec.lake.tables import Commit
    from sparkrec.pipeline import Run


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    ``why_full`` says why everything is computed; None for an increment. ``bases`` are the versions to write on, by
    table name, and ``versions`` those to read (none when full).
    """

    why_full: str | None
    bases: Mapping[str, int]
    versions: Mapping[str, int] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        return self.why_full is not None

    @property
    def begins(self) -> str:
        """For the log."""
        return f"everything is computed: {self.why_full}" if self.full else "an increment on the last run"

    def held(self, run: Run, table: Table) -> DataFrame:
        """A table as the last run left it; empty when everything is computed."""
        if self.full:
            return run.spark.createDataFrame([], table.struct())
        return run.lake.read(table, self.versions[table.name])


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


def require_kept(run: Run, tables: Iterable[Table]) -> None:
    """What this run has written still stands, so that it may be recorded.

    Raises
    ------
    RetryableError
        Another run took this one for dead, and has taken back what it wrote.
    """
    for table in tables:
        if not all(commit.keeps_content for commit in run.lake.commits(table, run.outputs[table.name])):
            raise RetryableError(
                f"Another run of '{run.stage}' has begun in the meantime, and has written {table.name} anew. What this "
                "one wrote is not recorded, and nobody reads it. Run it again when the other one has ended."
            )


def _is_foreign(commit: Commit) -> bool:
    return not commit.keeps_content and commit.operation not in ("WRITE", "RESTORE")
