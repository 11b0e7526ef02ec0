"""Ids on a command line."""

from __future__ import annotations

import re
from pathlib import Path

from sparkrec.errors import ConfigError

_LIKE_A_FILE = re.compile(r"/|\\|\.(txt|csv|tsv|lst|list|ids|json|jsonl)$", re.IGNORECASE)


def ids(text: str, what: str, hint: str = "") -> tuple[str, ...]:
    """Distinct ids from a file, one a line, or from the text itself, separated by commas.

    Raises
    ------
    ConfigError
        There is none, the file cannot be read, or what looks like the name of a file is none.
    """
    file = _file(text)
    try:
        # As a spreadsheet saves it, a text begins with a mark of its encoding.
        parts = file.read_text(encoding="utf-8-sig").splitlines() if file else text.split(",")
    except OSError as error:
        raise ConfigError(f"The list of {what}s {text} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"The list of {what}s {text} is not UTF-8: {error.reason}. Save it as UTF-8.") from None
    if not file and len(parts) == 1 and _LIKE_A_FILE.search(text):
        raise ConfigError(
            f"There is no file {text}, in the folder {Path.cwd()} if it is a relative path. If it is the id of the one "
            f"{what} that is meant, write a comma after it."
        )
    found = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    if not found:
        raise ConfigError(
            f"No {what} is named in '{text}'. Pass ids separated by commas, or a file with an id on each line{hint}."
        )
    return found


def _file(text: str) -> Path | None:
    try:
        return Path(text) if Path(text).is_file() else None
    except OSError:  # a hundred ids are longer than a name of a file may be
        return None
