"""GroupLens MovieLens 100k and 1M.

``movielens_100k``: ``u.data`` (user, item, rating, unix seconds; tab), ``u.item`` (``|``, ISO-8859-1: id, title,
release date, video date, URL, 19 genre flags in the order of ``u.genre``). ``u.user`` is not read: its ZIP codes say
nothing of a country.

``movielens_1m``: ``movies.dat`` and ``ratings.dat`` (``user::item::rating::unix seconds``) as GroupLens publishes them,
or, with ``ratings: ordered``, ``ordered_ratings.csv`` (user_id, item_id, rating, seq_pos): the ratings in each user's
time order, without times, so that the time is ``canonical.EPOCH`` + seq_pos seconds. ``ratings: sequences`` reads
``sasrec_sequences.txt`` (``user item`` in time order, ids of its own, no ratings and so no catalogue): see
:mod:`sparkrec.ingest.sources.sequences`.

A rating is a ``rating`` event, its stars the value. The catalogue has the attributes ``genres`` (several by ``|``) and
``year``; the category is the first genre.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from sparkrec import columns as c
from sparkrec.config import Section
from sparkrec.ingest.canonical import Field, time_from_position, time_from_seconds
from sparkrec.ingest.formats import Csv
from sparkrec.ingest.sources import register
from sparkrec.ingest.sources.base import Files, Source
from sparkrec.ingest.sources.sequences import in_time_order, pairs

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_RATING = ("user", "item", "rating", "time")
_ITEM = ("id", "title", "released", "video_released", "url")
_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


def _rating(user: Column, item: Column, rating: Column, time: Column) -> Mapping[str, Column]:
    from pyspark.sql import functions as F

    return {
        c.USER_ID: user,
        c.ITEM_ID: item,
        c.EVENT_TYPE: F.lit(c.RATING),
        c.VALUE: rating,
        c.EVENT_TIME: time,
    }


def _ratings(field: Field) -> Mapping[str, Column]:
    return _rating(field("user"), field("item"), field("rating"), time_from_seconds(field("time")))


def _ordered_ratings(field: Field) -> Mapping[str, Column]:
    return _rating(field("user_id"), field("item_id"), field("rating"), time_from_position(field("seq_pos")))


def _movie(item: Column, title: Column, genres: Column) -> Mapping[str, Column]:
    """``genres``: array of text."""
    from pyspark.sql import functions as F

    year = F.nullif(F.regexp_extract(title, r"\((\d{4})\)\s*$", 1), F.lit(""))
    known = F.map_filter(
        F.create_map(
            F.lit("genres"), F.nullif(F.array_join(genres, "|"), F.lit("")),
            F.lit("year"), year,
        ),
        lambda _, value: value.isNotNull(),
    )  # fmt: skip
    return {c.ITEM_ID: item, c.NAME: title, c.CATEGORY: F.get(genres, F.lit(0)), c.ATTRIBUTES: known}


def _movies_100k(field: Field) -> Mapping[str, Column]:
    from pyspark.sql import functions as F

    flags = [F.when(field(genre) == "1", F.lit(genre)) for genre in _GENRES]
    return _movie(field("id"), field("title"), F.array_compact(F.array(*flags)))


def _movies_1m(field: Field) -> Mapping[str, Column]:
    from pyspark.sql import functions as F

    return _movie(field("id"), field("title"), F.split(field("genres"), r"\|"))


@register
class MovieLens100k(Source):
    """See the module."""

    name = "movielens_100k"
    event_files = (Files("u.data", Csv("\t", _RATING, quote=""), _ratings, ids={c.USER_ID: "user"}),)
    item_files = (Files("u.item", Csv("|", (*_ITEM, *_GENRES), encoding="ISO-8859-1", quote=""), _movies_100k),)


class MovieLens1mOptions(Section):
    """``ratings``: which of the three forms of the ratings is read."""

    ratings: Literal["published", "ordered", "sequences"] = "published"


_FORMS = {
    "published": Files("ratings.dat", Csv("::", _RATING, quote=""), _ratings, ids={c.USER_ID: "user"}),
    "ordered": Files(
        "ordered_ratings.csv", Csv(), _ordered_ratings,
        needs=("user_id", "item_id", "rating", "seq_pos"), ids={c.USER_ID: "user_id"},
    ),
    "sequences": pairs("sasrec_sequences.txt"),
}  # fmt: skip


@register
class MovieLens1m(Source):
    """See the module."""

    name = "movielens_1m"
    Options = MovieLens1mOptions

    def __init__(self, options: Section) -> None:
        super().__init__(options)
        assert isinstance(options, MovieLens1mOptions)
        self._in_order_only = options.ratings == "sequences"
        self.row_by_row = not self._in_order_only
        self.has_times = options.ratings == "published"
        self.event_files = (_FORMS[options.ratings],)
        movies = Files("movies.dat", Csv("::", ("id", "title", "genres"), "ISO-8859-1", quote=""), _movies_1m)
        self.item_files = () if self._in_order_only else (movies,)

    def events(self, bronze: DataFrame) -> DataFrame:
        events = super().events(bronze)
        return in_time_order(events) if self._in_order_only else events
