"""Checkpoints that are either whole or not there: temporary name, fsync, manifest last, rename.

checkpoints/0000000420/arrays.npz      every variable, optimiser state and average
                       manifest.json   checksum, place, fingerprint of settings and tables
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_ARRAYS, _MANIFEST = "arrays.npz", "manifest.json"


def save(folder: Path, number: int, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any], keep: int) -> Path:
    """Write checkpoint ``number``; then drop all but the newest ``keep``. ``state`` is what JSON can hold."""
    folder.mkdir(parents=True, exist_ok=True)
    final, temporary = folder / f"{number:010d}", folder / f".{number:010d}.tmp"
    for leftover in (temporary, final):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir()
    with open(temporary / _ARRAYS, "wb") as file:
        np.savez(file, **arrays)
        _sync(file.fileno())
    manifest = {"sha256": _checksum(temporary / _ARRAYS), "number": number, **state}
    with open(temporary / _MANIFEST, "w") as text:
        json.dump(manifest, text, indent=1)
        text.flush()
        _sync(text.fileno())
    os.rename(temporary, final)
    _sync_folder(folder)
    for old in _all(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def newest(
    folder: Path, fingerprint: str, say: Callable[[str], None]
) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Arrays and state of the newest whole checkpoint of this training; None where there is none.

    A damaged one is named through ``say``, and the one before it is used.
    """
    for path in reversed(_all(folder)):
        try:
            state = json.loads((path / _MANIFEST).read_text())
            if _checksum(path / _ARRAYS) != state["sha256"]:
                raise ValueError("its checksum is not the one in its manifest")
            if state["fingerprint"] != fingerprint:
                return None
            with np.load(path / _ARRAYS) as arrays:
                return dict(arrays), state
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            say(f"the checkpoint {path} is damaged ({error}); the one before it is used")
    return None


def clear(folder: Path) -> None:
    """No checkpoint is left."""
    shutil.rmtree(folder, ignore_errors=True)


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir()) if folder.is_dir() else []


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
