"""Which rank reads which row groups of a pinned Delta version. Written by the driver, read by the ranks."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from sparkrec.errors import DataError
from sparkrec.lake.place import for_python, located

if TYPE_CHECKING:
    import pyarrow as pa

#: Files whose footers are read side by side: a store takes a tenth of a second to answer, however small the question.
_AT_ONCE = 16


@dataclass(frozen=True)
class Piece:
    """One row group of one parquet file."""

    path: str
    row_group: int
    rows: int


@dataclass(frozen=True)
class Manifest:
    """The row groups of one version of one table, dealt out to the ranks."""

    table: str
    version: int
    ranks: tuple[tuple[Piece, ...], ...]

    @property
    def rows(self) -> int:
        return sum(piece.rows for pieces in self.ranks for piece in pieces)

    @classmethod
    def load(cls, plain: dict[str, Any]) -> Manifest:
        ranks = tuple(tuple(Piece(**piece) for piece in pieces) for pieces in plain["ranks"])
        return cls(plain["table"], plain["version"], ranks)


def deal(pieces: Sequence[Piece], ranks: int) -> tuple[tuple[Piece, ...], ...]:
    """Largest first, each to the rank with the fewest rows so far; ranks may stay empty."""
    loads = [0] * ranks
    hands: list[list[Piece]] = [[] for _ in range(ranks)]
    for piece in sorted(pieces, key=lambda p: (-p.rows, p.path, p.row_group)):
        rank = loads.index(min(loads))
        hands[rank].append(piece)
        loads[rank] += piece.rows
    return tuple(tuple(hand) for hand in hands)


def of_table(path: str, version: int, name: str, ranks: int) -> Manifest:
    """The manifest of a Delta table's version, from its log and the files' footers; no Spark.

    Raises
    ------
    DataError
        The version keeps rows in deletion vectors, which the files alone do not show.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaProtocolError

    try:
        table = DeltaTable(for_python(path), version=version)
        files = sorted(_plain(file, table.table_uri) for file in table.file_uris())
    except DeltaProtocolError as error:
        raise DataError(
            f"The trainer reads the parquet files of {name} version {version} at {path} themselves, and cannot: "
            f"{error} Switch deletion vectors off for that table and run featurize again."
        ) from error
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        footers = pool.map(_pieces, files)
        return Manifest(name, version, deal([piece for pieces in footers for piece in pieces], ranks))


def _plain(file: str, table: str) -> str:
    """A file by its path or URI: deltalake gives the table's folder percent-encoded, and what lies in it as it is."""
    folder = table if "://" in file else urlsplit(table).path
    return unquote(folder) + file[len(folder) :] if file.startswith(folder) else file


def _pieces(path: str) -> list[Piece]:
    import pyarrow.parquet as pq

    with open_file(path) as file:
        footer = pq.read_metadata(file)
    return [Piece(path, group, footer.row_group(group).num_rows) for group in range(footer.num_row_groups)]


def read(piece: Piece, columns: Sequence[str]) -> pa.Table:
    """Columns of a row group, which a store is asked for all at once."""
    import pyarrow.parquet as pq

    with open_file(piece.path) as file:
        return pq.ParquetFile(file, pre_buffer=True).read_row_group(piece.row_group, columns=list(columns))


def open_file(path: str) -> Any:
    """A file of a lake, by path or URI, through pyarrow's file systems."""
    system, inner = located(path)
    return system.open_input_file(inner)
