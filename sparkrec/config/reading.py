"""Configuration files and ``--set``: YAML, merged, with the environment's values in it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sparkrec.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML in which only true and false are truth values, and no key stands twice.

    ``on`` is a key of ``clean.rules``, and NO a country; of two values of a key YAML would drop one in silence.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        merging = "tag:yaml.org,2002:merge"  # what << brings in may be said anew
        keys = [key for key, _ in node.value if key.tag != merging]
        for before, key in enumerate(keys):
            if any(key.value == earlier.value for earlier in keys[:before]):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' stands there a second time", key.start_mark
                )
        return dict(super().construct_mapping(node, deep))


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:bool"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), "tTfF")


def read(path: Path) -> dict[str, Any]:
    """A file's keys and values.

    Raises
    ------
    ConfigError
        It is missing, or no YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"The configuration {path} cannot be read: {error.strerror}. "
            "Pass a file that exists, for instance --conf conf/demo.yaml."
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"The configuration {path} is not UTF-8: {error}. Save it as UTF-8.") from None
    try:
        content = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"The configuration {path} is not valid YAML: {_problem(error)}.") from None
    if not isinstance(content, dict):
        raise ConfigError(f"The configuration {path} must hold 'key: value' pairs, not {type(content).__name__}.")
    return content


def parse_override(text: str) -> dict[str, Any]:
    """``a.b=c`` as a file would have it.

    Raises
    ------
    ConfigError
        It has no ``=``, or the value is no YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r} is not of the form key=value, for instance --set two_tower.epochs=3.")
    try:
        parsed = yaml.load(value, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(
            f"--set {key.strip()}=…: the value is not valid YAML: {_problem(error)}. Quote it if it is text."
        ) from None
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return parsed


def _problem(error: Exception) -> str:
    """What is wrong, and where. Not the line itself: it may hold a secret."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return str(error)  # of a date that there is not: "month must be in 1..12"
    line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
    return f"{error.problem or error.context}{line}"


def merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both, key by key; where they differ, ``over``."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def expand(value: Any) -> Any:
    """``${NAME:-default}`` in any string, from the environment; a name without either is an error."""
    if isinstance(value, dict):
        return {key: expand(item) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item) for item in value]
    if not isinstance(value, str):
        return value
    return _filled(value, value)


def _filled(text: str, given: str) -> str:
    """The text with the environment's values in it, which are not read again. What is said shows ``given`` only."""
    parts, at = [], 0
    while (start := text.find("${", at)) >= 0:
        end = _closing(text, start + 2)
        if end is None:
            raise ConfigError(f"'{given}' opens ${{ and does not close it.")
        name, has_default, default = text[start + 2 : end].partition(":-")
        value = os.environ.get(name)
        if has_default:
            value = value or _filled(default, given)  # as in a shell, what is empty is not set
        elif value is None:
            raise ConfigError(f"The environment variable {name} is not set, and the configuration needs it: {given}")
        parts += [text[at:start], value]
        at = end + 1
    return "".join([*parts, text[at:]])


def _closing(text: str, start: int) -> int | None:
    """Where the brace is closed that was opened before ``start``; a default may hold others."""
    depth = 1
    for brace in re.finditer(r"\$\{|\}", text[start:]):
        depth += 1 if brace.group() == "${" else -1
        if not depth:
            return start + brace.start()
    return None
