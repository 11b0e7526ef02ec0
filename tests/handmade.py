"""Gold tables written by hand, for the tests of what comes after featurize."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.config import Settings
from sparkrec.lake import migrations
from sparkrec.pipeline import Run

Event = tuple[int, str, int]  # item index, event type, unix seconds


def settings(folder: Path, name: str = "test", **sections: Any) -> Settings:
    """Of a lake below ``folder``, without a log and without MLflow."""
    plain = {"lake": {"path": str(folder / "lake")}, "source": {"name": "simulator", "path": "logs"}}
    return Settings.model_validate({"name": name, "tracking": {"enabled": False}, **plain, **sections})


def write(run: Run, table: schemas.Table, *files: Iterable[Any], where: Mapping[str, str] | str | None = None) -> None:
    """``run.write`` of rows (mappings, or values in order), without Spark, in a hundredth of the time: a file of each.

    What a mapping lacks is null.
    """
    from pyspark.sql.pandas.types import to_arrow_schema

    schema, path = to_arrow_schema(table.struct()), run.lake.path(table)
    if not DeltaTable.is_deltatable(path):
        DeltaTable.create(
            path, schema, partition_by=list(table.partition_by), configuration=migrations.properties(table),
            raise_if_key_not_exists=False,
        )  # fmt: skip
    if isinstance(where, Mapping):
        where = " AND ".join(f"{column} = '{value}'" for column, value in where.items())
    for n, rows in enumerate(files):
        named = [row if isinstance(row, Mapping) else dict(zip(schema.names, row, strict=True)) for row in rows]
        assert all(row.keys() <= set(schema.names) for row in named), table.name
        part = pa.Table.from_pylist(named, schema)
        write_deltalake(path, part, mode="append" if n else "overwrite", predicate=None if n else where)
    run.outputs[table.name] = DeltaTable(path).version()


def vectors(run: Run, model: str, users: dict[int, list[float]], items: dict[int, list[float]]) -> None:
    """Vectors of a model by index; who is left out has none."""
    for table, index, identifier, letter, rows in (
        (schemas.VECTORS_USERS, c.USER_INDEX, c.USER_ID, "u", users),
        (schemas.VECTORS_ITEMS, c.ITEM_INDEX, c.ITEM_ID, "i", items),
    ):
        where = {c.RUN_ID: run.run_id, c.MODEL: model}
        found = [where | {index: n, identifier: f"{letter}{n}", c.VECTOR: v} for n, v in rows.items()]
        write(run, table, found, where=where)


def gold(
    run: Run,
    users: Sequence[Sequence[Event]],
    n_items: int,
    chunk: int = 1000,
    items: dict[int, dict[str, Any]] | None = None,
    holdout: Sequence[tuple[str, str]] = (),
    only: Sequence[schemas.Table] | None = None,
    held_out: int = 0,
    countries: Sequence[str | None] = (None,),
    profiles: dict[int, dict[str, Any]] | None = None,
) -> None:
    """The gold tables that later stages read (or ``only`` these); user n is called ``un`` and item n ``in``.

    ``items`` adds columns of gold.items by item index, ``profiles`` of gold.users by user index; ``holdout`` is pairs
    of user and item ids. The ``held_out`` newest events of each user are for validation. ``countries`` : of the users,
    in turn.
    """
    names = [f"i{n}" for n in range(n_items)]
    known = {f"u{n}": n for n, events in enumerate(users) if events}
    tables: dict[schemas.Table, list[dict[str, Any]]] = {
        schemas.VOCABULARY_USERS: [
            {c.USER_ID: f"u{n}", c.USER_INDEX: n, c.COUNT: len(e)}
            for n, e in enumerate(users)
        ],
        schemas.VOCABULARY_ITEMS: [
            {c.ITEM_ID: name, c.ITEM_INDEX: n, c.COUNT: 0}
            for n, name in enumerate(names)
        ],
        schemas.GOLD_ITEMS: [
            {c.ITEM_INDEX: n, c.ITEM_ID: name, c.NAME: f"Item {n}", c.FOR_SALE: True} | (items or {}).get(n, {})
            for n, name in enumerate(names)
        ],
        schemas.GOLD_USERS: [
            {c.USER_INDEX: n, c.USER_ID: f"u{n}", c.N_EVENTS: len(e), c.COUNTRY: countries[n % len(countries)]}
            | (profiles or {}).get(n, {})
            for n, e in enumerate(users)
        ],
        schemas.GOLD_SEQUENCES: [
            _sequence(n, number, part, held_out if not number else 0)
            for n, e in enumerate(users)
            for number, part in _cut(e, chunk)
        ],
        schemas.GOLD_HOLDOUT: [
            {
                c.USER_ID: user, c.ITEM_ID: item, c.USER_INDEX: known.get(user),
                c.ITEM_INDEX: names.index(item) if item in names else None,
                c.EVENT_TYPE: c.PURCHASE, c.FIRST_TYPE: c.PURCHASE,
            }
            for user, item in holdout
        ],
    }  # fmt: skip
    for table, rows in tables.items():
        if only is not None and table not in only:
            continue
        write(run, table, rows)


def silver(
    run: Run,
    users: Sequence[Sequence[Event]],
    country: Callable[[int, int], str | None] = lambda user, time: None,
    catalogue: Sequence[tuple[str, dt.datetime, Mapping[str, Any]]] = (),
) -> None:
    """The silver tables behind :func:`gold`; ``country`` of a user at a time, ``catalogue`` : item, from when on, what.

    What the catalogue does not say is for sale.
    """
    rows = [
        {
            c.EVENT_ID: f"e{n}-{line}", c.USER_ID: f"u{n}", c.ITEM_ID: f"i{item}", c.EVENT_TYPE: kind, c.LINE: line,
            c.EVENT_TIME: dt.datetime.fromtimestamp(time, dt.UTC), c.COUNTRY: country(n, time),
            c.EVENT_DATE: dt.datetime.fromtimestamp(time, dt.UTC).date(), c.COPIES: 1,
        }
        for n, events in enumerate(users)
        for line, (item, kind, time) in enumerate(events)
    ]  # fmt: skip
    write(run, schemas.SILVER_EVENTS, rows)
    write(run, schemas.SILVER_SUSPECTS, [])
    told = [{c.ITEM_ID: item, c.VALID_FROM: since, c.FOR_SALE: True, **what} for item, since, what in catalogue]
    write(run, schemas.SILVER_ITEMS, told)


def _cut(events: Sequence[Event], chunk: int) -> list[tuple[int, Sequence[Event]]]:
    """Chunks as gold.sequences numbers them: 0 is the newest."""
    ends = range(len(events), 0, -chunk)
    return [(number, events[max(0, end - chunk) : end]) for number, end in enumerate(ends)]


def _sequence(user: int, number: int, events: Sequence[Event], held_out: int) -> dict[str, Any]:
    return {
        c.USER_INDEX: user,
        c.CHUNK: number,
        c.LENGTH: len(events),
        c.ITEM_INDEX: [item for item, _, _ in events],
        c.EVENT_TYPE: [c.EVENT_TYPES.index(kind) for _, kind, _ in events],
        c.EVENT_TIME: [time for _, _, time in events],
        c.VALUE: [float("nan")] * len(events),
        c.VALIDATION: [n >= len(events) - held_out for n in range(len(events))],
    }
