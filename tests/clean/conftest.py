"""Canonical rows, as a source hands them to clean, from a few columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from sparkrec import columns as c
from sparkrec.clean.duplicates import EVENT_CONTENT

ORIGIN = (c.SOURCE_FILE, c.LINE, c.RAW, c.MALFORMED)
ITEM_COLUMNS = (
    c.ITEM_ID, c.VALID_FROM, c.NAME, c.BRAND, c.CATEGORY, c.PRICE, c.CURRENCY, c.STOCK, c.PROMOTION, c.TEXT, c.FOR_SALE,
)  # fmt: skip


@pytest.fixture(scope="session")
def canonical_events(spark: Any) -> Callable[..., Any]:
    """``canonical_events([{"user_id": "u", …}, …], item_id="a")``: the other columns null, one row a line."""

    def make(rows: Sequence[Mapping[str, Any]], **defaults: Any) -> Any:
        return spark.createDataFrame(_rows(rows, defaults, EVENT_CONTENT), _schema(EVENT_CONTENT))

    return make


@pytest.fixture(scope="session")
def canonical_items(spark: Any) -> Callable[..., Any]:
    def make(rows: Sequence[Mapping[str, Any]], **defaults: Any) -> Any:
        schema = f"{_schema(ITEM_COLUMNS)}, {c.ATTRIBUTES} map<string,string>"
        return spark.createDataFrame(_rows(rows, defaults, (*ITEM_COLUMNS, c.ATTRIBUTES)), schema)

    return make


def _rows(rows: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any], names: Sequence[str]) -> list[list[Any]]:
    made = []
    for number, row in enumerate(rows, 1):
        origin = {c.SOURCE_FILE: "log", c.LINE: number, c.RAW: f"raw {number}"}
        full = origin | dict(defaults) | dict(row)
        assert set(full) <= {*ORIGIN, *names}, f"no such column in {sorted(full)}"
        made.append([full.get(name) for name in (*ORIGIN, *names)])
    return made


def _schema(names: Sequence[str]) -> str:
    columns = [f"{name} {'bigint' if name == c.LINE else 'string'}" for name in (*ORIGIN, *names)]
    return ", ".join(columns)
