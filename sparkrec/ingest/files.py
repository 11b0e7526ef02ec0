"""Which files a source has: globs below its folder, through Hadoop's file systems (local, S3, HDFS, …)."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from sparkrec.errors import DataError, NoData

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: In a pattern: the day of a file, YYYY-MM-DD.
DATE = "{date}"
_DATE_GLOB = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"
_GLOB = {"*": "[^/]*", "?": "[^/]"}
#: A log of yesterday may still come, whatever the shop's time zone: a scheduler tries again.
_LATE_DAYS = 1
_HIDDEN = re.compile(r"^[_.]|\._COPYING_$")


@dataclass(frozen=True)
class File:
    """A file: its URI, its path below the source's folder, its size in bytes."""

    uri: str
    name: str
    bytes: int

    @property
    def for_spark(self) -> str:
        """The URI with its own brackets and stars escaped: Spark takes paths for globs."""
        return re.sub(r"([\[\]{}*?\\])", r"\\\1", self.uri)


class Folder:
    """The folder of a source.

    Raises
    ------
    DataError
        It is not there.
    """

    def __init__(self, spark: SparkSession, root: str) -> None:
        self.spark, self.root = spark, root
        jvm: Any = spark._jvm
        self._jvm = jvm
        path = jvm.org.apache.hadoop.fs.Path(root)
        self._fs = path.getFileSystem(spark._jsc.hadoopConfiguration())
        self._path = self._fs.makeQualified(path)
        if not self._fs.exists(self._path):
            raise DataError(f"The source's folder {root} does not exist. Set source.path to where its files lie.")

    def list(self, pattern: str) -> list[File]:
        """Files that a glob matches, by name. ``{date}`` matches any day; a folder is not a file.

        Nor is what Spark and Hadoop hide, such as ``_SUCCESS``, or have not finished copying.
        """
        glob = self._jvm.org.apache.hadoop.fs.Path(self._path, pattern.replace(DATE, _DATE_GLOB))
        found = self._fs.globStatus(glob) or []
        files = [
            File(s.getPath().toString(), self.relative(s.getPath().toUri()), s.getLen())
            for s in found
            if s.isFile() and not _HIDDEN.search(s.getPath().getName())
        ]
        return sorted(files, key=lambda file: file.name)

    def relative(self, uri: object) -> str:
        """The path below the folder of a Java URI, or of Spark's encoded ``_metadata.file_path``."""
        path = unquote(urlsplit(uri).path) if isinstance(uri, str) else str(uri.getPath())  # type: ignore[attr-defined]
        return path.removeprefix(self._path.toUri().getPath().rstrip("/") + "/")


def regex(pattern: str) -> str:
    """The regular expression of a glob, for ``rlike`` on ``source_file``."""
    parts = re.split(r"(\{date\}|\*|\?|\{[^}]*\}|\[[^]]*\])", pattern)
    return "^" + "".join(map(_regex_part, parts)) + "$"


def _regex_part(part: str) -> str:
    if part == DATE:
        return r"\d{4}-\d{2}-\d{2}"
    if part.startswith("{"):
        return "(?:" + "|".join(re.escape(choice) for choice in part[1:-1].split(",")) + ")"
    return part if part.startswith("[") else _GLOB.get(part, re.escape(part))


def up_to(
    files: Sequence[File], pattern: str, date: dt.date | None, held: set[str], must_have_date: bool = True
) -> list[File]:
    """The files dated on or before ``date``; all of them where the pattern has no ``{date}``.

    Raises
    ------
    DataError
        ``must_have_date``, and none is of that date, and none that bronze holds (``held``: names) is either.
    """
    if date is None or DATE not in pattern:
        return list(files)
    dated = re.compile(regex(pattern).replace(r"\d{4}-\d{2}-\d{2}", r"(\d{4}-\d{2}-\d{2})", 1))
    days = {file.name: match.group(1) for file in files if (match := dated.match(file.name))}
    days_held = {match.group(1) for name in held if (match := dated.match(name))}
    wanted = date.isoformat()
    if must_have_date and wanted not in {*days.values(), *days_held}:
        known = sorted({*days.values(), *days_held})
        before = [day for day in known if day < wanted][-1:]
        after = [day for day in known if day > wanted][:1]
        nearest = " and ".join(before + after) or "none"
        raise NoData(
            f"There is no data for {wanted}: no file matches '{pattern.replace(DATE, wanted)}'; the nearest days found "
            f"are {nearest}. Wait for the file, or pass --date with a day that has one.",
            late=abs(dt.datetime.now(dt.UTC).date() - date) <= dt.timedelta(days=_LATE_DAYS),
        )
    return [file for file in files if days.get(file.name, "") <= wanted]


@contextlib.contextmanager
def reading(root: str) -> Iterator[None]:
    """Turns what Spark says about a damaged file into a DataError that names the file."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        text = str(error)
        named = re.search(
            r"(?:while reading file|footer for file:?|CANNOT_READ_FILE_FOOTER[^\n]*?file:?)\s+'?(\S+)", text
        )
        if named is None:
            raise
        name = unquote(urlsplit(named.group(1).rstrip(".,:'")).path)
        cut = "EOFException" in text or "end of input stream" in text.lower() or "end of file" in text.lower()
        what = "is cut short" if cut else "cannot be read: it is damaged, or not of the format that its source has"
        raise DataError(
            f"The file {name} (below {root}) {what}. Nothing of it was ingested. Fetch it again, whole, or remove it."
        ) from None
