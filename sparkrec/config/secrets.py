"""What is not shown: values of settings whose names say that they are secret, and logins in addresses."""

from __future__ import annotations

import re
from typing import Any

MASK = "**********"  # as pydantic has it
_SECRET = re.compile(
    r"secret|password|passwd|passphrase|token|credential|(access|account|private|api).?key|jaas|(?<![a-z])sas(?![a-z])",
    re.IGNORECASE,
)
_LOGIN = re.compile(r"://[^/\s]*@")


def is_secret(name: str) -> bool:
    """Whether a setting of this name holds one, where nobody says so but the name."""
    return _SECRET.search(name) is not None


def masked(value: Any, name: str = "") -> Any:
    """The value of the setting ``name``; of a mapping or a list, with what is secret in it masked."""
    if isinstance(value, dict):
        return {key: masked(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [masked(item, name) for item in value]
    return MASK if value is not None and is_secret(name) else value


def without_login(text: str) -> str:
    """The text, the user and the password in each of its addresses masked."""
    return _LOGIN.sub(f"://{MASK}@", text)
