"""The sources by name: ``sources.of(run)``. A new one: a class, and ``register`` on it."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING

from pydantic import ValidationError

from sparkrec.config import Source as Settings
from sparkrec.errors import ConfigError
from sparkrec.ingest.sources.base import Files, Source

if TYPE_CHECKING:
    from sparkrec.pipeline import Run

__all__ = ["Files", "Source", "get", "known", "of", "register"]

_SOURCES: dict[str, type[Source]] = {}
# Each module registers what it defines; imported when a source is first asked for.
_MODULES = (
    "amazon", "generic", "movielens", "online_retail", "rees46", "retailrocket", "sequences", "simulator", "taobao",
)  # fmt: skip


def register(source: type[Source]) -> type[Source]:
    """Class decorator: makes a source known by its ``name``."""
    _SOURCES[source.name] = source
    return source


def known() -> list[str]:
    """Names of all sources."""
    for module in _MODULES:
        importlib.import_module(f"{__name__}.{module}")
    return sorted(_SOURCES)


def of(run: Run) -> Source:
    """The source of a job, before it lists or writes anything; raises as :func:`get`, for what Spark refuses too."""
    source = get(run.settings.source)
    source.check(run.spark)
    return source


def get(settings: Settings) -> Source:
    """The source that the configuration names, with its options, as far as they can be judged without Spark.

    ``source.name`` may also be ``package.module:Class`` for one that is not part of sparkrec.

    Raises
    ------
    ConfigError
        No source has that name, or an option is unknown or wrong.
    """
    cls = _own(settings.name) if ":" in settings.name else _registered(settings.name)
    try:
        return cls(cls.Options.model_validate(settings.options))
    except ValidationError as error:
        problems = [
            f"'source.options.{'.'.join(map(str, e['loc']))}': {e['msg']}" for e in error.errors(include_url=False)
        ]
        options = ", ".join(cls.Options.model_fields) or "none"
        raise ConfigError(
            f"The source '{settings.name}' does not take these options: {'; '.join(problems)}. Its options: {options}."
        ) from None


def _registered(name: str) -> type[Source]:
    names = known()
    if name not in _SOURCES:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise ConfigError(f"source.name '{name}' is not a known source.{hint} Known are {', '.join(names)}.")
    return _SOURCES[name]


def _own(name: str) -> type[Source]:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"source.name '{name}' cannot be imported: {error}. It must be package.module:Class, and the package must "
            "be installed where the driver runs."
        ) from None
    if not (isinstance(found, type) and issubclass(found, Source)):
        raise ConfigError(f"source.name '{name}' is not a subclass of sparkrec.ingest.sources.Source.")
    return found
