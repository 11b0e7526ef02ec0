"""Places of a lake: folders that Python reaches by path, and stores that it reaches by pyarrow's file systems."""

from __future__ import annotations

import os
import re
import uuid
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from sparkrec.errors import ConfigError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

#: Beside a training's checkpoints: which job trains, touched as long as it does.
CLAIM = "trained_by.json"
_MARK = ".lake"
_NO_TABLES = ("models", "reports", "mlruns", "mlflow.db")


def by_path(place: str) -> Path | None:
    """A place of a lake as an absolute path of this machine; None where it is a URI of another store."""
    path = re.sub("^file:(//)?(?=/)", "", place)
    return None if "://" in path else Path(path).absolute()


def for_python(place: str) -> str:
    """As clients of stores that are not Hadoop's call it."""
    return re.sub("^s3[an]://", "s3://", place)


def located(place: str) -> tuple[FileSystem, str]:
    """The file system of a path or URI, and the path in it; as Hadoop writes URIs, nothing in them is encoded.

    A store's client takes address and credentials from the environment (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, …,
    or ``HADOOP_HOME`` and ``CLASSPATH``), as others of its kind do, and is kept: to make one may ask the store.
    """
    from pyarrow.fs import LocalFileSystem

    if (path := by_path(place)) is not None:
        return LocalFileSystem(), str(path)
    scheme, _, rest = for_python(place).partition("://")
    authority, _, inner = rest.partition("/")
    system, root = _store(f"{scheme}://{authority}/")
    return system, f"{root.rstrip('/')}/{inner}"


@lru_cache
def _store(uri: str) -> tuple[FileSystem, str]:
    from pyarrow.fs import FileSystem

    return FileSystem.from_uri(uri)


def take_possession(folder: Path, lake: str) -> None:
    """Notes in a folder for what is no table (``lake.files``) whose it is: lakes that share one would mix their runs.

    Raises
    ------
    ConfigError
        It is another lake's, or models and reports of this one lie elsewhere.
    """
    beside = by_path(lake)
    own = str(beside or for_python(lake.rstrip("/")))
    left = [beside / name for name in _NO_TABLES if (beside / name).exists()] if beside and beside != folder else []
    if left:
        raise ConfigError(
            f"lake.files is {folder}, and {left[0]} still lies where such things are kept without it: erasures and "
            f"maintenance would not find it. Move it into {folder}, or take lake.files out."
        )
    mark = folder / _MARK
    if not mark.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{_MARK}.{uuid.uuid4().hex}"
        temporary.write_text(own + "\n", encoding="utf-8")
        os.replace(temporary, mark)  # whole, and also where a mounted store has no links
    if (found := mark.read_text(encoding="utf-8").strip()) != own:
        raise ConfigError(
            f"The folder {folder} (lake.files) is that of the lake {found}, and this one is {own}: their runs have the "
            f"same names. Give each lake a folder of its own, or correct {mark} if the lake has moved."
        )
