"""File formats: how a file becomes raw rows, and how a raw row becomes named text fields.

``read`` gives bronze's columns, one row a record; ``parse`` adds ``fields`` (map of text) and ``malformed`` (null, or
a sentence). A record is one line: a line break inside a quoted CSV field is not supported, and makes two malformed
rows.
"""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

from sparkrec import columns as c
from sparkrec.errors import DataError
from sparkrec.ingest import json_text
from sparkrec.ingest.files import File, Folder
from sparkrec.ingest.lines import number, read_lines
from sparkrec.lake.listing import hides_rows

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

FIELDS = "fields"
#: In an adjacency file, line = line number × this + position in the line.
PAIRS_PER_LINE = 1_000_000
_MOST_HEADERS = 100
_MOST_COLUMNS = 20_000  # Spark's parser takes 20,480
_CORRUPT = "_corrupt"


class Format(ABC):
    """How files are read. Everything is text; types are clean's business."""

    def files(self, folder: Folder, pattern: str) -> list[File]:
        return folder.list(pattern)

    def rewritten(self, pattern: str, listed: Sequence[File], held: Iterable[str]) -> list[str]:
        """Names of held files whose rows now lie in other files. Log files may be moved away; a table's may not."""
        return []

    @abstractmethod
    def read(self, folder: Folder, files: Sequence[File], needs: Sequence[str]) -> tuple[DataFrame, list[str]]:
        """Raw rows: source_file, line, header, raw, source_bytes. And the distinct headers of the files, if any.

        Raises
        ------
        DataError
            A file has not the columns ``needs``, or there are too many headers.
        """

    @abstractmethod
    def parse(
        self, rows: DataFrame, headers: Sequence[str] | None = None, names: Sequence[str] | None = None
    ) -> DataFrame:
        """``rows`` with ``fields`` and ``malformed``; ``headers``: those of the rows, or a pass over them finds them.

        ``fields[name]`` is one of them, of all that a row has, or of ``names`` alone.
        """

    def line(self, headers: Sequence[str]) -> Column:
        """The opposite of ``parse``: text of ``fields``, which parses to the same fields. Absent ones stay absent."""
        from pyspark.sql import functions as F

        return F.to_json(F.map_filter(FIELDS, lambda _, value: value.isNotNull()))


@dataclass(frozen=True)
class Csv(Format):
    """Delimited text, RFC 4180 quoting (``quote`` empty: none). Without a header, ``columns`` names the fields.

    ``encoding``: UTF-8 or any that keeps one byte for a line break, such as ISO-8859-1.
    """

    delimiter: str = ","
    columns: tuple[str, ...] = ()
    encoding: str = "utf-8"
    quote: str = '"'

    def read(self, folder: Folder, files: Sequence[File], needs: Sequence[str]) -> tuple[DataFrame, list[str]]:
        rows, headers = read_lines(folder, files, self.encoding, header=not self.columns)
        for name, header in sorted(headers.items()):
            _check_columns(folder, name, self.names(header), needs)
        return rows, _few(headers.values())

    def line(self, headers: Sequence[str]) -> Column:
        from pyspark.sql import functions as F

        text = self._line(self.columns) if self.columns else F.lit(None).cast("string")
        for header in headers:
            text = F.when(F.col(c.HEADER) == header, self._line(self.names(header))).otherwise(text)
        return text

    def _line(self, names: Sequence[str]) -> Column:
        """Quoted where it must be; a second column of the same name, which nobody can read, is left empty."""
        from pyspark.sql import functions as F

        def written(name: str) -> Column:
            value, quote = F.col(FIELDS)[name], self.quote
            if quote:
                quoted = F.concat(F.lit(quote), F.replace(value, F.lit(quote), F.lit(quote * 2)), F.lit(quote))
                special = value.contains(self.delimiter) | value.contains(quote) | (value == "")
                value = F.when(special, quoted).otherwise(value)
            return F.coalesce(value, F.lit(""))

        parts = [written(name) if name not in names[:i] else F.lit("") for i, name in enumerate(names)]
        return F.concat_ws(self.delimiter, *parts)

    def parse(
        self, rows: DataFrame, headers: Sequence[str] | None = None, names: Sequence[str] | None = None
    ) -> DataFrame:
        from pyspark.sql import functions as F

        fields: Column = F.lit(None).cast("map<string,string>")
        if self.columns:
            fields, headers = self._fields(self.columns), ()
        for header in _headers(rows) if headers is None else headers:
            # The files' own headers: few, so one parser for each.
            fields = F.when(F.col(c.HEADER) == header, self._fields(self.names(header))).otherwise(fields)
        return rows.withColumn(FIELDS, fields).withColumn(
            c.MALFORMED,
            F.when(
                F.col(FIELDS).isNull(),
                F.lit("the line has more or fewer fields than its header, or a quote that is not closed"),
            ),
        )

    def names(self, header: str) -> tuple[str, ...]:
        """The column names of a header line."""
        if self.quote and len(self.delimiter) == 1:
            names = next(csv.reader([header], delimiter=self.delimiter, quotechar=self.quote), [])
        else:
            names = header.split(self.delimiter)
        return tuple(name.strip() for name in names)

    def _fields(self, names: Sequence[str]) -> Column:
        from pyspark.sql import functions as F

        schema = ", ".join([*(f"c{i} string" for i in range(len(names))), f"{_CORRUPT} string"])
        options = {
            "sep": self.delimiter,
            "quote": self.quote,
            "escape": self.quote or "\\",
            "columnNameOfCorruptRecord": _CORRUPT,
            "maxCharsPerColumn": "-1",
        }
        first = {name: i for i, name in reversed(list(enumerate(names)))}  # of two columns of one name, the first
        keys = F.array(*[F.lit(name) for name in first])

        def to_map(row: Column) -> Column:
            values = F.array(*[row[f"c{i}"] for i in first.values()])
            return F.when(row[_CORRUPT].isNull(), F.map_from_arrays(keys, values))

        def count(sign: str) -> Column:
            return (F.length(c.RAW) - F.length(F.replace(F.col(c.RAW), F.lit(sign), F.lit("")))) / len(sign)

        # Spark's parser fails on a line of more columns than it was made for, and the job with it, instead of refusing.
        readable = count(self.delimiter) < _MOST_COLUMNS
        if self.quote:
            readable = readable & (count(self.quote) % 2 == 0)
        line = F.when(readable, F.col(c.RAW))
        # Through a lambda, so that the line is parsed once and not once for each column.
        return F.when(readable, F.transform(F.array(F.from_csv(line, schema, options)), to_map)[0])


#: What bronze holds of an adjacency file.
_PAIR = Csv(" ", ("user", "item"), quote="")


@dataclass(frozen=True)
class JsonLines(Format):
    """One JSON object a line; a line that goes on after it is malformed. Nested values stay JSON text."""

    encoding: str = "utf-8"

    def read(self, folder: Folder, files: Sequence[File], needs: Sequence[str]) -> tuple[DataFrame, list[str]]:
        return read_lines(folder, files, self.encoding, header=False)[0], []

    def parse(
        self, rows: DataFrame, headers: Sequence[str] | None = None, names: Sequence[str] | None = None
    ) -> DataFrame:
        from pyspark.sql import functions as F

        return _parse_json(rows, names, ~json_text.goes_on(F.col(c.RAW)))


class _Objects(Format):
    """What is no text of the source's: rows become JSON objects, and those are whole."""

    def parse(
        self, rows: DataFrame, headers: Sequence[str] | None = None, names: Sequence[str] | None = None
    ) -> DataFrame:
        return _parse_json(rows, names)


@dataclass(frozen=True)
class JsonObject(_Objects):
    """A file that is one JSON object: a row for each of its keys, with the fields ``key`` and ``value``.

    The whole file is one task's work: for catalogues, not for logs. One that is no JSON object, or goes on after it, is
    damaged (:func:`sparkrec.ingest.files.reading` names it).
    """

    def read(self, folder: Folder, files: Sequence[File], needs: Sequence[str]) -> tuple[DataFrame, list[str]]:
        from pyspark.sql import functions as F

        whole = folder.spark.read.text([file.for_spark for file in files], wholetext=True)
        path, text = F.col("_metadata.file_path"), F.col("value")
        found = F.when(~json_text.goes_on(text), F.from_json(text, "map<string,string>"))
        damaged = F.raise_error(F.concat(F.lit("sparkrec: no JSON object while reading file "), path))
        entries = whole.select(
            path.alias("_path"),
            F.col("_metadata.file_size").alias(c.SOURCE_BYTES),
            F.map_entries(F.coalesce(found, damaged.cast("map<string,string>"))).alias("_entries"),
        ).select("_path", c.SOURCE_BYTES, F.posexplode("_entries").alias("_position", "_entry"))
        rows = entries.select(
            "_path",
            (F.col("_position") + 1).cast("bigint").alias(c.LINE),
            F.lit(None).cast("string").alias(c.HEADER),
            F.to_json("_entry").alias(c.RAW),
            c.SOURCE_BYTES,
        )
        return _with_names(folder, rows), []


@dataclass(frozen=True)
class Adjacency(Format):
    """``user item item item …``: a bronze row for each pair, raw ``user item``; fields user, item, position.

    ``line`` is line number × 1,000,000 + position in the line, from 1. A user without items gives no row.
    """

    def read(self, folder: Folder, files: Sequence[File], needs: Sequence[str]) -> tuple[DataFrame, list[str]]:
        from pyspark.sql import functions as F

        lines = read_lines(folder, files, "utf-8", header=False)[0]
        words = F.split(F.trim(c.RAW), r"\s+")
        # Two selects: beside posexplode, words[0] would split the whole line again for each of its items.
        pairs = lines.withColumn("_user", words[0]).select("*", F.posexplode(words).alias("_position", "_item"))
        too_long = F.raise_error(F.lit(f"sparkrec: a line of an adjacency file has {PAIRS_PER_LINE:,} items or more"))
        position = F.when(F.col("_position") < PAIRS_PER_LINE, F.col("_position")).otherwise(too_long.cast("int"))
        rows = pairs.where(F.col("_position") > 0).select(
            c.SOURCE_FILE,
            (F.col(c.LINE) * PAIRS_PER_LINE + position).alias(c.LINE),
            c.HEADER,
            F.concat_ws(" ", "_user", "_item").alias(c.RAW),
            c.SOURCE_BYTES,
        )
        return rows, []

    def line(self, headers: Sequence[str]) -> Column:
        return _PAIR.line(headers)

    def parse(
        self, rows: DataFrame, headers: Sequence[str] | None = None, names: Sequence[str] | None = None
    ) -> DataFrame:
        from pyspark.sql import functions as F

        parsed = _PAIR.parse(rows)
        position = (F.col(c.LINE) % PAIRS_PER_LINE).cast("string")
        return parsed.withColumn(FIELDS, F.map_concat(FIELDS, F.create_map(F.lit("position"), position)))


@dataclass(frozen=True)
class Parquet(_Objects):
    """Parquet files: raw is the row as JSON, line its number in the file.

    What a file lacks of the columns of all is null in its rows. A column may have other types in other files.
    """

    def read(self, folder: Folder, files: Sequence[File], needs: Sequence[str]) -> tuple[DataFrame, list[str]]:
        frames = _of_one_schema(folder, files)
        _check_columns(folder, files[0].name, sorted({name for frame in frames for name in frame.columns}), needs)
        rows: DataFrame = reduce(lambda a, b: a.unionByName(b), [self._rows(frame) for frame in frames])
        return _with_names(folder, rows), []

    def _rows(self, frame: DataFrame) -> DataFrame:
        from pyspark.sql import functions as F

        return frame.select(
            F.col("_metadata.file_path").alias("_path"),
            (F.col("_metadata.row_index") + 1).alias(c.LINE),
            F.lit(None).cast("string").alias(c.HEADER),
            json_text.of_rows(frame).alias(c.RAW),
            F.col("_metadata.file_size").alias(c.SOURCE_BYTES),
        )


@dataclass(frozen=True)
class Delta(_Objects):
    """A Delta table that is only appended to (not optimised or updated): each of its data files is read once."""

    def files(self, folder: Folder, pattern: str) -> list[File]:
        from delta.tables import DeltaTable

        path = f"{folder.root.rstrip('/')}/{pattern}".rstrip("/")
        if not DeltaTable.isDeltaTable(folder.spark, path):
            return []
        frame = folder.spark.read.format("delta").load(path)
        if hides_rows(frame):  # what took their place stands in a new file, and would be read as well
            raise DataError(
                f"Rows of the Delta table {path} were updated or deleted: deletion vectors hide them in its files. A "
                "table that is read as a log may only be appended to. Read a copy of it afresh, in a new lake."
            )
        found = frame.select("_metadata.file_path", "_metadata.file_size").distinct().collect()
        return sorted((File(path, folder.relative(r[0]), r[1]) for r in found), key=lambda file: file.name)

    def rewritten(self, pattern: str, listed: Sequence[File], held: Iterable[str]) -> list[str]:
        names = {file.name for file in listed}
        return [name for name in held if name.startswith(f"{pattern.rstrip('/')}/") and name not in names]

    def read(self, folder: Folder, files: Sequence[File], needs: Sequence[str]) -> tuple[DataFrame, list[str]]:
        from pyspark.sql import functions as F

        frame = folder.spark.read.format("delta").load(files[0].uri)
        _check_columns(folder, files[0].uri, frame.columns, needs)
        names = folder.spark.createDataFrame([(file.name,) for file in files], f"{c.SOURCE_FILE} string")
        # Delta's rows have no row_index; they come in the file's order, as lines do.
        rows = number(folder, frame, json_text.of_rows(frame))[0]
        return rows.join(F.broadcast(names), c.SOURCE_FILE, "left_semi"), []


def _of_one_schema(folder: Folder, files: Sequence[File]) -> list[DataFrame]:
    """One frame of all files where their columns agree; else (a type was widened) one for each schema among them."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    reader = folder.spark.read.option("mergeSchema", "true")
    try:
        return [reader.parquet(*[file.for_spark for file in files])]
    except (PySparkException, Py4JJavaError) as error:
        if "CANNOT_MERGE" not in str(error):
            raise
    by_schema: dict[str, list[str]] = {}
    for file in files:
        by_schema.setdefault(folder.spark.read.parquet(file.for_spark).schema.json(), []).append(file.for_spark)
    return [folder.spark.read.parquet(*paths) for paths in by_schema.values()]


def _with_names(folder: Folder, rows: DataFrame) -> DataFrame:
    """``source_file`` instead of Spark's encoded path."""
    from pyspark.sql import functions as F

    paths = [row[0] for row in rows.select("_path").distinct().collect()]
    schema = f"_path string, {c.SOURCE_FILE} string"
    names = folder.spark.createDataFrame([(path, folder.relative(path)) for path in paths], schema)
    return rows.join(F.broadcast(names), "_path").select(c.SOURCE_FILE, c.LINE, c.HEADER, c.RAW, c.SOURCE_BYTES)


def _parse_json(rows: DataFrame, names: Sequence[str] | None, whole: Column | None = None) -> DataFrame:
    """``whole`` : whether a row's object is all of its text, where that is not known."""
    from pyspark.sql import functions as F

    whole = F.lit(True) if whole is None else whole
    names = (*(names or ()), _CORRUPT)
    if len(names) == 1 or len({name.lower() for name in names}) < len(names):
        parsed = rows.withColumn(FIELDS, F.when(whole, F.from_json(c.RAW, "map<string,string>")))
    else:
        # A few known fields: a row of them, not a map of all that the line has, which is searched for each of them.
        schema = ", ".join(f"`{name.replace('`', '``')}` string" for name in names)
        parsed = rows.withColumn(FIELDS, F.from_json(c.RAW, schema, {"columnNameOfCorruptRecord": _CORRUPT}))
        parsed = parsed.withColumn(FIELDS, F.when(F.col(FIELDS)[_CORRUPT].isNull() & whole, F.col(FIELDS)))
    sentence = F.when(F.col(FIELDS).isNull(), F.lit("the line is not one JSON object"))
    return parsed.withColumn(c.MALFORMED, sentence)


def _headers(rows: DataFrame) -> list[str]:
    """The distinct headers in bronze: one or a few, however many rows."""
    return _few(row[0] for row in rows.select(c.HEADER).distinct().limit(_MOST_HEADERS + 1).collect())


def _few(headers: Iterable[str | None]) -> list[str]:
    """The distinct ones; each has a parser of its own in a plan."""
    found = sorted({header for header in headers if header is not None})
    if len(found) > _MOST_HEADERS:
        raise DataError(
            f"The files have more than {_MOST_HEADERS} different header lines. If they have no header, say so: for the "
            "source 'generic', name the columns in the option 'names'."
        )
    return found


def _check_columns(folder: Folder, name: str, found: Sequence[str], needs: Sequence[str]) -> None:
    missing = [column for column in needs if column not in found]
    if missing:
        seen = f"found {', '.join(found)[:300]}"
        if len(missing) == len(needs):  # what stands there may be a row, of a person
            seen = f"found {len(found)} others, so that its first line may be none of names"
        raise DataError(
            f"The file {name} in {folder.root} has not the columns that its source needs: missing "
            f"{', '.join(missing)}; {seen}; expected {', '.join(needs)}. Check source.name and the delimiter, or move "
            "the file away."
        )
