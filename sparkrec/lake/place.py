"""Places of a lake: folders that Python reaches by path, and stores that it reaches by pyarrow's file systems."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


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
