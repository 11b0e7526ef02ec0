"""Settings, once: pydantic models loaded from ``conf/*.yaml``, later files and ``--set a.b=c`` on top.

Unknown keys are errors. ``Settings.hash()`` names a configuration in run records and run ids.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from sparkrec.config.base import EventType, Model, Section
from sparkrec.config.clean import Clean
from sparkrec.config.features import Features
from sparkrec.config.lake import Lake
from sparkrec.config.popularity import Popularity
from sparkrec.config.privacy import Maintenance, Privacy
from sparkrec.config.publish import Publish
from sparkrec.config.ranker import Ranker
from sparkrec.config.reading import expand, merge, parse_override, read
from sparkrec.config.recommend import Recommend
from sparkrec.config.secrets import masked, without_login
from sparkrec.config.similar import Similar
from sparkrec.config.tastes import Tastes
from sparkrec.config.two_tower import TwoTower
from sparkrec.errors import ConfigError


class Spark(Section):
    """Used where spark-submit has not already said otherwise."""

    master: str = Field("local[2]", description="ignored under spark-submit")
    driver_memory: str = Field("2g", description="spark-submit is told it by --driver-memory")
    shuffle_partitions: int = Field(4, ge=1)
    conf: dict[str, str] = Field(default_factory=dict, description="any other Spark setting")


class Source(Section):
    name: str = Field(description="a registered source: see docs/sources.md")
    path: str = Field(
        min_length=1, description="the folder (or URI) its files lie in; ${NAME:-default} reads the environment"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="the source's own options")


class Split(Section):
    """Which events are held out for the test, and which for validation. Time is the default and comes first."""

    kind: Literal["time", "leave_one_out", "given", "none"] = "time"
    test_days: float = Field(7, gt=0, description="time: the newest days are the test part")
    gap_days: float = Field(0, ge=0, description="time: days between train and test that nobody uses")
    validation_days: float = Field(7, ge=0, description="time: the newest training days are validation")
    validation_fraction: float = Field(
        0.1, ge=0, lt=1, description="given, none: this share of each user's training items is validation"
    )


class Als(Section):
    """Defaults chosen on validation of movielens-1m-lcfn: a strong baseline, not a straw man."""

    implicit: bool = Field(True, description="False: predict ratings (explicit feedback)")
    rank: int = Field(64, ge=1)
    iterations: int = Field(8, ge=1)
    alpha: float = Field(0.5, gt=0)
    regularization: float = Field(0.1, ge=0)
    weights: dict[EventType, float] = Field(
        {"view": 1.0, "click": 1.0, "cart": 3.0, "purchase": 5.0, "rating": 1.0, "review": 1.0},
        description="confidence of one event of this type",
    )
    checkpoint_interval: int = Field(5, ge=1)
    checkpoint_dir: str | None = Field(None, description="default: checkpoints/als below lake.path")
    blocks: int = Field(4, ge=1, description="of users and of items; another number gives another rounding")
    seed: int = 17


class Evaluate(Section):
    ks: tuple[int, ...] = Field((10, 20), description="list lengths")
    primary: str = Field("ndcg@20", description="the metric the report leads with")
    bootstrap: int = Field(1000, ge=0, description="resamples of the users, 100 or more; 0: nothing is tested")
    sample_users: int = Field(10, ge=0, description="users shown in the report with history and lists")
    tradeoff_users: int = Field(
        2000, ge=0, le=20_000, description="test users on whom the price of diversity is measured; 0: it is not"
    )
    newcomers: int = Field(
        2000,
        ge=0,
        le=20_000,
        description="test users on whom the lists of new users, and those of new items, are measured; 0: they are not",
    )
    seed: int = 7

    @field_validator("bootstrap")
    @classmethod
    def _ends_of_an_interval_are_seen(cls, bootstrap: int) -> int:
        if 0 < bootstrap < 100:
            raise ValueError(f"{bootstrap} resamples have no 2.5 % at either end: must be 0, or 100 and more")
        return bootstrap

    @model_validator(mode="after")
    def _primary_is_measured(self) -> Evaluate:
        metric, _, k = self.primary.partition("@")
        known = ("recall", "precision", "hit_rate", "ndcg", "map", "mrr")
        if metric not in known or not k.isdigit() or int(k) not in self.ks:
            raise ValueError(f"'{self.primary}' must be one of {', '.join(known)} @ one of ks={list(self.ks)}")
        return self


class Tracking(Section):
    enabled: bool = True
    uri: str | None = Field(None, description="MLflow server; default: sqlite and a folder beside models and reports")
    experiment: str | None = Field(None, description="default: the configuration's name")
    required: bool = Field(
        False, description="true: a stage fails where MLflow does; false: it says so and goes on, untracked"
    )
    username: str | None = None
    password: SecretStr | None = None
    token: SecretStr | None = None


class Settings(Section):
    """One run's whole configuration."""

    name: str = Field(pattern=r"^[\w.-]+$", description="in run ids, paths and MLflow")
    lake: Lake = Field(default_factory=Lake)
    spark: Spark = Field(default_factory=Spark)
    source: Source
    clean: Clean = Field(default_factory=Clean)
    split: Split = Field(default_factory=Split)
    features: Features = Field(default_factory=Features)
    popularity: Popularity = Field(default_factory=Popularity)
    tastes: Tastes = Field(default_factory=Tastes)
    als: Als = Field(default_factory=Als)
    two_tower: TwoTower = Field(default_factory=TwoTower)
    ranker: Ranker = Field(default_factory=Ranker)
    recommend: Recommend = Field(default_factory=Recommend)
    similar: Similar = Field(default_factory=Similar)
    publish: Publish = Field(default_factory=Publish)
    evaluate: Evaluate = Field(default_factory=Evaluate)
    tracking: Tracking = Field(default_factory=Tracking)
    privacy: Privacy = Field(default_factory=Privacy)
    maintenance: Maintenance = Field(default_factory=Maintenance)

    @model_validator(mode="after")
    def _lists_are_long_enough(self) -> Settings:
        if max(self.evaluate.ks, default=1) > self.recommend.k:
            raise ValueError(
                f"evaluate.ks asks for {max(self.evaluate.ks)} items but recommend.k writes {self.recommend.k}"
            )
        if "ranker" in self.recommend.models and self.ranker.per_source < self.recommend.k:
            raise ValueError(
                f"ranker.per_source ({self.ranker.per_source}) must be at least recommend.k ({self.recommend.k}): each "
                "source must be able to fill a list"
            )
        if "ranker" in self.recommend.models:
            self._the_ranker_has_its_sources()
        if self.similar.bought_together and not self.features.neighbors:
            raise ValueError(
                "similar.bought_together needs what was bought together, and features.neighbors is 0. Set "
                "features.neighbors, for instance to 20"
            )
        if "segment_popularity" in self.ranker.sources and "country" not in self.popularity.segments:
            raise ValueError("ranker.sources has segment_popularity: add country to popularity.segments")
        return self

    @model_validator(mode="after")
    def _what_was_seen_is_in_gold(self) -> Settings:
        gone = [name for name in self.recommend.exclude_seen if name not in self.features.event_types]
        if gone and "exclude_seen" in self.recommend.model_fields_set:  # the default names all there may be
            raise ValueError(
                f"recommend.exclude_seen has {', '.join(gone)}, and features.event_types has not, so that gold does "
                "not know what was met so. Add them there, or take them out here"
            )
        return self

    @model_validator(mode="after")
    def _the_trainer_finds_the_lake(self) -> Settings:
        # It reads Delta's log without Spark, by deltalake, which decodes what is called %20 to a blank.
        if self.uses("two_tower") and re.search("%[0-9A-Fa-f]{2}", self.lake.path):
            raise ValueError(
                f"lake.path is {self.lake.path}, and the two-tower trainer finds no table below a folder that has a "
                "percent sign before two hexadecimal digits in its name. Rename the folder, or name another"
            )
        return self

    @model_validator(mode="after")
    def _faiss_knows_the_index(self) -> Settings:
        if self.recommend.search == "faiss":
            from sparkrec.retrieval import indexes  # only here: faiss is no small thing to load

            widths = {"als": self.als.rank, "two_tower": self.two_tower.width}
            for width in {widths[model] for model in widths if self.uses(model)}:
                indexes.check(width, self.recommend.faiss)
        return self

    def uses(self, model: str) -> bool:
        """Whether any list is made with the model's vectors, or from candidates that it brings."""
        ranked = self.ranker.sources if "ranker" in self.recommend.models else ()
        return model in (*self.recommend.models, *ranked, *self.similar_models)

    @property
    def similar_models(self) -> tuple[Model, ...]:
        """Whose item vectors are compared: as configured, else those of the lists that know what is alike."""
        if self.similar.models is not None:
            return self.similar.models
        return tuple(name for name in self.recommend.models if name in ("als", "two_tower"))

    def _the_ranker_has_its_sources(self) -> None:
        if self.recommend.diversity.method in ("mmr", "dpp") and self.ranker.alike is None:
            raise ValueError(
                f"recommend.diversity.method is {self.recommend.diversity.method}, and none of ranker.sources says how "
                "alike two items are. Add als or two_tower to ranker.sources, or set another method"
            )
        if "neighbors" in self.ranker.sources and not self.features.neighbors:
            raise ValueError(
                "ranker.sources has neighbors, and features.neighbors is 0, so that there are none. Set "
                "features.neighbors, for instance to 20, or take neighbors out of ranker.sources"
            )
        if "two_tower" in self.ranker.sources and (
            self.two_tower.warm_start != "none" or not self.two_tower.select_on_validation
        ):
            raise ValueError(
                "the ranker learns from the two-tower model as it was before the validation events, which neither a "
                "warm start nor a training with two_tower.select_on_validation false keeps. Train in full and choose "
                "the epochs, or take two_tower out of ranker.sources"
            )

    def dump(self) -> dict[str, Any]:
        """Plain values for records, the report and MLflow.

        Secrets are masked: those of fields that are ones, in ``spark.conf`` and ``source.options`` whatever is called
        so, and logins in addresses.
        """
        plain = self.model_dump(mode="json")
        for section, field in (("spark", "conf"), ("source", "options")):
            plain[section][field] = masked(plain[section][field])
        if self.tracking.uri:
            plain["tracking"]["uri"] = without_login(self.tracking.uri)
        return plain

    def hash(self) -> str:
        """Eight hex digits that change when any value that can change a table does."""
        plain = self.model_dump(mode="json", exclude={"tracking", "spark", "lake", "maintenance", "publish"})
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]


def load(paths: Sequence[str | Path], overrides: Sequence[str] = ()) -> Settings:
    """Settings from YAML files, later on top of earlier, then ``key=value`` overrides.

    Raises
    ------
    ConfigError
        A file is missing or is not YAML, a key is unknown or a value has the wrong type. The message
        names the file or key, what was found and what was expected.
    """
    if not paths:
        raise ConfigError("No configuration was given. Pass --conf conf/NAME.yaml, for instance conf/demo.yaml.")
    merged: dict[str, Any] = {}
    for path in paths:
        merged = merge(merged, read(Path(path)))
    for override in overrides:
        merged = merge(merged, parse_override(override))
    try:
        return Settings.model_validate(expand(merged))
    except ValidationError as error:
        raise ConfigError(_explain(error, [str(p) for p in paths])) from None


def _explain(error: ValidationError, paths: list[str]) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        key = ".".join(str(part) for part in problem["loc"]) or "the configuration"
        if problem["type"] == "extra_forbidden":
            lines.append(f"'{key}' is not a known key{_nearest(problem['loc'])}.")
        elif problem["type"] == "missing":
            lines.append(f"'{key}' is missing and has no default.")
        else:
            lines.append(f"'{key}': {problem['msg']}.")
    return f"The configuration ({', '.join(paths)}) has {len(lines)} error(s): " + " ".join(lines)


def _nearest(location: tuple[int | str, ...]) -> str:
    import difflib

    model: Any = Settings
    for part in location[:-1]:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        model = field.annotation if field else None
    names = list(model.model_fields) if hasattr(model, "model_fields") else []
    close = difflib.get_close_matches(str(location[-1]), names, n=1)
    return f", did you mean '{close[0]}'?" if close else (f"; known are {', '.join(names)}" if names else "")
