"""Where lists are served from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, field_validator

from sparkrec.config.base import Section
from sparkrec.config.secrets import without_login

SCHEMES = ("parquet", "jsonl", "redis", "rediss")


class Publish(Section):
    """`sparkrec publish`: docs/recommending.md."""

    to: str | None = Field(
        None, description="parquet:FOLDER, jsonl:FOLDER, redis://HOST:PORT/DB, or rediss://… for TLS"
    )
    table: Literal["recommendations", "similar_items"] = Field("recommendations", description="what is served")
    model: str | None = Field(None, description="whose lists; null: the last of recommend.models (similar.models)")
    min_share: float = Field(
        0.5, ge=0, description="gate: fewer lists than this share of the last publication's are not switched to"
    )
    older: bool = Field(
        False, description="whether lists of an earlier day than those that are served may be switched to: to take back"
    )
    max_churn: float | None = Field(
        None, ge=0, le=1, description="gate: a larger share of the lists that is new against what is served is not"
    )
    must_beat: str | None = Field(
        None, description="gate: nor are lists whose evaluate.primary is not above that of this model, in the same run"
    )
    prefix: str = Field("sparkrec", pattern=r"^[\w.-]+$", description="Redis: the keys begin with it")
    username: str | None = None
    password: SecretStr | None = None
    grace_seconds: int = Field(
        3600, ge=1, description="Redis: keys of other versions live on for so long after the switch, for who reads them"
    )
    keep: int = Field(2, ge=1, description="files: so many versions stay, the served one among them")
    item_map: str | None = Field(
        None, description="cross-domain: a file or table of item_id, to_item_id; items that are not in it are left out"
    )
    user_map: str | None = Field(
        None, description="cross-platform: a file or table of user_id, to_user_id; users not in it are left out"
    )

    @field_validator("to")
    @classmethod
    def _is_a_place(cls, to: str | None) -> str | None:
        scheme, colon, rest = (to or "parquet:x").partition(":")
        if not colon or not rest or scheme not in SCHEMES:
            raise ValueError(
                f"'{without_login(to or '')}' must begin with one of {', '.join(f'{x}:' for x in SCHEMES)}"
            )
        if scheme.startswith("redis") and "@" in rest:
            raise ValueError("the address must hold no login, which logs would show: see publish.username and password")
        return to
