"""Rules switched, tuned and added in configuration, and the sentences for those that cannot be."""

import datetime as dt

import pytest

from sparkrec import columns as c
from sparkrec.clean import rules
from sparkrec.config import Clean
from sparkrec.errors import ConfigError

pytestmark = pytest.mark.spark
DAY = dt.date(2030, 1, 1)
GOOD = {"user_id": "u", "item_id": "a", "event_type": "purchase", "event_time": "2024-01-01 00:00:00", "value": "2",
        "price": "3"}  # fmt: skip


def verdicts(canonical_events, rows, **configured):
    from pyspark.sql import functions as F

    settings = Clean(rules=configured)
    frame = canonical_events(rows, **GOOD).withColumn(rules.KNOWN_ITEM, F.lit(True))
    return rules.check(rules.parse_events(frame, settings), rules.event_rules(settings, DAY)).orderBy(c.LINE).collect()


def test_mending_and_warning_rules_refuse_nothing_and_are_noted(canonical_events):
    rows = [{}, {"price": "3,5"}, {"price": None}, {"price": "3,5", "value": "0"}]
    found = verdicts(canonical_events, rows)
    assert [(row[c.RULES], row[c.NOTES]) for row in found] == [
        ([], []), ([], ["decimal_comma"]), ([], ["purchase_without_price"]), (["bad_quantity"], ["decimal_comma"]),
    ]  # fmt: skip
    assert found[1][c.REMARK] == "price is '3,5'; expected a decimal point and no thousands set apart: read so"
    assert [row[c.RULE] for row in found] == [None, None, None, "bad_quantity"]


def test_rules_are_switched_given_another_severity_and_added(canonical_events):
    added = {"on": "events", "when": "price > 5 * value AND country = 'NL'", "expects": "a modest price"}
    rows = [{"price": "11", "country": " NL "}, {"price": "9", "country": "NL"}, {"price": "11"}, {"value": "-1"},
            {"price": "-1"}, {"price": "1,5"}]  # fmt: skip
    found = verdicts(
        canonical_events, rows, bad_price={"severity": "warn"}, bad_quantity={"enabled": False},
        decimal_comma={"severity": "quarantine"}, **{"dear, in NL": added},
    )  # fmt: skip
    assert [(row[c.RULE], row[c.NOTES]) for row in found] == [
        ("dear, in NL", []), (None, []), (None, []), (None, []), (None, ["bad_price"]),
        ("price_not_a_number", ["purchase_without_price"]),
    ]  # fmt: skip
    assert found[0][c.RULES] == ["dear, in NL"]
    assert found[0][c.REASON] == "country is 'NL', value is 2.0, price is 11.0; expected a modest price"
    assert found[5][c.RULES] == ["price_not_a_number", "decimal_comma"]


@pytest.mark.parametrize(
    ("configured", "words"),
    [
        ({"bad_prise": {"enabled": False}}, ["clean.rules.bad_prise", "Did you mean 'bad_price'"]),
        ({"bad_price": {"on": "events", "when": "true", "expects": "x"}}, ["clean.rules.bad_price", "another name"]),
        ({"missing_user": {"enabled": False}}, ["clean.rules.missing_user", "a user id"]),
        ({"unreadable_time": {"severity": "warn"}}, ["clean.rules.unreadable_time", "switched off"]),
        ({"bad_price": {"severity": "repair"}}, ["clean.rules.bad_price.severity", "no repair"]),
        ({"bad_price": {"z": 3}}, ["clean.rules.bad_price.z", "enabled, severity, max_share"]),
        ({"mine": {"on": "events", "when": "prise > 3", "expects": "x"}}, ["mine.when", "`prise`", "price"]),
        ({"mine": {"on": "events", "when": "price >", "expects": "x"}}, ["clean.rules.mine.when", "price >"]),
        ({"mine": {"on": "events", "when": "price + 1", "expects": "x"}}, ["clean.rules.mine.when", "double"]),
        ({"mine": {"on": "events", "when": "rand() > 1", "expects": "x"}}, ["mine.when", "more than the row"]),
        ({"mine": {"on": "events", "when": "max(price) > 1", "expects": "x"}}, ["clean.rules.mine.when"]),
        ({"mine": {"on": "events", "when": "true", "expects": "x", "severity": "repair"}}, ["mine.severity"]),
    ],
)  # fmt: skip
def test_what_cannot_be_configured_is_named(canonical_events, configured, words):
    with pytest.raises(ConfigError) as error:
        verdicts(canonical_events, [{}], **configured)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_half_a_rule_is_an_error_of_the_configuration():
    with pytest.raises(ValueError, match="needs on, when and expects, and only when is given"):
        Clean(rules={"mine": {"when": "true"}})


def test_every_rule_has_a_name_a_sentence_and_a_severity(spark):
    declared = rules.event_rules(Clean(), DAY) + rules.item_rules(Clean())
    assert len(declared) > 30
    for rule in declared:
        assert rule.expects
        assert rule.severity in ("quarantine", "repair", "warn")
    names = [rule.name for rule in rules.event_rules(Clean(), DAY)]
    assert len(names) == len(set(names))
