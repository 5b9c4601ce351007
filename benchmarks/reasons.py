"""Reasons: what they cost beside bare scoring, that they add up, and how near TreeSHAP they are.

On deal and lead models of the synthetic CRM always, and of BPIC 2012 and Bank marketing where
DEALCAST_DATASETS names the folder that has them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from _public import datasets, read_public
from _published import Row, publish, table

from data.features import Feature, compute
from data.history import OPEN, History, Snapshot
from data.pipeline import FiscalCalendar
from data.synthetic import make_history
from models.arm_shares import arms_of, leaves_of
from models.calibration import logit
from models.deal import DealModel
from models.deal_arms import ArmInputs, interval_columns, take_columns
from models.grid import Cells
from models.hazard_table import incidence
from models.lead import LeadModel
from models.win_path import path_slope
from scoring.bundles import DealBundle, LeadBundle
from scoring.scores import score_deals, score_leads
from training.fitting import Recipe, fit_deals, fit_leads

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Columns = Mapping[str, Any]

SEED = 0
RECIPE = Recipe(FiscalCalendar(), seed=SEED, threads=1)
REPEATS = 3
COST, EXACT, REST = 5.0, 1e-9, 0.95  # bars
FEW = 60  # records that TreeSHAP and sampled Shapley values are worked out for
ORDERS = 20  # orders of the groups, each against another record of the stage


@dataclass(frozen=True)
class Case:
    """A model, and records to score with it."""

    name: str
    bundle: DealBundle | LeadBundle
    snapshot: Snapshot


@dataclass(frozen=True)
class Measured:
    """What came out for one case; times are ratios to bare scoring.

    Attributes
    ----------
    bare_rate : float
        Records a second, the numerical core without reasons.
    core, whole : float
        With reasons: features to numbers; snapshot to answers, objects and words included.
    treeshap : float
        TreeSHAP of the trees alone.
    error : float
        Largest |base + reasons - served log-odds|.
    rest : float
        Share of records whose unexplained rest is at most 10 % of the absolute contributions.
    largest_rest : float
    near : dict of str to (float, float, int)
        Against other ways to share out: correlation, share of the five largest that agree, records.
    """

    n: int
    bare_rate: float
    core: float
    whole: float
    treeshap: float
    error: float
    rest: float
    largest_rest: float
    near: dict[str, tuple[float, float, int]]


def cases() -> list[Case]:
    """The models that can be fitted here, and open records."""
    end = np.datetime64("2026-02-16", "us")
    until = int(end.astype(np.int64))
    made = make_history(4_000, seed=1, end=end)
    crm = History(made.tables, [made.facts])
    deals, leads = crm.as_of("deal", end), crm.as_of("lead", end)
    found = [
        Case("synthetic CRM, deals", fit_deals(crm, until, RECIPE, str(end)), _times(deals, 5)),
        Case("synthetic CRM, leads", fit_leads(crm, until, 30, RECIPE), _times(leads, 20)),
    ]
    folder = datasets()
    if folder is None:
        return found
    cut = np.datetime64("2012-01-15", "us")
    bpic = read_public("bpic2012", folder)
    bundle = fit_deals(bpic, int(cut.astype(np.int64)), RECIPE, str(cut))
    found.append(Case("BPIC 2012, deals", bundle, bpic.as_of("deal", cut)))
    bank = read_public("bank_marketing", folder)
    created = bank.leads.created_at
    last = int(np.quantile(created, 0.8))
    later = np.flatnonzero(created > last)
    found.append(
        Case(
            "Bank marketing, leads", fit_leads(bank, last, 0, RECIPE),
            bank.landmarks("lead", later, created[later]),
        )
    )  # fmt: skip
    return found


def _times(snapshot: Snapshot, copies: int) -> Snapshot:
    """Each record several times, where there are too few for a batch."""
    return snapshot.take(np.tile(np.arange(len(snapshot)), copies))


def seconds(*ways: Callable[[], object]) -> list[float]:
    """The least time of each way, taken in turns."""
    best = [np.inf] * len(ways)
    for _ in range(REPEATS):
        for i, way in enumerate(ways):
            start = time.perf_counter()
            way()
            best[i] = min(best[i], time.perf_counter() - start)
    return [float(b) for b in best]


def measure_deals(case: Case) -> Measured:
    """Cost, exactness and nearness for a deal model."""
    bundle, snapshot = case.bundle, case.snapshot
    assert isinstance(bundle, DealBundle)
    model, attribution = bundle.model, bundle.attribution
    columns = compute(snapshot, bundle.features)
    cells = model.grid.cells(bundle.calendar.local_days(snapshot.at), bundle.calendar.marks)
    bare, added = seconds(
        lambda: model.hazards(columns, cells), lambda: attribution.contributions(columns, cells)
    )
    plain, told = seconds(
        lambda: score_deals(snapshot, bundle, explain=False), lambda: score_deals(snapshot, bundle)
    )
    base, parts = attribution.contributions(columns, cells)
    served = logit(incidence(model.hazards(columns, cells))[:, -1, 0])
    answers = [
        (s.base, s.reasons, float(logit(s.probability_won))) for s in score_deals(snapshot, bundle)
    ]
    few = np.random.default_rng(SEED).permutation(np.unique(snapshot.rows, return_index=True)[1])
    few = few[:FEW]
    some, ahead = take_columns(columns, few), cells.take(few)
    groups = _group_of(bundle.features, attribution.names)
    mine, shap, slow = treeshap_deals(bundle, some, ahead)
    sampled = sampled_shapley(bundle, some, ahead, groups)
    near = {
        "TreeSHAP in the trees' place": _nearness(mine @ groups, shap @ groups),
        f"Shapley values of the whole model, {ORDERS} sampled orders": _nearness(
            parts[few] @ groups, sampled
        ),
    }
    return _measured(
        len(snapshot), bare, added, plain, told, slow * len(snapshot) / len(few), answers,
        parts, served - base - parts.sum(axis=1), near,
    )  # fmt: skip


def measure_leads(case: Case) -> Measured:
    """Cost, exactness and nearness for a lead model."""
    bundle, snapshot = case.bundle, case.snapshot
    assert isinstance(bundle, LeadBundle) and (snapshot.outcome == OPEN).all()
    model, columns = bundle.model, compute(snapshot, bundle.features)
    bare, added = seconds(lambda: model.predict(columns), lambda: model.contributions(columns))
    plain, told = seconds(
        lambda: score_leads(snapshot, bundle, explain=False), lambda: score_leads(snapshot, bundle)
    )
    _, parts, names = model.contributions(columns)
    answers = [
        (s.base, s.reasons, float(logit(s.probability))) for s in score_leads(snapshot, bundle)
    ]
    few = np.random.default_rng(SEED).permutation(len(snapshot))[: 10 * FEW]
    groups = _group_of(bundle.features, names[:-1])
    shap, slow = treeshap_leads(model, take_columns(columns, few))
    near = {"TreeSHAP in the trees' place": _nearness(parts[few, :-1] @ groups, shap @ groups)}
    return _measured(
        len(snapshot), bare, added, plain, told, slow * len(snapshot) / len(few), answers,
        parts[:, :-1], parts[:, -1], near,
    )  # fmt: skip


def _measured(
    n: int, bare: float, added: float, plain: float, told: float, slow: float,
    answers: Sequence[tuple[float | None, Sequence[Any], float]], parts: FloatArray,
    rest: FloatArray, near: dict[str, tuple[float, float, int]],
) -> Measured:  # fmt: skip
    errors = [abs((b or 0.0) + sum(r.contribution for r in told) - z) for b, told, z in answers]
    small = np.abs(rest) <= 0.1 * np.abs(parts).sum(axis=1)
    return Measured(
        n, n / bare, 1 + added / bare, told / plain, 1 + slow / bare, max(errors),
        float(small.mean()), float(np.abs(rest).max()), near,
    )  # fmt: skip


def _group_of(features: Sequence[Feature], names: Sequence[str]) -> FloatArray:
    """Which group each column is told in: 0 or 1, (columns, groups)."""
    group = {f.name: f.group or f.name for f in features}
    of = [group.get(name, name) for name in names]
    return np.array([[float(o == g) for g in dict.fromkeys(of)] for o in of])


def _nearness(mine: FloatArray, other: FloatArray) -> tuple[float, float, int]:
    """Correlation after taking off means, and the share of the five largest that agree."""
    mine, other = mine - mine.mean(axis=0), other - other.mean(axis=0)
    top = [np.argsort(-np.abs(x), axis=1)[:, :5] for x in (mine, other)]
    shared = [
        len(set(a) & set(b)) / len(a) for a, b in zip(*(t.tolist() for t in top), strict=True)
    ]
    correlation = float(np.corrcoef(mine.ravel(), other.ravel())[0, 1])
    return correlation, float(np.mean(shared)), len(mine)


def _treeshap(booster: lgb.Booster, design: FloatArray) -> tuple[FloatArray, float]:
    """TreeSHAP's contributions, (n, scores, columns), and the seconds they took."""
    start = time.perf_counter()
    found = np.asarray(booster.predict(design, pred_contrib=True, num_threads=1))
    took = time.perf_counter() - start
    shape = len(design), booster.num_model_per_iteration(), design.shape[1] + 1
    return found.reshape(shape)[:, :, :-1], took


def treeshap_deals(
    bundle: DealBundle, columns: Columns, cells: Cells
) -> tuple[FloatArray, FloatArray, float]:
    """Contributions by leaf tables, the same with TreeSHAP in their place, and its seconds.

    Both from the expectation over the fitted rows, as TreeSHAP has it.
    """
    model, attribution = bundle.model, bundle.attribution
    forest = attribution.forest
    assert forest is not None and model.encoder is not None and model.trees is not None
    typical = attribution.starts[-1].typical
    assert typical.leaves is not None
    typical = replace(typical, leaves=forest.table(typical.leaves.shares.shape[1]))
    arms = arms_of(model, typical, columns, cells, leaves_of(model, forest, columns, cells))
    begin, own = (
        sum((a.weight * getattr(a, end) for a in arms), np.zeros(arms[0].own.shape))
        for end in ("begin", "own")
    )
    slope, _ = path_slope(begin, own, model.factors(columns, cells), cells.end > cells.begin)
    m, k = cells.begin.shape
    row, col = np.repeat(np.arange(m), k), np.tile(np.arange(k), m)
    ahead = interval_columns(
        ArmInputs(model.encoder, model.table, model.calendar), columns, cells, row, col
    )
    found, took = _treeshap(
        model.trees, np.column_stack([model.encoder.trees(columns)[row], ahead])
    )
    shap = (slope.reshape(m * k, 3)[:, :, None] * found).sum(axis=1).reshape(m, k, -1).sum(axis=1)
    place = {name: j for j, name in enumerate(attribution.names)}
    mine, other = np.zeros((m, len(place))), np.zeros((m, len(place)))
    for arm in arms:
        shares = arm.shares(slope)
        for j, name in enumerate(arm.sources):
            mine[:, place[name]] += arm.weight * shares[:, j]
            theirs = shap if arm is arms[-1] else shares
            other[:, place[name]] += arm.weight * theirs[:, j]
    return mine, other, took


def treeshap_leads(model: LeadModel, columns: Columns) -> tuple[FloatArray, float]:
    """Contributions with TreeSHAP in the place of leaf tables, and its seconds."""
    trees = model.encoder.trees(columns)
    linear = model.encoder.linear_of(trees)
    slope, total, took = model.calibrator.slope or 1.0, np.zeros(trees.shape), 0.0
    for name, weight, arm in model.arms:
        if name == "trees":
            found, took = _treeshap(arm.booster, trees)  # type: ignore[union-attr]
            total += slope * weight * found[:, 0]
        else:
            total += slope * weight * arm.parts(trees, linear)
    return total, took


def sampled_shapley(
    bundle: DealBundle, columns: Columns, cells: Cells, groups: FloatArray
) -> FloatArray:
    """Shapley values of groups of columns for the served log-odds, (m, groups).

    A reference record of the same stage is turned into the scored one, group by group in a
    random order; the mean over orders and records.
    """
    rng = np.random.default_rng(SEED)
    attribution, names = bundle.attribution, bundle.attribution.names
    records = bundle.reference.records
    mine, theirs = attribution.start_of(columns), attribution.start_of(records)
    total = np.zeros((len(mine), groups.shape[1]))
    own = _joined(columns, columns)
    for _ in range(ORDERS):
        drawn = np.array([rng.choice(np.flatnonzero(theirs == s)) if (theirs == s).any()
                          else rng.integers(len(theirs)) for s in mine])  # fmt: skip
        state = _joined(columns, take_columns(records, drawn))
        before = _served(bundle.model, state, cells)
        for g in rng.permutation(groups.shape[1]):
            for j in np.flatnonzero(groups[:, g]):
                if names[j] in columns:
                    state[names[j]] = own[names[j]]
            after = _served(bundle.model, state, cells)
            total[:, g] += (after - before) / ORDERS
            before = after
    return total


def _joined(like: Columns, columns: Columns) -> dict[str, Any]:
    """Columns by name, categories in the codes of `like`."""
    out: dict[str, Any] = {}
    for name, column in columns.items():
        if isinstance(column, tuple):
            place = {str(v): i for i, v in enumerate(like[name][1].tolist())}
            codes = [place.get(str(v), -1) for v in column[1].tolist()]
            out[name] = np.array([*codes, -1], dtype=np.int32)[column[0]], like[name][1]
        else:
            out[name] = column
    return out


def _served(model: DealModel, columns: Columns, cells: Cells) -> FloatArray:
    return logit(incidence(model.hazards(columns, cells))[:, -1, 0])


def report(name: str, found: Measured) -> list[Row]:
    """The figures of a case beside their bars."""
    rows = [
        Row(name, "core with reasons / bare", found.core, COST, "bar", found.n),
        Row(name, "answers with reasons / without", found.whole, COST, "bar", found.n),
        Row(name, "with TreeSHAP of the trees / bare", found.treeshap, None, "", found.n),
        Row(name, "largest |base + reasons - log-odds|", found.error, EXACT, "bar", found.n),
        Row(name, "share with a rest <= 10 %", found.rest, REST, "bar", found.n),
        Row(name, "largest rest, log-odds", found.largest_rest, None, "", found.n),
    ]
    for what, (correlation, shared, n) in found.near.items():
        rows.append(Row(name, f"correlation with {what}", correlation, n=n))
        rows.append(Row(name, f"five largest shared with {what}", shared, n=n))
    return rows


def main() -> None:
    """Measure every case."""
    rows: list[Row] = []
    lines = [
        "Cost is the least of three turns in one run, one thread for deals. The core goes from "
        "features to numbers; the answers from a snapshot to objects, with words.",
        "",
    ]
    cells = []
    for case in cases():
        print(f"{case.name}, {len(case.snapshot):,} records ...", file=sys.stderr)
        deals = isinstance(case.bundle, DealBundle)
        found = measure_deals(case) if deals else measure_leads(case)
        rows += report(case.name, found)
        print(f"  {found}", file=sys.stderr)
        cells.append(
            [case.name, found.n, f"{found.bare_rate:,.0f}", f"{found.core:.2f}",
             f"{found.whole:.2f}", f"{found.treeshap:,.0f}", f"{found.error:.0e}",
             f"{found.rest:.3f}", f"{found.largest_rest:.0e}"]
        )  # fmt: skip
    lines += table(
        ["model", "n", "bare core, records/s", "core, x bare", "answers, x bare",
         "TreeSHAP, x bare", "largest error", "rest <= 10 %", "largest rest"], cells,
    )  # fmt: skip
    lines += ["", "Groups of contributions beside other ways to share out:", ""]
    lines += table(
        ["model", "measure", "value", "n"],
        [[r.name, r.metric, r.value, r.n] for r in rows
         if r.metric.startswith(("correlation", "five"))],
    )  # fmt: skip
    publish(__file__, "Reasons", lines, rows, seed=SEED)


if __name__ == "__main__":
    main()
