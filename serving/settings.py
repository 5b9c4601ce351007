"""Settings of the service: environment variables, or a TOML file that they override."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from data.pipeline import CalendarError, FiscalCalendar

__all__ = ["Settings", "SettingsError", "load_settings"]


class SettingsError(ValueError):
    """A setting that does not exist or has a value it cannot have; says what is allowed."""


@dataclass(frozen=True)
class Settings:
    """Where things are and how the service behaves; `docs/settings.md` tells each one.

    Attributes
    ----------
    store : str
        URL of the store.
    tracking_uri : str
        MLflow's tracking server or database.
    artifacts : Path
        Folder of the models' files.
    currency : str or None
        Base currency, and the one of amounts that name none; None: the only one that occurs.
    time_zone : str
        IANA name; a bare date is 00:00 there.
    fiscal_first_month : int
        First month of the fiscal year, 1-12.
    fiscal_weeks : str or None
    week_start, fiscal_year_start : str
        Quarters of 13 weeks, the day weeks begin, the start of a year: see `FiscalCalendar`.
    renewal_pipelines : str or None
        Ids of the pipelines that are renewals, with commas; see `renewals`.
    host : str
    port : int
    max_body_bytes, max_records : int
        What one request may carry.
    refresh_seconds : float
        How often the service looks for a new champion, and how old what it remembers of the
        store may get, unless it was told of a change itself.
    """

    store: str = "sqlite:///var/dealcast.db"
    tracking_uri: str = "sqlite:///var/mlflow.db"
    artifacts: Path = Path("var/mlflow")
    currency: str | None = None
    time_zone: str = "UTC"
    fiscal_first_month: int = 1
    fiscal_weeks: str | None = None
    week_start: str = "monday"
    fiscal_year_start: str = "nearest"
    renewal_pipelines: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    max_body_bytes: int = 20_000_000
    max_records: int = 1_000
    refresh_seconds: float = 5.0

    def __post_init__(self) -> None:
        code = self.currency
        if code is not None and not (code.isascii() and code.isalpha() and len(code) == 3):
            raise SettingsError(f"currency is {code!r}; allowed: a code of three letters, like EUR")
        for name, low, high in (
            ("port", 1, 65_535),
            ("max_body_bytes", 1_000, 1_000_000_000),
            ("max_records", 1, 100_000),
            ("refresh_seconds", 0.1, 3_600),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise SettingsError(f"{name} is {value}; allowed: {low:,} to {high:,}")
        try:
            _ = self.calendar
        except CalendarError as error:
            raise SettingsError(str(error)) from error

    @property
    def renewals(self) -> tuple[str, ...]:
        """The pipelines that are renewals: won is renewed, lost is churned."""
        named = (part.strip() for part in (self.renewal_pipelines or "").split(","))
        return tuple(dict.fromkeys(name for name in named if name))

    @property
    def calendar(self) -> FiscalCalendar:
        """The organisation's fiscal calendar."""
        return FiscalCalendar(
            self.fiscal_first_month,
            self.time_zone,
            self.fiscal_weeks or "",
            self.week_start,
            self.fiscal_year_start,
        )


# MLflow's own name, so that its command line finds the same runs.
_VARIABLES = {
    f.name: "MLFLOW_TRACKING_URI" if f.name == "tracking_uri" else f"DEALCAST_{f.name.upper()}"
    for f in fields(Settings)
}
_NUMBERS: dict[str, type[int] | type[float]] = {
    "fiscal_first_month": int,
    "port": int,
    "max_body_bytes": int,
    "max_records": int,
    "refresh_seconds": float,
}


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Settings from environment variables, then from the file in DEALCAST_CONFIG, else defaults.

    Parameters
    ----------
    environ : mapping of str to str
        Usually `os.environ`. An empty variable counts as absent.

    Raises
    ------
    SettingsError
        If the file cannot be read, or a setting is unknown or has a value it cannot have.

    Examples
    --------
    >>> load_settings({"DEALCAST_PORT": "9000"}).port
    9000
    >>> load_settings({"DEALCAST_PORT": "high"})
    Traceback (most recent call last):
    ...
    serving.settings.SettingsError: DEALCAST_PORT is 'high'; allowed: a whole number
    """
    config = environ.get("DEALCAST_CONFIG")
    given = _from_file(Path(config)) if config else {}
    for name, variable in _VARIABLES.items():
        text = environ.get(variable)
        if text:
            given[name] = _number(name, text, variable) if name in _NUMBERS else text
    if "artifacts" in given:
        given["artifacts"] = Path(given["artifacts"]).expanduser()
    if given.get("currency"):
        given["currency"] = str(given["currency"]).upper()
    return Settings(**given)


def _number(name: str, text: str, told_as: str) -> int | float:
    kind = _NUMBERS[name]
    try:
        return kind(text)
    except ValueError as error:
        words = "a whole number" if kind is int else "a number"
        raise SettingsError(f"{told_as} is {text!r}; allowed: {words}") from error


def _from_file(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"DEALCAST_CONFIG is {str(path)!r}, which cannot be read: {error.strerror}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    for name, value in found.items():
        if name not in _VARIABLES:
            raise SettingsError(f"{path} sets {name!r}; allowed: {', '.join(_VARIABLES)}")
        _check_kind(f"{name} in {path}", name, value)
    return found


def _check_kind(told_as: str, name: str, value: object) -> None:
    """TOML has types of its own: a number is not a text here."""
    number = _NUMBERS.get(name)
    if number is None:
        good, words = isinstance(value, str) and value != "", "a text"
    elif number is int:
        good, words = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    else:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        words = "a number"
    if not good:
        raise SettingsError(f"{told_as} is {value!r}; allowed: {words}")
