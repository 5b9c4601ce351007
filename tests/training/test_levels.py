"""What past weeks teach: counts that are right, and shocks found in companies that had them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data.history import WON
from data.timelines import DAY
from tests import worlds
from training import levels
from training.examples import open_spells
from training.fitting import with_shocks
from training.levels import wins_by_week


def test_expected_and_actual_wins_are_of_the_same_deals() -> None:
    """In the weeks it was fitted on, a model expects about what came."""
    crm, bundle = worlds.company(), worlds.deals()
    until = int(worlds.cut_time().astype("datetime64[us]").astype(np.int64))
    expected, won = wins_by_week(crm, bundle, until)
    assert len(expected) == len(won) == 26
    assert abs(expected.sum() - won.sum()) < 4 * np.sqrt(won.sum())
    spells = open_spells(crm.deals, until)
    start = until - 26 * 7 * DAY
    of_all = np.bincount(
        (spells.end[(spells.outcome == WON) & (spells.end >= start)] - start) // (7 * DAY),
        minlength=26,
    )[:26]
    # All but the deals that were won before their first look.
    assert (won <= of_all).all() and won.sum() > 0.6 * of_all.sum()


def test_looks_are_thinned_by_deals(monkeypatch: pytest.MonkeyPatch) -> None:
    crm, bundle = worlds.company(), worlds.deals()
    until = int(worlds.cut_time().astype("datetime64[us]").astype(np.int64))
    expected, won = wins_by_week(crm, bundle, until)
    monkeypatch.setattr(levels, "_MOST_LANDMARKS", 300)
    fewer = wins_by_week(crm, bundle, until)
    share = fewer[0].sum() / expected.sum()
    assert share < 0.6
    assert abs(fewer[1].sum() / won.sum() - share) < 0.15


def test_nothing_later_than_the_cutoff_counts() -> None:
    crm, bundle = worlds.company(), worlds.deals()
    until = int(worlds.cut_time().astype("datetime64[us]").astype(np.int64)) - 100 * DAY
    _, won = wins_by_week(crm, bundle, until)
    spells = open_spells(crm.deals, until)
    assert won.sum() <= (spells.outcome == WON).sum()


def test_the_shocks_are_those_around_the_hazards_served() -> None:
    """A model that expects twice as much finds its weeks slow."""
    crm, bundle = worlds.company(), worlds.deals()
    until = int(worlds.cut_time().astype("datetime64[us]").astype(np.int64))
    eager = bundle.model.correction.copy()
    eager[:, :, 0] = 2.0
    again = replace(bundle, model=replace(bundle.model, correction=eager))
    usual, slow = (
        with_shocks(crm, b, until, 0).shocks.summary()["log_level"] for b in (bundle, again)
    )
    assert slow < usual - 0.3
