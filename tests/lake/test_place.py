"""What is a folder of this machine, however it is spelt."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparkrec.lake.place import by_path

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("place", "path"),
    [
        ("/mnt/lake", "/mnt/lake"), ("file:///mnt/lake", "/mnt/lake"), ("file:/mnt/lake", "/mnt/lake"),
        ("lake/demo", Path.cwd() / "lake/demo"), ("/mnt/file:/x", "/mnt/file:/x"),
        ("s3a://shop/lake", None), ("hdfs://file:/x", None),
    ],
)  # fmt: skip
def test_a_folder_or_none(place, path):
    assert by_path(place) == (None if path is None else Path(path))
