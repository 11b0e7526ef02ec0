from pathlib import Path
from typing import Any

import pytest

from sparkrec import config
from sparkrec.config import Section
from sparkrec.config import Source as Settings
from sparkrec.errors import ConfigError
from sparkrec.ingest import sources
from sparkrec.ingest.sources.retailrocket import paths

pytestmark = pytest.mark.unit

EVENTS = {"files": "*", "format": "csv",
          "columns": {"user_id": "u", "item_id": "i", "event_type": "e", "event_time": "t"}}  # fmt: skip


def get(name: str, **options: Any) -> sources.Source:
    return sources.get(Settings(name=name, path="logs", options=options))


def test_all_public_formats_are_known() -> None:
    assert sources.known() == [
        "amazon_reviews", "generic", "movielens_100k", "movielens_1m", "online_retail", "rees46", "retailrocket",
        "sequences", "simulator", "taobao_user_behavior",
    ]  # fmt: skip


OVERLAYS = {"cluster", "cluster_gpu", "private", "ranker", "serve"}
CONFIGURATIONS = [p for p in sorted(Path(__file__).parents[2].glob("conf/*.yaml")) if p.stem not in OVERLAYS]


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_each_configuration_names_a_source_and_its_options(path: Path) -> None:
    settings = config.load([path])
    source = sources.get(settings.source)
    assert source.event_files
    assert settings.lake.path.endswith(f"lake/{settings.name}"), "no two share a lake"
    assert settings.name == path.stem


def test_unknown_names_and_options_are_named() -> None:
    with pytest.raises(ConfigError, match=r"'online_retial'.*Did you mean 'online_retail'"):
        get("online_retial")
    with pytest.raises(ConfigError, match=r"source\.options\.colour.*Its options: files, format, attributes"):
        get("sequences", colour="red")
    with pytest.raises(ConfigError, match=r"source\.options\.dirt\.late"):
        get("simulator", dirt={"late": 2})


def test_generic_checks_the_mapping_before_anything_is_read() -> None:
    with pytest.raises(ConfigError, match=r"unknown column colour; known are user_id, item_id"):
        get("generic", events=EVENTS | {"columns": {**EVENTS["columns"], "colour": "c"}})
    with pytest.raises(ConfigError, match=r"columns must map event_time"):
        get(
            "generic",
            events=EVENTS | {"columns": {"user_id": "u", "item_id": "i"}, "constants": {"event_type": "view"}},
        )
    with pytest.raises(ConfigError, match=r"'utf-16' has line breaks of 4 bytes"):
        get("generic", events=EVENTS | {"encoding": "utf-16"})
    with pytest.raises(ConfigError, match=r"'windoze' is no encoding"):
        get("generic", events=EVENTS | {"encoding": "windoze"})
    get("generic", events=EVENTS | {"encoding": "windows-1252"})
    with pytest.raises(ConfigError, match=r"unknown column valid_from"):
        get("generic", events=EVENTS | {"constants": {"valid_from": "now"}})


class MyShop(sources.Source):
    name = "my_shop"
    Options = Section


def test_a_source_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(get(f"{__name__}:MyShop"), MyShop)
    with pytest.raises(ConfigError, match="cannot be imported"):
        get("no_such_package:Shop")
    with pytest.raises(ConfigError, match="not a subclass"):
        get("pathlib:Path")
    monkeypatch.setattr(sources, "_SOURCES", dict(sources._SOURCES))
    sources.register(MyShop)
    assert isinstance(get("my_shop"), MyShop)


def test_category_paths() -> None:
    assert paths({"3": "2", "2": "1", "1": None, "9": "8"}) == {"3": "1 > 2 > 3", "2": "1 > 2", "1": "1", "9": "8 > 9"}
    assert paths({"a": "b", "b": "a"}) == {"a": "b > a", "b": "a > b"}
