"""The truth of the synthetic CRM is true.

Statistical tests state their error: a z is (observed - expected) / its binomial standard error,
and 4 standard errors is missed by chance about once in 16,000 fixed-seed draws.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from data.records import Table
from data.synthetic import PipelineWorld, StageWorld, Synthetic, World, make_history
from tests.data.synthetic import AS_OF, END, open_deals

DAYS = np.array([1, 7, 28, 60, 90])


@pytest.fixture(scope="module")
def calm() -> Synthetic:
    """A big world without shocks: the empirical side of the truth."""
    return make_history(25_000, seed=11, shocks=False, days=365)


@pytest.fixture(scope="module")
def deals(calm: Synthetic) -> Table:
    """The big world's deals open at AS_OF."""
    return open_deals(calm, AS_OF)


@pytest.fixture(scope="module")
def curves(calm: Synthetic, deals: Table) -> npt.NDArray[np.float64]:
    """Their incidence within DAYS, shape (deals, days, 2)."""
    return calm.truth.deal_incidence(deals["deal_id"], AS_OF, DAYS)


def z(y: npt.NDArray[np.bool_], p: npt.NDArray[np.float64]) -> float:
    return float((y - p).sum() / np.sqrt((p * (1 - p)).sum()))


# ------------------------------------------------------------------ the truth is true


def closed(deals: Table, outcome: str, days: int) -> npt.NDArray[np.bool_]:
    """Which of the deals were closed so within so many days of AS_OF."""
    by = deals["closed_at"] < AS_OF + np.timedelta64(days, "D")
    return np.asarray(by & (deals["outcome"] == outcome))


def test_incidence_holds_in_a_big_world(deals: Table, curves: npt.NDArray[np.float64]) -> None:
    assert len(deals) > 2_000
    for j, days in enumerate(DAYS):
        for c, outcome in enumerate(("won", "lost")):
            assert abs(z(closed(deals, outcome, int(days)), curves[:, j, c])) < 4


def test_incidence_holds_in_every_twentieth_of_the_deals(
    deals: Table, curves: npt.NDArray[np.float64]
) -> None:
    """Not only on average: 20 cells, a chi-square of 20 degrees of freedom (99.99 %: 52.4)."""
    won, p = closed(deals, "won", 28), curves[:, 2, 0]
    cells = np.array_split(np.argsort(p), 20)
    assert p[cells[-1]].mean() - p[cells[0]].mean() > 0.3
    assert sum(z(won[rows], p[rows]) ** 2 for rows in cells) < 52.4


def test_realised_shocks_make_the_truth_of_a_shaken_world() -> None:
    world = World(shock_quarter_sd=0.9, shock_week_sd=0.0)
    shaken = make_history(12_000, seed=5, days=300, world=world)
    truth, late = shaken.truth, []
    for as_of in np.arange("2025-07-15", "2026-01-01", 60, dtype="datetime64[D]"):
        deals = open_deals(shaken, as_of)
        won = (deals["outcome"] == "won") & (deals["closed_at"] < as_of + 14)
        ahead = truth.log_shock[int((as_of - truth.start) / np.timedelta64(1, "D")) :]
        ids = deals["deal_id"]
        assert abs(z(won, truth.deal_incidence(ids, as_of, [14], log_shock=ahead)[:, 0, 0])) < 4
        late.append(abs(z(won, truth.deal_incidence(ids, as_of, [14])[:, 0, 0])))
    assert max(late) > 6  # without them the answer is for the mean shock, and this world had others


def test_nothing_known_at_the_time_tells_more_than_the_truth(
    calm: Synthetic, deals: Table, curves: npt.NDArray[np.float64]
) -> None:
    """A field that looked into the future would correlate with what truth leaves unexplained."""
    ids, p = deals["deal_id"], curves[:, 3]
    seen = {
        "activities": count(calm.tables["activity"], "deal_id", "occurred_at", ids),
        "field changes": count(calm.tables["field_change"], "entity_id", "changed_at", ids),
        "days to the expected date": expected_days(calm, deals),
        "first amount": np.log(first_amount(calm, deals)),
    }
    for name, x in seen.items():
        x = x - x.mean()
        for c, outcome in enumerate(("won", "lost")):
            rest = closed(deals, outcome, 60) - p[:, c]
            error = np.sqrt((x**2 * p[:, c] * (1 - p[:, c])).sum())
            assert abs((x * rest).sum() / error) < 4, (name, outcome)


def test_activities_carry_real_information(
    calm: Synthetic, deals: Table, curves: npt.NDArray[np.float64]
) -> None:
    """Above what stage and age tell, busy deals are the interested ones."""
    fresh = deals["created_at"] > AS_OF - np.timedelta64(30, "D")
    n = count(calm.tables["activity"], "deal_id", "occurred_at", deals["deal_id"][fresh])
    p = curves[fresh, 4, 0]
    assert p[n >= 4].mean() > p[n == 0].mean() + 0.05


def count(
    table: Table, key: str, moment: str, ids: npt.NDArray[np.object_]
) -> npt.NDArray[np.float64]:
    known = table[key][table[moment] < AS_OF]
    found, n = np.unique(known[known != None].astype(str), return_counts=True)  # noqa: E711
    counts = dict(zip(found.tolist(), n.tolist(), strict=True))
    return np.array([float(counts.get(i, 0)) for i in ids])


def value_then(synthetic: Synthetic, deals: Table, field: str, then: np.datetime64) -> list[str]:
    """The value of a field at a moment, from the changes after it: the first one's old value."""
    changes = synthetic.tables["field_change"]
    after = (changes["field"] == field) & (changes["changed_at"] >= then)
    old: dict[str, str] = {}
    for i, value in zip(changes["entity_id"][after], changes["old_value"][after], strict=True):
        old.setdefault(i, value)
    now = zip(deals["deal_id"], deals[field], strict=True)
    return [old.get(i, str(value)) for i, value in now]


def expected_days(synthetic: Synthetic, deals: Table) -> npt.NDArray[np.float64]:
    dates = np.array(value_then(synthetic, deals, "expected_close_date", AS_OF), "datetime64[D]")
    return np.asarray((dates - AS_OF) / np.timedelta64(1, "D"), dtype=np.float64)


def first_amount(synthetic: Synthetic, deals: Table) -> npt.NDArray[np.float64]:
    start = synthetic.truth.start
    return np.array([float(v) for v in value_then(synthetic, deals, "amount", start)])


def test_incidence_of_constant_hazards_has_its_closed_form() -> None:
    stages = (StageWorld("only", "Only", 0.5, 1.0, 0.0, 0.0, 0.0, lose=0.05, win=0.10, activity=0.1,
                         remaining_days=20.0),)  # fmt: skip
    plain = World(
        pipelines=(PipelineWorld("new-business", stages), PipelineWorld("renewals", stages)),
        sources=tuple(replace(level, win=0.0) for level in World().sources),
        industries=tuple(replace(level, win=0.0) for level in World().industries),
        rep_win_sd=0.0, interest_sd=0.0, amount_on_win=0.0, ramp_days=1.0, stall_floor=1.0,
        loss_first=1.0, loss_rise=0.0, weekdays=(1.0,) * 7, year_end=1.0, yearly=0.0, rush=0.0,
    )  # fmt: skip
    synthetic = make_history(300, seed=1, world=plain, shocks=False)
    deals = open_deals(synthetic, END)
    days = np.array([0, 1, 10, 300])
    got = synthetic.truth.deal_incidence(deals["deal_id"], END, days)
    closed = 1 - np.exp(-0.15 * days)
    np.testing.assert_allclose(got[0], np.outer(closed, [2 / 3, 1 / 3]), atol=1e-12)
    assert len(deals) > 3
    np.testing.assert_allclose(got, np.broadcast_to(got[0], got.shape), atol=1e-12)


def test_incidences_rise_and_add_up_to_at_most_one(crm: Synthetic) -> None:
    deals = open_deals(crm, END)
    days = np.arange(0, 400, 7)
    curve = crm.truth.deal_incidence(deals["deal_id"], END, days)
    assert (np.diff(curve, axis=1) >= 0).all()
    assert (curve[:, 0] == 0).all()
    assert (curve.sum(axis=2) <= 1 + 1e-12).all()
    assert curve[:, -1].sum(axis=1).min() > 0.95  # in the end everything closes


def test_expected_revenue_holds_in_a_big_world(calm: Synthetic, deals: Table) -> None:
    """Within 4 standard errors, those estimated from the deals themselves."""
    expected = calm.truth.expected_won(deals["deal_id"], AS_OF, [60])[:, 0]
    rest = np.where(closed(deals, "won", 60), deals["closed_amount"], 0.0) - expected
    assert abs(rest.sum()) < 4 * np.sqrt((rest**2).sum())
    assert 4 * np.sqrt((rest**2).sum()) < 0.2 * expected.sum()


def test_discount_at_closing_is_about_six_percent(calm: Synthetic) -> None:
    deals = calm.tables["deal"]
    won = deals.take(deals["outcome"] == "won")
    discount = 1 - won["closed_amount"] / won["amount"]
    assert (discount >= -1e-9).all()
    assert abs(discount.mean() - 0.06) < 4 * discount.std() / np.sqrt(len(won))


@pytest.mark.parametrize("days", [1.0, 7.0, 30.0, np.inf])
def test_lead_probability_holds_from_creation(calm: Synthetic, days: float) -> None:
    leads = calm.tables["lead"]
    leads = leads.take(leads["created_at"] < END - np.timedelta64(100, "D"))
    p = calm.truth.lead_probability(leads["lead_id"], days)
    delay = (leads["qualified_at"] - leads["created_at"]).astype(float) / 8.64e10
    delay[np.isnat(leads["qualified_at"])] = np.inf
    assert abs(z((delay <= days) & (leads["outcome"] == "qualified"), p)) < 4


def test_lead_probability_holds_for_leads_still_open_at_any_hour(calm: Synthetic) -> None:
    as_of = np.datetime64("2025-09-16T14:20", "us")
    leads = calm.tables["lead"]
    over = (leads["qualified_at"] <= as_of) | (leads["disqualified_at"] <= as_of)
    leads = leads.take((leads["created_at"] <= as_of) & ~over)
    p = calm.truth.lead_probability(leads["lead_id"], 3.5, as_of=as_of)
    until = as_of + np.timedelta64(84, "h")
    assert abs(z(leads["qualified_at"] <= until, p)) < 4
    assert p.mean() < calm.truth.lead_probability(leads["lead_id"]).mean()


def test_better_leads_have_better_truth(crm: Synthetic) -> None:
    leads = crm.tables["lead"]
    p = crm.truth.lead_probability(leads["lead_id"])
    assert (
        p[leads["lead_source"] == "referral"].mean()
        > p[leads["lead_source"] == "advertising"].mean() + 0.2
    )


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda c: c.truth.deal_incidence(["D999999"], END, [7]), "D999999.*allowed: D000001"),
        (lambda c: c.truth.deal_incidence(["L000001"], END, [7]), "L000001.*allowed: D000001"),
        (lambda c: c.truth.deal_incidence(["D000001"], END, [7]), "D000001 is not open at 2026"),
        (lambda c: c.truth.deal_incidence([last(c)], AS_OF, [7]), "not open at 2025-09-15"),
        (lambda c: c.truth.deal_incidence([last(c)], END + 1, [7]), "allowed: a midnight"),
        (lambda c: c.truth.deal_incidence([last(c)], END, [0.5]), "allowed: a list of whole days"),
        (lambda c: c.truth.deal_incidence([last(c)], END, []), "allowed: a list of whole days"),
        (lambda c: c.truth.deal_incidence([last(c)], END, [9], log_shock=[0.0]), "needed: 9"),
        (lambda c: c.truth.lead_probability(["L000001"], as_of=END), "L000001 is not open"),
        (lambda c: c.truth.lead_probability(["L000001"], -1.0), "allowed: a number of days"),
        (lambda c: make_history(0), "n_deals is 0"),
        (lambda c: make_history(10, days=0), "days is 0"),
        (lambda c: make_history(10, end=END + 1), "allowed: a midnight"),
    ],
)
def test_errors_say_what_to_do(crm: Synthetic, ask, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        ask(crm)


def last(synthetic: Synthetic) -> str:
    return str(open_deals(synthetic, END)["deal_id"][-1])


def test_hazards_that_leave_the_pipeline_are_refused() -> None:
    new, renewals = World().pipelines
    wrong = replace(new, stages=(*new.stages[:-1], replace(new.stages[-1], advance=0.1)))
    with pytest.raises(ValueError, match="would leave the open stages"):
        make_history(10, world=World(pipelines=(wrong, renewals)))
