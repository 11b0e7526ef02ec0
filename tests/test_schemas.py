"""Which columns name persons, or say something of them."""

from __future__ import annotations

import pytest

from sparkrec import columns as c
from sparkrec import schemas
from sparkrec.schemas import Column, Table

pytestmark = pytest.mark.unit


def classes(table: Table) -> dict[str, str]:
    return {column.name: table.data_class(column) for column in table.columns}


def test_known_columns_have_the_class_that_a_person_would_give_them() -> None:
    events = classes(schemas.SILVER_EVENTS)
    wanted = {
        c.USER_ID: "identifier", c.SESSION_ID: "identifier", c.ORDER_ID: "identifier", c.TEXT: "personal",
        c.QUERY: "personal", c.ITEM_ID: "personal", c.PRICE: "personal", c.COUNTRY: "personal", c.EVENT_ID: "public",
    }  # fmt: skip
    assert {name: events[name] for name in wanted} == wanted
    assert classes(schemas.BRONZE_EVENTS)[c.RAW] == classes(schemas.QUARANTINE)[c.RAW] == "personal"
    assert classes(schemas.AUDIT)[c.ACTOR] == "personal"
    for table in (schemas.SILVER_ITEMS, schemas.BRONZE_ITEMS, schemas.GOLD_ITEMS, schemas.METRICS, schemas.RUNS):
        assert set(classes(table).values()) == {"public"}, table.name


def test_a_new_column_of_persons_is_personal_until_somebody_says_otherwise() -> None:
    new = Table("new", (), "", (Column(c.USER_ID, "string", ""), Column("shoe_size", "int", "")))
    assert classes(new) == {c.USER_ID: "identifier", "shoe_size": "personal"}
    assert classes(Table("new", (), "", (Column("shoe_size", "int", ""),))) == {"shoe_size": "public"}
    said = Table("new", (), "", (Column(c.USER_ID, "string", ""), Column("x", "int", "", "public")))
    assert classes(said)["x"] == "public"
