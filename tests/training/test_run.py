"""The training run: slices in order, no peeking, words where there is too little, the gate."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.history import History
from data.pipeline import FiscalCalendar
from data.records import Table
from data.synthetic import make_history
from data.timelines import DAY
from scoring.bundles import DealBundle, Manifest
from scoring.scores import won_within
from tests.small_crm import after, deal, history, moment
from training import run as module
from training.evaluation import Evaluation, evaluate_leads
from training.fitting import Recipe, TrainingError
from training.run import Check, Run, train_deals, train_leads

RECIPE = Recipe(FiscalCalendar(), landmarks=1500)
MONTHS = 10


@cache
def tables() -> tuple[dict[str, Table], Any]:
    made = make_history(220, seed=2, days=30 * MONTHS)
    return made.tables, made.facts


@cache
def company() -> History:
    found, facts = tables()
    return History(found, [facts])


def end() -> np.datetime64:
    return np.datetime64(company().observed_until, "us")


class Watched:
    """A training run with what it fitted and judged written down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fits: list[int] = []
        self.judged: list[tuple[DealBundle, int]] = []
        self.rows: list[tuple[int, int, int]] = []
        self._watch(monkeypatch, "fit_deals", lambda a, found: self.fits.append(a[1]))
        self._watch(monkeypatch, "fit_leads", lambda a, found: self.fits.append(a[1]))
        self._watch(
            monkeypatch, "evaluate_deals", lambda a, found: self.judged.append((a[1], a[2]))
        )
        self._watch(monkeypatch, "deal_rows", lambda a, found: self.rows.append(a[4:7]))
        self._watch(monkeypatch, "lead_rows", lambda a, found: self.rows.append(a[1:4]))

    def _watch(self, monkeypatch: pytest.MonkeyPatch, name: str, note: Any) -> None:
        real = getattr(module, name)

        def watched(*args: Any, **options: Any) -> Any:
            found = real(*args, **options)
            note(args, found)
            return found

        monkeypatch.setattr(module, name, watched)


@given(st.integers(10, 4000), st.integers(0, 180), st.booleans())
def test_slices_are_disjoint_and_in_order(span: int, horizon: int, matured: bool) -> None:
    first, until = 17_000 * DAY, (17_000 + span) * DAY
    one, two = module._cuts(until, horizon * DAY, first, matured=matured)
    assert first <= one < two < until
    assert two - one >= 0.1 * (until - first) or two - one >= horizon * DAY
    if horizon < span / 4:  # what is judged has time to mature
        assert until - two >= horizon * DAY + (two - one) * 0.99


def test_a_run_fits_calibrates_judges_and_refits_in_that_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(monkeypatch)
    said: list[str] = []
    found = train_deals(
        company(), end(), RECIPE, trained_at="2026-01-01T00:00:00Z", say=said.append
    )
    first, second, *replayed, until = watched.fits
    assert first < second < until == int(end().astype(np.int64))
    assert all(first < at < until for at in replayed)
    calibration = watched.rows[0]
    assert calibration == (first, second, second)  # rows and labels lie before the judged slice
    assert {start for _, start in watched.judged} == {second}
    assert found.evaluation is not None
    assert found.evaluation.start == str(np.datetime64(second, "us").astype("datetime64[s]")) + "Z"
    assert [c.code for c in found.checks] == ["DG001", "DG002", "DG003"]
    assert found.checks[2] == Check("DG003", None, "there is no champion to compare with")
    manifest = found.bundle.manifest
    assert manifest.trained_at == "2026-01-01T00:00:00Z"
    assert manifest.trained_through == f"{end().astype('datetime64[s]')}Z"
    assert manifest.evaluation["n"] == found.evaluation.n
    origins = {i.origin for i in found.issued}
    assert 4 <= len(origins) <= 12
    assert min(origins).astype(np.int64) > first  # the replay, too, lies after what was fitted
    assert {c["n"] for c in manifest.coverage} == {len(origins)}
    assert any("judge" in s for s in said) and any("everything" in s for s in said)
    names = set(found.metrics)
    assert {"served_log_loss", "forecast_dealcast_crps", "forecast_past_mean_bias"} <= names
    assert all(np.isfinite(v) for v in found.metrics.values())


def overturned(after_: int) -> History:
    """The same company, with every outcome after a moment turned into its opposite."""
    found, facts = tables()
    deals, moves = found["deal"], found["stage_change"]
    flip = {"won": "lost", "lost": "won"}
    cut = np.datetime64(after_, "us")
    late = deals["closed_at"] > cut
    outcome = [flip.get(o, o) if x else o for o, x in zip(deals["outcome"], late, strict=True)]
    kinds = dict(zip(found["stage"]["stage_id"], found["stage"]["kind"], strict=True))
    other = {
        s: next(t for t, k in kinds.items() if k == flip[kind])
        for s, kind in kinds.items()
        if kind in flip
    }
    to = [
        other.get(s, s) if at > cut else s
        for s, at in zip(moves["to_stage_id"], moves["changed_at"], strict=True)
    ]
    changed = dict(found)
    changed["deal"] = deals.with_columns(outcome=np.array(outcome, dtype=object))
    changed["stage_change"] = moves.with_columns(to_stage_id=np.array(to, dtype=object))
    return History(changed, [facts])


def test_the_judged_models_know_nothing_of_the_slice_they_are_judged_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(monkeypatch)
    train_deals(company(), end(), RECIPE)
    mine, second = list(watched.judged), watched.fits[1]
    watched.judged.clear()
    train_deals(overturned(second), end(), RECIPE)
    theirs = watched.judged
    assert len(mine) == len(theirs) == 2  # plain and recalibrated
    snapshot = company().as_of("deal", np.datetime64(second, "us"))
    days = np.full(len(snapshot), 30.0)
    for (one, _), (other, _) in zip(mine, theirs, strict=True):
        assert (
            won_within(snapshot, one, days).tobytes() == won_within(snapshot, other, days).tobytes()
        )
    # They are two: the calibration slice had something to teach.
    assert (mine[0][0].model.correction != mine[1][0].model.correction).any()


def test_nothing_later_than_as_of_is_used() -> None:
    as_of = end() - np.timedelta64(60, "D")
    late = int(as_of.astype(np.int64))
    one, two = (train_deals(crm, as_of, RECIPE) for crm in (company(), overturned(late)))
    assert one.metrics == two.metrics and one.checks == two.checks and one.issued == two.issued
    snapshot = company().as_of("deal", as_of)
    p, q = (
        won_within(snapshot, r.bundle, np.full(len(snapshot), 30.0))  # type: ignore[arg-type]
        for r in (one, two)
    )
    assert p.tobytes() == q.tobytes()


# --- too little data -------------------------------------------------------------------------


def few(n: int) -> History:
    return history(
        deal=[
            *(
                deal(f"d{i}", after("2024-01-01T08:00", i), after("2024-01-01T08:00", i + 9))
                for i in range(n)
            ),
            deal("o", "2024-01-02T08:00Z"),
        ]
    )


@pytest.mark.parametrize("n", [0, 1, 5, 19])
def test_too_few_deals_are_said_to_be_too_few(n: int) -> None:
    found = train_deals(few(n), moment("2024-03-01"), RECIPE)
    assert found.evaluation is None and found.issued == []
    assert found.bundle.manifest.evaluation == {} and found.bundle.manifest.coverage == []
    assert [c.passed for c in found.checks] == [None, None, None]
    assert len(found.notes) == 1 and "not verified on later data" in found.notes[0]
    assert found.metrics == {} and found.opens
    assert found.bundle.manifest.trained_through == "2024-03-01T00:00:00Z"


def test_too_few_leads_are_said_to_be_too_few() -> None:
    rows = [
        {"lead_id": f"l{i}", "created_at": after("2024-01-01T08:00", i), "outcome": "qualified",
         "qualified_at": after("2024-01-01T08:00", i + 2), "source": "crm"}
        for i in range(12)
    ]  # fmt: skip
    found = train_leads(history(lead=rows), moment("2024-03-01"), RECIPE)
    assert found.evaluation is None and found.metrics == {} and found.opens
    assert "leads had matured" in found.notes[0] and "not verified" in found.notes[0]
    assert [c.passed for c in found.checks] == [None, None]


def test_leads_that_close_fast_but_are_young_are_no_error() -> None:
    """Hundreds of closed leads, none of which is old enough for a horizon of 90 days early on."""
    rows = [
        {"lead_id": f"l{i}", "created_at": after("2024-01-01T08:00", i / 4), "source": "crm",
         "outcome": "disqualified", "disqualified_at": after("2024-01-01T08:00", i / 4 + 1)}
        for i in range(400)
    ]  # fmt: skip
    found = train_leads(history(lead=rows), moment("2024-04-10"), RECIPE, horizon=90)
    assert "leads had matured" in found.notes[0]


def test_nothing_at_all_is_refused() -> None:
    with pytest.raises(TrainingError, match="no deal"):
        train_deals(history(), moment("2024-03-01"), RECIPE)
    with pytest.raises(TrainingError, match="no lead"):
        train_leads(history(), moment("2024-03-01"), RECIPE)


# --- leads -----------------------------------------------------------------------------------


def test_a_lead_run_learns_its_calibration_before_it_is_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched = Watched(monkeypatch)
    found = train_leads(company(), end(), RECIPE, horizon=14)
    *_, second, until = watched.fits
    first = watched.fits[0]
    assert first < second < until == int(end().astype(np.int64))
    assert (first, second, second) in watched.rows and (second, until, until) in watched.rows
    assert found.evaluation is not None
    assert [a["name"] for a in found.evaluation.arms] == ["served", "base rate"]
    assert found.evaluation.arms[0]["log_loss"] < found.evaluation.arms[1]["log_loss"]
    assert found.bundle.manifest.kind == "lead" and [c.code for c in found.checks] == [
        "LG001", "LG002",
    ]  # fmt: skip


# --- the gate --------------------------------------------------------------------------------


def evaluated(served: float, baseline: float, n: int = 400) -> Evaluation:
    """Judged on rows of which 30 % happened, both arms a constant."""
    y = (np.arange(n) % 10 < 3).astype(float)
    found = evaluate_leads(
        {"served": np.full(n, served), "stage rate": np.full(n, baseline)},
        y,
        np.arange(n),
        0,
        1,
        "w",
    )
    assert found is not None
    return found


def test_the_gate_compares_with_the_baseline() -> None:
    assert module._beats("DG001", evaluated(0.3, 0.5), "stage rate").passed is True
    assert module._beats("DG001", evaluated(0.6, 0.3), "stage rate").passed is False
    assert module._beats("DG001", None, "stage rate").passed is None
    text = module._beats("DG001", evaluated(0.6, 0.3), "stage rate").text
    assert "log loss 0.7947" in text and "of the stage rate" in text and "400 landmarks" in text


def test_behind_by_less_than_the_noise_is_not_behind() -> None:
    assert module._beats("DG001", evaluated(0.31, 0.3, n=30), "stage rate").passed is True
    assert module._beats("DG001", evaluated(0.42, 0.3, n=40_000), "stage rate").passed is False


def test_the_gate_compares_with_the_champion_where_that_is_fair() -> None:
    ours, same, better = evaluated(0.4, 0.5), evaluated(0.4, 0.5), evaluated(0.3, 0.5)
    assert module._no_worse("DG003", ours, same, True).passed is True
    assert module._no_worse("DG003", ours, better, True).passed is False
    assert module._no_worse("DG003", ours, None, True).passed is None
    assert module._no_worse("DG003", ours, better, False).passed is None


def test_a_champion_that_knows_the_newest_slice_is_no_fair_rival(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    issued: list[Any] = []
    rivals: list[Any] = []

    def rival(crm: History, champion: Any, *rest: Any) -> Evaluation:
        rivals.append(champion)
        return evaluated(0.3, 0.5)

    monkeypatch.setattr(module, "evaluate_deals", rival)
    start = int(moment("2024-03-01").astype(np.int64))

    def checked(through: str) -> Check:
        champion: Any = type("Champion", (), {"manifest": Manifest("deal", "", through)})()
        found = module._deal_checks(
            company(), evaluated(0.3, 0.5), issued, champion, start, start + DAY, 30
        )
        return found[2]

    assert checked("2024-03-02T00:00:00Z").passed is None and rivals == []
    assert checked("2024-02-20T00:00:00Z").passed is True and len(rivals) == 1


def test_the_gate_opens_unless_something_failed() -> None:
    bundle: Any = None

    def opens(*passed: bool | None) -> bool:
        checks = [Check(f"X{i}", p, "") for i, p in enumerate(passed)]
        return Run("deal", bundle, None, [], checks).opens

    assert opens(True, None) and opens(None, None) and opens(True, True)
    assert not opens(True, False) and not opens(False, None)


def test_a_forecast_worse_than_the_mean_of_past_periods_keeps_the_gate_shut() -> None:
    found = train_deals(few(60), moment("2024-03-20"), RECIPE)
    assert found.issued
    worse = [replace(i, crps=i.crps + 1e6) if i.method == "dealcast" else i for i in found.issued]
    start = int(moment("2024-03-01").astype(np.int64))
    for issued, passed in ((found.issued, None), (worse, False)):
        checks = module._deal_checks(
            company(), found.evaluation, issued, None, start, start + DAY, 7
        )
        assert checks[1].code == "DG002"
        if passed is not None and len({i.origin for i in issued}) >= 4:
            assert checks[1].passed is passed
        assert "past periods" in checks[1].text or "too few to judge" in checks[1].text
