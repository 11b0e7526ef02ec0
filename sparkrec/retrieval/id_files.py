"""Lists of ids that somebody else wrote: files or tables, read as text."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparkrec.clean import parsing
from sparkrec.errors import ConfigError, DataError

_FORMATS = {"csv": "csv", "tsv": "csv", "json": "json", "jsonl": "json", "parquet": "parquet"}


def read(
    spark: SparkSession,
    path: str,
    what: str,
    needed: Sequence[str],
    optional: Sequence[str] = (),
    sparse: Sequence[str] = (),
) -> DataFrame:
    """The named columns as strings, from CSV with a header, JSON lines, parquet or (any other ending) Delta.

    Blanks around a value are no part of it, as in silver, and a value of nothing else is none.

    ``what`` names it in messages. ``optional`` columns may be missing; ``sparse`` ones may lack a value, or be
    missing: then they are null.

    Raises
    ------
    ConfigError
        It cannot be read.
    DataError
        A column is missing, or a row has no value in it.
    """
    ending = path.rstrip("/").rsplit(".", 1)[-1].lower()
    reader = spark.read.option("header", True).option("sep", "\t" if ending == "tsv" else ",")
    try:
        frame = reader.format(_FORMATS.get(ending, "delta")).load(path)
    except AnalysisException as error:
        raise ConfigError(
            f"{what} cannot be read from {path}: {str(error).splitlines()[0]} Pass a CSV, JSON lines, parquet or Delta "
            "path that exists."
        ) from None
    if missing := [name for name in needed if name not in frame.columns]:
        raise DataError(f"{what} ({path}) has the columns {', '.join(frame.columns)}, and needs {', '.join(missing)}.")
    wanted = [name for name in (*needed, *optional) if name in frame.columns]
    lacking = [F.lit(None).cast("string").alias(name) for name in sparse if name not in frame.columns]
    wanted += [name for name in sparse if name in frame.columns]
    frame = frame.select(*[parsing.present(F.col(name).cast("string")).alias(name) for name in wanted], *lacking)
    for name in (name for name in wanted if name not in sparse):
        if bad := frame.where(F.col(name).isNull()).head():
            raise DataError(
                f"{what} ({path}) has a row without {name}: {', '.join(f'{k}={v}' for k, v in bad.asDict().items())}. "
                "Fill it in, or leave the row out."
            )
    return frame


def compared(rows: DataFrame, column: str, known: DataFrame) -> tuple[int, int]:
    """How many different values a column has, and how many of them ``known`` lacks, which holds each value once."""
    asked = rows.select(column).distinct()
    found = asked.join(known.select(column, F.lit(True).alias("_known")), column, "left")
    row = found.agg(F.count("*"), F.count_if(F.col("_known").isNull())).first()
    assert row is not None
    return int(row[0]), int(row[1])
