"""``python -m sparkrec.docs``: the reference pages that the code itself defines, so that they cannot be wrong."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from sparkrec.config import Settings
from sparkrec.schemas import SCHEMA_VERSION, TABLES


def tables() -> str:
    """docs/tables.md: every table, key and column."""
    lines = [
        "# Tables",
        "",
        f"Schema version {SCHEMA_VERSION}. Made from `sparkrec/schemas` by `make docs`.",
        "Every table is a Delta table below `lake.path`, with the dot as a folder: `silver.events` lies in "
        "`silver/events`. Times are UTC. Class: what a column says of a person ([privacy.md](privacy.md)).",
    ]
    for table in TABLES:
        lines += ["", f"## {table.name}", "", table.doc, "", f"Key: {', '.join(f'`{k}`' for k in table.key)}."]
        if table.partition_by:
            lines[-1] += f" Partitioned by {', '.join(f'`{p}`' for p in table.partition_by)}."
        lines += ["", "| column | type | class | holds |", "|---|---|---|---|"]
        lines += [f"| `{x.name}` | {x.type} | {table.data_class(x)} | {x.doc} |" for x in table.columns]
    return "\n".join(lines) + "\n"


def configuration() -> str:
    """docs/configuration.md: every setting with its default."""
    lines = [
        "# Configuration",
        "",
        "Made from `sparkrec/config` by `make docs`. A YAML file holds any of these; `--conf` may be repeated, "
        "later files win; `--set section.key=value` wins over all. Unknown keys are errors. "
        "`${NAME}` and `${NAME:-default}` read the environment.",
    ]
    for name, field in Settings.model_fields.items():
        section = _section(field.annotation)
        if section is None:
            continue
        lines += ["", f"## {name}", ""]
        if section.__doc__ and section.__doc__ != BaseModel.__doc__:
            lines += [" ".join(section.__doc__.split()), ""]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        lines += _rows(section, name)
    return "\n".join(lines) + "\n"


def _rows(section: type[BaseModel], prefix: str, held: BaseModel | None = None) -> list[str]:
    """One row a setting; a section inside a section is written out, and so is a list of them (``[]``).

    ``held`` has the defaults where they are not the section's own.
    """
    lines = []
    for key, value in section.model_fields.items():
        inner, many = _section(value.annotation), _section(next(iter(typing.get_args(value.annotation)), None))
        default = _default(value) if held is None else _written(getattr(held, key))
        if inner:
            own = getattr(held, key, None) or value.get_default(call_default_factory=True)
            lines += _rows(inner, f"{prefix}.{key}", own if isinstance(own, BaseModel) else None)
            continue
        lines.append(f"| `{prefix}.{key}` | {_type(value.annotation)} | {default} | {value.description or ''} |")
        if many:
            lines += _rows(many, f"{prefix}.{key}[]")
    return lines


def _section(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        values = [str(value) for value in arguments]
        return "event type" if "purchase" in values else " \\| ".join(values)
    if origin in (typing.Union, types.UnionType):
        return " \\| ".join(_type(argument) for argument in arguments)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"{_type(arguments[0])} → {_type(arguments[1])}"
    if annotation is type(None):
        return "null"
    return "text" if annotation is str else getattr(annotation, "__name__", str(annotation))


def _default(field: Any) -> str:
    if field.default_factory is not None:
        return f"`{field.default_factory()}`"
    if field.default is PydanticUndefined:
        return "required"
    return _written(field.default)


def _written(value: Any) -> str:
    value = list(value) if isinstance(value, tuple) else value
    return "–" if value is None else f"`{value}`"


def main(folder: Path = Path("docs")) -> None:
    """Write the pages."""
    (folder / "tables.md").write_text(tables(), encoding="utf-8")
    (folder / "configuration.md").write_text(configuration(), encoding="utf-8")


if __name__ == "__main__":
    main()
