"""The secret: made once, for its owner only, never shown."""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sparkrec.errors import ConfigError
from sparkrec.privacy import keys, pseudonyms

pytestmark = pytest.mark.unit
SECRET = "0123456789abcdef0123456789abcdef"


def test_made_once_for_the_owner_only(make_settings: Callable[..., Any], tmp_path: Path) -> None:
    settings = make_settings()
    with pytest.raises(ConfigError, match=r"lake\.key cannot be read"):
        keys.load(settings, create=False)
    with ThreadPoolExecutor(8) as pool:
        made = {key.secret for key in pool.map(lambda _: keys.load(settings, create=True), range(16))}
    assert len(made) == 1
    assert len(bytes.fromhex(made.pop().decode())) == 32
    path = tmp_path / "lake.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["lake.key"], "no temporary file is left"
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=r"can be read by others .* chmod 600"):
        keys.load(settings, create=False)


def test_environment_wins_and_the_secret_is_in_no_dump(make_settings: Callable[..., Any], monkeypatch: Any) -> None:
    settings = make_settings(privacy={"pseudonymize": True, "key_env": "MY_KEY"})
    monkeypatch.setenv("MY_KEY", SECRET)
    key = keys.load(settings, create=True)
    assert key.secret == SECRET.encode()
    assert not keys.place(settings).exists()
    assert SECRET not in repr(key) + str(settings.dump()) + repr(settings) + settings.hash()


@pytest.mark.parametrize("text", ["short", "two words of a secret", "\n"])
def test_what_is_no_secret_is_refused(make_settings: Callable[..., Any], monkeypatch: Any, text: str) -> None:
    monkeypatch.setenv("SPARKREC_PRIVACY_KEY", text)
    with pytest.raises(ConfigError, match=r"SPARKREC_PRIVACY_KEY must hold one secret"):
        keys.load(make_settings(), create=True)


def test_the_default_place_is_beside_the_folder(make_settings: Callable[..., Any]) -> None:
    lakes = {"path": "/mnt/lake/"}, {"path": "file:///mnt/lake"}, {"path": "s3a://shop/lake", "files": "/mnt/lake"}
    assert [str(keys.place(make_settings(lake=lake))) for lake in lakes] == ["/mnt/lake.key"] * 3


def test_a_folder_in_the_lake_does_not_hold_the_key(make_settings: Callable[..., Any]) -> None:
    assert str(keys.place(make_settings(lake={"path": "/x/lake", "files": "/x/lake/files"}))) == "/x/lake.key"
    assert str(keys.place(make_settings(lake={"path": "/x/files/lake", "files": "/x/files"}))) == "/x/files.key"


def test_where_no_key_can_be_made_another_place_is_named(make_settings: Callable[..., Any], monkeypatch: Any) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    settings = make_settings()
    with pytest.raises(ConfigError, match=r"cannot be made: .*Set privacy\.key_file"):
        keys.load(settings, create=True)
    assert not list(keys.place(settings).parent.glob("*.tmp"))


def test_pseudonym_is_pythons_hmac() -> None:
    key = keys.Key(SECRET.encode(), "here")
    expected = hmac.new(SECRET.encode(), b"user_id\0J\xc3\xbcrgen", hashlib.sha256).hexdigest()[:32]
    found = pseudonyms.pseudonym(key, "user_id", "Jürgen")
    assert found == f"p{key.id}_{expected}"
    assert pseudonyms.PATTERN.fullmatch(found)
    assert pseudonyms.pseudonym(key, "order_id", "Jürgen") != found, "an order and a user of one name are two"
    other = keys.Key(SECRET[::-1].encode(), "there")
    assert other.id != key.id
    assert other.digest("user_id", "x") != key.digest("user_id", "x")
