"""What a rule is, what the configuration makes of the declared ones, and how rows are judged by them.

A rule refuses a row (``quarantine``), mends it (``repair``) or only counts it (``warn``). Which of them a row breaks is
a function of the row, of the time of its own ingest and of whether the catalogue knows its item: so it does not matter
with which other rows it arrives. Rules over many rows are in
:mod:`sparkrec.clean.outliers` and :mod:`sparkrec.clean.funnels`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType, StructType

from sparkrec import columns as c
from sparkrec.errors import ConfigError

if TYPE_CHECKING:
    from sparkrec.config.clean import RuleSettings, Severity

#: The struct of typed values beside the text.
PARSED = "parsed"
_ADDED = "_added"
# Not in the name of a rule: those that are added may have commas.
_SEPARATOR = "\x1f"
_AS_TEXT = (c.EVENT_TYPE, c.FOR_SALE, c.ATTRIBUTES)

#: Whether the row breaks the rule, its name, and the sentence.
Verdict = tuple[Column, str, Column]


@dataclass(frozen=True)
class Rule:
    """One thing that can be wrong with a row.

    ``breaks``: true where it is; ``found``: what was found there, for the sentence. ``needed``: silver cannot hold
    rows that break it, so it stays on. ``options`` that may be tuned, with their values. ``when``: the SQL of a rule
    that was added in configuration; such a rule has neither ``breaks`` nor ``found`` of its own.
    """

    name: str
    expects: str
    breaks: Column | None
    found: Column | None
    severity: Severity = "quarantine"
    needed: bool = False
    max_share: float | None = None
    options: Mapping[str, float] = field(default_factory=dict)
    when: str | None = None


def tuned(declared: Sequence[Rule], settings: Mapping[str, RuleSettings]) -> list[Rule]:
    """The declared rules that are on, as ``clean.rules`` has them.

    Raises
    ------
    ConfigError
        A rule is given what it has not: another severity or option, or it is switched off and silver needs it.
    """
    result = []
    for rule in declared:
        own = settings.get(rule.name)
        if own is None:
            result.append(rule)
        elif _applied(rule, own):
            result.append(_tuned(rule, own))
    return result


def added(settings: Mapping[str, RuleSettings], on: str) -> list[Rule]:
    """The rules that ``clean.rules`` adds for these rows (``events`` or ``items``).

    Raises
    ------
    ConfigError
        One of them is to mend.
    """
    result = []
    for name, own in settings.items():
        if own.when is not None and own.on == on and own.enabled:
            if own.severity == "repair":
                raise ConfigError(
                    f"'clean.rules.{name}.severity' is repair, and a rule that is added in configuration cannot mend "
                    "rows. Expected quarantine or warn."
                )
            severity = own.severity or "quarantine"
            result.append(Rule(name, own.expects or "", None, None, severity, max_share=own.max_share, when=own.when))
    return result


def require_known(settings: Mapping[str, RuleSettings], declared: Sequence[str]) -> None:
    """Raises ConfigError for a name that is no rule and adds none, or that would add a rule that is there already."""
    for name, own in settings.items():
        if own.when is None and name not in declared:
            close = difflib.get_close_matches(name, declared, n=1)
            hint = f"Did you mean '{close[0]}'?" if close else f"The rules are {', '.join(declared)}."
            raise ConfigError(
                f"'clean.rules.{name}' is not a rule, and has no 'when' that would make it a new one. {hint}"
            )
        if own.when is not None and name in declared:
            raise ConfigError(
                f"'clean.rules.{name}' has a 'when', and there is a rule of that name already. Choose another name."
            )


def check(frame: DataFrame, rules: Sequence[Rule]) -> DataFrame:
    """Adds the verdicts.

    ``rules``, ``rule``, ``reason``: all the refusing rules that the row breaks, the first of them (null for a good
    row), and its sentence. ``notes``, ``remark``: the mending and warning rules that it meets, and the sentence of the
    first. A row that could not be read at all breaks ``malformed`` only: the rest of it is empty for that reason.

    Raises
    ------
    ConfigError
        The SQL of an added rule is not a condition over this frame's columns.
    """
    from_settings = [rule for rule in rules if rule.when is not None]
    frame = _with_added(frame, from_settings)
    readable = F.col(c.MALFORMED).isNull()
    refusing: list[Verdict] = []
    noting: list[Verdict] = []
    for rule in rules:
        breaks = F.col(_ADDED)[from_settings.index(rule)] if rule.when is not None else rule.breaks
        found = _found_by(frame, rule.when) if rule.when is not None else rule.found
        assert breaks is not None, f"{rule.name} is a rule over many rows"
        assert found is not None
        broken = F.coalesce(breaks, F.lit(False)) & (F.lit(True) if rule.name == "malformed" else readable)
        reason = F.concat(found, F.lit(f"; expected {rule.expects}"))
        (refusing if rule.severity == "quarantine" else noting).append((broken, rule.name, reason))
    # First the names, and from them the sentence: each condition is written out once.
    frame = frame.withColumns({c.RULES: _names(refusing), c.NOTES: _names(noting)}).drop(_ADDED)
    first = {c.RULE: F.get(c.RULES, F.lit(0)), "_note": F.get(c.NOTES, F.lit(0))}
    sentences = {c.REASON: _sentence(c.RULE, refusing), c.REMARK: _sentence("_note", noting)}
    return frame.withColumns(first).withColumns(sentences).drop("_note")


def found(name: str) -> Column:
    """``price is '-4'``, or ``price is missing``. Long texts are cut."""
    from sparkrec.clean import parsing

    text = parsing.present(F.col(name))
    quoted = F.concat(F.lit(f"{name} is '"), F.substring(text, 1, 80), F.lit("'"))
    return F.when(text.isNull(), F.lit(f"{name} is missing")).otherwise(quoted)


def _applied(rule: Rule, own: RuleSettings) -> bool:
    """Whether the rule stays on; ConfigError where it may not be changed like that."""
    key = f"clean.rules.{rule.name}"
    if rule.needed and (not own.enabled or own.severity not in (None, "quarantine")):
        raise ConfigError(
            f"'{key}' can neither be switched off nor get another severity: silver cannot hold a row without "
            f"{rule.expects}."
        )
    if own.severity == "repair" and rule.severity != "repair":
        raise ConfigError(f"'{key}.severity' is repair, and this rule has no repair. Expected quarantine or warn.")
    for option in ("z", "minutes", "share"):
        if getattr(own, option) is not None and option not in rule.options:
            takes = ", ".join(["enabled", "severity", "max_share", *rule.options])
            raise ConfigError(f"'{key}.{option}' is not an option of this rule, which takes {takes}.")
    return own.enabled


def _tuned(rule: Rule, own: RuleSettings) -> Rule:
    options = {name: getattr(own, name) or value for name, value in rule.options.items()}
    max_share = rule.max_share if own.max_share is None else own.max_share
    return replace(rule, severity=own.severity or rule.severity, max_share=max_share, options=options)


def _names(verdicts: Sequence[Verdict]) -> Column:
    # As one text first: array_compact is not compiled, and takes all the conditions within it along.
    names = F.concat_ws(_SEPARATOR, *[F.when(broken, F.lit(name)) for broken, name, _ in verdicts])
    nothing = F.array().cast("array<string>")
    return F.when(names != "", F.split(names, _SEPARATOR)).otherwise(nothing) if verdicts else nothing


def _sentence(rule: str, verdicts: Sequence[Verdict]) -> Column:
    """The sentence of the rule that the column ``rule`` names; null where it names none."""
    sentences = [F.when(F.col(rule) == name, sentence) for _, name, sentence in verdicts]
    return F.when(F.col(rule).isNotNull(), F.coalesce(*sentences)) if sentences else F.lit(None).cast("string")


def _with_added(frame: DataFrame, rules: Sequence[Rule]) -> DataFrame:
    """The added rules see typed values under the names of the columns; the rows stay as they are."""
    if not rules:
        return frame
    typed = frame.select(
        *[F.col(f"{PARSED}.{name}").alias(name) for name in _typed(frame)],
        *[F.col(name) for name in _AS_TEXT if name in frame.columns],
        F.struct(*frame.columns).alias("_row"),
    )
    empty = frame.sparkSession.createDataFrame([], typed.drop("_row").schema)
    conditions = [_condition(empty, rule) for rule in rules]
    return typed.withColumn(_ADDED, F.array(*conditions)).select("_row.*", _ADDED)


def _typed(frame: DataFrame) -> list[str]:
    parsed = frame.schema[PARSED].dataType
    assert isinstance(parsed, StructType)
    return parsed.names


def _condition(typed: DataFrame, rule: Rule) -> Column:
    """The rule's SQL as a column, tried on an empty frame of these columns."""
    key = f"clean.rules.{rule.name}.when"
    problem, text = "", str(rule.when)
    try:
        condition = F.expr(text)
        tried = typed.select("*", condition.alias("_condition"))
        plan: Any = tried._jdf.queryExecution().analyzed()
        kind = tried.schema["_condition"].dataType
        if not isinstance(kind, BooleanType):
            problem = f"is {kind.simpleString()}, and not true or false"
        elif not plan.deterministic() or re.search(r"(?i)\bover\s*\(|\bselect\b|\bcurrent_|\bnow\s*\(", text):
            problem = "depends on more than the row"
    except AnalysisException as error:
        first = re.sub(r"^\[[^]]*\]\s*", "", str(error)).split("SQLSTATE")[0].split("\n")[0].strip()
        problem = f"cannot be used: {first}"
    if problem:
        raise ConfigError(
            f"'{key}': \"{text}\" {problem.rstrip('. ')}. Expected a Spark SQL condition over one row's columns "
            f"{', '.join(typed.columns)}."
        )
    return F.coalesce(condition, F.lit(False))


def _found_by(frame: DataFrame, sql: str) -> Column:
    """The values that an added rule looked at."""
    names = [name for name in _typed(frame) if re.search(rf"\b{name}\b", sql)]
    shown = [F.concat(F.lit(f"{n} is "), F.coalesce(_shown(frame, n), F.lit("missing"))) for n in names]
    return F.concat_ws(", ", *shown) if shown else F.lit("the row is not so")


def _shown(frame: DataFrame, name: str) -> Column:
    parsed = frame.schema[PARSED].dataType
    assert isinstance(parsed, StructType)
    value = F.col(f"{PARSED}.{name}")
    text = F.substring(value.cast("string"), 1, 80)
    return F.concat(F.lit("'"), text, F.lit("'")) if parsed[name].dataType.simpleString() == "string" else text
