"""Features: nothing of the future in them, the same alone or among many, missing is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from data.features import Feature, compute, declare
from data.history import OPEN, History, Side, Snapshot
from data.records import ENTITIES, SourceFacts, Table
from tests.data.growing_store import grow
from tests.data.messy_crm import DAY, EXPORT, START, Messy
from tests.data.messy_crm import FACTS as MESSY_FACTS
from tests.data.past_export import CUTOFF, FACTS, as_exported, spoilt_after, synthetic

SIDES: tuple[Side, ...] = ("lead", "deal")
END = int(CUTOFF.astype(np.int64))


def history_of(tables: dict[str, Table]) -> History:
    return History(tables, [FACTS])


def value(column: Any, i: int) -> Any:
    """A value whose equality is equality of bits."""
    if isinstance(column, tuple):
        return None if column[0][i] < 0 else column[1][column[0][i]]
    return column[i].tobytes()


def values(columns: dict[str, Any], n: int) -> list[dict[str, Any]]:
    return [{name: value(column, i) for name, column in columns.items()} for i in range(n)]


def at_moments(history: History, side: Side, ids: Sequence[str], at: npt.ArrayLike) -> Snapshot:
    place = history.ledger(side).row_of
    return history.landmarks(
        side, np.array([place[i] for i in ids], dtype=np.int64), np.asarray(at, dtype=np.int64)
    )


def some_landmarks(history: History, side: Side, seed: int = 0) -> tuple[list[str], list[int]]:
    """Records at random moments of their lives up to the cutoff, and at the cutoff itself."""
    rng = np.random.default_rng(seed)
    ledger = history.ledger(side)
    rows = np.flatnonzero(ledger.known_from <= END)
    begin = ledger.known_from[rows]
    at = begin + (rng.random(len(rows)) * np.minimum(END - begin, 90 * DAY)).astype(np.int64)
    ids = [str(i) for i in ledger.ids[rows]]
    return ids + ids, [*at.tolist(), *[END] * len(ids)]


# --- leaks -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full() -> dict[str, Table]:
    return synthetic()


def futures(full: dict[str, Table]) -> list[dict[str, Table]]:
    """The same past: followed by nothing, by what really came, and by nonsense."""
    past = as_exported(full, CUTOFF)
    return [past, full, *(spoilt_after(full, CUTOFF, seed) for seed in range(3))]


@pytest.mark.parametrize("side", SIDES)
def test_no_feature_knows_what_was_told_after_its_moment(
    full: dict[str, Table], side: Side
) -> None:
    histories = [history_of(tables) for tables in futures(full)]
    ids, at = some_landmarks(histories[0], side)
    features = declare(histories[0], side, END)
    assert len(features) > (30 if side == "deal" else 10)
    expected = values(compute(at_moments(histories[0], side, ids, at), features), len(ids))
    filled = [sum(v[f.name] not in (None, np.float64("nan").tobytes()) for v in expected)
              for f in features]  # fmt: skip
    assert min(filled) > 0, "a feature without values proves nothing"
    for history in histories[1:]:
        got = values(compute(at_moments(history, side, ids, at), features), len(ids))
        for i, (mine, other) in enumerate(zip(got, expected, strict=True)):
            assert mine == other, f"{ids[i]} at {np.datetime64(at[i], 'us')}"


@pytest.mark.parametrize("side", SIDES)
def test_the_declared_features_are_those_of_their_time(full: dict[str, Table], side: Side) -> None:
    past, *others = (history_of(tables) for tables in futures(full))
    for history in others:
        for until in (END, END - 90 * DAY):
            assert declare(history, side, until) == declare(past, side, until)


@pytest.mark.parametrize("side", SIDES)
def test_who_was_open_does_not_depend_on_what_came(full: dict[str, Table], side: Side) -> None:
    past, *others = (history_of(tables) for tables in futures(full))
    for days in (0, 1, 30, 200):
        at = CUTOFF - np.timedelta64(days, "D")
        expected = past.as_of(side, at).ids.tolist()
        assert len(expected) > 10
        for history in others:
            assert sorted(history.as_of(side, at).ids) == sorted(expected)


def test_revenue_known_at_the_cutoff_does_not_depend_on_what_came(full: dict[str, Table]) -> None:
    def known(history: History) -> dict[tuple[str, int], float]:
        rows, at, known_at, amount = history.wins
        found: dict[tuple[str, int], float] = {}
        for i in np.flatnonzero(known_at <= END):
            key = str(history.deals.ids[rows[i]]), int(at[i])
            found[key] = found.get(key, 0.0) + float(amount[i])
        return found

    past, *others = (known(history_of(tables)) for tables in futures(full))
    assert len(past) > 20
    for other in others:
        assert other == past


def test_a_stage_that_was_never_left_is_known_like_one_that_was() -> None:
    # Else a known stage would say that the deal moved on.
    def tables(moves: list[dict[str, Any]]) -> dict[str, Table]:
        deal = {"stage_id": "A", "created_at": "2025-01-01T00:00:00Z", "source": "crm",
                "seen_at": "2025-06-01T00:00:00Z"}  # fmt: skip
        return {
            "deal": Table.from_rows(
                ENTITIES["deal"], [{"deal_id": "stays", **deal}, {"deal_id": "moves", **deal}]
            ),
            "stage_change": Table.from_rows(ENTITIES["stage_change"], moves),
        }

    move = {"entity": "deal", "entity_id": "moves", "changed_at": "2025-03-01T00:00:00Z",
            "from_stage_id": "A", "to_stage_id": "B", "source": "crm"}  # fmt: skip
    for provenance, since in (("native", "2025-01-01"), ("snapshot_diff", "2025-06-01")):
        history = History(tables([{**move, "provenance": provenance}]))
        for day in ("2025-01-02", "2025-02-28", "2025-06-02"):
            stays, moves = (
                values(compute(at_moments(history, "deal", [i], [_us(day)]), _STAGE), 1)[0]
                for i in ("stays", "moves")
            )
            if provenance == "native" and day < "2025-03-01":
                assert stays == moves
            assert (stays["stage"] is not None) == (day >= since)


_STAGE = [Feature("stage", "category", "", ""), Feature("days_in_stage", "number", "days", "")]


def _us(day: str) -> int:
    return int(np.datetime64(day, "us").astype(np.int64))


# --- one by one ------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
def test_one_by_one_is_the_batch(full: dict[str, Table], side: Side) -> None:
    history = history_of(full)
    features = declare(history, side)
    ids, at = some_landmarks(history, side, seed=1)
    batch = at_moments(history, side, ids, at)
    expected = values(compute(batch, features), len(ids))
    rng = np.random.default_rng(2)
    for i in rng.choice(len(ids), 40, replace=False):
        assert values(compute(batch.take(np.array([i])), features), 1)[0] == expected[i]
    order = rng.permutation(len(ids))
    assert values(compute(batch.take(order), features), len(ids)) == [expected[i] for i in order]


@pytest.mark.parametrize("seed", range(10))
def test_one_by_one_is_the_batch_on_messy_records(seed: int) -> None:
    history = History(Messy(seed).tables(), MESSY_FACTS, "EUR")
    features = declare(history, "deal")
    rows = np.arange(len(history.deals))
    at = np.random.default_rng(seed).integers(START, EXPORT + 90 * DAY, len(rows))
    batch = history.landmarks("deal", rows, at)
    expected = values(compute(batch, features), len(rows))
    for i in rows:
        assert values(compute(batch.take(np.array([i])), features), 1)[0] == expected[i]


@pytest.mark.parametrize("side", SIDES)
def test_a_history_of_one_record_gives_its_own_features(full: dict[str, Table], side: Side) -> None:
    whole = history_of(full)
    own = [f for f in declare(whole, side) if f.scope == "own"]
    now = int(full[side]["seen_at"][0].astype(np.int64))
    ids = [str(i) for i in full[side][f"{side}_id"][::17]]
    expected = values(compute(at_moments(whole, side, ids, [now] * len(ids)), own), len(ids))
    for record_id, want in zip(ids, expected, strict=True):
        alone = history_of(only(full, side, record_id))
        assert values(compute(at_moments(alone, side, [record_id], [now]), own), 1)[0] == want


def only(tables: dict[str, Table], side: Side, record_id: str) -> dict[str, Table]:
    """The rows of one record, and the stages."""
    found = {"stage": tables["stage"]}
    for name, table in tables.items():
        key = "entity_id" if "entity_id" in table.columns else f"{side}_id"
        mine = "entity" not in table.columns or table["entity"] == side
        if (key in table.columns and name not in ("deal", "lead", "owner")) or name == side:
            found[name] = table.take((table[key] == record_id) & mine)
    return found


# --- missing ---------------------------------------------------------------------------------


def bare_deals(**given: Any) -> Table:
    rows = [
        {"deal_id": "D1", "created_at": "2025-01-01T00:00:00Z", **given},
        {"deal_id": "D2", "created_at": "2025-01-01T00:00:00Z", "stage_id": "A", "amount": 5,
         "currency": "EUR", "owner_id": "R", "account_id": "K", "lead_source": "web",
         "expected_close_date": "2025-02-01", "attributes": {"size": "S", "seats": 4}},
    ]  # fmt: skip
    return Table.from_rows(ENTITIES["deal"], rows)


NAMES = ("stage_id", "amount", "currency", "owner_id", "account_id", "lead_source",
         "expected_close_date", "size", "seats")  # fmt: skip


@pytest.mark.parametrize("missing", [None, ""])
def test_missing_in_any_form_is_missing(missing: Any) -> None:
    at = _us("2025-01-15")
    absent = History({"deal": bare_deals()})
    features = declare(absent, "deal")
    assert {"field[size]", "field[seats]", "days_to_expected_close"} <= {f.name for f in features}
    want = values(compute(at_moments(absent, "deal", ["D1"], [at]), features), 1)
    told = History({"deal": bare_deals(**dict.fromkeys(NAMES, missing))})
    nested = History({"deal": bare_deals(attributes={"size": missing, "seats": missing})})
    for history in (told, nested):
        assert declare(history, "deal") == features
        assert values(compute(at_moments(history, "deal", ["D1"], [at]), features), 1) == want


def test_a_number_that_is_not_there_is_nan_and_a_category_minus_one() -> None:
    history = History({"deal": bare_deals()})
    columns = compute(at_moments(history, "deal", ["D1"], [_us("2025-01-15")]),
                      declare(history, "deal"))  # fmt: skip
    for name in ("amount_log", "days_to_expected_close", "field[seats]", "account_wins",
                 "owner_win_rate_90d", "stage_order"):  # fmt: skip
        assert np.isnan(columns[name][0]), name
    for name in ("stage", "field[size]", "field[lead_source]"):
        assert columns[name][0][0] == -1, name


def test_a_record_without_creation_has_no_ages() -> None:
    table = Table.from_rows(ENTITIES["deal"], [{"deal_id": "D1", "outcome": "open"}])
    history = History({"deal": table})
    columns = compute(at_moments(history, "deal", ["D1"], [_us("2025-01-15")]),
                      declare(history, "deal"))  # fmt: skip
    assert np.isnan(columns["age"][0])
    assert np.isnan(columns["days_in_stage"][0])
    assert len(history.as_of("deal", np.datetime64("2025-01-15"))) == 0


# --- empty -----------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
def test_an_empty_history_has_no_one_and_raises_nothing(side: Side, full: dict[str, Table]) -> None:
    features = declare(history_of(full), side)
    nobody = np.zeros(0, dtype=np.int64)
    with np.errstate(all="raise"):
        for tables in ({}, {"stage": full["stage"]}, {"activity": full["activity"]}):
            history = History(tables)
            assert len(history.as_of(side, CUTOFF)) == 0
            assert len(history.landmarks(side, nobody, nobody).team.texts()) == 0
            assert [len(w) for w in history.wins] == [0, 0, 0, 0]
            own = declare(history, side)
            for wanted in (own, features):
                columns = compute(history.landmarks(side, nobody, nobody), wanted)
                assert {len(c[0] if isinstance(c, tuple) else c) for c in columns.values()} <= {0}


@pytest.mark.parametrize("side", SIDES)
def test_records_without_any_event_have_all_features(side: Side, full: dict[str, Table]) -> None:
    features = declare(history_of(full), side)
    history = History({side: full[side]}, [FACTS])
    rows = np.arange(len(history.ledger(side)))
    with np.errstate(all="raise"):
        columns = compute(history.landmarks(side, rows, np.full(len(rows), END)), features)
    assert set(columns) == {f.name for f in features}
    if side == "deal":
        assert (columns["activities"] == 0).all()
        assert np.isnan(columns["days_since_activity"]).all()


# --- what is declared ------------------------------------------------------------------------


def names(features: Sequence[Feature]) -> set[str]:
    return {f.name for f in features}


def test_an_excluded_field_is_in_no_feature(full: dict[str, Table]) -> None:
    before = declare(history_of(full), "deal")
    facts = SourceFacts(
        FACTS.name, static=FACTS.static,
        excluded={"deal": ("amount", "expected_close_date", "owner_id", "lead_source"),
                  "account": ("industry",)},
    )  # fmt: skip
    after = declare(History(full, [facts]), "deal")
    gone = names(before) - names(after)
    assert names(after) < names(before)
    assert gone == {
        "amount_log", "amount_changes", "amount_growth", "days_to_expected_close",
        "close_date_pushes", "close_date_pushed_days", "owner_closings_90d", "owner_win_rate_90d",
        "field[lead_source]", "account[industry]",
    }  # fmt: skip
    facts = SourceFacts(FACTS.name, static=FACTS.static, excluded={"lead": ("email_domain",)})
    leads = declare(History(full, [facts]), "lead")
    gone = names(declare(history_of(full), "lead")) - names(leads)
    assert gone == {"free_mail", "completeness"}


def test_a_field_first_shown_at_the_end_is_not_declared(full: dict[str, Table]) -> None:
    history = history_of(full)
    shown = history.observed_until
    assert "field[probability]" not in names(declare(history, "deal", shown))
    assert "field[probability]" in names(declare(history, "deal", shown + 1))


LATER = "2025-06-01T00:00:00Z"


@pytest.mark.parametrize(
    ("feature", "rows"),
    [
        ("days_to_expected_close", {"deal": [{"expected_close_date": "2025-09-01"}]}),
        ("field[lead_source]", {"deal": [{"lead_source": "web"}]}),
        ("days_until[renewal]", {"deal": [{"attributes": {"renewal": "2025-09-01"}}]}),
        ("field[seats]", {"deal": [{"attributes": {"seats": 4}}]}),
        ("account_wins", {"deal": [{"account_id": "A"}]}),
        ("owner_win_rate_90d", {"deal": [{"owner_id": "R"}]}),
        ("bant[need]", {"qualification": [{"entity": "deal", "entity_id": "D0", "need": "high",
                                           "changed_at": LATER}]}),
        ("stakeholders", {"contact_role": [{"deal_id": "D0", "contact_id": "C"}]}),
        ("activities_7d", {"activity": [{"activity_id": "1", "deal_id": "D0",
                                         "occurred_at": LATER}]}),
        ("activities_28d[call]", {"activity": [{"activity_id": "1", "deal_id": "D0",
                                                "occurred_at": LATER, "type": "call"}]}),
        ("account[annual_revenue]", {
            "deal": [{"account_id": "A", "recorded_at": "2025-01-01T00:00:00Z"}],
            "account": [{"account_id": "A", "annual_revenue": 5, "seen_at": LATER}],
        }),
    ],
)  # fmt: skip
def test_a_feature_is_declared_once_it_has_a_value_and_not_before(
    feature: str, rows: dict[str, list[dict[str, Any]]]
) -> None:
    deals = [{"deal_id": "D0", "created_at": "2025-01-01T00:00:00Z"}]
    deals += [{"deal_id": "D1", "created_at": "2025-01-01T00:00:00Z", "recorded_at": LATER, **row}
              for row in rows.get("deal", [])]  # fmt: skip
    tables = {name: [{"recorded_at": LATER, **row} for row in others]
              for name, others in rows.items()} | {"deal": deals}  # fmt: skip
    history = History({n: Table.from_rows(ENTITIES[n], r) for n, r in tables.items()})
    later = _us(LATER.removesuffix("Z"))
    assert feature not in names(declare(history, "deal", later))
    assert feature in names(declare(history, "deal", later + 1))


def test_a_plan_counts_from_when_its_due_time_was_seen_until_it_is_done() -> None:
    rows = [
        # Moved on 10 January: where it stood before is not kept.
        {"activity_id": "1", "deal_id": "D2", "due_at": "2025-01-14T00:00:00Z",
         "recorded_at": "2025-01-02T00:00:00Z", "seen_at": "2025-01-10T00:00:00Z"},
        {"activity_id": "2", "deal_id": "D2", "due_at": "2025-01-16T00:00:00Z",
         "recorded_at": "2025-01-02T00:00:00Z", "occurred_at": "2025-01-12T00:00:00Z"},
        {"activity_id": "3", "deal_id": "D2", "due_at": "2025-01-30T00:00:00Z"},
    ]  # fmt: skip
    history = History(
        {"deal": bare_deals(), "activity": Table.from_rows(ENTITIES["activity"], rows)}
    )
    planned = [Feature("days_to_next_planned", "number", "days", "")]
    days = {"2025-01-01": 29.0, "2025-01-03": 13.0, "2025-01-11": 3.0, "2025-01-13": 1.0,
            "2025-01-14": 16.0}  # fmt: skip
    for day, ahead in days.items():
        columns = compute(at_moments(history, "deal", ["D2"], [_us(day)]), planned)
        assert columns["days_to_next_planned"].tolist() == [ahead], day
    columns = compute(at_moments(history, "deal", ["D2"], [_us("2025-01-30")]), planned)
    assert np.isnan(columns["days_to_next_planned"][0])


def test_activities_without_a_type_make_no_feature_of_their_own() -> None:
    rows = [{"activity_id": "1", "deal_id": "D2", "occurred_at": "2025-01-03T00:00:00Z"}]
    history = History(
        {"deal": bare_deals(), "activity": Table.from_rows(ENTITIES["activity"], rows)}
    )
    found = declare(history, "deal")
    assert "activities_28d" in names(found)
    assert not any(f.name.startswith("activities_28d[") for f in found)
    columns = compute(at_moments(history, "deal", ["D2"], [_us("2025-01-15")]), found)
    assert columns["activities"][0] == 1.0
    assert columns["last_activity"][0][0] == -1


def test_personal_fields_and_what_comes_after_are_never_declared(full: dict[str, Table]) -> None:
    found = names(declare(history_of(full), "deal")) | names(declare(history_of(full), "lead"))
    for name in ("name", "company_name", "loss_reason", "closed_amount", "converted_deal_id",
                 "disqualification_reason", "merged_into_id", "closed_at"):  # fmt: skip
        assert not any(name in feature for feature in found), name


def test_every_declared_feature_names_its_unit_and_group(full: dict[str, Table]) -> None:
    history = history_of(full)
    for side in SIDES:
        features = declare(history, side)
        assert len(names(features)) == len(features)
        assert all(f.meaning and f.dtype in ("number", "category") for f in features)
    context = {f.name for f in declare(history, "deal") if f.scope == "context"}
    assert context == {"account_wins", "account_losses", "account[industry]",
                       "account[employee_count]", "account[country]", "owner_closings_90d",
                       "owner_win_rate_90d"}  # fmt: skip


# --- what is given ---------------------------------------------------------------------------


def test_context_can_be_given_for_all_for_each_or_as_missing(full: dict[str, Table]) -> None:
    history = history_of(full)
    snapshot = history.as_of("deal", CUTOFF).take(np.arange(3))
    features = [f for f in declare(history, "deal") if f.scope == "context"]
    given = {
        "account_wins": 4,
        "account_losses": np.array([1.0, np.nan, 3.0]),
        "owner_closings_90d": None,
        "account[industry]": np.array(["steel", None, "food"], dtype=object),
        "account[country]": "DE",
        "age": 99,
    }
    columns = compute(snapshot, features, given)
    assert columns["account_wins"].tolist() == [4.0, 4.0, 4.0]
    assert columns["account_losses"].tolist()[::2] == [1.0, 3.0]
    assert np.isnan(columns["account_losses"][1])
    assert np.isnan(columns["owner_closings_90d"]).all()
    assert [value(columns["account[industry]"], i) for i in range(3)] == ["steel", None, "food"]
    assert [value(columns["account[country]"], i) for i in range(3)] == ["DE"] * 3
    own = [Feature("age", "number", "days", "")]
    assert compute(snapshot, own, given)["age"].tolist() == snapshot.age.tolist()


# --- a store that goes on --------------------------------------------------------------------


def only_deals(tables: dict[str, Table], ids: set[str]) -> dict[str, Table]:
    found = dict(tables)
    for name in ("deal", "stage_change", "field_change", "activity", "qualification"):
        key = "deal_id" if "deal_id" in tables[name].columns else "entity_id"
        mine = np.array([i in ids for i in tables[name][key]], dtype=bool)
        found[name] = tables[name].take(mine)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_what_a_store_is_told_later_changes_no_feature_of_its_past(
    tmp_path: Path, seed: int
) -> None:
    states = grow(tmp_path / "store.db", seed)
    _, final, facts = states[-1]
    assert (History(final, facts, "EUR").deals.outcomes.value == OPEN).any(), "none was reopened"
    for at, tables, facts_then in states[4::5]:
        then = History(tables, facts_then, "EUR")
        features = declare(then, "deal", at)
        ids = [str(i) for i in then.deals.ids]
        # Deals that a later file brings enter the past in which it says they were there.
        later = History(only_deals(final, set(ids)), facts, "EUR")
        for back in (0, 3 * DAY, 20 * DAY):
            moments = [at - back] * len(ids)
            expected = values(compute(at_moments(then, "deal", ids, moments), features), len(ids))
            got = values(compute(at_moments(later, "deal", ids, moments), features), len(ids))
            for i, want in enumerate(expected):
                assert got[i] == want, f"{ids[i]} at {np.datetime64(at - back, 'us')}"
            now = np.datetime64(at - back, "us")
            assert set(then.as_of("deal", now).ids) == set(later.as_of("deal", now).ids)
