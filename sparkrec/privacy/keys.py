"""The secret of pseudonyms: read from the environment or a file, made on first use, never written anywhere else.

One secret; 32 random bytes as 64 hex digits. It is no part of the settings, so it cannot be dumped with them, and its
``repr`` shows the key's id: eight hex digits of HMAC(secret, "key id"), which pseudonyms begin with.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sparkrec.errors import ConfigError
from sparkrec.lake.place import by_path

if TYPE_CHECKING:
    from sparkrec.config import Settings

_SHORTEST = 16


@dataclass(frozen=True)
class Key:
    """A secret and where it came from."""

    secret: bytes = field(repr=False)
    origin: str
    is_new: bool = False

    @property
    def id(self) -> str:
        return hmac.digest(self.secret, b"key id", "sha256").hex()[:8]

    def digest(self, purpose: str, text: str) -> str:
        """HMAC-SHA256 (RFC 2104) of "purpose NUL text", its first 128 bits in hex."""
        return hmac.digest(self.secret, f"{purpose}\0{text}".encode(), hashlib.sha256).hex()[:32]


def load(settings: Settings, create: bool) -> Key:
    """The lake's key; where there is none and ``create``, a new one in ``privacy.key_file``.

    Raises
    ------
    ConfigError
        There is none, others may read the file, or it does not hold a secret.
    """
    variable = settings.privacy.key_env
    if text := os.environ.get(variable):
        return Key(_secret(text, f"The environment variable {variable}"), f"the environment variable {variable}")
    path = place(settings)
    is_new = create and not path.exists()
    if is_new:
        _make(path, settings)
    try:
        text, mode = path.read_text(encoding="ascii", errors="replace"), path.stat().st_mode
    except OSError as error:
        raise ConfigError(
            f"The privacy key {path} cannot be read: {error.strerror}. Without the key that made them, pseudonyms "
            f"cannot be told from each other's. Put the file back, name it in privacy.key_file, or set {variable}."
        ) from None
    if mode & 0o077:
        raise ConfigError(
            f"The privacy key {path} can be read by others (mode {mode & 0o777:o}). Run chmod 600 {path}."
        )
    return Key(_secret(text, f"The privacy key {path}"), str(path), is_new)


def place(settings: Settings) -> Path:
    """The key's file: beside the lake, not in it, so that a copy of the lake does not carry it."""
    if settings.privacy.key_file:
        return Path(settings.privacy.key_file)
    folder, tables = settings.lake.folder, by_path(settings.lake.path)
    beside = Path(f"{tables if tables and folder.is_relative_to(tables) else folder}.key")
    within = Path(f"{folder}.key")  # where it was made before
    return within if within.exists() and not beside.exists() else beside


def _make(path: Path, settings: Settings) -> None:
    """A new secret, whole or not at all, and never over an old one."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # fails where somebody was faster; theirs is taken then
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(
            f"The privacy key {path} cannot be made: {error.strerror}. A mounted store, for instance, knows no links. "
            f"Set privacy.key_file to a file on a disk, or {settings.privacy.key_env} to a secret."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def _secret(text: str, where: str) -> bytes:
    if len(text.strip()) < _SHORTEST or len(text.split()) != 1:
        raise ConfigError(
            f"{where} must hold one secret of at least {_SHORTEST} characters and nothing else, for instance what "
            "'openssl rand -hex 32' prints."
        )
    return text.strip().encode()
