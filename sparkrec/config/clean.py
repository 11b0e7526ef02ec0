"""The settings of clean: limits, writings, rules, bots."""

from __future__ import annotations

import datetime as dt
from typing import Literal
from zoneinfo import available_timezones

from pydantic import Field, field_validator, model_validator

from sparkrec.config.base import Section

Severity = Literal["quarantine", "repair", "warn"]


class RuleSettings(Section):
    """One rule switched, tuned, or (with ``when``) added. What is left out stays as the rule was declared."""

    enabled: bool = True
    severity: Severity | None = Field(None, description="what happens to a row that breaks it")
    max_share: float | None = Field(None, ge=0, le=1, description="stop before writing above this share of rows")
    z: float | None = Field(None, gt=0, description="outliers: robust z-score beyond which a value is one")
    minutes: float | None = Field(None, gt=0, description="funnels: how long before is long before")
    share: float | None = Field(None, gt=0, le=1, description="funnels: share of the users that is looked at")
    on: Literal["events", "items"] | None = Field(None, description="an added rule: which rows it looks at")
    when: str | None = Field(None, description="an added rule: Spark SQL, true where a row breaks it")
    expects: str | None = Field(None, description="an added rule: what is right, for the reason")

    @model_validator(mode="after")
    def _added_rules_are_whole(self) -> RuleSettings:
        given = [name for name in ("on", "when", "expects") if getattr(self, name) is not None]
        if given and len(given) < 3:
            raise ValueError(f"an added rule needs on, when and expects, and only {', '.join(given)} is given")
        return self


class Signal(Section):
    """A sign of a bot: no sign at ``person``, a full sign at ``bot``, in proportion between; at most ``weight``."""

    person: float
    bot: float
    weight: float = Field(ge=0, lt=1)

    @model_validator(mode="after")
    def _has_a_slope(self) -> Signal:
        if self.person == self.bot:
            raise ValueError("person and bot must differ")
        return self


class Bots(Section):
    """Who is no person: docs/data_contract.md. Judged by user and day."""

    enabled: bool = True
    threshold: float = Field(0.8, gt=0, lt=1, description="flagged from this score on")
    min_events: int = Field(50, ge=2, description="days with fewer events are not judged")
    events_per_day: int = Field(2000, ge=1, description="more events than this on a day are enough by themselves")
    allow: tuple[str, ...] = Field((), description="user ids that are never flagged (testers, shop assistants)")
    rate: Signal = Signal(person=100, bot=300, weight=0.6)
    regularity: Signal = Signal(person=0.9, bot=0.4, weight=0.75)
    breadth: Signal = Signal(person=0.75, bot=0.95, weight=0.6)
    no_purchase: Signal = Signal(person=40, bot=100, weight=0.6)
    around_the_clock: Signal = Signal(person=12, bot=20, weight=0.9)


class Clean(Section):
    """The rules of silver: docs/data_contract.md. Times are UTC."""

    earliest: dt.date = Field(dt.date(1995, 1, 1), description="events before this day are impossible")
    latest: dt.date | None = Field(
        None, description="events after this day are impossible; default: the day on which the row was ingested"
    )
    max_price: float = Field(1e6, gt=0)
    max_value: float = Field(1e6, gt=0, description="largest quantity of one line")
    rating_scale: tuple[float, float] = Field((0.5, 5), description="fewest and most stars of a rating or review")
    unknown_items: Literal["keep", "quarantine"] = Field(
        "quarantine",
        description="events on items that the catalogue does not hold, where there is a catalogue",
    )
    near_duplicate_seconds: float = Field(
        0, ge=0, le=86400, description="same user, item and type within this many seconds is one event; 0: exact only"
    )
    session_gap_minutes: float | None = Field(
        30,
        gt=0,
        le=1440,
        description="events without a session of the shop's own: a session ends after so long a pause; null: none",
    )
    max_refused: float = Field(
        0.5, gt=0, le=1, description="stop before writing above this share of refused rows among the new ones"
    )
    full: bool = Field(False, description="compute silver anew from all of bronze, also where new files would do")
    time_zone: str = Field("UTC", description="of times without an offset: a name such as Europe/Amsterdam")
    decimal: Literal["auto", "comma"] = Field(
        "auto", description="auto: 1,5 and 1.234,50 are read, 1,234 is refused as ambiguous; comma: never a point"
    )
    currency: str | None = Field(None, description="all prices in this one, by the table currencies; null: as they are")
    currencies: dict[str, float] = Field(
        default_factory=dict, description="ISO 4217 code → how many units of clean.currency one unit is worth"
    )
    units: dict[str, float] = Field(
        {"pcs": 1, "pc": 1, "pieces": 1, "st": 1, "stk": 1, "x": 1, "pair": 2, "dozen": 12},
        description="unit in the text of a quantity → how many pieces it is",
    )
    rules: dict[str, RuleSettings] = Field(
        default_factory=dict, description="rule → what is different about it; docs/extending.md"
    )
    bots: Bots = Field(default_factory=Bots, description="who is no person; docs/data_contract.md")

    @field_validator("time_zone")
    @classmethod
    def _is_a_time_zone(cls, name: str) -> str:
        if name not in available_timezones():
            raise ValueError(f"'{name}' is no time zone of the IANA list; for instance Europe/Amsterdam")
        return name

    @model_validator(mode="after")
    def _currencies_have_a_target(self) -> Clean:
        if self.currencies and self.currency is None:
            raise ValueError("currencies is a table of rates to clean.currency, which is not set")
        if any(rate <= 0 for rate in self.currencies.values()):
            raise ValueError("currencies: a rate must be above 0")
        if any(factor <= 0 for factor in self.units.values()):
            raise ValueError("units: a factor must be above 0")
        return self
