"""Numbers as issued: what goes in comes out, once, and nothing changes it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from alembic import command
from hypothesis import given
from hypothesis import strategies as st

from data.store import ForecastFilter, IssuedCell, IssuedForecast, Store, StoreError, schema
from data.store.connections import database_url, open_engine, transaction
from data.store.packing import pack, unpack
from data.store.tables import CELL_ISSUED, SCORE_ISSUED
from tests.data.stored_rows import MODEL, T1, T2, T3, score

DAY = np.timedelta64(1, "D")


def cell(group: str = "all", start: np.datetime64 = T1, **more: Any) -> IssuedCell:
    quantiles = {"0.1": 1.0, "0.5": 2.5, "0.9": 0.1 + 0.2}
    made = IssuedCell(start, start + 7 * DAY, group, 2.25, None, None, {"won": 1.0}, quantiles)
    return replace(made, **more)


def forecast(*cells: IssuedCell, **more: Any) -> IssuedForecast:
    made = IssuedForecast(T2, T3, "week", None, "amount", False, MODEL, cells, 4000, 0, "ab12")
    return replace(made, **more)


# --- packing ---------------------------------------------------------------------------------

_PLAIN = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5) | st.floats(
    allow_nan=False, allow_infinity=False
)  # fmt: skip
_VALUES = st.recursive(
    _PLAIN,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    | st.lists(st.fixed_dictionaries({"a": inner, "b": inner}), max_size=3),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=3), _VALUES, max_size=4))
def test_what_is_packed_comes_back(value: dict[str, Any]) -> None:
    assert unpack(pack(value)) == value


def test_an_older_way_to_pack_is_read_and_a_newer_one_refused() -> None:
    assert unpack(b"\0" + msgspec.json.encode({"x": [{"a": 1}, {"a": 2}]})) == {
        "x": [{"a": 1}, {"a": 2}]
    }
    with pytest.raises(StoreError, match="newer dealcast"):
        unpack(b"\7{}")


def test_the_words_that_old_rows_were_packed_with_are_still_the_same() -> None:
    # Packed once and for all: were the words to change, no stored answer could be read.
    kept = bytes.fromhex(KEPT)
    assert unpack(kept)["curve"][1] == {"date": "2026-01-08", "won": 0.2}


KEPT = "01ab46097352b30e9063819c7041458311308dd60200"


# --- scores ----------------------------------------------------------------------------------


def test_scores_are_kept_as_issued(store: Store) -> None:
    issued = [score("D1", T2), score("D2"), score("D1", T1)]
    store.issue(issued)
    store.issue([])
    assert store.scores_issued("deal", "D1") == [issued[0], issued[2]]
    assert store.scores_issued("deal", "D1", 1) == [issued[2]]
    assert store.scores_issued("deal") == issued
    assert store.scores_issued("lead") == []
    with pytest.raises(StoreError, match="plain JSON"):
        store.issue([replace(issued[0], detail={"x": 1j})])


def test_the_same_words_are_kept_once_and_others_beside_them(store: Store) -> None:
    first = score("D1")
    store.issue([first, first])
    store.issue([replace(first, issued_at=T3 + DAY)])  # said again later
    assert store.scores_issued("deal") == [first]
    others = [
        score("D1", grade="A"),
        replace(first, probability=0.4),
        replace(first, model={**MODEL, "version": "8"}),
        replace(first, horizon=30.0),
        replace(first, as_of=T2),
        replace(first, entity="lead"),
    ]
    store.issue(others)
    assert store.scores_issued("deal") == [first, *others[:-1]]
    assert store.scores_issued("lead") == others[-1:]


def test_a_score_takes_few_bytes(store: Store, store_url: str) -> None:
    curve = [
        {"date": str(np.datetime64("2026-01-01") + 3 * k), "won": round(0.0212341 * k, 6),
         "lost": round(0.0123457 * k, 6)}
        for k in range(28)
    ]  # fmt: skip
    store.issue(
        [score(f"D{i}", curve=[{**c, "won": c["won"] / 2**i} for c in curve]) for i in range(9)]
    )
    engine = open_engine(database_url(store_url))
    with transaction(engine, "read") as connection:
        sizes = [len(d) for d in connection.scalars(sa.select(SCORE_ISSUED.c.detail))]
    engine.dispose()
    plain = len(msgspec.json.encode({"curve": curve}))
    assert plain > 1200 and max(sizes) < 450


# --- forecasts -------------------------------------------------------------------------------


def test_forecasts_are_kept_as_issued(store: Store) -> None:
    issued = [
        forecast(cell(), cell("u1", target=7.5, probability_of_target=0.25), detail={"a": [0.8]},
                 groups=frozenset({"all", "u1"})),
        forecast(cell(detail={"drivers": []}), as_of=T1, period="month", by="owner", hindsight=True,
                 draws=None, seed=None, inputs=None, measure="count", groups=frozenset({"all"})),
    ]  # fmt: skip
    store.issue(forecasts=issued)
    assert store.forecasts_issued() == (issued, 3)


def test_the_same_forecast_is_kept_once_and_a_different_one_beside_it(store: Store) -> None:
    first = forecast(cell(), groups=frozenset({"all"}))
    store.issue(forecasts=[first, first])
    store.issue(forecasts=[replace(first, issued_at=T3 + DAY, inputs="other")])
    both = frozenset({"all", "u1"})
    others = [
        replace(first, seed=1),
        replace(first, cells=(cell(mean=2.0),)),
        replace(first, cells=(cell(), cell("u1")), groups=both),
    ]
    store.issue(forecasts=others)
    assert store.forecasts_issued()[0] == [first, *others]


def test_cells_are_asked_for_by_period_group_and_time_and_paged(store: Store) -> None:
    weeks = [T1 + 7 * DAY * i for i in range(4)]
    first = forecast(*(cell(g, w) for w in weeks for g in ("all", "u1")), by="owner")
    second = forecast(cell("u1", weeks[3]), by="team", period="month", measure="count")
    store.issue(forecasts=[first, second])

    def found(**asked: Any) -> list[tuple[str, np.datetime64]]:
        forecasts, total = store.forecasts_issued(ForecastFilter(**asked))
        cells = [(c.group, c.start) for f in forecasts for c in f.cells]
        assert total == len(cells) or "limit" in asked
        return cells

    assert len(found()) == 9
    assert found(period="month") == found(measure="count") == [("u1", weeks[3])]
    assert found(group="u1", by="owner") == [("u1", w) for w in weeks]
    assert found(start=weeks[1], end=weeks[3], group="all") == [("all", w) for w in weeks[1:3]]
    whole = found(order="newest")
    assert whole[0] == ("u1", weeks[3]) and len(whole) == 9
    pages = [c for o in range(0, 9, 2) for c in found(order="newest", limit=2, offset=o)]
    assert pages == whole
    assert store.forecasts_issued(ForecastFilter(limit=2))[1] == 9
    assert store.forecasts_issued(ForecastFilter(group="nobody")) == ([], 0)
    store.issue(forecasts=[forecast(cell("u9", detail={"drivers": [1]}))])
    for brief in (False, True):
        ((kept,), _) = store.forecasts_issued(ForecastFilter(group="u9", brief=brief))
        assert kept.cells[0].detail == ({} if brief else {"drivers": [1]})


# --- never changed ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "table", ["model_issued", "score_issued", "forecast_issued", "forecast_cell_issued"]
)
def test_the_database_refuses_to_change_what_was_issued(
    store: Store, store_url: str, table: str
) -> None:
    store.issue([score("D1")], [forecast(cell())])
    engine = open_engine(database_url(store_url))
    column = {"score_issued": "probability", "forecast_cell_issued": "mean"}.get(table, "model_id")
    column = "version" if table == "model_issued" else column
    with (
        pytest.raises(StoreError, match="never changed"),
        transaction(engine, "append") as connection,
    ):
        connection.execute(sa.text(f"UPDATE {table} SET {column} = {column}"))
    with transaction(engine, "append") as connection:  # retention may still delete
        connection.execute(sa.delete(CELL_ISSUED))
    engine.dispose()
    assert store.forecasts_issued() == ([], 0)


def test_what_an_earlier_version_issued_is_carried_over(empty_database: str) -> None:
    answer = {"deal_id": "D1", "as_of": "2026-01-10T09:00:00Z", "probability_won": 0.25,
              "model": MODEL, "grade": "C"}  # fmt: skip
    period = {"period": "2026-W03", "start": "2026-01-12", "end": "2026-01-19", "group": "all",
              "mean": 5.0, "quantiles": {"0.5": 4.0}, "components": {"won": 5.0}, "target": None,
              "probability_of_target": None, "coverage": [], "drivers": []}  # fmt: skip
    said = {"as_of": "2026-02-10T09:00:00.000250Z", "by": None, "period": "week", "model": MODEL,
            "hindsight": False, "currency": "EUR", "periods": [period]}  # fmt: skip
    engine = open_engine(database_url(empty_database))
    with transaction(engine, "write") as connection:
        config = schema._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        at = {"as_of": int(T1.astype(np.int64)), "issued_at": int(T3.astype(np.int64))}
        told, foretold = (msgspec.json.encode(x).decode() for x in (answer, said))
        score_row = {"entity": "deal", "entity_id": "D1", "model_name": "dealcast-deal",
                     "model_version": "7", "answer": told} | at  # fmt: skip
        forecast_row = {"period": "week", "by": None, "model_version": "7", "answer": foretold} | at
        for table, row in (("score_issued", score_row), ("forecast_issued", forecast_row)):
            columns, values = ", ".join(f'"{c}"' for c in row), ", ".join(f":{c}" for c in row)
            for _ in range(2):
                connection.execute(
                    sa.text(f"INSERT INTO {table} ({columns}) VALUES ({values})"), row
                )
    engine.dispose()
    with Store(empty_database) as store:
        store.upgrade()
        (kept,) = store.scores_issued("deal", "D1")
        assert (kept.as_of, kept.issued_at, kept.model, kept.probability) == (T1, T3, MODEL, 0.25)
        assert kept.detail == {"probability_won": 0.25, "grade": "C"}
        ((old,), total) = store.forecasts_issued()
        assert (old.as_of, old.period, old.model, old.detail) == (
            T1,
            "week",
            MODEL,
            {"currency": "EUR"},
        )
        assert total == 1 and old.cells[0].mean == 5.0 and old.cells[0].quantiles == {"0.5": 4.0}
        assert old.cells[0].start == np.datetime64("2026-01-12") and old.cells[0].target is None
        assert old.cells[0].detail == {"period": "2026-W03", "coverage": [], "drivers": []}
        store.issue([score("D1")], [forecast(cell())])  # numbering goes on
        assert len(store.scores_issued("deal")) == 2 and store.forecasts_issued()[1] == 2
