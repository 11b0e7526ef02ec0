"""Files as published benchmarks use them: who had which items, in which order, and nothing else.

Options: ``files`` (glob), ``format`` and ``attributes`` (an optional JSON file).

- ``adjacency``: a line ``user item item item …``, in time order (Beauty.txt), or in no order where the benchmark comes
  with a random split: then files named ``train*`` and ``test*`` are its two parts (movielens-1m-lcfn).
- ``pairs``: a line ``user item``, each user's lines in time order (sasrec_sequences.txt).
- ``attributes``: one JSON object, item → list of attribute ids (Beauty_item2attributes.json). They become the catalogue
  attribute ``attribute``, ids joined by ``|``. Items without attributes are not in that catalogue: set
  ``clean.unknown_items: keep``.

Every event is a ``view``. Its time is ``canonical.EPOCH`` + its position in the user's sequence in seconds; in a part
named ``test*``, 1,000,000 seconds more, so that the test lies after the training. Such times say nothing of who is a
bot: nobody is judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from sparkrec import columns as c
from sparkrec.config import Section
from sparkrec.ingest.canonical import Field, time_from_position
from sparkrec.ingest.formats import PAIRS_PER_LINE, Adjacency, Csv, JsonObject
from sparkrec.ingest.sources import register
from sparkrec.ingest.sources.base import Files, Source

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def pairs(pattern: str) -> Files:
    """Files of lines ``user item``; their events need :func:`in_time_order`."""
    return Files(pattern, Csv(" ", ("user", "item"), quote=""), _pairs, ids={c.USER_ID: "user"})


def in_time_order(events: DataFrame) -> DataFrame:
    """Gives each event the time of its position among its user's lines: ``EPOCH`` + 1, 2, … seconds."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    # Numbered within a user, so the work is spread over users.
    position = F.row_number().over(Window.partitionBy(c.USER_ID).orderBy(c.SOURCE_FILE, c.LINE))
    return events.withColumn(c.EVENT_TIME, time_from_position(position))


def _pairs(field: Field) -> Mapping[str, Column]:
    from pyspark.sql import functions as F

    return {c.USER_ID: field("user"), c.ITEM_ID: field("item"), c.EVENT_TYPE: F.lit(c.VIEW)}


def _adjacency(field: Field) -> Mapping[str, Column]:
    from pyspark.sql import functions as F

    file = F.substring_index(F.col(c.SOURCE_FILE), "/", -1)
    part = F.when(file.startswith(c.TEST), F.lit(c.TEST)).when(file.startswith(c.TRAIN), F.lit(c.TRAIN))
    position = field("position").cast("bigint") + F.when(part == c.TEST, F.lit(PAIRS_PER_LINE)).otherwise(F.lit(0))
    return {
        c.USER_ID: field("user"),
        c.ITEM_ID: field("item"),
        c.EVENT_TYPE: F.lit(c.VIEW),
        c.EVENT_TIME: time_from_position(position),
        c.SPLIT: part,
    }


def _attributes(field: Field) -> Mapping[str, Column]:
    from pyspark.sql import functions as F

    ids = F.array_join(F.from_json(field("value"), "array<string>"), "|")
    return {c.ITEM_ID: field("key"), c.ATTRIBUTES: F.create_map(F.lit("attribute"), ids)}


class SequencesOptions(Section):
    """See the module."""

    files: str = "*.txt"
    format: Literal["adjacency", "pairs"] = "adjacency"
    attributes: str | None = None


@register
class Sequences(Source):
    """See the module."""

    name = "sequences"
    Options = SequencesOptions
    has_times = False

    def __init__(self, options: Section) -> None:
        super().__init__(options)
        assert isinstance(options, SequencesOptions)
        self._are_pairs = options.format == "pairs"
        self.row_by_row = not self._are_pairs
        self.event_files = (
            pairs(options.files)
            if self._are_pairs
            else Files(options.files, Adjacency(), _adjacency, ids={c.USER_ID: "user"}),
        )  # fmt: skip
        self.item_files = (Files(options.attributes, JsonObject(), _attributes),) if options.attributes else ()

    def events(self, bronze: DataFrame) -> DataFrame:
        events = super().events(bronze)
        return in_time_order(events) if self._are_pairs else events
