"""Calendars learnt from daily counts: found where they are, and not where they are not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from data.pipeline import FiscalCalendar
from models.day_profile import DayProfile

FloatArray = npt.NDArray[np.float64]

START = 18_262.0  # 2020-01-01


def played(n: int, seed: int, *, season: float = 0.0, rush: float = 0.0, turn: float = 1.0,
           weekly: float = 0.0) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    """Days and counts of about thirty a weekday and five a day at the weekend."""
    rng = np.random.default_rng(seed)
    days = START + np.arange(n, dtype=np.float64)
    date = days.astype(np.int64).astype("datetime64[D]")
    year = date.astype("datetime64[Y]").astype("datetime64[D]")
    place = (date - year).astype(float)
    month = date.astype("datetime64[M]")
    end = (month + (3 - month.astype(np.int64) % 3)).astype("datetime64[D]")
    left = (end - date).astype(float) - 1
    rate = np.where((days + 3) % 7 < 5, 30.0, 5.0) * np.exp(
        season * np.sin(2 * np.pi * place / 365)
    )
    rate *= 1 + rush * np.exp(-left / 5)
    rate *= np.where((place >= 357) | (place == 0), turn, 1.0)
    noise = np.exp(weekly * rng.standard_normal(n // 7 + 1))[np.arange(n) // 7]
    return days, rng.poisson(rate * noise).astype(np.float64)


def test_week_quarter_and_year_are_found() -> None:
    days, count = played(1_500, 0, season=0.3, rush=1.0, turn=0.3)
    found = DayProfile.fit(days, count, np.ones(len(days)))
    monday = found.weekday[0] - found.weekday[5]
    assert monday == pytest.approx(np.log(6.0), abs=0.15)
    assert found.season[0] == pytest.approx(0.3, abs=0.06)
    eve = np.array([np.datetime64("2023-06-29"), np.datetime64("2023-05-18")]).astype(float)
    assert found.factor(eve)[0] / found.factor(eve)[1] == pytest.approx(1.8, rel=0.2)
    turn = np.array([np.datetime64("2023-12-27"), np.datetime64("2023-12-13")]).astype(float)
    assert found.factor(turn)[0] / found.factor(turn)[1] < 0.6


def test_nothing_is_found_where_nothing_is() -> None:
    days, count = played(1_500, 1)
    found = DayProfile.fit(days, count, np.ones(len(days))).without_weekdays()
    ahead = days[-1] + 1 + np.arange(365.0)
    assert np.abs(np.log(found.factor(ahead))).max() < 0.1


def test_noise_shared_by_weeks_is_not_taken_for_a_season() -> None:
    sizes = []
    for weekly in (0.0, 0.6):
        swings = []
        for seed in range(8):
            days, count = played(800, seed, weekly=weekly)
            found = DayProfile.fit(days, count, np.ones(len(days))).without_weekdays()
            swings.append(np.log(found.factor(days)).std())
        sizes.append(np.mean(swings))
    # The noise of a week is .6; the average year of two would swing by more than this.
    assert sizes[1] < 0.15


def test_a_year_is_not_learnt_from_one_nor_a_quarter_from_weeks() -> None:
    days, count = played(700, 2, season=0.5, rush=1.0)
    one = DayProfile.fit(days, count, np.ones(len(days)))
    assert not one.season.any() and one.turn == 0.0 and one.rush.any()
    few = DayProfile.fit(days[:150], count[:150], np.ones(150))
    assert not few.rush.any() and few.weekday.any()
    assert DayProfile.fit(days[:10], count[:10], np.ones(10)).to_state()["turn"] == 0.0


def test_quarters_follow_the_fiscal_year() -> None:
    days, count = played(1_500, 3, rush=1.0)
    january, february = (FiscalCalendar(m).marks[1] for m in (1, 2))
    right, wrong = (DayProfile.fit(days, count, np.ones(len(days)), q) for q in (january, february))
    eve = np.array([np.datetime64("2023-06-30")]).astype(float)
    usual = np.array([np.datetime64("2023-05-19")]).astype(float)
    assert right.factor(eve)[0] / right.factor(usual)[0] > 1.7
    assert wrong.rush.max() < right.rush.max() / 2


def test_what_was_due_is_taken_out() -> None:
    """A level that the expectation explains leaves no season."""
    days, count = played(1_500, 4, season=0.3)
    place = (days - START) % 365.25
    due = np.exp(0.3 * np.sin(2 * np.pi * place / 365.25))
    found = DayProfile.fit(days, count, due)
    assert np.abs(found.season).max() < 0.08
