"""How right the numbers of people and of plain methods were: as given then, against what came."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data.chronicle import known_times
from data.columns import IntArray, micros
from data.pipeline import Period
from scoring.books import Books, bounds_of, crm_chances
from scoring.kpi import Kpi, Part, untold
from scoring.pacing import past_periods

__all__ = ["accuracies"]

_LEAST = 3  # past periods from which an accuracy is told
_MEAN_OF = 4  # periods that the naive method averages over


def accuracies(books: Books) -> tuple[Kpi, ...]:
    """Each method's error over past periods: absolute, and signed.

    Of the model, the measured coverage of its 80 % ranges; its error is what a back-test tells.
    """
    periods = past_periods(books)
    _, at, _, cents = books.revenue
    bounds = [bounds_of(p) for p in periods]
    actual = [int(cents[(at >= lo) & (at < hi)].sum()) for lo, hi in bounds]
    found = []
    for name, guess in (
        ("forecast_error_commit", _commit),
        ("forecast_error_crm_pipeline", _crm_pipeline),
        ("forecast_error_naive", _naive),
    ):
        found.append(_error(books, name, guess, periods, actual))
    return (*found, _coverage(books))


def _error(
    books: Books,
    name: str,
    guess: Callable[[Books, Period], float | None],
    periods: list[Period],
    actual: list[int],
) -> Kpi:
    """Sum of absolute errors / sum of actuals; a point's CRPS is its absolute error."""
    window = f"past {books.kind}s"
    pairs = [
        (g, a) for p, a in zip(periods, actual, strict=True) if (g := guess(books, p)) is not None
    ]
    if len(pairs) < _LEAST:
        reason = f"there are {len(pairs)} past {books.kind}s with such a number; needed: {_LEAST}"
        return untold(name, window, "share", reason)
    told, came = (np.array(column, dtype=np.float64) for column in zip(*pairs, strict=True))
    if came.sum() <= 0:
        return untold(name, window, "share", f"nothing was won in these {len(pairs)} {books.kind}s")
    bias = float((told - came).sum() / came.sum())
    return Kpi(
        name,
        window,
        float(np.abs(told - came).sum() / came.sum()),
        "share",
        len(pairs),
        "absolute error of the number at the period's start, as a share of what was won",
        (Part("signed bias", bias, len(pairs)),),
    )


def _commit(books: Books, period: Period) -> float | None:
    """The first number that anyone gave for the whole of the period, in cents."""
    table = books.history.tables["commit"]
    first, after = (
        np.datetime64(books.calendar.day_of(t), "D") for t in (period.start, period.end)
    )
    here = (table["scope"] == "all") & (table["period_start"] == first)
    here &= (table["period_end"] == after) & (known_times(table) <= bounds_of(period)[1])
    rows = np.flatnonzero(here & (known_times(table) <= books.now))
    if not len(rows):
        return None
    return 100.0 * float(table["amount"][rows[np.argmin(micros(table["changed_at"])[rows])]])


def _crm_pipeline(books: Books, period: Period) -> float | None:
    """Amount x the CRM's probability of deals expected in the period, as known at its start."""
    then = books.history.as_of("deal", period.start)
    expected = then.value("expected_close_date").numbers()
    inside = (expected >= books.day(period.start)) & (expected < books.day(period.end))
    then = then.take(inside)
    chance, amount = crm_chances(then), then.amount
    known = ~np.isnan(chance) & ~np.isnan(amount)
    if not known.any():
        return None
    return 100.0 * float((chance * amount)[known].sum())


def _naive(books: Books, period: Period) -> float | None:
    """Mean of the four periods before, as known at the period's start, in cents."""
    _, at, known, cents = books.revenue
    start = bounds_of(period)[0]
    if not len(at):
        return None
    first = np.datetime64(max(int(at.min()), books.history.observed_from), "us")
    before = books.calendar.periods_between(books.kind, first, period.start)[-_MEAN_OF:]
    if len(before) < _MEAN_OF:
        return None
    lo = bounds_of(before[0])[0]
    seen: IntArray = cents[(at >= lo) & (at < start) & (known <= start)]
    return float(seen.sum()) / _MEAN_OF


def _coverage(books: Books) -> Kpi:
    """Share of back-tested totals inside the model's 80 % range."""
    name, window = "forecast_coverage_80", "back-tests"
    if books.bundle is None:
        reason = "there is no model that may answer for this moment; train one"
        return untold(name, window, "share", reason)
    told = [c for c in books.bundle.manifest.coverage if abs(c["level"] - 0.8) < 1e-9 and c["n"]]
    if not told:
        reason = "the model's ranges are not yet verified: too few matured periods to back-test"
        return untold(name, window, "share", reason)
    n = sum(int(c["n"]) for c in told)
    share = sum(c["measured"] * c["n"] for c in told) / n
    parts = tuple(Part(f"{c['horizon_days']:g} days", c["measured"], int(c["n"])) for c in told)
    return Kpi(name, window, share, "share", n, "", parts)
