"""The main job on public data: import, train as of a past day, forecast, hold against what came.

The data sets are not ours to ship: DEALCAST_DATASETS names the folder that has them.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.history import OPEN, WON, History
from data.mapping import load_mapping, read_source
from data.pipeline import FiscalCalendar, Period
from data.store import Store, Written
from data.timelines import DAY
from scoring.forecast import simulate
from training.backtest import BacktestError, backtest
from training.fitting import Recipe, fit_deals
from training.run import train_deals, train_leads

_EXAMPLES = Path(__file__).parents[2] / "examples"
_RECIPE = Recipe(FiscalCalendar(), landmarks=10_000)
_NOW = np.datetime64("2026-01-01", "us")

needs_data = pytest.mark.skipif(
    "DEALCAST_DATASETS" not in os.environ,
    reason="DEALCAST_DATASETS does not name a folder of public data sets",
)


def _imported(name: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Written]:
    """A store with one data set, imported twice; what the second import wrote."""
    folder = Path(os.environ["DEALCAST_DATASETS"]) / name
    store = Store(str(tmp_path_factory.mktemp(name) / "store.db"))
    store.upgrade()
    found = read_source(load_mapping(_EXAMPLES / f"{name}.toml"), folder, at=_NOW)
    assert len(found.rejects) == 0
    store.write(found.tables, at=_NOW, facts=found.facts)
    again = store.write(found.tables, at=_NOW, facts=found.facts)
    return store, sum(again.values(), Written())


def _history(store: Store) -> History:
    return History(store.read(), store.sources())


@pytest.fixture(scope="module")
def bpic(tmp_path_factory: pytest.TempPathFactory) -> History:
    if "DEALCAST_DATASETS" not in os.environ:
        pytest.skip("DEALCAST_DATASETS does not name a folder of public data sets")
    store, again = _imported("bpic2012", tmp_path_factory)
    assert again.inserted == again.updated == 0
    return _history(store)


def test_bpic_counts(bpic: History) -> None:
    outcomes = bpic.deals.table["outcome"]
    assert len(outcomes) == 13_087
    assert [(outcomes == o).sum() for o in ("won", "lost", "open")] == [2_246, 10_442, 399]


def test_bpic_on_a_past_day(bpic: History) -> None:
    day = np.datetime64("2012-01-15", "us")
    then = bpic.as_of("deal", day)
    assert len(then) == 840
    assert then.amount.sum() == pytest.approx(13.48e6, abs=5e3)
    rows, value = bpic.won_between(day, day + np.timedelta64(30, "D"))
    known = np.isin(rows, then.rows)
    assert value[known].sum() == pytest.approx(4.34e6, abs=5e3)
    assert value[~known].sum() == pytest.approx(3.18e6, abs=5e3)


def test_bpic_forecast_made_from_what_was_known(bpic: History) -> None:
    """Both parts of the coming 30 days lie inside wide ranges of a forecast made on the day."""
    day = np.datetime64("2012-01-15", "us")
    until = int(day.astype(np.int64))
    bundle = fit_deals(bpic, until, _RECIPE)
    drawn = simulate(bpic, bundle, day, [Period(day, day + np.timedelta64(30, "D"), "")])
    for part, happened in ((drawn.open.value, 4.34e6), (drawn.new.value, 3.18e6)):
        low, high = np.quantile(part[:, 0, 0], (0.01, 0.99))
        assert low < happened < high
    # The same fit, blind to all that came later, gives the same bits.
    later = bpic.deals.table
    future = later["closed_at"] > day
    blind = later.with_columns(
        outcome=np.where(future, "open", later["outcome"]),
        closed_at=np.where(future, np.datetime64("NaT"), later["closed_at"]),
        closed_amount=np.where(future, np.nan, later["closed_amount"]),
    )
    shut = History({**bpic.tables, "deal": blind}, bpic.facts)
    same = simulate(
        shut, fit_deals(shut, until, _RECIPE), day, [Period(day, day + np.timedelta64(30, "D"), "")]
    )
    assert np.array_equal(drawn.total, same.total)


def test_bpic_training_beats_its_baselines_on_later_data(bpic: History) -> None:
    run = train_deals(bpic, np.datetime64("2012-01-15", "us"), _RECIPE)
    assert run.evaluation is not None and run.opens
    assert run.evaluation.arms[0]["log_loss"] < run.evaluation.arm("stage rate")["log_loss"]
    assert run.bundle.manifest.trained_through == "2012-01-15T00:00:00Z"
    assert run.bundle.manifest.coverage


def test_bpic_backtest_refuses_windows_that_the_log_does_not_reach(bpic: History) -> None:
    with pytest.raises(BacktestError, match="2012-02-15"):
        backtest(bpic, [np.datetime64("2012-02-20", "us")], [28.0], _RECIPE)


@needs_data
def test_maven_walk(tmp_path_factory: pytest.TempPathFactory) -> None:
    store, again = _imported("maven_crm", tmp_path_factory)
    assert again.inserted == again.updated == 0
    history = _history(store)
    assert len(history.deals) == 8_800
    undated = np.isnat(history.deals.table["created_at"])
    assert undated.sum() == 500
    last = np.datetime64("2017-12-31", "us")
    assert not np.isin(np.flatnonzero(undated), history.as_of("deal", last).rows).any()
    # Won value of every month and its two full quarters, as the publisher's files have them.
    months = FiscalCalendar().periods_between(
        "month", np.datetime64("2017-03-01", "us"), np.datetime64("2018-01-01", "us")
    )
    won = [history.won_between(m.start, m.end)[1].sum() for m in months]
    assert won == [
        1134672,
        721932,
        1025713,
        1338466,
        696932,
        1050059,
        1235264,
        731980,
        938943,
        1131573,
    ]
    day = np.datetime64("2017-10-01", "us")
    bundle = fit_deals(history, int(day.astype(np.int64)), replace(_RECIPE, landmarks=5_000))
    quarter = FiscalCalendar().periods("quarter", day, 1)
    total = simulate(history, bundle, day, quarter).total[:, 0, 0]
    assert 0.5 < total.mean() / 2_802_496 < 2.0


@needs_data
@pytest.mark.parametrize(
    ("name", "leads", "qualified", "log_loss"),
    [("bank_marketing", 41_188, 4_640, 1.09), ("xeducation_leads", 9_240, 3_561, 0.65)],
)
def test_lead_walks(
    name: str,
    leads: int,
    qualified: int,
    log_loss: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    store, again = _imported(name, tmp_path_factory)
    assert again.inserted == again.updated == 0
    history = _history(store)
    ledger = history.leads
    assert len(ledger) == leads
    late = np.full(leads, history.observed_until + DAY, dtype=np.int64)
    outcome = history.landmarks("lead", np.arange(leads), late).outcome
    assert (outcome == WON).sum() == qualified and (outcome != OPEN).all()
    run = train_leads(history, np.datetime64("2026-01-01", "us"), _RECIPE)
    assert run.evaluation is not None and run.opens
    assert run.evaluation.arms[0]["log_loss"] < log_loss  # about the base rate's
    leaking = {"field[tags]", "field[lead_quality]", "field[duration]", "field[lead_profile]"}
    assert not leaking & {f.name for f in run.bundle.features}
