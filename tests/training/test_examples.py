"""Labels: what became of each landmark, by plain loops; and nothing of what was told later."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from data.features import declare
from data.history import LOST, OPEN, WON, History
from data.pipeline import FiscalCalendar
from data.records import ENTITIES, SourceFacts, Table
from models.grid import HazardGrid
from tests.data.messy_crm import DAY, EXPORT, START, Messy
from tests.data.messy_crm import FACTS as MESSY_FACTS
from tests.data.oracle import Deal, Oracle, lasting, line_of, spells_of
from tests.data.past_export import CUTOFF, FACTS, as_exported, spoilt_after, synthetic
from training.examples import (
    Spells,
    deal_rows,
    durations,
    landmarks,
    lead_horizon,
    lead_rows,
    open_spells,
)

END = int(CUTOFF.astype(np.int64))
CODES = {"open": OPEN, "won": WON, "lost": LOST}
SEEDS = range(25)
GRID = HazardGrid.for_durations(30.0, 180.0)
CALENDAR = FiscalCalendar()


# --- spells against the oracle ---------------------------------------------------------------


def expected_spells(deal: Deal, until: int) -> list[tuple[int, int, int]]:
    """(begin, end, outcome) of the times the deal was open, as known at `until`."""
    if deal.known_from is None or deal.known_from > until:
        return []
    turns = spells_of(lasting(line_of(deal.outcomes, until)), "open")
    before = [e for e in turns if e.at < deal.known_from]
    begins = [] if before and before[-1].value != "open" else [deal.known_from]
    begins += [e.at for e in turns if e.value == "open" and e.at > deal.known_from]
    found = []
    for begin in begins:
        closing = next((e for e in turns if e.value != "open" and e.at >= begin), None)
        end, outcome = (until, "open") if closing is None else (closing.at, closing.value)
        if deal.gone is not None and deal.gone < end:
            end, outcome = deal.gone, "open"
        if end > begin:
            found.append((begin, end, CODES[outcome]))
    return found


def told(spells: Spells) -> dict[int, list[tuple[int, int, int]]]:
    found: dict[int, list[tuple[int, int, int]]] = {}
    columns = (spells.row, spells.begin, spells.end, spells.outcome)
    for row, *spell in zip(*(c.tolist() for c in columns), strict=True):
        found.setdefault(row, []).append((spell[0], spell[1], spell[2]))
    return {row: sorted(spells) for row, spells in found.items()}


@pytest.mark.parametrize("seed", SEEDS)
def test_spells_are_those_of_the_oracle(seed: int) -> None:
    tables = Messy(seed).tables()
    history, oracle = History(tables, MESSY_FACTS, "EUR"), Oracle(tables, MESSY_FACTS)
    for until in (START + 30 * DAY, START + 77 * DAY, EXPORT, EXPORT + 200 * DAY):
        want = {row: expected_spells(deal, until) for row, deal in enumerate(oracle.deals.values())}
        got = told(open_spells(history.deals, until))
        assert got == {row: sorted(spells) for row, spells in want.items() if spells}


@pytest.mark.parametrize("seed", SEEDS)
def test_landmarks_stand_on_the_grid_while_a_deal_was_known_to_be_open(seed: int) -> None:
    tables = Messy(seed).tables()
    history, oracle = History(tables, MESSY_FACTS, "EUR"), Oracle(tables, MESSY_FACTS)
    every, until, start, stop = 3 * DAY, EXPORT, START + 10 * DAY, EXPORT - 5 * DAY
    want = set()
    for row, deal in enumerate(oracle.deals.values()):
        for begin, end, outcome in expected_spells(deal, until):
            grid = {t for t in range(0, end, every) if t >= begin} if begin else set()
            entry = {begin} if begin == deal.known_from else set()
            for t in grid | entry:
                if start <= t < stop and deal.exists(t) and deal.outcome(t) == "open":
                    want.add((row, t, end, outcome))
    marks = landmarks(history, "deal", start, stop, until, every)
    got = list(zip(*(c.tolist() for c in (marks.row, marks.at, marks.end, marks.outcome)),
                   strict=True))  # fmt: skip
    assert len(got) == len(set(got))
    assert set(got) == want
    later = landmarks(history, "deal", start, stop, until, every, entry=False)
    assert set(later.at.tolist()) == {t for _, t, _, _ in want if t % every == 0}


# --- rules one at a time ---------------------------------------------------------------------


def deals(*rows: dict[str, Any], **others: list[dict[str, Any]]) -> History:
    deals = [{"deal_id": f"D{i}", "created_at": "2025-01-01T06:00:00Z", **r}
             for i, r in enumerate(rows)]  # fmt: skip
    tables = {"deal": deals, **others}
    return History({n: Table.from_rows(ENTITIES[n], r) for n, r in tables.items()})


def us(text: str) -> int:
    return int(np.datetime64(text, "us").astype(np.int64))


def test_a_deal_that_closed_before_it_was_known_was_never_open() -> None:
    history = deals({"outcome": "won", "closed_at": "2025-02-01T00:00:00Z",
                     "recorded_at": "2025-03-01T00:00:00Z"})  # fmt: skip
    assert len(open_spells(history.deals, us("2025-06-01")).row) == 0


def test_a_deal_that_closed_as_it_came_has_a_spell_of_no_length_where_asked() -> None:
    history = deals({"outcome": "lost", "closed_at": "2025-01-01T06:00:00Z"})
    until = us("2025-06-01")
    assert len(open_spells(history.deals, until).row) == 0
    assert told(open_spells(history.deals, until, instant=True)) == {
        0: [(us("2025-01-01T06:00"), us("2025-01-01T06:00"), LOST)]
    }
    assert len(landmarks(history, "deal", 0, until, until, DAY).at) == 0


def test_a_deleted_deal_is_censored_and_nothing_is_known_after_until() -> None:
    history = deals(
        {"outcome": "won", "closed_at": "2025-03-01T00:00:00Z",
         "deleted_at": "2025-02-01T00:00:00Z"},
        {"outcome": "won", "closed_at": "2025-03-01T00:00:00Z"},
    )  # fmt: skip
    assert told(open_spells(history.deals, us("2025-04-01"))) == {
        0: [(us("2025-01-01T06:00"), us("2025-02-01"), OPEN)],
        1: [(us("2025-01-01T06:00"), us("2025-03-01"), WON)],
    }
    assert told(open_spells(history.deals, us("2025-02-15")))[1] == [
        (us("2025-01-01T06:00"), us("2025-02-15"), OPEN)
    ]
    assert told(open_spells(history.deals, us("2024-12-31"))) == {}


def test_ages_are_counted_from_creation_and_entry_from_when_it_could_be_seen() -> None:
    rows = [
        {"outcome": "won", "closed_at": "2025-01-11T06:00:00Z"},
        {"recorded_at": "2025-01-06T06:00:00Z"},
    ]
    history = deals(*rows)
    age, outcome, entry = durations(history, "deal", us("2025-01-21T06:00"))
    assert age.tolist() == [10.0, 20.0]
    assert outcome.tolist() == [WON, OPEN]
    assert entry.tolist() == [0.0, 5.0]
    facts = SourceFacts("crm", observed_from=np.datetime64("2025-01-08T06:00", "us"))
    truncated = History(history.tables, [facts])
    assert durations(truncated, "deal", us("2025-01-21T06:00"))[2].tolist() == [7.0, 7.0]
    assert landmarks(truncated, "deal", 0, us("2025-01-21"), us("2025-01-21"), DAY).at.min() == us(
        "2025-01-09"
    )


def test_thinning_takes_a_random_part_whatever_the_record() -> None:
    history = deals(*({} for _ in range(50)))
    bounds = us("2025-01-01"), us("2025-03-01"), us("2025-03-01")
    whole = landmarks(history, "deal", *bounds, DAY)
    part = landmarks(history, "deal", *bounds, DAY, limit=500, seed=1)
    again = landmarks(history, "deal", *bounds, DAY, limit=500, seed=1)
    other = landmarks(history, "deal", *bounds, DAY, limit=500, seed=2)
    everything = set(zip(whole.row.tolist(), whole.at.tolist(), strict=True))
    assert len(everything) == len(whole.at) == 50 * 59
    assert len(part.at) == 500
    assert set(zip(part.row.tolist(), part.at.tolist(), strict=True)) < everything
    assert (part.at == again.at).all()
    assert (part.row == again.row).all()
    assert not np.array_equal(part.at, other.at)
    # 500 of 2950 landmarks: every deal keeps about 10 of its 59.
    assert np.bincount(part.row, minlength=50).min() >= 2


# --- leads -----------------------------------------------------------------------------------


def leads(*rows: dict[str, Any], facts: tuple[SourceFacts, ...] = ()) -> History:
    rows = tuple({"lead_id": f"L{i}", "source": "crm", **r} for i, r in enumerate(rows))
    return History({"lead": Table.from_rows(ENTITIES["lead"], rows)}, facts)


def lead(created: str, outcome: str = "open", day: str | None = None) -> dict[str, Any]:
    when = {"qualified": "qualified_at", "disqualified": "disqualified_at"}.get(outcome)
    row = {"created_at": f"{created}T00:00:00Z", "outcome": outcome}
    return row if when is None else {**row, when: f"{day}T00:00:00Z"}


def test_a_lead_is_positive_if_it_was_qualified_within_the_horizon_after_the_landmark() -> None:
    history = leads(
        lead("2025-01-01", "qualified", "2025-01-20"),
        lead("2025-01-01", "disqualified", "2025-01-20"),
        lead("2025-01-01"),
    )
    until = us("2025-03-01")
    rows = lead_rows(history, us("2025-01-01"), until, until, 7)
    label = {(int(r), str(np.datetime64(int(t), "us"))[:10]): float(y)
             for r, t, y in zip(rows.lead, rows.snapshot.at, rows.label, strict=True)}  # fmt: skip
    for (row, day), got in label.items():
        assert got == float(row == 0 and "2025-01-13" <= day < "2025-01-20")
    assert label[0, "2025-01-13"] == 1.0
    assert label[0, "2025-01-12"] == 0.0
    assert max(day for row, day in label if row == 2) == "2025-02-22"


def test_the_immature_are_left_out_whatever_became_of_them() -> None:
    history = leads(
        lead("2025-02-25", "qualified", "2025-02-26"),
        lead("2025-02-25", "disqualified", "2025-02-26"),
        lead("2025-02-25"),
        lead("2025-02-22", "qualified", "2025-02-26"),
    )
    until = us("2025-03-01")
    rows = lead_rows(history, 0, until, until, 7)
    assert set(rows.lead.tolist()) == {3}
    assert (rows.snapshot.at + 7 * DAY <= until).all()


@pytest.mark.parametrize(
    ("delays", "horizon"), [([1, 2, 3], 7), ([1, 9, 10], 14), ([20, 25, 80], 90), ([400], 180)]
)
def test_the_horizon_holds_most_qualifications(delays: list[int], horizon: int) -> None:
    created = np.datetime64("2024-01-01")
    history = leads(
        *(lead("2024-01-01", "qualified", str(created + d)) for d in delays),
        lead("2024-01-01", "disqualified", "2024-01-03"),
    )
    assert lead_horizon(history, us("2025-12-01")) == horizon


def test_without_a_qualification_the_horizon_is_a_month() -> None:
    assert lead_horizon(leads(lead("2025-01-01")), us("2025-02-01")) == 30
    assert lead_horizon(leads(), us("2025-02-01")) == 30
    # The only one at risk is disqualified before the other, seen late, is qualified.
    late = {**lead("2025-01-01", "qualified", "2025-01-20"), "recorded_at": "2025-01-10T00:00:00Z"}
    history = leads(lead("2025-01-01", "disqualified", "2025-01-05"), late)
    assert lead_horizon(history, us("2025-02-01")) == 30


def worked(n: int, share: float, **more: list[dict[str, Any]]) -> History:
    """`n` disqualified leads, a share of them after a call, and one lead that nobody touched."""
    rows = [lead("2025-01-01", "disqualified", "2025-01-20") for _ in range(n)]
    rows = [{"lead_id": f"L{i}", **r} for i, r in enumerate([*rows, lead("2025-01-01")])]
    calls = [
        {"activity_id": f"A{i}", "lead_id": f"L{i}", "type": "call",
         "occurred_at": "2025-01-05T00:00:00Z"}
        for i in range(round(share * n))
    ]  # fmt: skip
    tables = {"lead": rows, **more, "activity": [*calls, *more.get("activity", [])]}
    return History({name: Table.from_rows(ENTITIES[name], r) for name, r in tables.items()})


@pytest.mark.parametrize(
    ("n", "share", "negative"), [(60, 1.0, False), (60, 0.8, True), (40, 1.0, True)]
)
def test_a_lead_nobody_worked_is_unlabelled_where_work_leaves_traces(
    n: int, share: float, negative: bool
) -> None:
    until = us("2025-04-01")
    rows = lead_rows(worked(n, share), 0, until, until, 7)
    assert (n in rows.lead) == negative
    assert set(range(n)) <= set(rows.lead.tolist())


@pytest.mark.parametrize(
    "trace",
    [
        {"activity": [{"activity_id": "X", "lead_id": "L60", "type": "call",
                       "occurred_at": "2025-03-05T00:00:00Z"}]},
        {"field_change": [{"entity": "lead", "entity_id": "L60", "field": "owner_id",
                           "old_value": "a", "new_value": "b",
                           "changed_at": "2025-02-01T00:00:00Z"}]},
        {"stage_change": [{"entity": "lead", "entity_id": "L60", "to_stage_id": "contacted",
                           "changed_at": "2025-02-01T00:00:00Z"}]},
    ],
)  # fmt: skip
def test_any_trace_of_work_makes_a_lead_without_success_a_negative(
    trace: dict[str, list[dict[str, Any]]],
) -> None:
    until = us("2025-04-01")
    history = worked(60, 1.0, **trace)
    assert 60 in lead_rows(history, 0, until, until, 7).lead
    early = us("2025-01-20")  # before the trace
    assert history.leads.first_touch[60] > early


def test_made_up_times_give_one_row_a_lead_at_its_entry() -> None:
    facts = (SourceFacts("crm", pseudo_times=("lead",)),)
    made = [{"created_at": f"2025-01-01T00:00:0{i}Z", "outcome": o}
            for i, o in enumerate(("qualified", "disqualified", "open"))]  # fmt: skip
    history = leads(*made, facts=facts)
    assert lead_horizon(history, us("2025-06-01")) == 0
    rows = lead_rows(history, 0, us("2025-06-01"), us("2025-06-01"), 0)
    assert rows.lead.tolist() == [0, 1]
    assert rows.label.tolist() == [1.0, 0.0]
    assert rows.snapshot.outcome.tolist() == [OPEN, OPEN]


def test_nobody_gives_no_rows() -> None:
    empty = History({})
    features = declare(empty, "deal")
    rows, snapshot = deal_rows(empty, features, GRID, CALENDAR, 0, END, END)
    assert len(rows) == len(snapshot) == 0
    assert len(lead_rows(empty, 0, END, END, 30).label) == 0
    assert [len(x) for x in durations(empty, "deal", END)] == [0, 0, 0]


# --- leaks -----------------------------------------------------------------------------------


def bits(column: Any, order: np.ndarray[Any, Any]) -> Any:
    if isinstance(column, tuple):
        texts = np.array([*column[1].tolist(), None], dtype=object)[column[0]]
        return texts[order].tolist()
    return column[order].tobytes()


def fitted_on(tables: dict[str, Table]) -> dict[str, Any]:
    """All that a fit as of the cutoff is given, in an order of its own."""
    history = History(tables, [FACTS])
    features = declare(history, "deal", END)
    rows, snapshot = deal_rows(history, features, GRID, CALENDAR, 0, END, END)
    found: dict[str, Any] = {"features": features, "lead features": declare(history, "lead", END)}
    ids = history.deals.ids[rows.deal].astype(str)
    order = np.lexsort((snapshot.at, ids))
    found["deals"] = ids[order].tolist()
    found["columns"] = {name: bits(c, order) for name, c in rows.columns.items()}
    found["label"] = rows.outcome[order].tolist(), rows.time[order].tolist()
    found["cells"] = rows.cells.begin[order].tobytes(), rows.cells.end[order].tobytes()
    horizon = lead_horizon(history, END)
    some = lead_rows(history, 0, END, END, horizon)
    order = np.lexsort((some.snapshot.at, some.snapshot.ids.astype(str)))
    found["leads"] = horizon, some.snapshot.ids[order].tolist(), some.label[order].tolist()
    for side, ledger in (("deal", history.deals), ("lead", history.leads)):
        age, outcome, entry = durations(history, ledger.side, END)
        found[f"{side} durations"] = sorted(zip(age, outcome, entry, strict=True))
    return found


def test_a_fit_as_of_the_cutoff_is_given_nothing_that_was_told_later() -> None:
    full = synthetic()
    past = fitted_on(as_exported(full, CUTOFF))
    assert len(past["deals"]) > 1000
    assert set(past["label"][0]) == {OPEN, WON, LOST}
    assert set(past["leads"][2]) == {0.0, 1.0}
    for future in (full, spoilt_after(full, CUTOFF, 7), spoilt_after(full, CUTOFF, 8)):
        given = fitted_on(future)
        for name, value in past.items():
            assert given[name] == value, name


def test_context_is_hidden_from_a_share_of_the_rows_and_nothing_else() -> None:
    history = History(synthetic(), [FACTS])
    features = declare(history, "deal", END)
    bounds = GRID, CALENDAR, 0, END, END
    plain, _ = deal_rows(history, features, *bounds)
    masked, _ = deal_rows(history, features, *bounds, mask=True, seed=4)
    hidden = np.zeros(len(plain), dtype=bool)
    for feature in features:
        a, b = plain.columns[feature.name], masked.columns[feature.name]
        if feature.scope == "own":
            everything = np.arange(len(plain))
            assert bits(a, everything) == bits(b, everything)
        elif isinstance(a, tuple) and isinstance(b, tuple):
            hidden |= a[0] != b[0]
            assert (b[0][a[0] != b[0]] == -1).all()
        else:
            assert isinstance(a, np.ndarray)
            assert isinstance(b, np.ndarray)
            hidden |= np.isnan(b) & ~np.isnan(a)
    assert hidden.mean() == pytest.approx(0.15, abs=0.03)
