"""Draws: exact means, shocks that widen without moving, sums that add up draw by draw."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from models.arrivals import ArrivalModel
from models.grid import HazardGrid
from models.hazard_table import incidence
from models.shocks import ShockModel
from scoring import simulation
from scoring.simulation import (
    Draws,
    OpenDeals,
    Shocks,
    levelled,
    simulate_new,
    simulate_open,
)

FloatArray = npt.NDArray[np.float64]
GRID = HazardGrid.for_durations(20.0, 100.0)
MONDAY = 19_723.0
CALM, ROUGH = ShockModel.known(0.0, 0.0), ShockModel.known(0.5, 0.3)
WEEKS = np.arange(0.0, 92.0, 7.0)  # thirteen weeks


def pipeline(n: int, seed: int = 1) -> OpenDeals:
    """Open deals of various hazards and amounts, in three groups, from the middle of a day."""
    rng = np.random.default_rng(seed)
    cells = GRID.cells(np.array([MONDAY + 0.4]))
    begin, end = cells.begin[0], cells.end[0]
    width = end - begin
    hazards = np.stack(
        [np.minimum(rng.beta(1, 60, (n, 1)) * width, 0.4) for _ in range(2)], axis=-1
    )
    amount = rng.lognormal(8, 1, n)

    def final(deal: npt.NDArray[np.int64], level: FloatArray) -> FloatArray:
        return np.asarray(amount[deal] * (0.5 + level))  # mean: the amount itself

    return OpenDeals(hazards, begin, end, rng.integers(0, 3, n), final)


def shocks(law: ShockModel, draws: int, seed: int = 5, spread: float = 0.0) -> Shocks:
    return Shocks.draw(law, spread, draws, 20, np.random.default_rng(seed))


def simulated(
    deals: OpenDeals, law: ShockModel, edges: FloatArray = WEEKS, draws: int = 4000, groups: int = 3
) -> Draws:
    return simulate_open(deals, edges, groups, shocks(law, draws), np.random.default_rng(7))


def expected_wins(deals: OpenDeals, edges: FloatArray) -> FloatArray:
    """Exact chance of each deal to be won in each period, straight inside intervals: (n, p)."""
    curve = incidence(deals.hazards)[:, :, 0]
    knots, at = np.unique(np.r_[0.0, deals.end], return_index=True)
    values = np.c_[np.zeros(len(curve)), curve][:, at]
    read = np.array([np.interp(edges, knots, row) for row in values])
    return np.asarray(np.diff(read, axis=1))


@pytest.mark.parametrize("law", [CALM, ROUGH], ids=["calm", "rough"])
def test_means_are_the_incidences_with_and_without_shocks(law: ShockModel) -> None:
    deals = pipeline(150)
    found = simulated(deals, law, draws=12_000)
    exact = expected_wins(deals, WEEKS)
    worth = deals.amount(np.arange(150), np.full(150, 0.5))
    for group in (0, 1, 2, slice(None)):
        mine = np.ones(150, bool) if isinstance(group, slice) else deals.group == group
        picked = [0, 1, 2] if isinstance(group, slice) else [group]
        for draws, due in (
            (found.wins, exact[mine].sum(0)),
            (found.value, (exact * worth[:, None])[mine].sum(0)),
        ):
            sums = draws[:, picked].sum(1)
            # The intercept is one for all deals; those of a group may deplete a little faster.
            error = 4.5 * sums.std(0) / np.sqrt(len(sums))
            np.testing.assert_array_less(np.abs(sums.mean(0) - due), error + 0.01 * due)
            total = sums.sum(1)
            assert abs(total.mean() - due.sum()) < 0.01 * due.sum() + 4 * total.std() / 110


def test_without_an_intercept_shocks_would_move_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    deals = pipeline(150)
    monkeypatch.setattr(simulation, "_NEWTON_STEPS", 0)
    found = simulated(deals, ShockModel.known(0.8, 0.5), draws=12_000).wins.sum((1, 2))
    due = expected_wins(deals, WEEKS).sum()
    assert found.mean() < 0.97 * due  # a lasting shock uses up the deals early


def test_shocks_widen() -> None:
    deals = pipeline(400)
    calm, rough = (simulated(deals, law).value.sum((1, 2)) for law in (CALM, ROUGH))
    assert rough.std() > 1.8 * calm.std()
    p = expected_wins(deals, WEEKS).sum(1)
    worth = deals.amount(np.arange(400), np.full(400, 0.5))
    independent = np.sqrt((p * (worth**2 * (1 + 1 / 12)) - (p * worth) ** 2).sum())
    assert calm.std() == pytest.approx(independent, rel=0.05)


def test_weeks_add_up_to_months_and_groups_to_the_whole_draw_by_draw() -> None:
    deals = pipeline(80)
    weeks = simulated(deals, ROUGH)
    months = simulated(deals, ROUGH, WEEKS[[0, 4, 8, 13]])
    for name in ("value", "wins"):
        fine, coarse = getattr(weeks, name), getattr(months, name)
        parts = np.add.reduceat(fine, [0, 4, 8], axis=2)
        np.testing.assert_allclose(parts, coarse, rtol=1e-12, atol=1e-6)
    ungrouped = OpenDeals(deals.hazards, deals.begin, deals.end, np.zeros(80, int), deals.amount)
    whole = simulated(ungrouped, ROUGH, groups=1)
    np.testing.assert_allclose(whole.value[:, 0], weeks.value.sum(1), rtol=1e-12, atol=1e-6)


def test_a_longer_horizon_leaves_the_first_weeks_as_they_were() -> None:
    deals = pipeline(80)
    long, short = simulated(deals, ROUGH), simulated(deals, ROUGH, WEEKS[:3])
    np.testing.assert_allclose(long.value[:, :, :2], short.value, rtol=1e-12)


def test_a_deal_closes_at_most_once() -> None:
    deals = pipeline(12)
    certain = np.zeros_like(deals.hazards)
    certain[:, :, 0] = 0.3
    alone = OpenDeals(certain, deals.begin, deals.end, np.arange(12), deals.amount)
    wins = simulated(alone, ROUGH, groups=12).wins.sum(2)
    assert set(np.unique(wins)) <= {0.0, 1.0}
    assert wins.mean() > 0.99


def test_the_day_inside_an_interval_is_uniform() -> None:
    hazards = np.full((300, 1, 2), 0.25)
    deals = OpenDeals(hazards, np.zeros(1), np.full(1, 10.0), np.zeros(300, int), np.multiply)
    wins = simulate_open(
        deals, np.arange(0.0, 11.0), 1, shocks(CALM, 1000), np.random.default_rng(0)
    ).wins.sum((0, 1))
    np.testing.assert_allclose(wins, wins.mean(), rtol=0.05)
    assert wins.sum() == pytest.approx(300 * 1000 * 0.25, rel=0.01)


def test_amount_levels_are_uniform_and_independent_of_the_day() -> None:
    seen: list[FloatArray] = []

    def final(deal: npt.NDArray[np.int64], level: FloatArray) -> FloatArray:
        seen.append(level)
        return np.ones(len(deal))

    deals = pipeline(50)
    watched = OpenDeals(deals.hazards, deals.begin, deals.end, deals.group, final)
    simulated(watched, ROUGH)
    level = np.concatenate(seen)
    assert len(level) > 20_000 and level.min() >= 0 and level.max() < 1
    np.testing.assert_allclose(np.histogram(level, 10, (0, 1))[0] / len(level), 0.1, atol=0.01)


def test_a_seed_decides_everything_and_chunks_nothing_of_the_law(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deals = pipeline(40)
    first, again = simulated(deals, ROUGH), simulated(deals, ROUGH)
    assert first.value.tobytes() == again.value.tobytes()
    monkeypatch.setattr(simulation, "_CHUNK", 7 * 4000)
    other = simulated(deals, ROUGH)
    error = first.value.sum((1, 2)).std() / np.sqrt(1000)
    assert abs(other.value.sum((1, 2)).mean() - first.value.sum((1, 2)).mean()) < 4 * error


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "_BLOCK", 16)
    deals, law = pipeline(100), shocks(ROUGH, 500)
    one, two = (
        simulate_open(deals, WEEKS, 3, law, np.random.default_rng(7), threads=n) for n in (1, 2)
    )
    assert one.value.tobytes() == two.value.tobytes()
    assert one.wins.tobytes() == two.wins.tobytes() and one.wins.any()


def test_deals_that_come_last_leave_the_luck_of_those_before_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(simulation, "_BLOCK", 16)
    deals = pipeline(100)
    fewer = OpenDeals(
        deals.hazards[:70], deals.begin, deals.end, np.arange(70), deals.amount
    )  # fmt: skip
    more = OpenDeals(deals.hazards, deals.begin, deals.end, np.arange(100), deals.amount)
    alone = simulated(fewer, CALM, draws=300, groups=70)
    among = simulated(more, CALM, draws=300, groups=100)
    np.testing.assert_array_equal(alone.value, among.value[:, :70])
    assert alone.value.any()


def test_nothing_open() -> None:
    empty = simulated(pipeline(0), ROUGH)
    assert empty.value.shape == (4000, 3, 13) and not empty.value.any() and not empty.wins.any()


def test_periods_may_begin_later_and_be_over() -> None:
    deals = pipeline(60)
    later = simulated(deals, ROUGH, np.array([14.0, 21.0]))
    whole = simulated(deals, ROUGH, WEEKS[:4])
    np.testing.assert_allclose(later.value[:, :, 0], whole.value[:, :, 2], rtol=1e-12)
    over = simulated(deals, ROUGH, np.array([0.0, 0.0, 7.0]))
    assert not over.value[:, :, 0].any()
    np.testing.assert_allclose(over.value[:, :, 1], whole.value[:, :, 0], rtol=1e-12)


def test_shocks_come_in_antithetic_pairs() -> None:
    for draws in (1000, 7, 1):
        found = shocks(ROUGH, draws)
        half = -(-draws // 2)
        middle = -(0.5**2 + 0.3**2) / 2
        pairs = (found.weekly[half:] + found.weekly[: draws - half]) / 2
        # The shocks of the weeks mirror each other exactly, and so do the places of the lasting
        # part in its table, which ends at 1.5: nearer on one side of the middle than the other.
        np.testing.assert_allclose(pairs, pairs[:, :1] + np.zeros(20), atol=1e-12)
        np.testing.assert_allclose(pairs, middle, atol=0.08)
        assert draws < 1000 or pairs[:, 0].mean() == pytest.approx(middle, abs=0.005)
        assert found.weekly.shape == (draws, 20) and (found.growth == 1).all()
    many = shocks(ROUGH, 40_000)
    assert many.weekly[:, 3].std() == pytest.approx(np.hypot(0.5, 0.3), rel=0.03)
    assert np.cov(many.weekly[:, 3], many.weekly[:, 9])[0, 1] == pytest.approx(0.25, rel=0.05)
    grown = shocks(CALM, 40_000, spread=0.09).growth
    assert grown.mean() == pytest.approx(1, abs=0.01) and grown.var() == pytest.approx(
        0.09, rel=0.1
    )


def test_more_weeks_leave_the_first_shocks_as_they_were() -> None:
    long = Shocks.draw(ROUGH, 0.1, 50, 40, np.random.default_rng(3))
    short = Shocks.draw(ROUGH, 0.1, 50, 4, np.random.default_rng(3))
    np.testing.assert_array_equal(long.weekly[:, :4], short.weekly)
    np.testing.assert_array_equal(long.growth, short.growth)


def test_the_shock_over_a_time_is_the_mean_of_its_weeks() -> None:
    weeks = np.array([1.0, 2.0, 4.0])
    found = Shocks(weeks[None, :], 2 * weeks, np.ones(1))
    begin = np.array([0.0, 3.0, 3.5, 7.0, 0.0, 14.0, 60.0])
    end = np.array([1.0, 7.0, 10.5, 14.0, 21.0, 35.0, 61.0])
    means = np.array([1, 1, 1.5, 2, 7 / 3, 4, 4])
    np.testing.assert_allclose(found.over(begin, end)[0], means)
    np.testing.assert_allclose(found.level_over(begin, end), 2 * means)


def test_a_level_moves_the_odds_of_winning_and_leaves_losses_their_share() -> None:
    hazards = np.array([[[0.2, 0.3], [0.4, 0.0], [0.0, 0.5]]])
    moved = levelled(hazards, np.array([2.0, 0.5, 3.0]))[0]
    odds = moved[:, 0] / (1 - moved[:, 0])
    np.testing.assert_allclose(odds, [0.5, 1 / 3, 0.0])
    np.testing.assert_allclose(moved[0, 1] / (1 - moved[0, 0]), 0.3 / 0.8)
    assert moved[2, 1] == 0.5


def arrivals(level: float = 3.0, amounts: int = 500) -> ArrivalModel:
    ages = np.arange(0, 60.25, 0.25)
    worth = np.random.default_rng(0).lognormal(8, 1, amounts)
    return ArrivalModel(
        np.full(7, level), 0.02, 20.0, 0.3 * (1 - np.exp(-ages / 15)), worth, {"owner": {}}
    )


SHARES = np.array([0.5, 0.2, 0.3])


def new(
    law: ShockModel, edges: FloatArray = WEEKS, spread: float = 0.05, draws: int = 6000
) -> Draws:
    return simulate_new(
        arrivals(), MONDAY, edges, SHARES, shocks(law, draws, spread=spread),
        np.random.default_rng(11),
    )  # fmt: skip


@pytest.mark.parametrize("law", [CALM, ROUGH], ids=["calm", "rough"])
def test_new_business_keeps_its_mean_and_its_shares(law: ShockModel) -> None:
    found = new(law)
    due = arrivals().wins_expected(MONDAY, WEEKS)
    wins = found.wins.sum(1)
    error = wins.std(0) / np.sqrt(len(wins))
    np.testing.assert_array_less(np.abs(wins.mean(0) - due), 4 * error + 0.01)
    share = found.wins.sum((0, 2)) / found.wins.sum()
    np.testing.assert_allclose(share, SHARES, atol=0.01)
    assert found.value.sum() / found.wins.sum() == pytest.approx(
        arrivals().amounts.mean(), rel=0.02
    )


def test_new_business_of_a_quarter_is_as_wide_as_its_weeks_together() -> None:
    weekly = ShockModel.known(0.0, 0.6)
    weeks, quarter = new(weekly, spread=0.0), new(weekly, WEEKS[[0, 13]], spread=0.0)
    together, at_once = weeks.wins.sum((1, 2)), quarter.wins.sum((1, 2))
    assert at_once.mean() == pytest.approx(together.mean(), rel=0.01)
    assert at_once.std() == pytest.approx(together.std(), rel=0.05)


def test_new_business_of_the_first_week_does_not_depend_on_the_horizon() -> None:
    long, short = new(ROUGH), new(ROUGH, WEEKS[:2])
    np.testing.assert_array_equal(long.value[:, :, 0], short.value[:, :, 0])


def test_open_and_new_deals_share_their_shocks() -> None:
    both = shocks(ROUGH, 6000)
    edges = np.array([0.0, 60.0])
    old = simulate_open(pipeline(500), edges, 3, both, np.random.default_rng(1))
    young = simulate_new(arrivals(40.0), MONDAY, edges, SHARES, both, np.random.default_rng(2))
    assert np.corrcoef(old.wins.sum((1, 2)), young.wins.sum((1, 2)))[0, 1] > 0.7
    np.testing.assert_array_equal((old + young).wins, old.wins + young.wins)


def test_no_arrivals_and_no_amounts() -> None:
    none = simulate_new(
        arrivals(0.0), MONDAY, WEEKS, SHARES, shocks(ROUGH, 50), np.random.default_rng(0)
    )
    assert not none.wins.any() and not none.value.any()
    unpaid = simulate_new(
        arrivals(amounts=0), MONDAY, WEEKS, SHARES, shocks(ROUGH, 50), np.random.default_rng(0)
    )
    assert unpaid.wins.any() and not unpaid.value.any()
    over = simulate_new(
        arrivals(), MONDAY, np.array([-9.0, 0.0]), SHARES, shocks(ROUGH, 50),
        np.random.default_rng(0),
    )  # fmt: skip
    assert over.wins.shape == (50, 3, 1) and not over.wins.any()
