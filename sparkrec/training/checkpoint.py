"""Checkpoints that are either whole or not there: temporary name, fsync, manifest last, rename.

Damaged is what reading proves to be: a file that is gone or has another checksum, a manifest that cannot be understood.
A file that could not be read for another reason (the store is away) proves nothing, and is worth a retry.

checkpoints/0000000420/weights.item_id.npy     an array that all ranks hold alike, by rank 0
                       weights.user_id.1.npy   rank 1's rows of a sharded one: 1, 1 + W, 1 + 2 W, …
                       manifest.json           checksums, number of ranks, place, fingerprint of settings and tables
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
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
        for old in _superfluous(_all(folder), final, keep):
            shutil.rmtree(old)

    failed = (
        f"A checkpoint could not be written in {folder}",
        "Those before it are whole. Make room there, if it is full, or lower two_tower.keep_checkpoints.",
    )
    try:
        _together(collective, begin if collective.rank == 0 else _nothing, *failed)
        written = _together(collective, write, *failed)
        _together(collective, end if collective.rank == 0 else _nothing, *failed)
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

    A damaged one is named through ``say``, and the one before it is looked at. Each file is read by one rank, which
    calls ``alive`` again and again: it may be large.

    Raises
    ------
    RetryableError
        A rank could not read what is there. Nothing was removed.
    """

    def names() -> list[str]:
        _put_back(folder)
        return [path.name for path in _all(folder)]

    for name in reversed(_by_first(collective, folder, names)):
        path = folder / name
        found, damage = _verified(path, collective, alive)
        if not damage:
            return Checkpoint(path, found) if found["fingerprint"] == fingerprint else None
        say(f"the checkpoint {path} is damaged: {damage}")
    return None


def any_in(folder: Path) -> bool:
    """Whether there is any checkpoint, of whatever training, whole or not."""
    return bool(_all(folder))


def best(
    folder: Path, fingerprint: str, collective: Collective, alive: Callable[[], None] = lambda: None
) -> Checkpoint | None:
    """The whole checkpoint of this training with the best score, the first of equals; None where none has one.

    ``alive``, errors : as of ``newest``.
    """

    def name_of_best() -> str | None:
        path = _best(_all(folder))
        return path.name if path else None

    name = _by_first(collective, folder, name_of_best)
    if name is None:
        return None
    found, damage = _verified(folder / name, collective, alive)
    return Checkpoint(folder / name, found) if not damage and found["fingerprint"] == fingerprint else None


def clear(folder: Path) -> None:
    """No checkpoint is left: all at once, because what is left of a few could be taken for this training's."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    shutil.rmtree(old, ignore_errors=True)


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


def _verified(path: Path, collective: Collective, alive: Callable[[], None]) -> tuple[dict[str, Any], str]:
    """The manifest, and what proves that the checkpoint is damaged: the first of it that any rank found, or nothing.

    Each rank reads its share of the files.
    """
    found: dict[str, Any] = {}

    def read() -> str:
        try:
            found.update(_manifest(path))
            if not found:
                return f"it has no {MANIFEST}"
            for name, noted in sorted(found["files"].items())[collective.rank :: collective.size]:
                with _naming(file := path / name):
                    if not file.is_file():
                        return f"{name} is gone"
                    if checksum(file, alive) != noted:
                        return f"the checksum of {name} is not the one in its manifest"
        except (ValueError, KeyError) as error:
            return f"its {MANIFEST} cannot be understood: {error}"
        return ""

    damage = _together(
        collective, read, f"The checkpoint {path} could not be read",
        "That does not prove it damaged, and it was left as it is. See that every rank can read it, and run the job "
        "again. If that does not help, remove it: the one before it is used.",
    )  # fmt: skip
    return found, next(filter(None, damage), "")


def _by_first(collective: Collective, folder: Path, act: Callable[[], Any]) -> Any:
    """What rank 0 finds in the folder, on all ranks."""
    failed, cure = f"The checkpoints in {folder} could not be read", "See to it, and run the job again."
    return _together(collective, act if collective.rank == 0 else _nothing, failed, cure)[0]


def _nothing() -> None:
    """What the other ranks do while one acts."""


def _together(collective: Collective, act: Callable[[], Any], failed: str, cure: str) -> list[Any]:
    """Every rank acts; all that they return, or the same RetryableError on all of them: ``failed``, why, ``cure``."""
    result, error = None, ""
    try:
        result = act()
    except OSError as reason:
        error = str(reason) or type(reason).__name__
    every = tell(collective, [result, error])
    failures = [f"rank {rank}: {error}" for rank, (_, error) in enumerate(every) if error]
    if failures:
        raise RetryableError(f"{failed} ({'; '.join(failures)}). {cure}")
    return [result for result, _ in every]


def _superfluous(paths: list[Path], written: Path, keep: int) -> list[Path]:
    """All but the newest ``keep`` up to the one just written, and the one of the best score among these.

    One with a higher number was found damaged, or the training would have gone on from it: it must not take the place
    of one that is whole.
    """
    own = [path for path in paths if path.name <= written.name]
    kept = {*own[-keep:], _best(own)}
    return [path for path in paths if path not in kept]


def _best(paths: list[Path]) -> Path | None:
    """The one with the best score, the first of equals; None where none has one."""
    scored = [(score, path) for path in paths if (score := _score(path)) is not None]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def _score(path: Path) -> float | None:
    """None where the manifest is damaged. One that could not be read is an OSError, or the best would be removed."""
    try:
        score: float | None = _manifest(path).get("score")
    except ValueError:
        return None
    return score


def _manifest(path: Path) -> dict[str, Any]:
    """Empty where there is none; a ValueError where it cannot be understood."""
    with _naming(file := path / MANIFEST):
        return dict(json.loads(file.read_text())) if file.is_file() else {}


@contextlib.contextmanager
def _naming(file: Path) -> Iterator[None]:
    """An error of the file system says of which file it is: that of a read does not by itself."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{file}: {error.strerror or error}") from error


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
    """Not by ``glob``: that takes a folder that may not be read for an empty one."""
    names = sorted(os.listdir(folder)) if folder.exists() else []
    return [folder / name for name in names if name[0].isdigit() and (folder / name).is_dir()]


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
