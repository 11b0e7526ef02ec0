"""What is a folder of this machine, however it is spelt."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparkrec.errors import ConfigError
from sparkrec.lake.place import by_path, take_possession

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


def test_a_folder_belongs_to_one_lake(tmp_path):
    files, lake = tmp_path / "files", tmp_path / "lake"
    for same in (str(lake), f"file://{lake}", str(lake)):
        take_possession(files, same)
    assert [path.name for path in files.iterdir()] == [".lake"]
    with pytest.raises(
        ConfigError, match=rf"{files} \(lake\.files\) is that of the lake {lake}, and this one is s3://b/l"
    ):
        take_possession(files, "s3a://b/l/")
    take_possession(tmp_path / "other", "s3a://b/l/")
    take_possession(tmp_path / "other", "s3://b/l")


def test_what_is_left_below_the_lake_must_be_moved_first(tmp_path):
    (tmp_path / "lake" / "models").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"lake/models still lies .* Move it into"):
        take_possession(tmp_path / "files", str(tmp_path / "lake"))
    take_possession(tmp_path / "lake", str(tmp_path / "lake"))  # the same folder: nothing is elsewhere
    take_possession(tmp_path / "files", "s3a://b/l")
