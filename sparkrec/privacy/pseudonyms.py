"""Pseudonyms as a Spark column: HMAC-SHA256 with the lake's key, computed on the executors.

A function and not a Spark expression: an expression would hold the key as a literal, which plans, the UI and the event
log show. Equal values of a batch are hashed once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from sparkrec.privacy.keys import Key

if TYPE_CHECKING:
    from pyspark.sql import Column

#: What a pseudonym looks like: the key's id, and 128 bits. No separator of any file format is in it.
PATTERN = re.compile(r"p[0-9a-f]{8}_[0-9a-f]{32}")
#: What a pseudonym is made for; another purpose gives the same text another one.
ERASED = "erased"


def pseudonym(key: Key, purpose: str, text: str) -> str:
    """Of one text."""
    return f"p{key.id}_{key.digest(purpose, text)}"


def pseudonyms(key: Key, purpose: str) -> Callable[[Column], Column]:
    """Column of texts → column of their pseudonyms; null and blank stay as they are."""
    return _hashed("pseudonym", lambda text: pseudonym(key, purpose, text) if text else text)


def digests(key: Key, purpose: str) -> Callable[[Column], Column]:
    """Column of texts → column of :meth:`Key.digest`; null stays null."""
    return _hashed("keyed_digest", lambda text: key.digest(purpose, text))


def _hashed(name: str, of: Callable[[str], str]) -> Callable[[Column], Column]:
    from pyspark.sql.functions import arrow_udf

    def hashed(texts: pa.Array) -> pa.Array:
        distinct = texts.dictionary_encode()
        values = pa.array([None if x is None else of(x) for x in distinct.dictionary.to_pylist()], pa.string())
        return pc.take(values, distinct.indices)

    hashed.__name__ = name
    return arrow_udf(hashed, "string")  # type: ignore[call-overload]
