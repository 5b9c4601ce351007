"""Strict reading of a TOML table: every key is known, every error names its place.

`Section` hands out the values of one table of a mapping file, checked, and `finish` complains
about the keys nobody asked for.
"""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Iterable, Mapping
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from data.records import parse_time

__all__ = ["MappingError", "Section", "did_you_mean", "plain_text", "shorten"]


class MappingError(ValueError):
    """A mapping file that cannot be followed: where, what was seen, and what is allowed.

    Attributes
    ----------
    place : str
        Where in the mapping file, in words: "table 2, fields.amount".
    """

    def __init__(self, place: str, message: str) -> None:
        self.place = place
        super().__init__(f"{place}: {message}" if place else message)


def did_you_mean(seen: str, known: Iterable[str]) -> str:
    """The known names for an error message, the nearest one first.

    >>> did_you_mean("ammount", ["amount", "name"])
    'did you mean "amount"? Allowed: amount, name'
    """
    names = [str(k) for k in known]
    folded = {n.casefold(): n for n in reversed(names)}
    near = difflib.get_close_matches(seen.casefold(), list(folded), n=1, cutoff=0.6)
    listed = ", ".join(names[:60]) + (", ..." if len(names) > 60 else "")
    listed = f"Allowed: {listed}" if names else "There is none to choose from"
    return f'did you mean "{folded[near[0]]}"? {listed}' if near else listed


def shorten(value: object, length: int = 60) -> str:
    """A value as a message shows it: quoted, and not too long."""
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= length else text[: length - 4] + '..."'


class Section:
    """One table of a TOML file, read key by key.

    Parameters
    ----------
    place : str
        Where the table stands, for messages.
    content : object
        What the TOML file holds there.

    Raises
    ------
    MappingError
        If the content is not a table; each method if a value is not what it asks for.
    """

    def __init__(self, place: str, content: object) -> None:
        if not isinstance(content, Mapping):
            raise MappingError(place, f"is {shorten(content)}; it must be a table [..] or {{..}}")
        self.place = place
        self._content: dict[str, Any] = dict(content)
        self._asked: dict[str, None] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._content

    def at(self, key: str) -> str:
        """The place of one key."""
        return f"{self.place}, {key}" if self.place else key

    def fail(self, key: str, message: str) -> MappingError:
        """An error about one key, to be raised."""
        return MappingError(self.at(key), message)

    def take(self, key: str, default: Any = None) -> Any:
        """Whatever stands under a key."""
        self._asked[key] = None
        return self._content.get(key, default)

    def finish(self) -> None:
        """Complain about the first key that nobody asked for."""
        for key in self._content:
            if key not in self._asked:
                raise self.fail(key, f"there is no such key; {did_you_mean(key, self._asked)}")

    def text(self, key: str, default: str | None = None) -> str | None:
        """A text that is not empty."""
        value = self.take(key, default)
        if value is not None and (not isinstance(value, str) or value == ""):
            raise self.fail(key, f"is {shorten(value)}; it must be a text that is not empty")
        return value

    def required_text(self, key: str) -> str:
        """A text that must be there."""
        value = self.text(key)
        if value is None:
            raise self.fail(key, "is missing; it must be a text")
        return value

    def choice(self, key: str, allowed: Iterable[str], default: str | None = None) -> str | None:
        """One of a few words."""
        words = list(allowed)
        value = self.take(key, default)
        if value is not None and value not in words:
            message = f"is {shorten(value)}; {did_you_mean(str(value), words)}"
            raise self.fail(key, message)
        return value  # type: ignore[no-any-return]

    def number(self, key: str, default: float | None = None) -> float | None:
        """A number."""
        value = self.take(key, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(key, f"is {shorten(value)}; it must be a number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.take(key, default)
        if not isinstance(value, bool):
            raise self.fail(key, f"is {shorten(value)}; it must be true or false")
        return value

    def texts(self, key: str, default: Iterable[str] = ()) -> tuple[str, ...]:
        """A list of texts; numbers and booleans count as the text a file would hold."""
        value = self.take(key, list(default))
        if isinstance(value, str) or not isinstance(value, list):
            raise self.fail(key, f'is {shorten(value)}; it must be a list like ["a", "b"]')
        return tuple(plain_text(self.at(key), v) for v in value)

    def lists(self, key: str) -> dict[str, tuple[str, ...]]:
        """A table of lists of texts: {deal = ["amount"]}."""
        inner = Section(self.at(key), self.take(key, {}))
        return {name: inner.texts(name) for name in inner._content}

    def sections(self, key: str) -> list[tuple[str, Section]]:
        """The named tables under a key: [files.deals], [files.owners]."""
        inner = Section(self.at(key), self.take(key, {}))
        return [(n, Section(f"{key}.{n}", v)) for n, v in inner._content.items()]

    def array(self, key: str, word: str) -> list[Section]:
        """The tables of an array: [[table]], [[table]]; `word` names them in messages."""
        value = self.take(key, [])
        value = [value] if isinstance(value, Mapping) else value
        if not isinstance(value, list):
            raise self.fail(key, f"is {shorten(value)}; write it as [[{key}]]")
        before = f"{self.place}, " if self.place else ""
        return [Section(f"{before}{word} {i}", v) for i, v in enumerate(value, 1)]

    def time(self, key: str, zone: ZoneInfo) -> np.datetime64:
        """A moment, as datetime64[us] UTC; NaT when it is not there.

        A bare date is 00:00 in `zone`; a time without offset is in `zone`.
        """
        value = self.take(key)
        if value is None:
            return np.datetime64("NaT", "us")
        moment = parse_time(value, zone) if isinstance(value, str | dt.date) else None
        if moment is None:
            raise self.fail(key, f"is {shorten(value)}; write a time like 2026-03-31T14:00:00Z")
        return moment

    def items(self) -> list[tuple[str, Any]]:
        """All keys with their values, for tables whose keys the user chooses."""
        self._asked.update(dict.fromkeys(self._content))
        return list(self._content.items())


def plain_text(place: str, value: object) -> str:
    """A TOML value as the text a file would hold.

    >>> plain_text("maps.x", True), plain_text("maps.x", 3)
    ('true', '3')

    Raises
    ------
    MappingError
        If the value is a list, a table or a time.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() else repr(value)
    raise MappingError(place, f"holds {shorten(value)}; it must be a text, number, true or false")
