"""What is taken out of free text, and what must stay."""

from __future__ import annotations

import random
from typing import Any

import pytest

from sparkrec.privacy import scrub

pytestmark = pytest.mark.spark

FOUND = {
    "mail a.b+c@shop.co.uk now": "mail [e-mail] now",
    "x@y.de": "[e-mail]",
    "(jo'hn@exa-mple.com), müller@bücher.de": "([e-mail]), [e-mail]",
    "card 4111 1111 1111 1111.": "card [card].",
    "5500-0000-0000-0004 or 378282246310005": "[card] or [card]",
    "+44 20 7946 0958": "[phone]",
    "0049 (0)30 1234567, +49 (0)30 1234567": "[phone], [phone]",
    "call 4155550132": "call [phone]",
    "Tel: 555-0132; my phone: 555 123 4567": "Tel: [phone]; my phone: [phone]",
    "(415) 555-0132, 415-555-0132, 415.555.0132": "[phone], [phone], [phone]",
    "1-800-555-0199": "[phone]",
    "020 7946 0958 and 030/1234567": "[phone] and [phone]",
    "ann@x.org, +4917012345678, 4111111111111111": "[e-mail], [phone], [card]",
}
KEPT = (
    "price 1,299.00 and $4.50", "ISBN 978-0-306-40615-7", "0-306-40615-2", "9780306406157", "2014-07-15", "07/15/2014",
    "order 112-1234567-1234567", "4111 1111 1111 1112", "1299.99", "12345678", "10-46 strings", "@home 10 at 5",
    "user@localhost", "4 x 100 x 200", "model 555-12-345A", "1405382400", "version 1.2.3.4.5", "SKU 4111111111111111X",
    "call of duty 4", "call 911", "2015/2016 0.010-0.046", "500 600 7000", "1234567890123456", "100.200.3000",
    "Fender 099-0502-000 and 099 0818 300", "E1-244", "192.168.100.200", "", "no digits",
)  # fmt: skip


def luhn(digits: str) -> bool:
    """Doubled from the right, every second one, cross sums, ends in 0."""
    total = 0
    for place, digit in enumerate(int(x) for x in reversed(digits)):
        doubled = digit * (1 + place % 2)
        total += doubled - 9 * (doubled > 9)
    return total % 10 == 0


def test_marks_and_what_stays(spark: Any) -> None:
    chance = random.Random(3)
    numbers = ["4" + "".join(chance.choice("0123456789") for _ in range(15)) for _ in range(300)]
    cards = {x: "[card]" if luhn(x) else x for x in numbers}
    assert 10 < sum(luhn(x) for x in numbers) < 60
    wanted = FOUND | {x: x for x in KEPT} | cards | {None: None}
    rows = spark.createDataFrame([(x,) for x in wanted], "text string")
    found = {row[0]: row[1] for row in rows.select("text", scrub.scrubbed(rows.text)).collect()}
    assert found == wanted


def test_marks_are_counted(spark: Any) -> None:
    rows = spark.createDataFrame([("[phone] [phone] [card]",), ("[e-mail]",), (None,), ("",)], "text string")
    found = rows.select(*scrub.marks(rows.text).values()).collect()
    assert [tuple(row) for row in found] == [(0, 2, 1), (1, 0, 0), (0, 0, 0), (0, 0, 0)]
