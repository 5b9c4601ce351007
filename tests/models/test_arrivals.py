"""Arrivals: incidences by age against known answers, expected wins against a played-out world."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from models import bundle
from models.arrivals import ArrivalModel, aalen_johansen

FloatArray = npt.NDArray[np.float64]
MONDAY = 19_723.0  # 2024-01-01


def test_incidences_with_censoring_by_hand() -> None:
    time = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    outcome = np.array([1, 2, 0, 1, 2, 0])
    ages, curve = aalen_johansen(np.zeros(6), time, outcome)
    np.testing.assert_array_equal(ages, [1, 2, 4, 5])
    # 1/6; then 5/6 are left; the one censored at 3 leaves three at risk at 4.
    np.testing.assert_allclose(curve[:, 0], [1 / 6, 1 / 6, 7 / 18, 7 / 18])
    np.testing.assert_allclose(curve[:, 1], [0, 1 / 6, 1 / 6, 7 / 18])


def test_incidences_with_delayed_entry_by_hand() -> None:
    entry = np.array([0.0, 0.0, 1.5, 2.5, 4.0])
    time = np.array([1.0, 3.0, 2.0, 4.0, 5.0])
    outcome = np.array([2, 1, 1, 2, 1])
    ages, curve = aalen_johansen(entry, time, outcome)
    # At risk: two at ages 1 to 4 (the last one enters at 4), one at 5.
    np.testing.assert_array_equal(ages, [1, 2, 3, 4, 5])
    np.testing.assert_allclose(curve[:, 1], [1 / 2, 1 / 2, 1 / 2, 9 / 16, 9 / 16])
    np.testing.assert_allclose(curve[:, 0], [0, 1 / 4, 3 / 8, 3 / 8, 7 / 16])


def test_a_record_that_left_before_it_was_seen_does_not_count() -> None:
    entry, time = np.array([0.0, 0.0, 9.0]), np.array([1.0, 5.0, 3.0])
    ages, curve = aalen_johansen(entry, time, np.array([1, 0, 1]))
    np.testing.assert_array_equal(ages, [1])
    np.testing.assert_allclose(curve, [[1 / 2, 0]])


def test_one_outcome_gives_the_published_kaplan_meier_curve() -> None:
    # Remission of leukaemia, maintained group (Miller, 1981), as R's survfit prints it.
    time = np.array([9, 13, 13, 18, 23, 28, 31, 34, 45, 48, 161.0])
    outcome = np.array([1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 0])
    ages, curve = aalen_johansen(np.zeros(11), time, outcome)
    np.testing.assert_array_equal(ages, [9, 13, 18, 23, 31, 34, 48])
    published = [0.909, 0.818, 0.716, 0.614, 0.491, 0.368, 0.184]
    np.testing.assert_allclose(1 - curve[:, 0], published, atol=0.0005)


def test_records_that_close_at_once_count() -> None:
    ages, curve = aalen_johansen(
        np.zeros(4), np.array([0.0, 0.0, 2.0, 3.0]), np.array([1, 2, 1, 0])
    )
    np.testing.assert_array_equal(ages, [0, 2])
    np.testing.assert_allclose(curve, [[1 / 4, 1 / 4], [1 / 2, 1 / 4]])


def test_nothing_closed_gives_an_empty_curve() -> None:
    ages, curve = aalen_johansen(np.zeros(3), np.ones(3), np.zeros(3, dtype=np.int64))
    assert len(ages) == 0 and curve.shape == (0, 2)


def played_out(
    model: ArrivalModel, now: float, edges: FloatArray, worlds: int, seed: int
) -> FloatArray:
    """Wins per period in simulated worlds: Poisson arrivals a day, each with a drawn delay."""
    rng = np.random.default_rng(seed)
    total = np.zeros((worlds, len(edges) - 1))
    curve = model.won_by
    for day in range(int(np.floor(now)), int(np.ceil(now + edges[-1]))):
        count = rng.poisson(model.per_weekday[(day + 3) % 7], worlds)
        world = np.repeat(np.arange(worlds), count)
        arrival = day + rng.random(len(world)) - now
        u = rng.random(len(world))
        delay = np.interp(u, curve, np.arange(len(curve)) / 4.0)
        won = (arrival >= 0) & (u < curve[-1])
        period = np.searchsorted(edges, arrival + delay, side="right") - 1
        inside = won & (period >= 0) & (period < total.shape[1])
        np.add.at(total, (world[inside], period[inside]), 1)
    return total


@pytest.mark.parametrize(
    ("now", "edges"),
    [
        (MONDAY, [0.0, 7.0, 14.0, 21.0, 60.0]),
        (MONDAY + 4.6, [0.0, 2.4, 9.4, 40.0]),  # from a Friday afternoon
        (MONDAY, [10.0, 17.0, 90.0]),  # a period that begins later, beyond the longest delay
    ],
)
def test_expected_wins_are_those_of_a_played_out_world(now: float, edges: list[float]) -> None:
    ages = np.arange(0, 30.25, 0.25)
    model = ArrivalModel(
        np.array([5.0, 4, 3, 3, 2, 0.2, 0.1]), 0.0, 20.0, 0.4 * (1 - np.exp(-ages / 8)),
        np.ones(1), {},
    )  # fmt: skip
    seen = played_out(model, now, np.array(edges), 3000, 1)
    error = seen.std(0) / np.sqrt(len(seen))
    expected = model.wins_expected(now, np.array(edges))
    np.testing.assert_array_less(np.abs(seen.mean(0) - expected), 4 * error + 0.005)


def learnt(
    created: FloatArray, *, now: float = MONDAY + 180, first: float = MONDAY, spread: float = 0.0
) -> ArrivalModel:
    """Fitted on deals that are won after ten days, every other one; the rest stay open."""
    n = len(created)
    wins = (np.arange(n) % 2 == 0) & (created + 10 <= now)
    owner = np.where(np.arange(n) % 4 == 0, "$ue", "bob").astype(object)
    owner[:3] = None
    return ArrivalModel.fit(
        created, np.where(wins, 10.0, now - created), wins.astype(np.int64),
        np.where(wins, 500.0, np.nan), {"owner": owner}, now=now, first=first, t_max=60.0,
    )  # fmt: skip


def stream(rate: FloatArray, days: int, seed: int, spread: float = 0.0) -> FloatArray:
    """Creation times of Poisson arrivals by weekday, each week with its own gamma factor."""
    rng = np.random.default_rng(seed)
    level = rng.gamma(1 / spread, spread, days // 7 + 1) if spread else np.ones(days // 7 + 1)
    count = rng.poisson(rate[np.arange(days) % 7] * level[np.arange(days) // 7])
    day = np.repeat(np.arange(days), count)
    return np.asarray(MONDAY + day + rng.random(len(day)))


def test_the_profile_of_the_week_is_learnt() -> None:
    rate = np.array([20.0, 10, 10, 10, 5, 0, 0])
    model = learnt(stream(rate, 180, 1))
    np.testing.assert_allclose(model.per_weekday, rate, atol=2.5)
    assert model.per_weekday[5:].max() < 1.0
    assert model.won_by[39] == 0 and model.won_by[40] == pytest.approx(0.5, abs=0.02)


def test_spread_is_what_poisson_does_not_explain() -> None:
    rate = np.full(7, 20.0)
    now = MONDAY + 182  # whole weeks, as the spread was drawn
    calm, wild = (
        np.mean([learnt(stream(rate, 182, s, spread=x), now=now).spread for s in range(8)])
        for x in (0.0, 0.2)
    )
    assert calm < 0.015 and 0.12 < wild < 0.25


def test_the_day_records_begin_says_nothing_of_the_level() -> None:
    burst = np.r_[np.full(50, MONDAY + 0.4), MONDAY + 20.5]
    model = learnt(burst, now=MONDAY + 40.0, first=MONDAY + 0.4)
    assert 0.0 < model.per_weekday.mean() < 0.1


def test_no_arrivals_and_too_young_records() -> None:
    none = learnt(np.zeros(0), first=MONDAY)
    assert none.per_weekday.tolist() == [0.0] * 7 and none.won_by.max() == 0
    assert none.wins_expected(MONDAY, np.array([0.0, 90.0])).tolist() == [0.0]
    young = learnt(np.array([MONDAY + 0.2]), now=MONDAY + 0.5, first=MONDAY + 0.2)
    assert young.per_weekday.tolist() == [0.0] * 7 and young.weeks == 0.0


def test_old_deals_that_lasted_count_from_the_age_they_were_seen() -> None:
    # Ten deals of before the records began, seen only because they were still open: all won late.
    old = np.linspace(MONDAY - 60, MONDAY - 50, 10)
    new = stream(np.full(7, 3.0), 100, 2)
    created = np.r_[old, new]
    n = len(created)
    quick = np.arange(n) >= 10
    age = np.where(quick, 5.0, MONDAY + 20 - created)
    outcome = np.where(quick, np.where(np.arange(n) % 2 == 0, 1, 2), 1)
    model = ArrivalModel.fit(
        created, age, outcome, np.ones(n), {}, now=MONDAY + 110, first=MONDAY, t_max=120.0
    )
    assert model.won_by[4 * 30] == pytest.approx(0.5, abs=0.06)


def test_shares_leave_something_unassigned() -> None:
    model = learnt(stream(np.full(7, 2.0), 180, 3))
    shares = model.shares["owner"]
    assert set(shares) == {"$ue", "bob"} and 0.9 < sum(shares.values()) < 1
    # Half of the wins each; bob's other deals are open still, and tell less.
    assert shares["bob"] / shares["$ue"] == pytest.approx(1.4, abs=0.1)


def test_amounts_are_those_of_the_newest_wins() -> None:
    created = MONDAY + np.arange(5.0)
    model = ArrivalModel.fit(
        created, np.array([50.0, 1, 1, 1, 1]), np.array([1, 1, 2, 1, 1]),
        np.array([9.0, 1, np.nan, np.nan, 3.0]), {}, now=MONDAY + 60, first=MONDAY, t_max=60.0,
    )  # fmt: skip
    assert model.amounts.tolist() == [1.0, 3.0, 9.0]


def test_a_model_comes_back_from_disk(tmp_path: Path) -> None:
    model = learnt(stream(np.full(7, 2.0), 180, 3))
    bundle.save(tmp_path / "arrivals", model.to_state())
    again = ArrivalModel.from_state(bundle.load(tmp_path / "arrivals"))
    assert (again.shares, again.spread, again.weeks) == (model.shares, model.spread, model.weeks)
    edges = np.array([0.0, 7.0, 30.0])
    assert (
        again.wins_expected(MONDAY, edges).tobytes() == model.wins_expected(MONDAY, edges).tobytes()
    )


def test_the_season_of_arrivals_and_of_wins_is_learnt() -> None:
    """Four years whose summers bring twice the deals of winters: next summer is told so."""
    rng = np.random.default_rng(0)
    first = float(np.datetime64("2020-01-01", "D").astype(int))
    now = float(np.datetime64("2023-12-31", "D").astype(int))
    days = np.arange(first, now)
    angle = 2 * np.pi * ((days - first) % 365.25 - 182.0) / 365.25
    created = np.repeat(days, rng.poisson(10.0 * np.exp(0.35 * np.cos(angle)))) + 0.5
    delay = rng.exponential(20.0, len(created))
    won = (rng.random(len(created)) < 0.4) & (created + delay < now)
    age = np.where(won, delay, np.minimum(delay, now - created))
    outcome = np.where(won, 1, np.where(created + delay < now, 2, 0))
    model = ArrivalModel.fit(
        created, age, outcome, np.where(won, 100.0, np.nan), {}, now=now, first=first, t_max=120.0
    )
    year = model.wins_expected(now, np.arange(0.0, 361.0, 30.0))
    # The first month has no deals of before it; from the fifth on all is in place.
    rest = year[4:]
    assert rest.argmax() in (1, 2, 3) and rest.max() / year[10] > 1.5
    due = 0.4 * 10.0 * 30.0 * np.exp(0.35)
    assert rest.max() == pytest.approx(due, rel=0.15)
