"""A model's folder is whole or not there: it is filled beside its place, and exchanged for an older one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any


def beside(folder: Path) -> Path:
    """Where the new folder is filled."""
    return folder.with_name(f".{folder.name}.tmp")


def begin(folder: Path) -> Path:
    """:func:`beside`, empty."""
    shutil.rmtree(beside(folder), ignore_errors=True)
    beside(folder).mkdir(parents=True)
    return beside(folder)


def exchange(folder: Path) -> None:
    """Puts what was filled :func:`beside` in its place."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(beside(folder), folder)
    shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """Takes the place of an older file once it is on the disk: a crash could leave a name without what it names."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "w") as file:
        file.write(json.dumps(value, indent=indent))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
