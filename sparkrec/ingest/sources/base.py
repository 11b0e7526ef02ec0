"""What a source is: which files, in which format, and how their fields become canonical columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, ClassVar

from sparkrec import columns as c
from sparkrec.config import Section
from sparkrec.ingest import canonical
from sparkrec.ingest.canonical import ToCanonical
from sparkrec.ingest.files import regex
from sparkrec.ingest.formats import Format

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from sparkrec.pipeline import Run


@dataclass(frozen=True)
class Files:
    """One kind of file.

    ``pattern`` is a glob below the source's folder, in which ``{date}`` stands for a day; ``needs`` are the columns
    without which a file is refused; ``optional`` files may be absent.

    For ``sparkrec.privacy``: ``ids`` says in which field the id of a canonical column lies (user_id above all),
    ``texts`` which fields are free text.
    """

    pattern: str
    format: Format
    to: ToCanonical
    needs: tuple[str, ...] = ()
    optional: bool = False
    ids: Mapping[str, str] = field(default_factory=dict)
    texts: tuple[str, ...] = ()


class Source:
    """A public log format, or a shop's own. Maps and names; filters and repairs nothing."""

    name: ClassVar[str]
    #: Whether a row says all by itself. If not, new files change old events, and clean computes all of silver anew.
    row_by_row: bool = True
    #: Whether its times are when things happened. If not, they are made from an order, and nobody is judged by them.
    has_times: bool = True
    #: The keys of ``source.options``; any other is a configuration error.
    Options: ClassVar[type[Section]] = Section

    event_files: Sequence[Files] = ()
    item_files: Sequence[Files] = ()

    def __init__(self, options: Section) -> None:
        self.options = options

    def check(self, spark: SparkSession) -> None:
        """At the beginning of each job: ConfigError where an option is wrong in a way that only Spark can tell."""

    def prepare(self, run: Run) -> None:
        """Before the files are listed. Only a source that makes its own files has something to do."""

    def events(self, bronze: DataFrame) -> DataFrame:
        """Rows of bronze.events in canonical columns (``canonical.EVENTS``), one for one."""
        return union(bronze, self.event_files, canonical.EVENTS)

    def items(self, bronze: DataFrame) -> DataFrame:
        """Rows of bronze.items in canonical columns (``canonical.ITEMS``)."""
        return union(bronze, self.item_files, canonical.ITEMS)

    def is_goods(self, item_id: Column) -> Column:
        """Whether an item may be recommended at all: false for postage, fees, corrections."""
        from pyspark.sql import functions as F

        return F.lit(True)


def union(bronze: DataFrame, kinds: Sequence[Files], names: tuple[str, ...]) -> DataFrame:
    """Each kind of file parsed and mapped by its own rules; every row belongs to the first kind that matches it."""
    from pyspark.sql import functions as F

    if not kinds:
        nothing: ToCanonical = lambda field: {}  # noqa: E731
        empty = bronze.where("false").withColumns({"fields": F.create_map(), c.MALFORMED: F.lit(None)})
        return canonical.select(empty, names, nothing)
    parts, rest = [], F.lit(True)
    for files in kinds:
        mine = F.col(c.SOURCE_FILE).rlike(regex(files.pattern)) if len(kinds) > 1 else F.lit(True)
        parsed = files.format.parse(bronze.where(rest & mine), names=canonical.fields(files.to))
        parts.append(canonical.select(parsed, names, files.to))
        rest = rest & ~mine
    return reduce(lambda a, b: a.unionByName(b), parts)
