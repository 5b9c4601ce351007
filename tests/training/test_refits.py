"""Refits through time: every lead by the fit before it, oldest first; words on ageing and drift."""

from __future__ import annotations

import numpy as np
import pytest

from data.features import compute
from data.history import Snapshot
from data.timelines import DAY
from tests.worlds import RECIPE, company, cut, leads
from training.examples import LeadRows, lead_rows
from training.fitting import fit_leads
from training.refits import (
    OutOfTime,
    Refit,
    ageing_note,
    drift_note,
    out_of_time,
    refits_between,
)


def test_each_lead_is_predicted_by_the_newest_fit_before_it_and_the_oldest_come_first() -> None:
    until, start = cut(), cut() - 90 * DAY
    first = fit_leads(company(), start, 14, RECIPE)
    refits = refits_between(company(), start, until, 14, RECIPE, 3, first)
    assert [r.at for r in refits] == [start, start + 30 * DAY, start + 60 * DAY]
    found = out_of_time(company(), refits, until, until, 14, 5000)
    assert len(found.y) > 100 and (np.diff(found.at) >= 0).all()
    for refit, end in zip(refits, [*(r.at for r in refits[1:]), until], strict=True):
        mine = (found.at >= refit.at / DAY) & (found.at < end / DAY)
        rows = lead_rows(company(), refit.at, end, until, 14)
        assert mine.sum() == len(rows.label)
        columns = compute(rows.snapshot, refit.bundle.features)
        want = refit.bundle.model.predict(columns, calibrated=False)
        np.testing.assert_array_equal(np.sort(found.p[mine]), np.sort(want))


def test_no_leads_are_no_error() -> None:
    refits = [Refit(cut(), leads())]
    found = out_of_time(company(), refits, cut() + 1, cut() + 2, 30, 100)
    assert len(found.y) == 0
    again = found.recalibrate(leads().model, 30)
    assert again.calibrator.name == "none"


def known(p: float, y: float, n: int = 400) -> OutOfTime:
    happened = (np.arange(n) % 100 < 100 * y).astype(float)
    return OutOfTime(np.full(n, p), happened, np.arange(n) / 4)


def test_a_model_that_refits_beat_is_said_to_age_with_how_often_to_train() -> None:
    assert ageing_note(known(0.3, 0.3), known(0.3, 0.3), 3, False) is None
    note = ageing_note(known(0.05, 0.3), known(0.3, 0.3), 4, False)
    assert note is not None and note.endswith("at least every 25 days")
    note = ageing_note(known(0.05, 0.3), known(0.3, 0.3), 4, True)
    assert note is not None and note.endswith("at least every 100 leads")
    assert ageing_note(known(0.05, 0.3, 0), known(0.3, 0.3, 0), 4, True) is None


@pytest.mark.parametrize(("now", "told"), [(0.12, False), (0.3, True)])
def test_a_base_rate_that_moved_is_told(now: float, told: bool) -> None:
    def rows(share: float) -> LeadRows:
        n = 400
        label = (np.arange(n) % 100 < 100 * share).astype(float)
        return LeadRows(leads_snapshot(), label, np.arange(n))

    note = drift_note(rows(0.1), rows(now))
    assert (note is not None) == told
    if note is not None:
        assert "10.0%" in note and "30.0%" in note
    few = LeadRows(leads_snapshot(), np.array([1.0, 0.0]), np.array([0, 1]))
    assert drift_note(rows(0.1), few) is None


def leads_snapshot() -> Snapshot:
    return company().as_of("lead", np.datetime64(cut(), "us"))
