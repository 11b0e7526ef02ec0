"""What is mended and not refused: other writings of text, numbers, quantities, prices and times.

Each repair belongs to a rule of that name (:mod:`sparkrec.clean.rules`), which says in a sentence what it does and
counts the rows; switched off, or given another severity, it leaves the value as the log has it. A repair looks at the
one row only, so a row is mended alike whenever it arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

from pyspark.sql import Column
from pyspark.sql import functions as F

from sparkrec.clean import parsing
from sparkrec.config import Clean

TEXT, DECIMAL, PRICE_SIGN, CONVERTED = "text_normalised", "decimal_comma", "price_with_currency", "currency_converted"
UNKNOWN_CURRENCY, UNIT, PERCENT = "unknown_currency", "quantity_unit", "percent"
GAP, BRAND = "time_in_gap", "missing_brand"
NAMES = (TEXT, DECIMAL, PRICE_SIGN, CONVERTED, UNKNOWN_CURRENCY, UNIT, PERCENT, GAP, BRAND)

UNKNOWN_BRAND = "unknown"
SIGNS = {"€": "EUR", "£": "GBP", "$": "USD", "¥": "JPY", "₹": "INR", "zł": "PLN", "kr": "SEK"}

# Anything that normalising could change; most texts have none of it, and are only trimmed.
_ODD = r"[^ -%'-~]|&[#a-zA-Z]|  "
_INVISIBLE = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff]"
_WHITE = r"[\s\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+"
_GROUP = r"[ '’\u00a0\u202f]"
# 1,5 · 1.234,50 · 1 234,50 · 1.234.567
_COMMA_IS_DECIMAL = (
    rf"^[+-]?(\d+,\d{{1,2}}|\d{{1,3}}([.]\d{{3}})+,\d+|\d{{1,3}}({_GROUP}\d{{3}})+,\d+|\d{{1,3}}([.]\d{{3}}){{2,}})$"
)
# 1,234.50 · 1,234,567 · 1 234.50
_COMMA_IS_GROUP = rf"^[+-]?(\d{{1,3}}(,\d{{3}})+[.]\d+|\d{{1,3}}(,\d{{3}}){{2,}}|\d{{1,3}}({_GROUP}\d{{3}})+([.]\d+)?)$"
_ANY_COMMA = rf"^[+-]?\d{{1,3}}(([.]|{_GROUP})\d{{3}})+(,\d+)?$|^[+-]?\d+,\d+$"

Flags = dict[str, Column]
Values = dict[str, Column]


class Repairs:
    """The repairs that are on, and what they found in one row: ``flags``, rule → whether it applies.

    ``active`` holds the names of the rules that mend; the others only see.
    """

    def __init__(self, settings: Clean, active: Sequence[str]) -> None:
        self.settings, self.active = settings, frozenset(active)
        self.flags: Flags = {}

    def mend(self, rule: str, value: Column, applies: Column, mended: Column) -> Column:
        """``mended`` where the rule applies and is on, else ``value``; notes that it applies."""
        applies = F.coalesce(applies, F.lit(False))
        self.flags[rule] = self.flags[rule] | applies if rule in self.flags else applies
        return F.when(applies, mended).otherwise(value) if rule in self.active else value

    def texts(self, names: Sequence[str]) -> Values:
        """Free texts: HTML entities as characters, Unicode NFKC, no control characters, one blank between words."""
        odd = F.concat_ws(" ", *names).rlike(_ODD)
        found = {}
        for name in names:
            plain = parsing.present(F.col(name))
            # First the row, then the text: one look at a row whose texts are all in order.
            changed = F.when(odd, F.when(F.col(name).rlike(_ODD), _normalised(name) != F.btrim(name, _blanks())))
            found[name] = self.mend(TEXT, plain, changed, F.nullif(_normalised(name), F.lit(""))).alias(name)
        return found

    def number(self, text: Column) -> Column:
        """A number, also with a decimal comma or with thousands set apart."""
        plain = parsing.number(text)
        trimmed = parsing.present(text)
        if self.settings.decimal == "comma":
            applies = trimmed.rlike(_ANY_COMMA)
            return self.mend(DECIMAL, plain, applies, parsing.number(_point(trimmed)))
        comma, group = trimmed.rlike(_COMMA_IS_DECIMAL), trimmed.rlike(_COMMA_IS_GROUP)
        other = F.when(comma, parsing.number(_point(trimmed))).when(
            group, parsing.number(F.regexp_replace(trimmed, rf",|{_GROUP}", ""))
        )
        return self.mend(DECIMAL, plain, plain.isNull() & other.isNotNull(), other)

    def price(self, price: str, currency: str) -> tuple[Column, Column]:
        """Price and currency: a currency's sign or code is taken off the number; then all in one currency."""
        text, code = parsing.present(F.col(price)), _code(F.col(currency))
        signs = "|".join([*SIGNS, "[A-Za-z]{3}"]).replace("$", r"\$")
        shape = rf"^({signs})?\s*([+-]?\d[\d.,'’\u00a0\u202f ]*?)\s*({signs})?$"
        sign = F.coalesce(
            F.nullif(F.regexp_extract(text, shape, 1), F.lit("")), F.nullif(F.regexp_extract(text, shape, 3), F.lit(""))
        )
        bare = self._without_flag(lambda: self.number(F.regexp_extract(text, shape, 2)))
        value = self.number(text)
        applies = parsing.number(text).isNull() & sign.isNotNull() & bare.isNotNull()
        value = self.mend(PRICE_SIGN, value, applies, bare)
        code = self.mend(PRICE_SIGN, code, applies & code.isNull(), _code(sign))
        return self._in_one_currency(value, code)

    def quantity(self, text: Column) -> Column:
        """A number of pieces, also with a unit of the table ``clean.units`` behind it."""
        value = self.number(text)
        if not self.settings.units:
            return value
        trimmed = F.lower(parsing.present(text))
        shape = r"^([+-]?\d[\d.,]*)\s*([a-z]+)\.?$"
        unit = F.regexp_extract(trimmed, shape, 2)
        factor = F.lit(None).cast("double")
        for name, pieces in self.settings.units.items():
            factor = F.when(unit == name.lower(), F.lit(float(pieces))).otherwise(factor)
        counted = self._without_flag(lambda: self.number(F.regexp_extract(trimmed, shape, 1))) * factor
        return self.mend(UNIT, value, parsing.number(text).isNull() & counted.isNotNull(), counted)

    def fraction(self, text: Column) -> Column:
        """A part of one, also in percent."""
        value = self.number(text)
        part = self._without_flag(lambda: self.number(F.regexp_extract(parsing.present(text), r"^(.*?)\s*%$", 1)))
        return self.mend(PERCENT, value, parsing.number(text).isNull() & part.isNotNull(), part / 100)

    def time(self, text: Column) -> Column:
        """A time in UTC. One that the clocks jump over is later by the jump; unless that is mended, it is no time."""
        zone = self.settings.time_zone
        value = parsing.timestamp(text, zone)
        missing = F.lit(None).cast("timestamp")
        in_gap = parsing.in_gap(text, zone)
        return self.mend(GAP, F.when(~in_gap, value).otherwise(missing) if zone != "UTC" else value, in_gap, value)

    def brand(self, brand: Column, fill: bool) -> Column:
        """The brand; ``unknown`` where the catalogue has brands and this row has none."""
        return self.mend(BRAND, brand, F.lit(fill) & brand.isNull(), F.lit(UNKNOWN_BRAND))

    def _in_one_currency(self, value: Column, code: Column) -> tuple[Column, Column]:
        target = self.settings.currency
        if target is None:
            return value, code
        rates = {name.upper(): rate for name, rate in self.settings.currencies.items()} | {target.upper(): 1.0}
        rate = reduce(
            lambda rest, pair: F.when(code == pair[0], F.lit(float(pair[1]))).otherwise(rest),
            rates.items(),
            F.lit(None).cast("double"),
        )
        stranger = value.isNotNull() & code.isNotNull() & rate.isNull()
        converts = value.isNotNull() & rate.isNotNull() & (code != target.upper())
        price = self.mend(CONVERTED, value, converts, F.round(value * rate, 6))
        price = self.mend(UNKNOWN_CURRENCY, price, stranger, F.lit(None).cast("double"))
        currency = self.mend(CONVERTED, code, converts, F.lit(target.upper()))
        return price, currency

    def _without_flag(self, make: Callable[[], Column]) -> Column:
        """A number inside another writing does not count as a repair of its own."""
        flags = dict(self.flags)
        value = make()
        self.flags = flags
        return value


def _normalised(name: str) -> Column:
    # Spark brings both libraries. What they cannot take stays as it is.
    plain = f"coalesce(try_reflect('org.apache.commons.text.StringEscapeUtils', 'unescapeHtml4', `{name}`), `{name}`)"
    text = F.expr(f"try_reflect('com.ibm.icu.text.Normalizer', 'compose', {plain}, true)")
    seen = F.regexp_replace(F.coalesce(text, F.col(name)), _INVISIBLE, "")
    return F.btrim(F.regexp_replace(seen, _WHITE, " "), _blanks())


def _blanks() -> Column:
    return F.lit(parsing.BLANKS)


def _point(text: Column) -> Column:
    """``1.234,50`` → ``1234.50``."""
    return F.replace(F.regexp_replace(text, rf"[.]|{_GROUP}", ""), F.lit(","), F.lit("."))


def _code(text: Column) -> Column:
    """A currency's code in capitals; of a sign, the code that it most often stands for."""
    code = F.upper(parsing.present(text))
    for sign, name in SIGNS.items():
        code = F.when(code == sign.upper(), F.lit(name)).otherwise(code)
    return code
