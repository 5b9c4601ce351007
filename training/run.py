"""The training run: one walk from a history to a bundle, its evaluation and the gate's verdict.

Three disjoint later slices, in order: hazards of an earlier fit (or lead probabilities of several)
are recalibrated on the first; the recipe so calibrated is judged on the second; the accepted recipe
is refitted on everything, with the calibration that the newest out-of-time predictions teach.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from data.features import compute
from data.history import OPEN, WON, History, Side
from data.timelines import DAY
from models.baseline import shrunken_rate
from models.measures import log_loss
from scoring.bundles import DealBundle, LeadBundle
from training.backtest import Issued, backtest, beside, summary
from training.evaluation import Evaluation, evaluate_deals, evaluate_leads, plain
from training.examples import deal_rows, durations, lead_horizon, lead_rows
from training.fitting import Recipe, fit_deals, fit_leads, with_shocks
from training.leaks import LeakReport, leak_report
from training.ranges import measured_coverage, range_map
from training.refits import (
    OutOfTime,
    ageing_note,
    drift_note,
    out_of_time,
    refits_between,
)

__all__ = ["Check", "Run", "train_deals", "train_leads"]

_HORIZONS = (7, 14, 30, 60, 90, 180)
_LEAST_CLOSED = 20  # closed deals, or matured leads, before anything is held back to judge on
_LEAST_ORIGINS = 4
_LEAST_GAIN = 0.001  # log loss that recalibration must save to be worth its noise
_MOST_ORIGINS = 12
_REFIT_DAYS = 42  # a company trains about that often
_REFITS = 3  # fits a slice, whose predictions teach the recalibration of leads

FloatArray = npt.NDArray[np.float64]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Check:
    """One condition of the promotion gate.

    Attributes
    ----------
    code : str
        Stable name, like DG001.
    passed : bool or None
        None where it could not be judged; that alone stops no promotion.
    text : str
        What was compared, with figures.
    """

    code: str
    passed: bool | None
    text: str


@dataclass(frozen=True)
class Run:
    """What a training run made.

    Attributes
    ----------
    kind : str
        "lead" or "deal".
    bundle : DealBundle or LeadBundle
    evaluation : Evaluation or None
        On the newest slice, by the recipe fitted before it; None where there is too little data.
    issued : list of Issued
        The back-test behind the measured coverage (deals).
    checks : list of Check
    notes : list of str
        What a person should know: what was not judged and why.
    leaks : LeakReport
        Which fields know the outcome, and which of them were left out.
    """

    kind: str
    bundle: DealBundle | LeadBundle
    evaluation: Evaluation | None
    issued: list[Issued]
    checks: list[Check]
    notes: list[str] = field(default_factory=list)
    leaks: LeakReport = field(default_factory=LeakReport)

    @property
    def opens(self) -> bool:
        """Whether the gate opens: nothing that could be judged failed."""
        return all(c.passed is not False for c in self.checks)

    @property
    def metrics(self) -> dict[str, float]:
        """Figures for the tracker."""
        found: dict[str, float] = {}
        if self.evaluation is not None:
            for arm in self.evaluation.arms:
                for name in ("log_loss", "brier", "auc"):
                    found[f"{_slug(arm['name'])}_{name}"] = float(arm[name])
            line = self.evaluation.arms[0]["calibration"]
            for name in ("slope", "intercept"):
                if line[name] is not None:
                    found[f"served_calibration_{name}"] = float(line[name])
        for row in summary(self.issued):
            if row["horizon"] is None:
                name = _slug(row["method"])
                found[f"forecast_{name}_crps"] = row["crps"]
                found[f"forecast_{name}_bias"] = row["bias"]
                if row["coverage"] is not None:
                    found[f"forecast_{name}_coverage_80"] = row["coverage"]["0.8"]
        return found


def train_deals(
    history: History, as_of: np.datetime64, recipe: Recipe, *, trained_at: str = "",
    champion: DealBundle | None = None, say: Say = lambda _: None,
) -> Run:  # fmt: skip
    """Train the deal bundle as of a moment, and judge its recipe on the time before it."""
    until = min(_micros(as_of), history.observed_until)
    recipe, leaks = _without_leaks(history, "deal", until, recipe, say)
    horizon = _deal_horizon(history, until)
    first, second = _cuts(until, horizon * DAY, _first_known(history, "deal"))
    earlier = replace(recipe, landmarks=recipe.landmarks // 2)
    evaluation: Evaluation | None = None
    issued: list[Issued] = []
    notes: list[str] = []
    newest: DealBundle | None = None
    helps = False
    if _closed(history, "deal", first) >= _LEAST_CLOSED:
        say(f"fitting on what was known by {_day(first)}, to calibrate")
        oldest = fit_deals(history, first, earlier)
        say(f"fitting on what was known by {_day(second)}, to judge")
        newest = fit_deals(history, second, earlier)
        evaluation = evaluate_deals(history, newest, second, until, until, horizon)
        recalibrated = _recalibrated(history, newest, oldest, first, second, recipe)
        rival = evaluate_deals(history, recalibrated, second, until, until, horizon)
        # What an earlier fit got wrong need not be what this one gets wrong.
        helps = _gain(evaluation, rival) >= _LEAST_GAIN
        notes.append(_calibration_note(evaluation, rival, helps))
        if helps:
            newest, evaluation = recalibrated, rival
        say("back-testing the forecast")
        issued = _replay(history, oldest, newest, first, second, until, horizon, earlier)
    else:
        notes.append(
            f"{_closed(history, 'deal', first)} deals had closed by {_day(first)}, too few to hold "
            "any back: the model is not verified on later data"
        )
    say(f"fitting on everything known by {_day(until)}")
    bundle = fit_deals(history, until, recipe, trained_at)
    if newest is not None and helps:
        bundle = _recalibrated(history, bundle, newest, second, until, recipe)
    checks = _deal_checks(history, evaluation, issued, champion, second, until, horizon)
    manifest = replace(
        bundle.manifest,
        evaluation=plain(evaluation) if evaluation is not None else {},
        coverage=measured_coverage(issued),
        withheld=dict(leaks.withheld),
    )
    bundle = replace(bundle, manifest=manifest, ranges=range_map(issued))
    return Run("deal", bundle, evaluation, issued, checks, notes, leaks)


def train_leads(
    history: History, as_of: np.datetime64, recipe: Recipe, *, trained_at: str = "",
    horizon: int | None = None, champion: LeadBundle | None = None, say: Say = lambda _: None,
) -> Run:  # fmt: skip
    """Train the lead bundle as of a moment, and judge its recipe on the time before it."""
    until = min(_micros(as_of), history.observed_until)
    recipe, leaks = _without_leaks(history, "lead", until, recipe, say)
    days = lead_horizon(history, until) if horizon is None else horizon
    first, second = _cuts(until, days * DAY, _first_known(history, "lead"), matured=True)
    known = lead_rows(history, -DAY, first, first, days, limit=recipe.landmarks)
    if len(np.unique(known.lead)) >= _LEAST_CLOSED:
        judged = _judge_leads(history, recipe, days, (first, second, until), say)
    else:
        judged = _Judged(
            recipe,
            [
                f"{len(np.unique(known.lead))} leads had matured by {_day(first)}, too few to hold "
                "any back: the model is not verified on later data"
            ],
        )
    say(f"fitting on everything known by {_day(until)}")
    bundle = fit_leads(history, until, days, judged.recipe, trained_at)
    notes = list(judged.notes)
    if judged.newest is not None:
        bundle = replace(bundle, model=judged.newest.recalibrate(bundle.model, days))
        done = bundle.model.calibrator.name != "none"
        notes.append(
            "Probabilities are recalibrated on the newest matured leads: that would have helped "
            "lately" if done
            else "Probabilities are not recalibrated: that would not have helped lately"
        )  # fmt: skip
    evaluation = judged.evaluation
    manifest = replace(
        bundle.manifest,
        evaluation=plain(evaluation) if evaluation is not None else {},
        withheld=dict(leaks.withheld),
    )
    checks = _lead_checks(history, evaluation, champion, second, until, days, recipe)
    bundle = replace(bundle, manifest=manifest)
    return Run("lead", bundle, evaluation, [], checks, notes, leaks)


def _without_leaks(
    history: History, side: Side, until: int, recipe: Recipe, say: Say
) -> tuple[Recipe, LeakReport]:
    """The recipe without the fields that know the outcome, by all that is known at the cutoff.

    The earlier fits of the run leave them out too: what is judged must be what is served.
    """
    found = leak_report(history, side, until, recipe.trusted)
    for sentence in found.words:
        say(sentence)
    return replace(recipe, withheld=(*recipe.withheld, *found.withheld)), found


@dataclass(frozen=True)
class _Judged:
    """What later leads say of a recipe.

    `newest` holds out-of-time predictions of both slices, for the final recalibration.
    """

    recipe: Recipe
    notes: list[str]
    evaluation: Evaluation | None = None
    newest: OutOfTime | None = None


def _judge_leads(
    history: History, recipe: Recipe, days: int, cuts: tuple[int, int, int], say: Say
) -> _Judged:
    """Recalibrate on the slice between the first two cuts, judge on the one up to the third."""
    first, second, until = cuts
    say(f"fitting on what was known by {_day(first)}, to calibrate")
    recipe, oldest = _choose_half_life(history, first, second, days, recipe)
    refits = refits_between(history, first, second, days, recipe, _REFITS, oldest)
    limit = recipe.landmarks // _REFITS
    known = out_of_time(history, refits, second, second, days, limit)
    say(f"fitting on what was known by {_day(second)}, to judge")
    bundle = fit_leads(history, second, days, recipe)
    later = lead_rows(history, second, until, until, days, limit=recipe.landmarks)
    if not len(later.label):
        return _Judged(recipe, [f"no lead of {_day(second)} or later has matured: not verified"])
    before = lead_rows(history, -DAY, second, second, days, limit=recipe.landmarks)
    rate = shrunken_rate(float(before.label.sum()), float(len(before.label)), 0.3)["rate"]
    columns = compute(later.snapshot, bundle.features)
    served = known.recalibrate(bundle.model, days)
    evaluation = evaluate_leads(
        {"served": served.predict(columns), "base rate": np.full(len(later.label), rate)},
        later.label, later.lead, second, until,
        f"P(qualified within {days} days)" if days else "P(qualified), in order of entry", columns,
    )  # fmt: skip
    say(f"refitting {_REFITS - 1} times since, to see how the model ages")
    newest = refits_between(history, second, until, days, recipe, _REFITS, bundle)
    once = out_of_time(history, newest[:1], until, until, days, recipe.landmarks)
    again = out_of_time(history, newest, until, until, days, limit)
    notes = [ageing_note(once, again, _REFITS, days == 0), drift_note(before, later)]
    everything = out_of_time(history, refits + newest, until, until, days, limit)
    return _Judged(recipe, [n for n in notes if n is not None], evaluation, everything)


def _gain(before: Evaluation | None, after: Evaluation | None) -> float:
    """By how much the served log loss fell; 0 where it could not be judged."""
    if before is None or after is None:
        return 0.0
    return float(before.arms[0]["log_loss"] - after.arms[0]["log_loss"])


def _calibration_note(before: Evaluation | None, after: Evaluation | None, helps: bool) -> str:
    return (
        "Recalibrating the hazards on the slice before changes the log loss by "
        f"{-_gain(before, after):+.4f}: {'done' if helps else 'left out'}"
    )


def _cuts(until: int, horizon: int, first: int, *, matured: bool = False) -> tuple[int, int]:
    """Where the calibration slice and the judging slice begin.

    Outcomes need a horizon to mature; the slices share the time before that.
    """
    span = until - first
    width = max(2 * horizon if matured else horizon, int(0.15 * span))
    width = min(width, span // 4)
    second = until - horizon - width if horizon < span // 4 else until - 2 * width
    return max(second - width, first), second


def _recalibrated(
    history: History, bundle: DealBundle, earlier: DealBundle, start: int, until: int,
    recipe: Recipe,
) -> DealBundle:  # fmt: skip
    """The bundle with the correction that an earlier fit needed between `start` and `until`."""
    rows, _ = deal_rows(
        history, earlier.features, earlier.model.grid, recipe.calendar, start, until, until,
        limit=recipe.landmarks // 2, seed=recipe.seed,
    )  # fmt: skip
    if len(rows) == 0:
        return bundle
    corrected = earlier.model.calibrate(rows)
    known = _trained_through(bundle)
    bundle = replace(bundle, model=bundle.model.corrected_like(corrected))
    return with_shocks(history, bundle, known, recipe.seed)


def _replay(
    history: History, oldest: DealBundle, newest: DealBundle, first: int, second: int, until: int,
    horizon: int, recipe: Recipe,
) -> list[Issued]:  # fmt: skip
    """Origins spread from the first cut to the end, by hazards fitted at most six weeks before.

    Spread, since neighbours share what happens after them; fitted anew, since a model that nobody
    has trained for half a year is not what a company asks.
    """
    spans = [float(h) for h in (7, 14, 28, 91) if h <= max(horizon, 7)]
    last = until - int(spans[-1] * DAY)
    origins = np.arange(first - first % DAY + DAY, last + 1, 7 * DAY)
    if len(origins) > _MOST_ORIGINS:
        origins = origins[np.linspace(0, len(origins) - 1, _MOST_ORIGINS).astype(np.int64)]
    if len(origins) == 0:
        return []
    fits = {first: oldest, second: newest}
    for origin in origins.tolist():
        if origin - max(at for at in fits if at < origin) > _REFIT_DAYS * DAY:
            fits[origin - 1] = again = fit_deals(history, origin, recipe)
            if origin > second:  # what the correction of the newest fit was learnt before
                model = again.model.corrected_like(newest.model)
                fits[origin - 1] = replace(again, model=model)
    return backtest(
        history, [np.datetime64(int(o), "us") for o in origins], spans, recipe, refit_days=0.5,
        draws=2000, bundles=lambda at: fits[max(f for f in fits if f < at)], until=until,
    )  # fmt: skip


def _deal_checks(
    history: History, evaluation: Evaluation | None, issued: Sequence[Issued],
    champion: DealBundle | None, start: int, until: int, horizon: int,
) -> list[Check]:  # fmt: skip
    checks = [_beats("DG001", evaluation, "stage rate")]
    both = beside(issued, "past mean")
    origins = len({i.origin for i in issued})
    if origins >= _LEAST_ORIGINS and both is not None:
        ours, naive = both
        checks.append(
            Check(
                "DG002", ours <= naive,
                f"forecast CRPS / mean actual {ours:.3f} against {naive:.3f} of the mean of past "
                f"periods, {origins} origins",
            )
        )  # fmt: skip
    else:
        checks.append(Check("DG002", None, f"{origins} back-test origins, too few to judge"))
    rival = None
    if champion is not None and _trained_through(champion) <= start:
        rival = evaluate_deals(history, champion, start, until, until, horizon)
    checks.append(_no_worse("DG003", evaluation, rival, champion is not None))
    return checks


def _lead_checks(
    history: History, evaluation: Evaluation | None, champion: LeadBundle | None, start: int,
    until: int, horizon: int, recipe: Recipe,
) -> list[Check]:  # fmt: skip
    rival = None
    if champion is not None and _trained_through(champion) <= start and champion.horizon == horizon:
        rows = lead_rows(history, start, until, until, horizon, limit=recipe.landmarks)
        p = champion.model.predict(compute(rows.snapshot, champion.features))
        rival = evaluate_leads({"champion": p}, rows.label, rows.lead, start, until, "champion")
    return [
        _beats("LG001", evaluation, "base rate"),
        _no_worse("LG002", evaluation, rival, champion is not None),
    ]


def _beats(code: str, evaluation: Evaluation | None, baseline: str) -> Check:
    if evaluation is None:
        return Check(code, None, "no later data to judge on")
    rival = evaluation.arm(baseline)
    # Behind by less than the noise of the difference is not behind.
    return Check(
        code, rival["lead"] >= -rival["lead_error"],
        f"log loss {evaluation.arms[0]['log_loss']:.4f} against {rival['log_loss']:.4f} of the "
        f"{baseline}, a difference known to +-{rival['lead_error']:.4f}; {evaluation.n} landmarks",
    )  # fmt: skip


def _no_worse(code: str, ours: Evaluation | None, rival: Evaluation | None, exists: bool) -> Check:
    if not exists:
        return Check(code, None, "there is no champion to compare with")
    if ours is None or rival is None:
        return Check(code, None, "the champion has seen the newest slice: no fair comparison")
    a, b = ours.arms[0]["log_loss"], rival.arms[0]["log_loss"]
    return Check(code, a <= b + 0.005, f"log loss {a:.4f} against {b:.4f} of the champion")


def _choose_half_life(
    history: History, first: int, second: int, days: int, recipe: Recipe
) -> tuple[Recipe, LeadBundle]:
    """No recency weights, or a half-life of a half or a quarter of the records' span.

    The best on the slice; weights have to save .001 log loss.
    """
    span = (first - _first_known(history, "lead")) / DAY
    rows = lead_rows(history, first, second, second, days, limit=recipe.landmarks)
    best: tuple[float, Recipe, LeadBundle] | None = None
    for half_life in (None, max(span / 2, 1.0), max(span / 4, 1.0)):
        candidate = replace(recipe, half_life=half_life)
        bundle = fit_leads(history, first, days, candidate)
        loss = 0.0
        if len(rows.label):
            p = bundle.model.predict(compute(rows.snapshot, bundle.features))
            loss = log_loss(p, rows.label) + _LEAST_GAIN * (half_life is not None)
        if best is None or loss < best[0]:
            best = (loss, candidate, bundle)
    assert best is not None
    return best[1], best[2]


def _deal_horizon(history: History, until: int) -> int:
    """Days within which three in four of the deals that were won had been won."""
    age, outcome, _ = durations(history, "deal", until)
    won = age[outcome == WON]
    if len(won) == 0:
        return 30
    wanted = float(np.quantile(won, 0.75))
    return next((h for h in _HORIZONS if h >= wanted), _HORIZONS[-1])


def _closed(history: History, side: Any, until: int) -> int:
    _, outcome, _ = durations(history, side, until)
    return int((outcome != OPEN).sum())


def _first_known(history: History, side: Any) -> int:
    known: npt.NDArray[np.int64] = history.ledger(side).known_from
    return max(int(known.min()) if len(known) else 0, history.observed_from)


def _trained_through(bundle: DealBundle | LeadBundle) -> int:
    return _micros(np.datetime64(bundle.manifest.trained_through.removesuffix("Z"), "us"))


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.lower())


def _day(moment: int) -> str:
    return str(np.datetime64(moment, "us").astype("datetime64[D]"))


def _micros(moment: np.datetime64) -> int:
    return int(moment.astype("datetime64[us]").astype(np.int64))
