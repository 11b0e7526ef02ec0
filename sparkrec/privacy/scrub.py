"""Free text without e-mail addresses, phone numbers and card numbers; what is taken out leaves a mark.

Precision comes first: prices, dates, ISBNs, order and model numbers must stay, so a bare run of digits is a phone
number only behind a word that says so, and a card number only with an issuer's prefix and a right check digit
(ISO/IEC 7812-1: Luhn). Names, postal addresses and numbers that are spelt out are not found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column

EMAIL, PHONE, CARD = MARKS = ("[e-mail]", "[phone]", "[card]")

_EMAIL = (
    r"[\p{L}\p{N}._%+'-]{1,64}@(?:[\p{L}\p{N}](?:[\p{L}\p{N}-]{0,61}[\p{L}\p{N}])?\.){1,8}\p{L}{2,24}(?![\p{L}\p{N}])"
)

# Visa, Mastercard, American Express, Diners, Discover and UnionPay, JCB; Maestro in its lengths of 16 to 19.
_ISSUER = r"(?:4|5[1-8]|2[2-7]|3[47068]|6[0-9]|35)"
# 13 to 19 digits, alone or in groups by one blank or hyphen; nothing that makes them part of a longer thing.
_CARD = rf"(?<![\p{{L}}\p{{N}}_.,/-])(?={_ISSUER})[0-9](?:[ -]?[0-9]){{12,18}}(?![\p{{L}}\p{{N}}_/-]|[.,][0-9])"

_BEFORE, _AFTER = r"(?<![\p{L}\p{N}_.,/$€£#+-])", r"(?![\p{L}\p{N}_/-]|[.,][0-9])"
_NANP = r"[2-9][0-9]{2}"
_PHONES = (
    # +44 20 7946 0958, 0049 (0)30 1234567: 8 to 15 digits (ITU-T E.164)
    _BEFORE + r"(?:\+|00)[1-9](?:[ ./-]?(?:\(0?[0-9]{0,4}\)[ -]?)?[0-9]){7,14}" + _AFTER,
    # (415) 555-0132, 415-555-0132, 415.555.0132, 1-415-555-0132
    _BEFORE + rf"(?:1[ .-])?(?:\({_NANP}\) ?|{_NANP}[.-])[0-9]{{3}}[ .-][0-9]{{4}}" + _AFTER,
    # 020 7946 0958, 030/1234567, 0171-555 0132: a trunk 0, an area code, a separator; four digits last, because
    # part numbers such as 099-0502-000 have three
    _BEFORE + r"0[1-9][0-9]{1,3}(?:[ /-][0-9]{3,4}[ -][0-9]{4}|/[0-9]{6,8})" + _AFTER,
    # "call 4155550132", "Tel: 555-0132": a word that says so
    r"(?i)(?<=\b(?:tel|phone|call|fax|mobile|whatsapp|text me at|call me at)[.:]?[ :]{0,2})"
    r"\(?[0-9](?:[ ().-]{0,2}[0-9]){6,14}" + _AFTER,
)


def scrubbed(text: Column) -> Column:
    """The text with marks for what was found; null stays null. Text without a digit or an @ is looked at once."""
    from pyspark.sql import functions as F

    result = F.regexp_replace(text, _EMAIL, _literal(EMAIL))
    result = _without_cards(result)
    for pattern in _PHONES:
        result = F.regexp_replace(result, pattern, _literal(PHONE))
    return F.when(text.rlike("@|[0-9].*[0-9]"), result).otherwise(text)


def marks(text: Column) -> dict[str, Column]:
    """How often each mark is in a text."""
    from pyspark.sql import functions as F

    lengths = {mark: F.length(text) - F.length(F.replace(text, F.lit(mark), F.lit(""))) for mark in MARKS}
    return {mark: F.coalesce(length / len(mark), F.lit(0)).cast("bigint") for mark, length in lengths.items()}


def _without_cards(text: Column) -> Column:
    """Candidates come from a pattern; those with a right check digit are replaced one by one."""
    from pyspark.sql import functions as F

    candidates = F.regexp_extract_all(text, F.lit(_CARD), F.lit(0))
    cards = F.filter(candidates, lambda x: F.call_function("luhn_check", F.regexp_replace(x, "[ -]", "")))
    replaced = F.aggregate(cards, text, lambda left, card: F.replace(left, card, F.lit(CARD)))
    return F.when(text.rlike(_CARD), replaced).otherwise(text)


def _literal(mark: str) -> str:
    """For Java's replacement: no character of a mark is special there but a backslash and a dollar sign."""
    assert not set(mark) & {"\\", "$"}
    return mark
