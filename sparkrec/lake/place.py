"""Whether a lake is a folder that Python reaches by path, or a store that only Spark does."""

from __future__ import annotations

import re
from pathlib import Path


def by_path(place: str) -> Path | None:
    """A place of a lake as an absolute path of this machine; None where it is a URI of another store."""
    path = re.sub("^file:(//)?(?=/)", "", place)
    return None if "://" in path else Path(path).absolute()
