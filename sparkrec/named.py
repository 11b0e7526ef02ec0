"""Ids on a command line."""

from __future__ import annotations

from pathlib import Path

from sparkrec.errors import ConfigError


def ids(text: str, what: str, hint: str = "") -> tuple[str, ...]:
    """Distinct ids from a file, one a line, or from the text itself, separated by commas.

    Raises
    ------
    ConfigError
        There is none, or the file cannot be read.
    """
    path = Path(text)
    try:
        parts = path.read_text(encoding="utf-8").splitlines() if path.is_file() else text.split(",")
    except OSError as error:
        raise ConfigError(f"The list of {what}s {text} cannot be read: {error.strerror}.") from None
    found = tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
    if not found:
        raise ConfigError(
            f"No {what} is named in '{text}'. Pass ids separated by commas, or a file with an id on each line{hint}."
        )
    return found
