"""Probabilities at many (record, moment, horizon) points."""

from __future__ import annotations

import numpy as np
import pytest

from data.history import Side
from scoring.bundles import DealBundle, LeadBundle
from scoring.points import PointsError, points_of, probabilities
from scoring.scores import score_deals
from tests import worlds
from tests.small_crm import deal, history


def test_each_point_is_answered_from_its_own_moment() -> None:
    crm, bundle = worlds.company(), worlds.deals()
    start = worlds.cut_time()
    moments = [start, start + np.timedelta64(9, "D"), start + np.timedelta64(300, "h")]
    far = bundle.model.grid.t_max * 2
    ids, at, expected = [], [], []
    for moment in moments:
        for score in score_deals(crm.as_of("deal", moment), bundle, explain=False)[:6]:
            ids.append(score.deal_id)
            at.append(moment)
            expected.append(score.probability_won)
    points = points_of(crm, "deal", ids, np.array(at), np.full(len(ids), far))
    np.testing.assert_allclose(probabilities(crm, bundle, points), expected, rtol=1e-12)


def test_longer_horizons_are_never_less_likely() -> None:
    crm = worlds.company()
    days = np.array([0.5, 2, 7, 30, 45, 120])
    sides: list[tuple[Side, DealBundle | LeadBundle]] = [
        ("deal", worlds.deals()),
        ("lead", worlds.leads()),
    ]
    for side, bundle in sides:
        name = crm.as_of(side, worlds.cut_time()).ids[3]
        at = np.full(6, worlds.cut_time())
        p = probabilities(crm, bundle, points_of(crm, side, [str(name)] * 6, at, days))
        assert (np.diff(p) >= 0).all() and p[0] < p[-1] < 1


def test_closed_records_are_certain() -> None:
    crm = worlds.company()
    ids = [str(i) for i in crm.deals.ids]
    rows = np.arange(len(ids))[crm.deals.known_from <= worlds.cut()]
    snapshot = crm.landmarks("deal", rows, np.full(len(rows), worlds.cut()))
    closed = rows[(snapshot.outcome != 0) & snapshot.exists][:20]
    at = np.full(len(closed), worlds.cut_time())
    points = points_of(crm, "deal", [ids[r] for r in closed], at, np.full(len(closed), 5.0))
    p = probabilities(crm, worlds.deals(), points)
    won = crm.landmarks("deal", closed, points.at).outcome == 1
    np.testing.assert_array_equal(p, won.astype(float))


def test_points_that_make_no_sense_are_refused() -> None:
    crm = history(deal=[deal("d", "2024-04-01T08:00Z", deleted_at="2024-06-01T00:00Z")])

    def ask(name: str, at: str, days: float) -> None:
        points_of(crm, "deal", [name], np.array([at], dtype="datetime64[us]"), np.array([days]))

    ask("d", "2024-04-02", 7.0)
    with pytest.raises(PointsError, match="1 ids are not deals of this store, the first is 'x'"):
        ask("x", "2024-04-02", 7.0)
    for absent in ("2024-03-31", "2024-06-02"):
        with pytest.raises(PointsError, match="before their deal was known or after it was gone"):
            ask("d", absent, 7.0)
    for days in (0.0, -1.0, np.nan):
        with pytest.raises(PointsError, match=r"horizon is .* days; allowed: above 0"):
            ask("d", "2024-04-02", days)
