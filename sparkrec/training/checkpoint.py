"""Checkpoints that are either whole or not there: temporary name, fsync, manifest last, rename.

checkpoints/0000000420/weights.item_id.npy     an array that all ranks hold alike, by rank 0
                       weights.user_id.1.npy   rank 1's rows of a sharded one: 1, 1 + W, 1 + 2 W, …
                       manifest.json           checksums, number of ranks, place, fingerprint of settings and tables
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparkrec.errors import RetryableError
from sparkrec.training.collective import Collective, tell

MANIFEST = "manifest.json"
_PARSING = threading.Lock()
#: Bytes that are read at a time to check them.
_BLOCK = 1 << 24


class Part(NamedTuple):
    """One rank's part of an array: ``rows`` of the whole, ``shape`` of the part, float32 ``blocks`` of its rows."""

    name: str
    rows: int
    shape: tuple[int, ...]
    blocks: Iterable[np.ndarray]


@dataclass(frozen=True)
class Checkpoint:
    """One on disk. ``state`` : what ``save`` was given."""

    path: Path
    state: dict[str, Any]

    def read(self, name: str, rows: np.ndarray | None) -> np.ndarray:
        """An array, or some of its rows in the order given, whatever number of ranks wrote it."""
        if name not in self.state["sharded"]:
            array = _load(self._file(name))
            return np.array(array) if rows is None else array[rows]
        if rows is None:
            rows = np.arange(self.state["sharded"][name])
        ranks = self.state["ranks"]
        result: np.ndarray | None = None
        for rank in range(ranks):
            mine = rows % ranks == rank
            shard = _load(self._file(f"{name}/{rank}"))
            if result is None:
                result = np.empty((len(rows), *shard.shape[1:]), shard.dtype)
            result[mine] = shard[rows[mine] // ranks]
        assert result is not None
        return result

    def holds(self, name: str) -> bool:
        """Whether there is an array of this name."""
        return name in self.state["sharded"] or _file_name(name) in self.state["files"]

    def _file(self, name: str) -> Path:
        return self.path / _file_name(name)


def save(
    folder: Path,
    number: int,
    replicated: Iterable[Part],
    shards: Iterable[Part],
    state: Mapping[str, Any],
    keep: int,
    collective: Collective,
) -> Path:
    """Write checkpoint ``number``, every rank its part; then drop all but the newest ``keep`` and the best.

    Parameters
    ----------
    replicated : what all ranks hold alike; taken from rank 0 only.
    shards : this rank's rows.
    state : what JSON can hold; ``score`` says how good it is, more is better, None where nobody knows.

    Raises
    ------
    RetryableError
        A rank could not write. No checkpoint was lost.
    """
    final, temporary = folder / f"{number:010d}", folder / f".{number:010d}.tmp"

    def begin() -> None:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)

    def write() -> dict[str, Any]:
        files, sharded = {}, {}
        for part in replicated if collective.rank == 0 else ():
            files[_file_name(part.name)] = _write(temporary / _file_name(part.name), part)
        for part in shards:
            own = _file_name(f"{part.name}/{collective.rank}")
            files[own], sharded[part.name] = _write(temporary / own, part), part.rows
        return {"files": files, "sharded": sharded}

    def end() -> None:
        manifest = {
            **state, "number": number, "ranks": collective.size, "sharded": written[0]["sharded"],
            "files": {name: checksum for part in written for name, checksum in part["files"].items()},
        }  # fmt: skip
        with open(temporary / MANIFEST, "w") as text:
            json.dump(manifest, text, indent=1)
            text.flush()
            _sync(text.fileno())
        _put(temporary, final)
        for old in _superfluous(_all(folder), keep):
            shutil.rmtree(old)

    try:
        _together(collective, folder, begin if collective.rank == 0 else lambda: None)
        written = _together(collective, folder, write)
        _together(collective, folder, end if collective.rank == 0 else lambda: None)
    except RetryableError:
        if collective.rank == 0:  # half of a checkpoint fills a disk as well as a whole one
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    return final


def newest(
    folder: Path,
    fingerprint: str,
    collective: Collective,
    say: Callable[[str], None],
    alive: Callable[[], None] = lambda: None,
) -> Checkpoint | None:
    """The newest whole checkpoint of this training; None where there is none. Every rank gets the same answer.

    A damaged one is named through ``say``, and the one before it is used. Each file is read by one rank, which calls
    ``alive`` again and again: it may be large.
    """
    if collective.rank == 0:
        _put_back(folder)
    for name in reversed(tell(collective, [path.name for path in _all(folder)])[0]):
        path = folder / name
        found, said = _verified(path, collective, alive)
        damage = [error for error in tell(collective, said) if error]
        if not damage and found:
            return Checkpoint(path, found) if found["fingerprint"] == fingerprint else None
        say(f"the checkpoint {path} is damaged ({damage[0]}); the one before it is used")
    return None


def any_in(folder: Path) -> bool:
    """Whether there is any checkpoint, of whatever training, whole or not."""
    return bool(_all(folder))


def best(
    folder: Path, fingerprint: str, collective: Collective, alive: Callable[[], None] = lambda: None
) -> Checkpoint | None:
    """The whole checkpoint of this training with the best score, the first of equals; None where none has one.

    ``alive`` : as of ``newest``.
    """
    scored = [(score, path.name) for path in _all(folder) if (score := _score(path)) is not None]
    name = tell(collective, max(scored, key=lambda pair: pair[0])[1] if scored else None)[0]
    if name is None:
        return None
    found, said = _verified(folder / name, collective, alive)
    whole = not any(tell(collective, said)) and found and found["fingerprint"] == fingerprint
    return Checkpoint(folder / name, found) if whole and found else None


def clear(folder: Path) -> None:
    """No checkpoint is left."""
    shutil.rmtree(folder, ignore_errors=True)


def _put(temporary: Path, final: Path) -> None:
    """In the place of a damaged one, or of the same place at the end of an epoch, whose removal takes its time."""
    replaced = final.with_name(f".{final.name}.old")
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():
        os.rename(final, replaced)
    try:
        os.rename(temporary, final)
    except OSError:
        _put_back(final.parent)
        raise
    _sync_folder(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _put_back(folder: Path) -> None:
    """What a save that ended between its two renames has taken away."""
    for replaced in folder.glob(".[0-9]*.old"):
        final = folder / replaced.name.removeprefix(".").removesuffix(".old")
        if final.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            os.rename(replaced, final)


def rows_of(file: str, state: Mapping[str, Any]) -> tuple[int, int]:
    """Which rows of its array a file of a checkpoint holds: from which on, and every how many-th; (0, 1) is all."""
    ranks = state["ranks"]
    shards = {_file_name(f"{name}/{rank}"): (rank, ranks) for name in state["sharded"] for rank in range(ranks)}
    return shards.get(file, (0, 1))


def checksum(path: Path, alive: Callable[[], None] = lambda: None) -> str:
    """Of a file, as the manifest has it; ``alive`` is called between blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            alive()
    return digest.hexdigest()


def _verified(path: Path, collective: Collective, alive: Callable[[], None]) -> tuple[dict[str, Any] | None, str]:
    """The manifest, and what is wrong with it or this rank's share of the files."""
    try:
        state = json.loads((path / MANIFEST).read_text())
        for name, noted in sorted(state["files"].items())[collective.rank :: collective.size]:
            if checksum(path / name, alive) != noted:
                return None, f"the checksum of {name} is not the one in its manifest"
        return state, ""
    except (OSError, ValueError, KeyError) as error:
        return None, str(error) or type(error).__name__


def _together(collective: Collective, folder: Path, act: Callable[[], Any]) -> list[Any]:
    """Every rank acts; all that they return, or the same error on all of them."""
    result, error = None, ""
    try:
        result = act()
    except OSError as failed:
        error = str(failed)
    every = tell(collective, [result, error])
    failures = [f"rank {rank}: {error}" for rank, (_, error) in enumerate(every) if error]
    if failures:
        raise RetryableError(
            f"A checkpoint could not be written in {folder} ({'; '.join(failures)}). Those before it are whole. Make "
            "room there, or lower two_tower.keep_checkpoints."
        )
    return [result for result, _ in every]


def _superfluous(paths: list[Path], keep: int) -> list[Path]:
    """All but the newest and the one of the best score, the first of equals."""
    known = [(score, path) for path in paths if (score := _score(path)) is not None]
    best = max(known, key=lambda pair: pair[0])[1] if known else None
    return [path for path in paths[:-keep] if path != best]


def _score(path: Path) -> float | None:
    try:
        score: float | None = json.loads((path / MANIFEST).read_text()).get("score")
    except (OSError, ValueError):
        return None
    return score


def _load(path: Path) -> np.ndarray:
    """Memory-mapped. One thread at a time: a header is Python, and CPython 3.11's parser is not safe (gh-106905)."""
    with _PARSING:
        array: np.ndarray = np.load(path, mmap_mode="r")
    return array


def _file_name(name: str) -> str:
    return name.replace("/", ".") + ".npy"


def _write(path: Path, part: Part) -> str:
    with open(path, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": part.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for block in part.blocks:
            file.write(np.ascontiguousarray(block, np.float32).data)
        file.flush()
        _sync(file.fileno())
    return checksum(path)


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir()) if folder.is_dir() else []


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
