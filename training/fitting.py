"""Fit a bundle on what was known by a moment: the same recipe for training and back-tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from data.features import Feature, compute, declare
from data.history import OPEN, WON, History, Side, Snapshot
from data.pipeline import FiscalCalendar
from data.timelines import DAY
from models.amount import AmountModel
from models.arrivals import ArrivalModel, aalen_johansen
from models.deal import DealModel, DealRows
from models.deal_arms import take_columns
from models.encoding import row_count
from models.grid import HazardGrid
from models.lead import LeadModel
from models.shocks import ShockModel
from models.stage_chain import StageChain
from scoring.bundles import DealBundle, LeadBundle, Manifest, Reference
from scoring.grouping import GROUPINGS, group_of
from training.bulk import spread_bulk_losses
from training.examples import deal_rows, durations, lead_rows, open_spells
from training.leaks import leak_report
from training.levels import wins_by_week
from training.stages import stage_exits, stage_prior, stage_rates

__all__ = ["Recipe", "TrainingError", "fit_deals", "fit_leads", "with_shocks"]

FloatArray = npt.NDArray[np.float64]

_LONGEST = 2 * 365.0  # days after which an open deal is not followed any more
_REFERENCE_SCORES = 2000
_REFERENCE_RECORDS, _LEAST_OF_STAGE = 500, 30  # that reasons of deals are counted from
# What few closed deals do not tell yet, by how many count as much: how long deals can last, days.
_FEW_CLOSED, _FEW_LONGEST = 20.0, 180.0
_LEAD_PRIOR, _PRIOR_LEADS = 0.3, 10.0  # share of leads that qualify before any has, and its worth
_WIN_PRIOR, _PRIOR_WINS = 0.3, 10.0  # the same of qualified leads that are won


class TrainingError(ValueError):
    """A history that cannot be learnt from; the message says what is missing."""


@dataclass(frozen=True)
class Recipe:
    """How models are fitted; part of what a run logs.

    Attributes
    ----------
    landmarks : int
        Most landmarks a fit looks at; above, they are thinned at random.
    half_life : float or None
        Days after which a lead counts half.
    seed, threads : int
    trusted : tuple of str
        Fields to use although they look as if they knew the outcome.
    withheld : tuple of str
        Fields to leave out, besides those that the leak report of a fit finds by its own cutoff.
    renewals : tuple of str
        Pipelines of renewals: a known list, so that their deals are no new business.
    """

    calendar: FiscalCalendar
    landmarks: int = 40_000
    half_life: float | None = None
    seed: int = 0
    threads: int = 1
    trusted: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    renewals: tuple[str, ...] = ()


def fit_deals(
    history: History,
    until: int,
    recipe: Recipe,
    trained_at: str = "",
    like: DealBundle | None = None,
) -> DealBundle:
    """Fit the deal bundle on what was known by `until` (int64 microseconds).

    Parameters
    ----------
    like : DealBundle, optional
        Take its hazards, features and grid instead of fitting them, and learn only what is
        cheap (amounts, arrivals, rates) anew: back-tests refit hazards less often.

    Raises
    ------
    TrainingError
        If no deal with a creation time is known by then.
    """
    age, outcome, entry = durations(history, "deal", until)
    if len(age) == 0:
        raise TrainingError(
            f"no deal with a creation time is known by {_iso(until)}; import deals first, or "
            "train at a later date"
        )
    rates, prior = stage_rates(history, until), stage_prior(history)
    exits = stage_exits(history, prior, until)
    chain = StageChain.fit(prior, exits)
    if like is None:
        grid = _grid(age, outcome, entry, chain.longest(exits.stage))
        features = _features(history, "deal", until, recipe)
    else:
        grid, features = like.model.grid, like.features
    rows, snapshot = deal_rows(
        history, features, grid, recipe.calendar, -DAY, until, until,
        limit=recipe.landmarks, seed=recipe.seed, mask=True,
    )  # fmt: skip
    if len(rows) == 0:
        raise TrainingError(f"no deal was open at any midnight before {_iso(until)}")
    rows = spread_bulk_losses(rows, snapshot, recipe.seed)
    model = like.model if like is not None else DealModel.fit(
        rows, grid, chain=chain,
        span=float(snapshot.at.max() - snapshot.at.min()) / DAY,
        seed=recipe.seed, threads=recipe.threads,
    )  # fmt: skip
    bundle = DealBundle(
        Manifest("deal", trained_at, _iso(until), _currency(history)),
        features,
        recipe.calendar,
        model,
        _amounts(history, rows, snapshot, until),
        _arrivals(history, until, grid.t_max, recipe),
        ShockModel.fit(np.zeros(0), np.zeros(0)),
        rates,
        _deal_reference(history, model, features, recipe.calendar, rows, snapshot.at, until),
        recipe.renewals,
    )
    return with_shocks(history, bundle, until, recipe.seed)


def with_shocks(history: History, bundle: DealBundle, until: int, seed: int) -> DealBundle:
    """The bundle with what past weeks teach of the shocks around its hazards."""
    expected, won = wins_by_week(history, bundle, until, seed)
    return replace(bundle, shocks=ShockModel.fit(expected, won))


def fit_leads(
    history: History,
    until: int,
    horizon: int,
    recipe: Recipe,
    trained_at: str = "",
    features: tuple[Feature, ...] | None = None,
) -> LeadBundle:
    """Fit the lead bundle on what was known by `until` (int64 microseconds).

    Raises
    ------
    TrainingError
        If no lead with a creation time is known by then.
    """
    if features is None:
        features = _features(history, "lead", until, recipe)
    rows = lead_rows(history, -DAY, until, until, horizon, limit=recipe.landmarks, seed=recipe.seed)
    if not (history.leads.known_from <= until).any():
        raise TrainingError(
            f"no lead with a creation time is known by {_iso(until)}; import leads first, or "
            "train at a later date"
        )
    columns = compute(rows.snapshot, features)
    # Many landmarks of one lead are one experience.
    per_lead = len(rows.label) / max(len(np.unique(rows.lead)), 1)
    model = LeadModel.fit(
        columns, rows.label, order_time=rows.snapshot.at / DAY, groups=rows.lead,
        prior=(_LEAD_PRIOR, _PRIOR_LEADS * max(per_lead, 1.0)),
        half_life=recipe.half_life, seed=recipe.seed, num_threads=recipe.threads,
    )  # fmt: skip
    win, win_rate = _win_given_qualified(history, features, until, recipe)
    return LeadBundle(
        Manifest("lead", trained_at, _iso(until)),
        features,
        model,
        horizon,
        _delays(history, until, horizon),
        win,
        win_rate,
        _lead_reference(history, model, features, columns, until),
    )


def _features(history: History, side: Side, until: int, recipe: Recipe) -> tuple[Feature, ...]:
    """The features a fit may read: nothing that is known to know the outcome."""
    found = leak_report(history, side, until, recipe.trusted)
    return declare(history, side, until, {*recipe.withheld, *found.withheld})


def _grid(
    age: FloatArray, outcome: npt.NDArray[np.int64], entry: FloatArray, expected: float
) -> HazardGrid:
    """The hazard grid of a history: unit by the median cycle, end at the 99th percentile.

    `expected` is the time by which 99 % of the deals should have closed, in days, as far as
    their stages tell. It ends the grid where the curve of those that closed does not get there.
    """
    ages, curve = aalen_johansen(entry, age, outcome)
    if len(ages) == 0:
        return HazardGrid.for_durations(30.0, float(np.clip(expected, _FEW_LONGEST, _LONGEST)))
    closed = curve.sum(axis=1)
    median = float(ages[min(int(np.searchsorted(closed, 0.5)), len(ages) - 1)])
    longest = float(ages[min(int(np.searchsorted(closed, 0.99)), len(ages) - 1)])
    # What has closed of a young pipeline is what closes fast.
    few = min(_FEW_CLOSED / max(int((outcome != OPEN).sum()), 1), 1.0)
    unseen = few if closed[-1] >= 0.99 else 1.0
    longest = max(longest, unseen * expected, few * _FEW_LONGEST)
    return HazardGrid.for_durations(median, float(np.clip(longest, 30.0, _LONGEST)))


def _amounts(history: History, rows: DealRows, snapshot: Snapshot, until: int) -> AmountModel:
    """Final against current amounts, at the landmarks of deals that were won."""
    won_rows, _, known, value = history.wins
    final = np.full(len(history.deals), np.nan)
    seen = (known <= until) & (value > 0)
    final[won_rows[seen]] = value[seen]
    won = np.flatnonzero(rows.outcome == WON)
    stage = rows.columns["stage"]
    assert isinstance(stage, tuple)
    return AmountModel.fit(
        (stage[0][won], stage[1]), snapshot.take(won).amount, final[rows.deal[won]], rows.deal[won]
    )


def _arrivals(history: History, until: int, t_max: float, recipe: Recipe) -> ArrivalModel:
    ledger, calendar = history.deals, recipe.calendar
    spells = open_spells(ledger, until, instant=True)
    first = np.flatnonzero(spells.begin == ledger.known_from[spells.row])
    row = spells.row[first]
    known_list = group_of(history.landmarks("deal", row, ledger.known_from[row]), "pipeline")
    first = first[~np.isin(known_list.astype(str), recipe.renewals)]
    row = spells.row[first]
    won_rows, _, known, value = history.wins
    amount = np.full(len(ledger), np.nan)
    seen = (known <= until) & (value > 0)
    amount[won_rows[seen]] = value[seen]
    created = ledger.created_at[row]
    at_creation = history.landmarks("deal", row, ledger.known_from[row])
    begin = max(int(created.min(initial=until)), history.observed_from)
    now = np.array([until], dtype=np.int64)
    return ArrivalModel.fit(
        calendar.local_days(created),
        (spells.end[first] - created) / DAY,
        spells.outcome[first],
        amount[row],
        {by: group_of(at_creation, by) for by in GROUPINGS},
        now=float(calendar.local_days(now)[0]),
        first=float(calendar.local_days(np.array([begin], dtype=np.int64))[0]),
        t_max=t_max,
        quarters=calendar.marks[1],
    )


def _deal_reference(
    history: History, model: DealModel, features: tuple[Feature, ...], calendar: FiscalCalendar,
    rows: DealRows, at: npt.NDArray[np.int64], until: int,
) -> Reference:  # fmt: skip
    stage = rows.columns["stage"]
    assert isinstance(stage, tuple)
    keys = tuple(str(s) for s in stage[1])
    members = [np.flatnonzero(stage[0] == code) for code in range(len(keys))]
    everyone = np.arange(len(rows))
    members = [m if len(m) else everyone for m in members] + [everyone]
    now = history.as_of("deal", np.datetime64(until, "us"))
    if len(now) > _REFERENCE_SCORES:
        now = now.take(np.linspace(0, len(now) - 1, _REFERENCE_SCORES).astype(np.int64))
    scores = np.zeros(0)
    if len(now):
        cells = model.grid.cells(calendar.local_days(now.at), calendar.marks)
        scores = np.sort(model.incidence(compute(now, features), cells)[:, -1, 0])
    # Landmarks lie deal by deal: some from all through each stage's are of many deals.
    each = max(_REFERENCE_RECORDS // len(members), _LEAST_OF_STAGE)
    some = np.unique(
        np.concatenate([m[np.linspace(0, len(m) - 1, each).astype(np.int64)] for m in members])
    )
    return Reference(
        _typical_rows(rows.columns, members), keys, scores, take_columns(rows.columns, some),
        calendar.local_days(at[some]),
    )  # fmt: skip


def _lead_reference(
    history: History, model: LeadModel, features: tuple[Feature, ...], columns: Mapping[str, Any],
    until: int,
) -> Reference:  # fmt: skip
    now = history.as_of("lead", np.datetime64(until, "us"))
    now = now.take(np.arange(max(len(now) - _REFERENCE_SCORES, 0), len(now)))
    scores = np.sort(model.predict(compute(now, features))) if len(now) else np.zeros(0)
    return Reference(_typical_rows(columns, [np.arange(row_count(columns))]), (), scores)


def _typical_rows(
    columns: Mapping[str, Any], members: list[npt.NDArray[np.int64]]
) -> dict[str, Any]:
    """Median or commonest value of every column, for each set of rows."""
    out: dict[str, Any] = {}
    for name, column in columns.items():
        if isinstance(column, tuple):
            codes, levels = column
            commonest = [
                int(np.bincount(codes[m] + 1, minlength=len(levels) + 1).argmax()) - 1
                for m in members
            ]
            out[name] = (np.array(commonest, dtype=np.int32), levels)
        else:
            known = [column[m][~np.isnan(column[m])] for m in members]
            # Missing is typical where most values are.
            out[name] = np.array(
                [
                    np.median(k) if 2 * len(k) >= len(m) and len(k) else np.nan
                    for k, m in zip(known, members, strict=True)
                ]
            )
    return out


def _delays(history: History, until: int, horizon: int) -> FloatArray:
    """Share of qualifications within i days of entry, i = 0 .. 3 horizons."""
    if horizon == 0:
        return np.ones(1)
    age, outcome, entry = durations(history, "lead", until)
    ages, curve = aalen_johansen(entry, age, outcome)
    days = np.arange(0, 3 * horizon + 1, dtype=np.float64)
    if len(ages) == 0 or curve[-1, 0] == 0:
        return np.minimum(days / horizon, 1.0)
    reached = np.r_[0.0, curve[:, 0] / curve[-1, 0]]
    return np.asarray(reached[np.searchsorted(ages, days, side="right")])


def _win_given_qualified(
    history: History, features: tuple[Feature, ...], until: int, recipe: Recipe
) -> tuple[LeadModel | None, float]:
    """P(won | qualified) on lead features frozen at qualification, where deals tell."""
    leads, deals = history.leads, history.deals
    spells = open_spells(deals, until)
    origin = deals.table["originating_lead_id"]
    closed = spells.outcome != OPEN
    pairs = [
        (leads.row_of[str(origin[r])], bool(o == WON), int(deals.created_at[r]))
        for r, o in zip(spells.row[closed], spells.outcome[closed], strict=True)
        if origin[r] is not None and str(origin[r]) in leads.row_of
    ]
    won = np.array([p[1] for p in pairs], dtype=np.float64)
    rate = float((won.sum() + _WIN_PRIOR * _PRIOR_WINS) / (len(won) + _PRIOR_WINS))
    if len(pairs) == 0:
        return None, rate
    snapshot = history.landmarks(
        "lead", np.array([p[0] for p in pairs]), np.array([p[2] for p in pairs])
    )
    model = LeadModel.fit(
        compute(snapshot, features), won, order_time=snapshot.at / DAY,
        prior=(_WIN_PRIOR, _PRIOR_WINS), seed=recipe.seed, num_threads=recipe.threads,
    )  # fmt: skip
    return model, rate


def _currency(history: History) -> str:
    """The base currency, or nothing where deals carry no amounts."""
    return history.currency if not np.isnan(history.deals.table["amount"]).all() else ""


def _iso(moment: int) -> str:
    return str(np.datetime64(moment, "us").astype("datetime64[s]")) + "Z"
