"""Settings of pseudonyms, scrubbing and maintenance."""

from __future__ import annotations

from pydantic import Field

from sparkrec.config.base import Section


class Privacy(Section):
    """What is done to persons' data before it is written. The key itself is no setting: docs/privacy.md."""

    pseudonymize: bool = Field(
        False, description="user, session and order ids become keyed hashes at ingest; fields nobody reads are dropped"
    )
    scrub: bool = Field(False, description="e-mail addresses, phone and card numbers in free text are taken out")
    key_file: str | None = Field(
        None,
        description="file of the key; default: the name of the lake's folder with .key behind it, made on first use",
    )
    key_env: str = Field(
        "SPARKREC_PRIVACY_KEY", description="environment variable that holds the key instead, where it is set"
    )


class Maintenance(Section):
    """Compaction and removal of old files by `sparkrec maintain`."""

    retention_hours: float = Field(168, ge=0, description="files that no version of so many hours needs are removed")
    log_retention_days: int = Field(30, ge=1, description="commits that are older leave the tables' logs")
    keep_runs: int = Field(3, ge=0, description="what the newest runs read stays readable, however old it is")
    drop_runs_after_days: float | None = Field(
        None,
        gt=0,
        description="lists, vectors, models and reports of runs that ended longer ago are removed, but for the newest "
        "keep_runs; null: never",
    )
    file_mb: int = Field(128, ge=1, description="compaction makes files of about this size")
    min_small_files: int = Field(4, ge=2, description="a partition with fewer small files is left as it is")
