"""Texts -> times and dates, deciding once per column how its dates are written.

ISO 8601 and dates with the month in words speak for themselves. `31/12/2017` and `12/31/2017`
do not: the order is the one that the column's own unambiguous values show, and a column
without any is an error that asks.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from zoneinfo import ZoneInfo

__all__ = ["Ambiguous", "MomentReader", "looks_like_time"]


class Ambiguous(ValueError):
    """A column whose values allow two readings; the message asks for a declaration."""


_CLOCK = re.compile(
    r"(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?\s*([AaPp])?(?:\.?[Mm]\.?)?\s*"
    r"(Z|UTC|GMT|[+-]\d{2}:?\d{2})?"
)
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}(?:$|[T ].+)|\d{8}(?:$|T.+)")
_NUMERIC = re.compile(r"(\d{1,4})([./-])(\d{1,2})\2(\d{4}|\d{2})(?:(?:[T,]|\s)\s*(.+))?")
_DAY_MONTH = re.compile(r"(\d{1,2})[ .-]+([A-Za-z]{3,9})\.?,?[ -](\d{4})(?:,?\s+(.+))?")
_MONTH_DAY = re.compile(r"([A-Za-z]{3,9})\.? (\d{1,2})(?:st|nd|rd|th)?,? (\d{4})(?:,?\s+(.+))?")
_WEEKDAY = re.compile(r"^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*\.?,?\s+")
_NAMED_OFFSET = re.compile(r"\s*(?:UTC|GMT)$")
_SPACED_OFFSET = re.compile(r"(\d)\s+([+-]\d{2}:?\d{2})$")
_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_EXCEL_ZERO = dt.datetime(1899, 12, 30)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_EARLIEST, _LATEST = dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1)


def looks_like_time(text: str) -> bool:
    """Whether a text has the form of a date or time; bare digits do not, nor does 10.0.12."""
    numeric = _NUMERIC.fullmatch(text)
    return bool(
        (_ISO.fullmatch(text) and "-" in text)
        or (numeric and 4 in (len(numeric[1]), len(numeric[4])))
        or _DAY_MONTH.fullmatch(text)
        or _MONTH_DAY.fullmatch(text)
    )


class MomentReader:
    """Reads the times of one column.

    Parameters
    ----------
    texts : sequence of str
        The column's distinct texts, from which the order of day and month is decided.
    zone : ZoneInfo
        Where a time without offset, and a date without time, belong.
    order : {"dmy", "mdy", "ymd"} or None
        Declared order.
    pattern : str or None
        "epoch_s", "epoch_ms", "excel" or a strptime pattern; nothing else is then tried.

    Attributes
    ----------
    note : str
        The decision in words, empty when there was nothing to decide.

    Raises
    ------
    Ambiguous
        If nothing tells day from month.
    """

    def __init__(
        self,
        texts: Sequence[str],
        zone: ZoneInfo,
        order: str | None = None,
        pattern: str | None = None,
    ) -> None:
        self.zone, self.pattern, self.note = zone, pattern, ""
        self.order = order
        if order is None and pattern is None:
            self.order, self.note = _decide_order(texts)

    def read(self, text: str) -> tuple[dt.datetime, bool] | None:
        """The moment in naive UTC, and whether it is a date without time; None if it is none.

        A date without time is 00:00 in `zone`.
        """
        try:
            found = self._by_pattern(text) if self.pattern else self._by_form(text)
            if found is None:
                return None
            moment, bare = found
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=self.zone)
            moment = moment.astimezone(dt.UTC).replace(tzinfo=None)
        except (ValueError, OverflowError):
            return None
        return (moment, bare) if _EARLIEST <= moment < _LATEST else None

    def _by_pattern(self, text: str) -> tuple[dt.datetime, bool]:
        match self.pattern:
            case "epoch_s" | "epoch_ms":
                unit = 1.0 if self.pattern == "epoch_s" else 1000.0
                return _EPOCH + dt.timedelta(seconds=float(text) / unit), False
            case "excel":
                days = float(text)
                return _EXCEL_ZERO + dt.timedelta(days=days), days.is_integer()
        pattern = str(self.pattern)
        return dt.datetime.strptime(text, pattern), not re.search(r"%[HIMSfcXTRs]", pattern)

    def _by_form(self, text: str) -> tuple[dt.datetime, bool] | None:
        if _ISO.fullmatch(text):
            if text[-1] in "CT":
                text = _NAMED_OFFSET.sub("+00:00", text)
            if " +" in text or " -" in text:
                text = _SPACED_OFFSET.sub(r"\1\2", text)
            return dt.datetime.fromisoformat(text), len(text) in (8, 10)
        text = _WEEKDAY.sub("", text)
        if parts := _NUMERIC.fullmatch(text):
            return self._numeric(parts[1], parts[3], parts[4], parts[5])
        if parts := _DAY_MONTH.fullmatch(text):
            return _assemble(int(parts[3]), _month(parts[2]), int(parts[1]), parts[4])
        if parts := _MONTH_DAY.fullmatch(text):
            return _assemble(int(parts[3]), _month(parts[1]), int(parts[2]), parts[4])
        return None

    def _numeric(
        self, first: str, middle: str, last: str, clock: str | None
    ) -> tuple[dt.datetime, bool] | None:
        if len(first) == 4:
            return _assemble(int(first), int(middle), int(last), clock)
        if self.order == "ymd":
            return _assemble(_year(first), int(middle), int(last), clock)
        if self.order is None or len(first) == 3:
            return None
        day, month = (first, middle) if self.order == "dmy" else (middle, first)
        return _assemble(_year(last), int(month), int(day), clock)


def _year(text: str) -> int:
    """Two digits as Python's strptime reads them: 69-99 is 1969-1999, 00-68 is 2000-2068."""
    year = int(text)
    return year if len(text) == 4 else year + (1900 if year >= 69 else 2000)


def _month(word: str) -> int:
    for number, name in enumerate(_MONTHS, 1):
        if name == word.lower() or name[:3] == word.lower() or word.lower() == "sept" == name[:4]:
            return number
    raise ValueError(word)


def _assemble(
    year: int, month: int, day: int, clock: str | None
) -> tuple[dt.datetime, bool] | None:
    if clock is None:
        return dt.datetime(year, month, day), True
    parts = _CLOCK.fullmatch(clock.strip())
    if parts is None:
        return None
    hour, half = int(parts[1]), (parts[5] or "").lower()
    if half:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half == "p" else 0)
    micro = int((parts[4] or "0").ljust(6, "0")[:6])
    moment = dt.datetime(year, month, day, hour, int(parts[2]), int(parts[3] or 0), micro)
    offset = parts[6]
    if offset in ("Z", "UTC", "GMT"):
        return moment.replace(tzinfo=dt.UTC), False
    if offset:
        sign = -1 if offset[0] == "-" else 1
        shift = dt.timedelta(hours=int(offset[1:3]), minutes=int(offset[-2:]))
        return moment.replace(tzinfo=dt.timezone(sign * shift)), False
    return moment, False


def _decide_order(texts: Sequence[str]) -> tuple[str | None, str]:
    """The order that the unambiguous values show, and the decision in words."""
    day_first = month_first = unclear = short = ""
    for text in texts:
        parts = _NUMERIC.fullmatch(_WEEKDAY.sub("", text))
        if parts is None or len(parts[1]) > 2:
            continue
        if len(parts[4]) == 2:
            short = short or text
            continue
        first, second = int(parts[1]), int(parts[3])
        if first > 12 >= second:
            day_first = day_first or text
        elif second > 12 >= first:
            month_first = month_first or text
        elif first != second:
            unclear = unclear or text
    ask = 'set date_order = "dmy" (day first) or "mdy" (month first)'
    if short:
        raise Ambiguous(f'dates with a year of two digits, like "{short}"; {ask}, or "ymd"')
    if day_first and month_first:
        message = f'dates written in two ways, "{day_first}" and "{month_first}"; {ask}'
        raise Ambiguous(message + ", and the others will be rejected")
    if day_first:
        return "dmy", f'dates are day/month/year, as "{day_first}" shows'
    if month_first:
        return "mdy", f'dates are month/day/year, as "{month_first}" shows'
    if unclear:
        raise Ambiguous(f'nothing tells day from month in dates like "{unclear}"; {ask}')
    return "dmy", ""
