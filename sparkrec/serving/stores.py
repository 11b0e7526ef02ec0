"""Where lists go: files or Redis, behind one interface, with an atomic switch of version.

A version is written whole beside the one that is served, counted, and only then pointed at; so a reader sees the old
lists or the new ones, and a publication that dies changes nothing: the next one takes away what it left. There must be
one publisher at a time to one place.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparkrec.serving.resp import Address, Redis

#: Columns of what is stored: whose list it is, and its rows.
OWNER, ITEMS = "owner", "items"

_PIPELINE = 1000  # commands in one go
#: How the name of a version ends: :func:`sparkrec.serving.publication.publish`.
_VERSION = re.compile(r"-\d{8}T\d{6}$")
#: File systems that replace a file by a rename in one step.
_RENAMES_OVER = ("hdfs", "viewfs")


class Store(Protocol):
    """A place that serves lists."""

    def clear(self) -> int:
        """Removes what publications left that died before they were served; returns how many keys or versions."""

    def write(self, lists: DataFrame, version: str) -> int:
        """Stores a version beside the one that is served; returns how many lists arrived."""

    def switch(self, version: str) -> str | None:
        """From now on this version is served; returns the one before."""

    def retire(self, version: str) -> int:
        """Removes, now or soon, what is no longer needed beside ``version``; returns how many keys or versions."""


@dataclass(frozen=True)
class RedisStore:
    """``PREFIX:current`` names the version; ``PREFIX:VERSION:OWNER`` holds a list as JSON.

    A reader asks for ``PREFIX:current``, then for the key of its owner, and where there is none for that of ``*``.
    """

    address: Address
    prefix: str
    grace_seconds: int

    def clear(self) -> int:
        with Redis(self.address) as redis:
            current = redis.do("GET", f"{self.prefix}:current") or b""
        return self._end_others(current.decode(), "UNLINK")

    def write(self, lists: DataFrame, version: str) -> int:
        address, start = self.address, f"{self.prefix}:{version}:".encode()

        def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            with Redis(address) as redis:
                for batch in batches:
                    for first in range(0, batch.num_rows, _PIPELINE):
                        part = batch.slice(first, _PIPELINE)
                        keys, values = (part.column(i).cast(pa.binary()).to_pylist() for i in range(2))
                        redis.pipeline([(b"SET", start + k, v) for k, v in zip(keys, values, strict=True)])
                    yield pa.RecordBatch.from_arrays([pa.array([batch.num_rows], pa.int64())], ["n"])

        packed = lists.select(OWNER, F.to_json(ITEMS).alias(ITEMS))
        row = packed.mapInArrow(kernel, "n bigint").agg(F.sum("n")).first()
        assert row is not None
        return int(row[0] or 0)

    def switch(self, version: str) -> str | None:
        with Redis(self.address) as redis:
            before = redis.do("GETSET", f"{self.prefix}:current", version)
        return None if before is None else before.decode()

    def retire(self, version: str) -> int:
        return self._end_others(version, "EXPIRE", self.grace_seconds)

    def _end_others(self, version: str, command: str, *arguments: int) -> int:
        """The keys of all versions but one, now or soon; whose time is running already is left alone: else it would
        never end."""
        kept, number = f"{self.prefix}:{version}:".encode(), 0
        with Redis(self.address) as redis:
            for found in self._keys(redis, f"{self.prefix}:*:*"):
                other = [key for key in found if not key.startswith(kept)]
                ages = redis.pipeline([("TTL", key) for key in other])
                ended: list[tuple[str | bytes | int, ...]] = [
                    (command, key, *arguments) for key, left in zip(other, ages, strict=True) if left == -1
                ]
                number += sum(redis.pipeline(ended))
        return number

    def _keys(self, redis: Redis, pattern: str) -> Iterator[list[bytes]]:
        """Keys by the thousand; nobody holds them all."""
        cursor: Any = b"0"
        while True:
            cursor, found = redis.do("SCAN", cursor, "MATCH", pattern, "COUNT", _PIPELINE)
            if found:
                yield found
            if cursor == b"0":
                return


@dataclass(frozen=True)
class FileStore:
    """``FOLDER/VERSION/`` holds parquet or JSON lines; ``FOLDER/current.json`` names the version."""

    spark: SparkSession
    folder: str
    format: str
    keep: int

    def clear(self) -> int:
        served = self._current().get("version")
        return self.retire(str(served)) if served else 0

    def write(self, lists: DataFrame, version: str) -> int:
        path = f"{self.folder}/{version}"
        lists.write.mode("overwrite").format(self.format).save(path)
        return self.spark.read.schema(lists.schema).format(self.format).load(path).count()

    def switch(self, version: str) -> str | None:
        before = self._current()
        history = [version, *(x for x in before.get("history", []) if x != version)][: self.keep]
        self._point(json.dumps({"version": version, "history": history}).encode())
        found = before.get("version")
        return None if found is None else str(found)

    def retire(self, version: str) -> int:
        """Folders that are no version are somebody else's."""
        files, root = self._system("")
        kept = {*self._current().get("history", []), version}
        folders = [x.getPath() for x in files.listStatus(root) if x.isDirectory()]
        old = [path for path in folders if path.getName() not in kept and _VERSION.search(path.getName())]
        return sum(bool(files.delete(path, True)) for path in old)

    def _point(self, text: bytes) -> None:
        """Replaces the pointer in one step: by a rename over the old one, or where there is none by a put."""
        files, pointer = self._system("current.json")
        scheme = files.getUri().getScheme()
        if scheme == "file":  # where Hadoop would delete the old one first
            target = Path(files.makeQualified(pointer).toUri().getPath())
            target.with_name(f".{target.name}.crc").unlink(missing_ok=True)  # Hadoop's checksum of the old one
            new = target.with_name(f"{target.name}.new")
            with new.open("wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, target)
            return
        written = self._path("current.json.new") if scheme in _RENAMES_OVER else pointer
        stream = files.create(written, True)
        stream.write(bytearray(text))
        stream.close()
        if scheme not in _RENAMES_OVER:
            return
        jvm: Any = self.spark._jvm
        context = jvm.org.apache.hadoop.fs.FileContext.getFileContext(
            files.getUri(), self.spark.sparkContext._jsc.hadoopConfiguration()
        )
        rename = jvm.org.apache.hadoop.fs.Options.Rename
        options = self.spark.sparkContext._gateway.new_array(rename, 1)  # type: ignore[union-attr]
        options[0] = rename.OVERWRITE
        context.rename(written, pointer, options)

    def _current(self) -> dict[str, Any]:
        files, pointer = self._system("current.json")
        if not files.exists(pointer):
            return {}
        stream = files.open(pointer)
        try:
            text = self.spark._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8")  # type: ignore[union-attr]
        finally:
            stream.close()
        found: dict[str, Any] = json.loads(text)
        return found

    def _path(self, name: str) -> Any:
        return self.spark._jvm.org.apache.hadoop.fs.Path(f"{self.folder}/{name}")  # type: ignore[union-attr]

    def _system(self, name: str) -> tuple[Any, Any]:
        path = self._path(name)
        return path.getFileSystem(self.spark.sparkContext._jsc.hadoopConfiguration()), path
