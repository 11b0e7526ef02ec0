"""A shop's own log: files whose columns are mapped in configuration.

    source:
      name: generic
      path: s3a://shop/logs
      options:
        events:
          files: "events/{date}/*.csv.gz"     # a glob below path; {date} is a day, YYYY-MM-DD
          format: csv                         # csv, json (a JSON object a line), parquet, delta (a table's folder)
          delimiter: ";"                      # csv only, as is names (the columns, where there is no header line)
          encoding: windows-1252              # csv and json; default: utf-8
          columns: {user_id: customer, item_id: sku, event_type: action, event_time: at}
          values: {event_type: {add_to_cart: cart, order: purchase}}   # texts that are called otherwise here
          constants: {currency: EUR}          # the same for every row, e.g. event_type: purchase
          time_format: iso                    # iso, seconds, milliseconds, or a Spark pattern such as dd/MM/yyyy HH:mm
        items:                                # the catalogue; may be left out
          files: "catalogue/*.csv"
          format: csv
          columns: {item_id: sku, name: title, category: path, price: price}
          attributes: [colour, material]      # columns that become catalogue attributes
        not_goods: "^(POST|GIFT)"             # regular expression of item ids that are never recommended

Left of each colon is a canonical column (docs/sources.md), right of it the log's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field as Setting
from pydantic import field_validator, model_validator

from sparkrec import columns as c
from sparkrec.config import Section
from sparkrec.errors import ConfigError
from sparkrec.ingest import canonical
from sparkrec.ingest.canonical import Field
from sparkrec.ingest.formats import Csv, Delta, Format, JsonLines, Parquet
from sparkrec.ingest.sources import register
from sparkrec.ingest.sources.base import Files, Source

if TYPE_CHECKING:
    from pyspark.sql import Column, SparkSession

_TIMES = (c.EVENT_TIME, c.VALID_FROM)
#: Forms of times that are no pattern.
_KNOWN_TIMES = ("iso", "seconds", "milliseconds")


class Mapped(Section):
    """One kind of file and how its columns are called."""

    files: str
    format: Literal["csv", "json", "parquet", "delta"]
    columns: dict[str, str]
    values: dict[str, dict[str, str]] = Setting(default_factory=dict)
    constants: dict[str, str] = Setting(default_factory=dict)
    time_format: str = "iso"
    attributes: tuple[str, ...] = ()
    delimiter: str = Setting(",", min_length=1)
    encoding: str = "utf-8"
    names: tuple[str, ...] = ()

    @field_validator("encoding")
    @classmethod
    def _is_one_of_lines(cls, encoding: str) -> str:
        try:
            line_break = "\n".encode(encoding)
        except LookupError:
            raise ValueError(
                f"'{encoding}' is no encoding; known are utf-8, windows-1252, iso-8859-1 and others"
            ) from None
        if line_break != b"\n":
            raise ValueError(
                f"'{encoding}' has line breaks of {len(line_break)} bytes, and files are read by lines: convert them"
            )
        return encoding

    def check_columns(self, known: tuple[str, ...], needed: tuple[str, ...]) -> None:
        """ValueError where a canonical column is unknown or missing."""
        usable = [name for name in known if name not in (*canonical.ORIGIN, c.ATTRIBUTES)]
        given = {*self.columns, *self.constants}
        if unknown := sorted((given | set(self.values)) - set(usable)):
            raise ValueError(f"unknown column {', '.join(unknown)}; known are {', '.join(usable)}")
        if double := sorted({name for name in self.attributes if self.attributes.count(name) > 1}):
            raise ValueError(f"attributes names {', '.join(double)} twice")
        if loose := sorted(set(self.values) - given):
            raise ValueError(f"values names {', '.join(loose)}, which neither columns nor constants map")
        if missing := [name for name in needed if name not in given]:
            raise ValueError(f"columns must map {', '.join(missing)}")

    def to_files(self) -> Files:
        needs = tuple(dict.fromkeys(self.columns.values()))
        ids = {name: self.columns[name] for name in (c.USER_ID, c.SESSION_ID, c.ORDER_ID) if name in self.columns}
        texts = tuple(self.columns[name] for name in (c.TEXT, c.QUERY) if name in self.columns)
        return Files(self.files, self._format(), self._to, needs=needs, ids=ids, texts=texts)

    def check(self, key: str, spark: SparkSession) -> None:
        """ConfigError where Spark reads no times by ``time_format``; ``key`` leads to these settings."""
        from pyspark.errors import PySparkException
        from pyspark.sql import functions as F

        jvm: Any = spark._jvm
        if not jvm.java.nio.charset.Charset.isSupported(self.encoding):
            raise ConfigError(
                f"'{key}.encoding' is '{self.encoding}', which Java, who reads the files, does not know by that name. "
                "Expected its name as the IANA has it: ISO-8859-1, windows-1252, UTF-8."
            )
        if self.time_format in _KNOWN_TIMES:
            return
        try:  # of constants, so that no task is started; Spark takes other patterns than Java, and only it knows which
            spark.range(1).select(self._time(F.lit(""))).collect()
        except PySparkException:
            raise ConfigError(
                f"'{key}.time_format' is '{self.time_format}', which Spark does not read times by. Expected iso, "
                "seconds, milliseconds, or a pattern such as dd/MM/yyyy HH:mm: y is the year, M the month, d the day, "
                "H, m and s the time, other letters stand in single quotes (Spark's page 'Datetime Patterns')."
            ) from None

    def _format(self) -> Format:
        csv = Csv(self.delimiter, self.names, self.encoding)
        return {"csv": csv, "json": JsonLines(self.encoding), "parquet": Parquet(), "delta": Delta()}[self.format]

    def _to(self, field: Field) -> Mapping[str, Column]:
        from pyspark.sql import functions as F

        columns = {name: F.lit(text) for name, text in self.constants.items()}
        columns |= {name: field(own) for name, own in self.columns.items()}
        for name, names in self.values.items():
            renamed = columns[name]
            for own, ours in names.items():
                renamed = F.when(columns[name] == own, F.lit(ours)).otherwise(renamed)
            columns[name] = renamed
        for name in _TIMES:
            if name in columns:
                columns[name] = self._time(columns[name])
        if self.attributes:
            pairs = [part for own in self.attributes for part in (F.lit(own), field(own))]
            columns[c.ATTRIBUTES] = F.map_filter(F.create_map(*pairs), lambda _, value: value.isNotNull())
        return columns

    def _time(self, text: Column) -> Column:
        if self.time_format == "iso":
            return text
        if self.time_format == "seconds":
            return canonical.time_from_seconds(text)
        if self.time_format == "milliseconds":
            return canonical.time_from_milliseconds(text)
        return canonical.time_from_pattern(text, self.time_format)


class GenericOptions(Section):
    """See the module."""

    events: Mapped
    items: Mapped | None = None
    not_goods: str | None = None

    @model_validator(mode="after")
    def _columns_are_known(self) -> GenericOptions:
        self.events.check_columns(canonical.EVENTS, (c.USER_ID, c.ITEM_ID, c.EVENT_TYPE, c.EVENT_TIME))
        if self.items is not None:
            self.items.check_columns(canonical.ITEMS, (c.ITEM_ID,))
        return self


@register
class Generic(Source):
    """See the module."""

    name = "generic"
    Options = GenericOptions

    def __init__(self, options: Section) -> None:
        super().__init__(options)
        assert isinstance(options, GenericOptions)
        self.not_goods = options.not_goods
        self.event_files = (options.events.to_files(),)
        self.item_files = (options.items.to_files(),) if options.items else ()

    def check(self, spark: SparkSession) -> None:
        from pyspark.errors import PySparkException

        options = self.options
        assert isinstance(options, GenericOptions)
        for name, mapped in (("events", options.events), ("items", options.items)):
            if mapped is not None:
                mapped.check(f"source.options.{name}", spark)
        jvm: Any = spark._jvm
        try:
            jvm.java.util.regex.Pattern.compile(options.not_goods or "")
        except PySparkException as error:
            raise ConfigError(
                f"'source.options.not_goods' is '{options.not_goods}', which is no regular expression of Java's: "
                f"{str(error).splitlines()[0]}. Expected one such as ^(POST|GIFT); a sign that stands for itself has a "
                "backslash before it."
            ) from None

    def is_goods(self, item_id: Column) -> Column:
        return super().is_goods(item_id) if self.not_goods is None else ~item_id.rlike(self.not_goods)
