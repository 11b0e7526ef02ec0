"""Does an id still lie anywhere under the lake? Every file is read, byte by byte; parquet and gzip are decoded.

An id that cannot be mistaken (:func:`is_distinctive`) is looked for in all of it, as a whole word. A short or purely
numeric one occurs everywhere by chance, so it counts where it is said to be a user: as a value of an identifier column,
or after ``user_id`` in Delta's statistics and after ``User`` in a report.
"""

from __future__ import annotations

import gzip
import html
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sparkrec import columns as c
from sparkrec.errors import DataError
from sparkrec.lake.place import by_path, located

if TYPE_CHECKING:
    from pyspark.sql import Column, SparkSession

_WINDOW = 8 << 20
_ROWS = 65_536
#: So many needles are looked for one by one; more, by the words that occur.
_FEW = 32
#: So many ids are in one pattern: RE2 has a bound of memory for each.
_AT_ONCE = 200
#: What makes a word longer, as a pattern.
WITHIN_WORD = "[0-9A-Za-z_]"
_WORD = re.compile(rb"[0-9A-Za-z_]+")
_WITHIN_WORD = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")
_MOST_SHOWN = 20


@dataclass(frozen=True)
class Needles:
    """What is looked for: ``words`` anywhere, ``values`` (exact) in ``columns`` of parquet files."""

    words: tuple[bytes, ...]
    values: tuple[str, ...]
    columns: tuple[str, ...] = (c.USER_ID,)

    @classmethod
    def of(cls, ids: Iterable[str]) -> Needles:
        words: dict[bytes, None] = {}
        ids = tuple(dict.fromkeys(ids))
        for user in ids:
            if is_distinctive(user):
                words |= dict.fromkeys(text.encode() for text in spellings(user))
            else:
                quoted = json.dumps(user)
                escaped = json.dumps(quoted)[1:-1]
                named = (f'{c.USER_ID}":{quoted}', f'{c.USER_ID}\\":{escaped}', f"<h3>User {html.escape(user)}</h3>")
                words |= dict.fromkeys(text.encode() for text in named)
        return cls(tuple(words), ids)


@dataclass(frozen=True)
class Scanned:
    """How much was read, and where something was found: file and place."""

    files: int
    bytes: int
    found: tuple[tuple[str, str], ...]


def is_distinctive(user: str) -> bool:
    """Whether the id, met somewhere, can hardly be anything else: six characters or more, not digits alone."""
    return len(user) >= 6 and not re.fullmatch(r"[0-9.]+", user)


def spellings(user: str) -> tuple[str, ...]:
    """The id as it is, within JSON, and within HTML."""
    return user, json.dumps(user)[1:-1], html.escape(user)


def mentions(ids: Iterable[str]) -> Callable[[Column], Column]:
    """Column of texts → whether one of the ids occurs in each, in any spelling: :func:`occurs`, for many texts at once.

    Every id counts here, however short. A function and not an expression, which would show the ids in plans and logs.
    """
    from pyspark.sql.functions import arrow_udf

    patterns = _patterns(ids)

    def mentioned(texts: pa.Array) -> pa.Array:
        return _matches(texts, patterns)

    return arrow_udf(mentioned, "boolean")  # type: ignore[call-overload]


def _patterns(ids: Iterable[str]) -> list[str]:
    written = [re.escape(text) for text in dict.fromkeys(text for user in ids for text in spellings(user))]
    outside = f"[^{WITHIN_WORD[1:]}"
    groups = ["|".join(written[at : at + _AT_ONCE]) for at in range(0, len(written), _AT_ONCE)]
    return [f"(?:^|{outside})(?:{group})(?:{outside}|$)" for group in groups]


def _matches(texts: pa.Array, patterns: Sequence[str]) -> pa.Array:
    """Whether one of the patterns is in each text; in null none is."""
    found = [pc.match_substring_regex(texts, pattern) for pattern in patterns]
    return pc.fill_null(reduce(pc.or_, found, pa.repeat(False, len(texts))), False)


def scan(spark: SparkSession, roots: Sequence[str], needles: Needles, leave_out: Sequence[str] = ()) -> Scanned:
    """Every file below ``roots`` but those below ``leave_out``, on the executors.

    A place that holds a whole root is not left out of it.
    """
    there = (uri for root in roots for uri in _files(spark, root))
    left_out = [place for place in leave_out if not any(_is_below(root, place) for root in roots)]
    files = [uri for uri in there if not any(_is_below(uri, place) for place in left_out)]
    if not files:
        return Scanned(0, 0, ())

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for uri in batch.column(0).to_pylist():
                size, places = in_file(uri, needles)
                columns = [pa.array([uri], pa.string()), pa.array([size], pa.int64()), pa.array(["; ".join(places)])]
                yield pa.RecordBatch.from_arrays(columns, ["file", "size", "places"])

    paths = spark.createDataFrame([(uri,) for uri in files], "file string")
    slices = min(len(files), 4 * spark.sparkContext.defaultParallelism)
    # The executors read files that were just written and removed: nothing of this is cached or pinned.
    found = paths.repartition(slices).mapInArrow(read, "file string, size bigint, places string").persist()
    try:
        total = found.selectExpr("count(*)", "coalesce(sum(size), 0)").first()
        rows = found.where("places <> ''").orderBy("file").limit(_MOST_SHOWN).collect()
    finally:
        found.unpersist()
    assert total is not None
    return Scanned(total[0], total[1], tuple((row[0], row[2]) for row in rows))


def in_file(uri: str, needles: Needles) -> tuple[int, list[str]]:
    """Bytes of a file (its path or URI), and the places in it where something was found."""
    system, path = located(uri)
    places = []
    with system.open_input_stream(path, compression=None) as file:
        size, hit = _in_stream(file, needles)
    if hit:
        places.append("its bytes")
    if occurs(path.encode(), needles.words):
        places.append("its name")
    name = os.path.basename(path)
    if name.endswith(".gz"):
        try:
            with system.open_input_stream(path, compression=None) as file, gzip.open(file) as inner:
                if _in_stream(inner, needles)[1]:
                    places.append("its decompressed bytes")
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"The file {uri} cannot be decompressed, so nobody knows what is in it: {error}.") from None
    if name.endswith(".parquet"):
        with system.open_input_file(path) as file:
            places += _in_parquet(file, uri, needles)
    return size, places


def occurs(
    data: bytes,
    words: Sequence[bytes],
    index: Mapping[bytes, Sequence[bytes]] | None = None,
    begins: bool = True,
    ends: bool = True,
) -> bool:
    """Whether one of the words lies in the data and is not part of a longer one.

    ``index`` : the words by a part of each (:func:`_index`). ``begins``, ``ends`` : nothing comes before or after the
    data; else a word at its edge does not count, because nobody knows yet what it is part of.
    """
    if index is None and len(words) <= _FEW:
        return any(_whole(data, word, begins, ends) for word in words)
    index = _index(words) if index is None else index
    met = (set(_WORD.findall(data)) & index.keys()) | {b""}
    return any(_whole(data, word, begins, ends) for part in met for word in index.get(part, ()))


def _index(words: Sequence[bytes]) -> dict[bytes, list[bytes]]:
    """Words by the first run of ASCII letters and digits in each; those that have none, by nothing."""
    index: dict[bytes, list[bytes]] = {}
    for word in words:
        first = _WORD.search(word)
        index.setdefault(first.group() if first else b"", []).append(word)
    return index


def _whole(data: bytes, word: bytes, begins: bool, ends: bool) -> bool:
    at = data.find(word)
    while at >= 0:
        end = at + len(word)
        before = begins if not at else data[at - 1] not in _WITHIN_WORD
        after = ends if end == len(data) else data[end] not in _WITHIN_WORD
        if before and after:
            return True
        at = data.find(word, at + 1)
    return False


def _in_stream(file: Any, needles: Needles) -> tuple[int, bool]:
    """Window by window; they overlap by more than the longest word, so that each word is seen whole in one of them."""
    overlap = 2 + max((len(word) for word in needles.words), default=0)
    size, rest, hit = 0, b"", False
    index = _index(needles.words) if len(needles.words) > _FEW else None
    block = file.read(_WINDOW)
    while block:
        following = file.read(_WINDOW)
        window = rest + block
        hit = hit or occurs(window, needles.words, index, begins=size == len(rest), ends=not following)
        size += len(block)
        rest, block = window[-overlap:], following
    return size, hit


def _in_parquet(file: Any, uri: str, needles: Needles) -> list[str]:
    """Columns with one of the words in a text, or with one of the values."""
    try:
        table = pq.ParquetFile(file)
        values, found = pa.array(needles.values, pa.string()), dict[str, None]()
        for batch in table.iter_batches(batch_size=_ROWS):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                for texts in _texts(column):
                    exact = name in needles.columns and pc.any(pc.is_in(texts, values)).as_py()
                    if exact or (needles.words and occurs(_joined(texts), needles.words)):
                        found[f"column {name}"] = None
        return list(found)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"The parquet file {uri} cannot be read, so nobody knows what is in it: {error}.") from None


def _texts(column: pa.Array) -> Iterator[pa.Array]:
    """The texts of a column, those inside of structs, lists and maps as well."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        yield from _texts(column.dictionary)
    elif pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind):
        yield pc.unique(column.cast(pa.binary(), safe=False).cast(pa.string(), safe=False))
    elif pa.types.is_struct(kind):
        for child in column.flatten():
            yield from _texts(child)
    elif pa.types.is_map(kind):
        yield from _texts(column.keys)
        yield from _texts(column.items)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _texts(column.flatten())


def _joined(texts: pa.Array) -> bytes:
    rows = pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), pc.fill_null(texts, ""))
    joined: str | None = pc.binary_join(rows, "\n")[0].as_py()
    return (joined or "").encode(errors="replace")


def _files(spark: SparkSession, root: str) -> Iterator[str]:
    """All files: paths of a folder's as the operating system lists them, hidden ones too, else URIs as of Hadoop."""
    if (here := by_path(root)) is not None:
        yield from map(str, below(here))
        return
    jvm: Any = spark._jvm
    path = jvm.org.apache.hadoop.fs.Path(root)
    found = path.getFileSystem(spark._jsc.hadoopConfiguration()).listFiles(path, True)
    while found.hasNext():
        yield found.next().getPath().toString()


def below(folder: Path) -> Iterator[Path]:
    """All files below a folder, through links too: a run's models may lie on another disk.

    Raises
    ------
    DataError
        A folder cannot be read, so that nobody knows what is in it.
    """

    def refuse(error: OSError) -> None:
        if isinstance(error, FileNotFoundError):  # it went while others were read
            return
        raise DataError(
            f"The folder {error.filename} cannot be read ({error.strerror}), so nobody knows what is in it."
        )

    seen = set()
    if not folder.exists():
        return
    for here, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        if (real := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(real)
        if os.path.ismount(here):  # where a file system keeps what a check of the disk finds, for root alone
            folders[:] = [name for name in folders if name != "lost+found"]
        yield from (path for name in names if (path := Path(here, name)).is_file())


def _is_below(file: str, folder: str) -> bool:
    """Links apart: what a link in the lake leads to may be the source's folder."""
    there, place = (os.path.realpath(path) if (path := by_path(x)) else x.rstrip("/") for x in (file, folder))
    return there == place or there.startswith(f"{place}/")
