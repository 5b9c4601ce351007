"""What if: nothing supposed is the same answer, and only what is supposed makes a difference."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from data.pipeline import FiscalCalendar
from scoring.forecast import Simulation, forecast, simulate
from scoring.what_if import Supposed, WhatIf, WhatIfError
from tests import worlds

CALENDAR = FiscalCalendar()
PERIODS = CALENDAR.periods("month", worlds.cut_time(), 3)


@cache
def as_is(by: str | None = "owner") -> Simulation:
    return simulate(
        worlds.company(), worlds.deals(), worlds.cut_time(), PERIODS, by, draws=1000
    )  # fmt: skip


def supposing(by: str | None = "owner", **supposed: Any) -> Simulation:
    return simulate(
        worlds.company(), worlds.deals(), worlds.cut_time(), PERIODS, by, draws=1000,
        what_if=WhatIf(**supposed),
    )  # fmt: skip


def largest() -> int:
    """The open deal that brings most in the three months."""
    found = as_is()
    return int(np.argmax(found.chance.sum(1) * found.typical))


def test_without_a_change_it_is_the_same_to_the_bit() -> None:
    for by in (None, "owner", "team"):
        again = supposing(by)
        np.testing.assert_array_equal(again.total, as_is(by).total)
        np.testing.assert_array_equal(again.chance, as_is(by).chance)
    at = worlds.cut_time()
    one, two = (
        forecast(worlds.company(), worlds.deals(), at, PERIODS, "team", draws=200, what_if=w)
        for w in (None, WhatIf())
    )
    assert one == two


def test_a_dropped_deal_takes_its_own_draws_and_no_others() -> None:
    usual, i = as_is(), largest()
    found = supposing(dropped=(str(usual.ids[i]),))
    mine = usual.groups.index(str(usual.open_groups[i]))
    others = [g for g in range(len(usual.groups)) if g != mine]
    np.testing.assert_array_equal(found.total[:, others], usual.total[:, others])
    less = usual.open.wins[:, mine].sum(1) - found.open.wins[:, mine].sum(1)
    assert set(np.unique(less)) == {0.0, 1.0}
    assert less.mean() == pytest.approx(usual.chance[i].sum(), abs=0.05)
    assert found.chance[i].sum() == 0.0


def test_an_added_deal_leaves_the_luck_of_all_others() -> None:
    usual = as_is()
    stage = worlds.company().deals.stage_levels[usual.open_deals.stage[largest()]]
    new = Supposed(stage_id=str(stage), amount=50_000.0, group="rep-01")
    found = supposing(added=(new, replace(new, odds=0.0)))
    assert found.ids[-2:].tolist() == ["added-1", "added-2"]
    more = found.open.value - usual.open.value
    assert (more >= 0).all()
    place = usual.groups.index("rep-01")
    np.testing.assert_array_equal(np.delete(more, place, axis=1), 0.0)
    wins = (found.open.wins - usual.open.wins).sum((1, 2))
    assert set(np.unique(wins)) <= {0.0, 1.0}
    assert wins.mean() == pytest.approx(found.chance[-2].sum(), abs=0.05)
    assert found.chance[-1].sum() == 0.0


def test_odds_amounts_stages_and_dates_do_what_they_say() -> None:
    usual, i = as_is(), largest()
    deal = str(usual.ids[i])
    better = supposing(odds=2.0)
    assert (better.chance.sum(1) >= usual.chance.sum(1) - 1e-12).all()
    assert better.open.wins.sum() > 1.2 * usual.open.wins.sum()
    # The same luck: the better future has nearly all wins of the usual one, in nearly every draw.
    apart = better.open.wins.sum((1, 2)) - usual.open.wins.sum((1, 2))
    assert apart.std() < 0.8 * usual.open.wins.sum((1, 2)).std()
    richer = supposing(deals={deal: Supposed(amount=10 * float(usual.open_deals.amount[i]))})
    assert richer.typical[i] == pytest.approx(10 * usual.typical[i])
    first, last = (worlds.company().deals.stage_levels[c] for c in stages_by_chance())
    low, high = (
        supposing(deals={deal: Supposed(stage_id=str(s))}).chance[i].sum() for s in (first, last)
    )
    assert low < high
    rest = np.arange(len(usual.ids)) != i
    moved = supposing(deals={deal: Supposed(stage_id=str(last), group="rep-02")})
    np.testing.assert_array_equal(moved.chance[rest], usual.chance[rest])
    assert moved.open_groups[i] == "rep-02"
    soon = Supposed(expected_close_date=worlds.cut_time().astype("datetime64[D]") + 3)
    assert not np.array_equal(supposing(deals={deal: soon}).chance[i], usual.chance[i])


def stages_by_chance() -> tuple[int, int]:
    """Codes of the stages that the open deals are least and most likely to be won from."""
    usual = as_is()
    codes = np.unique(usual.open_deals.stage)
    chance = [usual.chance[usual.open_deals.stage == c].sum(1).mean() for c in codes]
    return int(codes[np.argmin(chance)]), int(codes[np.argmax(chance)])


def test_arrivals_stay_away_or_come_besides() -> None:
    usual = as_is()
    none, half, twice = (supposing(arrivals=f).new.wins.sum((1, 2)) for f in (0.0, 0.5, 2.0))
    base = usual.new.wins.sum((1, 2))
    assert not none.any()
    assert (half <= base).all() and (twice >= base).all()
    assert half.mean() == pytest.approx(0.5 * base.mean(), rel=0.1)
    assert twice.mean() == pytest.approx(2.0 * base.mean(), rel=0.1)
    np.testing.assert_array_equal(supposing(arrivals=0.5).open.value, usual.open.value)


@pytest.mark.parametrize(
    ("supposed", "says"),
    [
        ({"dropped": ("nobody",)}, "deal 'nobody' is not open"),
        ({"odds": -1.0}, "odds is -1.0; allowed: a factor of 0 or more"),
        ({"arrivals": float("nan")}, "arrivals is nan"),
        ({"added": (Supposed(amount=1.0),)}, "added deal 1 needs a stage_id"),
        ({"added": (Supposed(stage_id="x", amount=-1.0),)}, "amount is -1.0"),
        ({"added": (Supposed(stage_id="nowhere", amount=1.0),)}, "stage_id is 'nowhere'; allowed:"),
    ],
)
def test_what_cannot_be_supposed_says_why(supposed: dict[str, Any], says: str) -> None:
    with pytest.raises(WhatIfError, match=says):
        supposing(**supposed)


def test_recurring_amounts_cannot_be_supposed() -> None:
    with pytest.raises(WhatIfError, match="measure is 'recurring'"):
        simulate(
            worlds.company(), worlds.deals(), worlds.cut_time(), PERIODS, measure="recurring",
            what_if=WhatIf(),
        )  # fmt: skip
