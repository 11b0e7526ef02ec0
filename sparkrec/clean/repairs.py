"""What is mended and not refused: other writings of text, numbers, quantities, prices and times.

Each repair belongs to a rule of that name (:mod:`sparkrec.clean.rules`), which says in a sentence what it does and
counts the rows; switched off, or given another severity, it leaves the value as the log has it. A repair looks at the
one row only, so a row is mended alike whenever it arrives.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec.clean import parsing
from sparkrec.config import Clean

TEXT, DECIMAL, PRICE_SIGN, CONVERTED = "text_normalised", "decimal_comma", "price_with_currency", "currency_converted"
UNKNOWN_CURRENCY, UNIT, PERCENT = "unknown_currency", "quantity_unit", "percent"
GAP, BRAND = "time_in_gap", "missing_brand"
NAMES = (TEXT, DECIMAL, PRICE_SIGN, CONVERTED, UNKNOWN_CURRENCY, UNIT, PERCENT, GAP, BRAND)

UNKNOWN_BRAND = "unknown"
SIGNS = {"€": "EUR", "£": "GBP", "$": "USD", "¥": "JPY", "₹": "INR", "zł": "PLN", "kr": "SEK"}

# Anything that normalising or trimming could change; most texts have none of it, and stay as they are.
_ODD = r"[^ -%'-~]|  "
_INVISIBLE = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff]"
_WHITE = r"[\s\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+"
_GROUP = r"[ '’\u00a0\u202f]"
# 1,5 · 1.234,50 · 1 234,50 · 1.234.567
_COMMA_IS_DECIMAL = (
    rf"^[+-]?(\d+,\d{{1,2}}|\d{{1,3}}([.]\d{{3}})+,\d+|\d{{1,3}}({_GROUP}\d{{3}})+,\d+|\d{{1,3}}([.]\d{{3}}){{2,}})$"
)
# 1,234.50 · 1,234,567 · 1 234.50
_COMMA_IS_GROUP = rf"^[+-]?(\d{{1,3}}(,\d{{3}})+[.]\d+|\d{{1,3}}(,\d{{3}}){{2,}}|\d{{1,3}}({_GROUP}\d{{3}})+([.]\d+)?)$"
_ANY_COMMA = rf"^[+-]?\d+$|^[+-]?\d{{1,3}}(([.]|{_GROUP})\d{{3}})+(,\d+)?$|^[+-]?\d+,\d+$"

# A sign or a word, digits, a sign or a word.
_SHAPE = r"^([^\s\d.,+-]{0,8})\s*([+-]?\d[\d.,'’\u00a0\u202f ]*?)\s*([^\s\d.,+-]{0,12})\.?$"
_PLAIN, _OTHER, _NUMBER, _ODD_TEXTS = "_plain_", "_other_", "_number_", "_odd_texts"


class Repairs:
    """The repairs of one kind of row. Used in two steps: :meth:`read`, then the values, which are columns of its frame.

    ``active`` holds the names of the rules that mend; the others only see. ``flags``: rule → whether it applies.
    """

    def __init__(self, settings: Clean, active: Sequence[str]) -> None:
        self.settings, self.active = settings, frozenset(active)
        self.flags: dict[str, Column] = {}

    def read(
        self, frame: DataFrame, texts: Sequence[str], numbers: Sequence[str], others: Sequence[str] = ()
    ) -> DataFrame:
        """Adds what the values are made of, each once and most of it null: other writings are rare.

        ``texts`` are free texts, ``others`` the columns that are only trimmed. In layers, so that no expression is
        written out again wherever it is used.
        """
        first = {_PLAIN + name: self._plain(name) for name in numbers}
        # First the row, then the text: one look at a row whose texts are all in order. A blank at the end of one of
        # them stands beside the blank between two.
        row = F.concat(F.lit(" "), F.concat_ws(" ", *texts, *others), F.lit(" "))
        frame = frame.withColumns({**first, _ODD_TEXTS: row.rlike(_ODD)})
        other = F.col(_ODD_TEXTS)
        written = {_OTHER + name: F.when(other & F.col(name).rlike(_ODD), _normalised(name)) for name in texts}
        parts = {_OTHER + name: F.when(F.col(_PLAIN + name).isNull(), _parts(name)) for name in numbers}
        frame = frame.withColumns({**written, **parts})
        return frame.withColumns({_NUMBER + name: self._number(f"{_OTHER}{name}.digits") for name in numbers})

    def present(self, name: str) -> Column:
        """:func:`parsing.present` of one of the texts or others; a row that is in order is not looked at again."""
        text = F.when(F.col(_ODD_TEXTS), F.btrim(name, F.lit(parsing.BLANKS))).otherwise(F.col(name))
        return F.nullif(text, F.lit(""))

    def mend(self, rule: str, value: Column, applies: Column, mended: Column) -> Column:
        """``mended`` where the rule applies and is on, else ``value``; notes that it applies."""
        applies = F.coalesce(applies, F.lit(False))
        self.flags[rule] = self.flags[rule] | applies if rule in self.flags else applies
        return F.when(applies, mended).otherwise(value) if rule in self.active else value

    def text(self, name: str) -> Column:
        """Free text: HTML entities as characters, Unicode NFKC, no control characters, one blank between words."""
        other = F.col(_OTHER + name)
        changed = other.isNotNull() & (other != F.btrim(name, F.lit(parsing.BLANKS)))
        return self.mend(TEXT, self.present(name), changed, F.nullif(other, F.lit("")))

    def number(self, name: str) -> Column:
        """A number, also with a decimal comma or with thousands set apart."""
        return self.mend(DECIMAL, F.col(_PLAIN + name), self._written(name, "", ""), F.col(_NUMBER + name))

    def quantity(self, name: str) -> Column:
        """A number of pieces, also with a unit of the table ``clean.units`` behind it."""
        value = self.number(name)
        if not self.settings.units:
            return value
        table = [
            part for unit, pieces in self.settings.units.items() for part in (F.lit(unit.lower()), F.lit(float(pieces)))
        ]
        pieces = F.col(_NUMBER + name) * F.create_map(*table)[F.lower(F.col(f"{_OTHER}{name}.after"))].cast("double")
        return self.mend(UNIT, value, (F.col(f"{_OTHER}{name}.before") == "") & pieces.isNotNull(), pieces)

    def fraction(self, name: str) -> Column:
        """A part of one, also in percent."""
        value = self.number(name)
        return self.mend(PERCENT, value, self._written(name, "", "%"), F.col(_NUMBER + name) / 100)

    def price(self, name: str, currency: str) -> tuple[Column, Column]:
        """Price and currency: a currency's sign or code is taken off the number; then all in one currency."""
        value, code = self.number(name), _code(self.present(currency))
        before, after = F.col(f"{_OTHER}{name}.before"), F.col(f"{_OTHER}{name}.after")
        sign = _code(parsing.present(F.concat(before, after)))  # one of the two, or it is no price
        is_sign = sign.rlike("^[A-Z]{3}$") & F.col(_NUMBER + name).isNotNull()
        value = self.mend(PRICE_SIGN, value, is_sign, F.col(_NUMBER + name))
        code = self.mend(PRICE_SIGN, code, is_sign & code.isNull(), sign)
        return self._in_one_currency(value, code)

    def time(self, text: Column) -> Column:
        """A time in UTC. One that the clocks jump over is later by the jump; unless that is mended, it is no time."""
        zone = self.settings.time_zone
        value = parsing.timestamp(text, zone)
        if zone == "UTC":
            return value
        in_gap = parsing.in_gap(text, zone)
        return self.mend(GAP, F.when(~in_gap, value), in_gap, value)

    def brand(self, brand: Column, fill: bool) -> Column:
        """The brand; ``unknown`` where the catalogue has brands and this row has none."""
        return self.mend(BRAND, brand, F.lit(fill) & brand.isNull(), F.lit(UNKNOWN_BRAND))

    def _plain(self, name: str) -> Column:
        plain = parsing.number(F.col(name))
        return F.when(~F.col(name).rlike("[.,]"), plain) if self.settings.decimal == "comma" else plain

    def _number(self, digits: str) -> Column:
        text = F.col(digits)
        if self.settings.decimal == "comma":
            return F.when(text.rlike(_ANY_COMMA), parsing.number(_point(text)))
        without_groups = F.regexp_replace(text, rf",|{_GROUP}", "")
        return parsing.number(
            F.when(text.rlike(_COMMA_IS_DECIMAL), _point(text))
            .when(text.rlike(_COMMA_IS_GROUP), without_groups)
            .otherwise(text)
        )

    def _written(self, name: str, before: str, after: str) -> Column:
        """Whether the number stands between these two."""
        other = F.col(_OTHER + name)
        return (other["before"] == before) & (other["after"] == after) & F.col(_NUMBER + name).isNotNull()

    def _in_one_currency(self, value: Column, code: Column) -> tuple[Column, Column]:
        target = self.settings.currency
        if target is None:
            return value, code
        rates = {name.upper(): rate for name, rate in self.settings.currencies.items()} | {target.upper(): 1.0}
        rate = F.create_map(*[part for name, x in rates.items() for part in (F.lit(name), F.lit(float(x)))])[code]
        stranger = value.isNotNull() & code.isNotNull() & rate.isNull()
        converts = value.isNotNull() & rate.isNotNull() & (code != target.upper())
        price = self.mend(CONVERTED, value, converts, F.round(value * rate, 6))
        price = self.mend(UNKNOWN_CURRENCY, price, stranger, F.lit(None).cast("double"))
        return price, self.mend(CONVERTED, code, converts, F.lit(target.upper()))


def _parts(name: str) -> Column:
    """What stands before the digits, the digits, and what stands behind; null where the text is not of that shape."""
    text = parsing.present(F.col(name))
    before, digits, after = (F.regexp_extract(text, _SHAPE, group) for group in (1, 2, 3))
    return F.when(text.rlike(_SHAPE), F.struct(before.alias("before"), digits.alias("digits"), after.alias("after")))


def _normalised(name: str) -> Column:
    # Spark brings both libraries. What they cannot take stays as it is.
    plain = f"coalesce(try_reflect('org.apache.commons.text.StringEscapeUtils', 'unescapeHtml4', `{name}`), `{name}`)"
    text = F.expr(f"coalesce(try_reflect('com.ibm.icu.text.Normalizer', 'compose', {plain}, true), `{name}`)")
    words = F.regexp_replace(F.regexp_replace(text, _INVISIBLE, ""), _WHITE, " ")
    return F.btrim(words, F.lit(parsing.BLANKS))


def _point(text: Column) -> Column:
    """``1.234,50`` → ``1234.50``."""
    return F.replace(F.regexp_replace(text, rf"[.]|{_GROUP}", ""), F.lit(","), F.lit("."))


def _code(text: Column) -> Column:
    """A currency's code in capitals; of a sign, the code that it most often stands for."""
    code = F.upper(text)
    signs = F.create_map(*[F.lit(part) for sign, name in SIGNS.items() for part in (sign.upper(), name)])
    return F.coalesce(signs[code], code)
