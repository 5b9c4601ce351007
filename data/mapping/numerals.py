"""Texts -> numbers, deciding once per column what its commas and points mean.

"1.234,50" and "1,234.50" speak for themselves, "1,234" does not: the decimal sign is the one
that the column's own unambiguous values show, and a column without any is an error that asks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from data.mapping.moments import Ambiguous

__all__ = ["NumberReader", "looks_like_number"]

_SIGN = r"[$€£¥₹₽₩₺₪₫฿₴₦₱]"
_CURRENCY = rf"(?:[A-Z]{{1,3}}\s?)?{_SIGN}|[A-Z]{{3}}(?![A-Za-z])|zł|kr\.?|Kč|Fr\.?"
_BEFORE = re.compile(rf"^({_CURRENCY})\s*(?=[-\u2212(]?\s*[\d.,])")
_AFTER = re.compile(rf"(?<=[\d.,)])\s*({_CURRENCY})$")
_SPACES = str.maketrans({c: " " for c in "\u00a0\u2009\u202f'\u2019"})
_PLAIN = re.compile(r"\d+")
_EXPONENT = re.compile(r"\d+(?:\.\d+)?[eE][+-]?\d+")
_GROUPS = {
    # Groups of three, or the Indian 12,34,567; then the decimals.
    ".": re.compile(r"\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?|\d*\.\d+|\d+\.?"),
    ",": re.compile(r"\d{1,3}(?:\.\d{3})+(?:,\d+)?|\d*,\d+|\d+,?"),
}
_SPACED = re.compile(r"\d{1,3}(?: \d{3})+(?:[.,]\d+)?")


@dataclass(frozen=True)
class _Numeral:
    """A text cut into sign, digits with separators, currency and percent sign."""

    body: str
    negative: bool
    currency: str
    percent: bool
    spaced: bool


def _cut(text: str) -> _Numeral | None:
    currency, percent = "", False
    if found := _BEFORE.match(text):
        currency, text = found[1], text[found.end() :]
    text = text.strip()
    negative = text.startswith("(") and text.endswith(")")
    if negative:
        text = text[1:-1].strip()
    if text[:1] in ("-", "\u2212"):
        negative, text = not negative, text[1:].strip()
    elif text[:1] == "+":
        text = text[1:]
    if not currency and (found := _BEFORE.match(text)):  # -$5
        currency, text = found[1], text[found.end() :].strip()
    if not currency and (found := _AFTER.search(text)):
        currency, text = found[1], text[: found.start()]
    if text.endswith("%"):
        percent, text = True, text[:-1].rstrip()
    body = text.translate(_SPACES)
    spaced = " " in body
    if spaced:
        if not _SPACED.fullmatch(body):
            return None
        body = body.replace(" ", "")
    return _Numeral(body, negative, currency.strip(), percent, spaced) if body else None


def _decimal_shown(numeral: _Numeral) -> str | None:
    """The decimal sign a numeral proves: "." or ","; "" for none needed, "?" for unclear.

    None if it is no numeral at all.
    """
    body = numeral.body
    if _PLAIN.fullmatch(body):
        return ""
    if _EXPONENT.fullmatch(body):
        return "."
    fits = [sign for sign, form in _GROUPS.items() if form.fullmatch(body)]
    if not fits:
        return None
    if numeral.spaced:  # the space groups, so the other sign can only be the decimal one
        return "." if "." in body else ","
    if len(fits) == 2:  # one separator: 3 digits behind it and 1-3 before are unclear
        before, _, after = body.replace(",", ".").partition(".")
        unclear = len(after) == 3 and 1 <= len(before) <= 3 and before[0] != "0"
        return "?" if unclear else ("." if "." in body else ",")
    return fits[0]


def looks_like_number(text: str) -> bool:
    """Whether a text of unknown kind is a number: no letters, no leading zeros, no telephone."""
    digits = text.lstrip("-")
    if digits[:1] == "+" or re.match(r"0\d", digits) or len(re.sub(r"\D", "", text)) > 15:
        return False
    numeral = _cut(text)
    if numeral is None or numeral.currency.isalpha():
        return False
    return _decimal_shown(numeral) is not None


class NumberReader:
    """Reads the numbers of one column.

    Parameters
    ----------
    texts : sequence of str
        The column's distinct texts, from which the decimal sign is decided.
    decimal : {".", ","} or None
        Declared decimal sign.
    share : bool
        True where the unit is 0-1, so that "20 %" is 0.2.

    Attributes
    ----------
    note : str
        The decision in words, empty when there was nothing to decide.

    Raises
    ------
    Ambiguous
        If nothing tells a decimal sign from a thousands separator, or currencies are mixed.
    """

    def __init__(
        self, texts: Sequence[str], decimal: str | None = None, share: bool = False
    ) -> None:
        self.share = share
        shown: dict[str, str] = {}
        currencies: dict[str, str] = {}
        for text in texts:
            numeral = _cut(text)
            if numeral is None:
                continue
            sign = _decimal_shown(numeral)
            if sign:
                shown.setdefault(sign, text)
            if sign is not None and numeral.currency:
                currencies.setdefault(numeral.currency, text)
        if len(currencies) > 1:
            first, second = list(currencies.values())[:2]
            raise Ambiguous(
                f'amounts in several currencies, like "{first}" and "{second}"; put the currency '
                "into a column of its own and map it as currency"
            )
        self.decimal, self.note = _decide_decimal(shown, decimal)
        if currencies:
            told = f'currency sign "{next(iter(currencies))}" taken off'
            self.note = f"{self.note}; {told}" if self.note else told

    def read(self, text: str) -> float | None:
        """The number, or None if the text is not one written in this column's way."""
        numeral = _cut(text)
        if numeral is None:
            return None
        body = numeral.body
        if numeral.spaced or not _EXPONENT.fullmatch(body):
            if not _GROUPS[self.decimal].fullmatch(body):
                return None
            other = "," if self.decimal == "." else "."
            body = body.replace(other, "").replace(",", ".")
        number = float(body) / (100.0 if numeral.percent and self.share else 1.0)
        if number == float("inf"):
            return None
        return -number if numeral.negative else number


def _decide_decimal(shown: dict[str, str], declared: str | None) -> tuple[str, str]:
    if declared is not None:
        return declared, ""
    ask = 'set decimal = "." or decimal = ","'
    if "." in shown and "," in shown:
        message = f'numbers written in two ways, "{shown["."]}" and "{shown[","]}"; {ask}'
        raise Ambiguous(message + ", and the others will be rejected")
    if "," in shown:
        return ",", f'decimal comma, as "{shown[","]}" shows'
    if "." in shown:
        grouped = "," in shown["."] or "," in shown.get("?", "")
        return ".", f'decimal point, as "{shown["."]}" shows' if grouped else ""
    if "?" in shown:
        message = f'numbers like "{shown["?"]}" could be thousands or thousandths; {ask}'
        raise Ambiguous(message)
    return ".", ""
