"""Where a lake lies."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from sparkrec.config.base import Section
from sparkrec.lake.place import by_path


class Lake(Section):
    """Where tables lie, and what is no table: docs/clusters.md."""

    path: str = Field("lake", min_length=1, validate_default=True, description="root folder or URI of the Delta tables")
    files: str | None = Field(
        None,
        min_length=1,
        description="folder that every machine reaches under this path, for what is no table: models and their "
        "checkpoints, reports, MLflow's store; null: lake.path, which must then be such a folder",
    )

    @field_validator("path", "files")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        # Delta reads a relative path as a table's name, and executors have other working folders.
        return path if path is None or "://" in path else str(Path(path).absolute())

    @model_validator(mode="after")
    def _has_a_folder(self) -> Lake:
        if by_path(self.files or self.path) is None:
            what = "lake.files" if self.files else "lake.path"
            raise ValueError(
                f"{what} is {self.files or self.path}. Tables may lie in such a store, but models, checkpoints and "
                "reports are reached by path: set lake.files to a folder that every machine mounts and no other lake "
                "uses, for instance /mnt/sparkrec/shop"
            )
        return self

    @property
    def folder(self) -> Path:
        """Where what is no table lies."""
        folder = by_path(self.files or self.path)
        assert folder is not None  # as was checked
        return folder

    @property
    def roots(self) -> tuple[str, ...]:
        """Below which everything lies that is kept, each file once."""
        tables, folder = by_path(self.path), self.folder
        if tables is None or not (tables.is_relative_to(folder) or folder.is_relative_to(tables)):
            return self.path, str(folder)
        return (str(folder),) if tables.is_relative_to(folder) else (self.path,)
