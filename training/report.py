"""The pages a person reads after training and back-testing.

Each is one HTML file without scripts, pictures or anything from elsewhere: it can be mailed,
printed and kept. Every figure carries its unit, every table and plot a line on how to read it,
and what could not be judged says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from scoring.bundles import DealBundle, LeadBundle
from training import wording
from training.charts import ReliabilityChart, reliability_chart
from training.evaluation import Evaluation
from training.forecast_view import forecasts_view
from training.replayed import Issued
from training.run import Run

__all__ = ["backtest_report", "training_report"]

_QUESTIONS = {
    "DG001": "Does it beat one win rate per stage, as a CRM shows it?",
    "DG002": "Does its revenue forecast beat the mean of past periods?",
    "DG003": "Is it no worse than the model in use?",
    "LG001": "Does it beat the same probability for every lead?",
    "LG002": "Is it no worse than the model in use?",
}
_ARMS = {
    "served": "the model as it answers",
    "uncalibrated": "the model before its calibration",
    "Aalen-Johansen table": "share won by stage and time in stage, nothing else",
    "stage rate": "one win rate per stage, without timing: what most CRMs show",
    "base rate": "the same probability for every lead",
    "champion": "the model in use until now",
}
_DEAL_ARMS = ("table by stage and time in stage", "ridge logistic", "boosted trees")


@dataclass(frozen=True)
class _Verdict:
    """The gate's answer in words; `tone` is "good", "bad" or "unsure"."""

    tone: str
    headline: str
    detail: str


@dataclass(frozen=True)
class _Split:
    """Reliability by stage, segment or grade; small charts of the parts that have bands."""

    title: str
    head: str
    parts: list[dict[str, Any]]
    charts: list[tuple[dict[str, Any], ReliabilityChart]]


def training_report(run: Run) -> str:
    """One self-contained HTML page on a training run.

    Returns
    -------
    str
        The gate's verdict and checks, the fields that know the outcome, what was learnt from, the
        evaluation beside the baselines, the stage table and the forecast's back-test (deals), and
        the notes.
    """
    evaluation = run.evaluation
    return _render(
        "training.html",
        run=run,
        manifest=run.bundle.manifest,
        verdict=_verdict(run),
        questions=_QUESTIONS,
        facts=_facts(run.bundle),
        evaluation=evaluation,
        in_short=[] if evaluation is None else _in_short(evaluation),
        arms=_ARMS,
        best_figure=_best(evaluation),
        # Where a source has no times, its dates are invented and only their order means something.
        dated=not (isinstance(run.bundle, LeadBundle) and run.bundle.horizon == 0),
        reliability=_reliability(evaluation),
        splits=[] if evaluation is None else [_split(s) for s in evaluation.splits],
        stages=_stages(run.bundle),
        forecasts=forecasts_view(run.issued, run.bundle.manifest.currency),
    )


def backtest_report(issued: Sequence[Issued], title: str, *, currency: str = "") -> str:
    """One self-contained HTML page on a back-test: fan charts, and the methods side by side.

    Parameters
    ----------
    issued : sequence of Issued
        As `training.backtest.backtest` gives them; may be empty, and the page says so.
    title : str
        Heading of the page.
    currency : str
        Base currency of the amounts, shown behind them.
    """
    return _render("backtest.html", title=title, forecasts=forecasts_view(issued, currency))


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("training"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    found.filters.update({name: getattr(wording, name) for name in wording.__all__})
    return found


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


def _verdict(run: Run) -> _Verdict:
    passed = [c.code for c in run.checks if c.passed]
    failed = [c.code for c in run.checks if c.passed is False]
    unknown = [c.code for c in run.checks if c.passed is None]
    detail = (
        f"Of {len(run.checks)} checks, {len(passed)} passed, {len(failed)} failed and "
        f"{len(unknown)} could not be judged."
    )
    if not run.opens:
        return _Verdict(
            "bad", "Not to be promoted: the gate stays shut",
            f"{detail} Failed: {', '.join(failed)}. The model in use, if any, keeps speaking.",
        )  # fmt: skip
    if not passed:
        return _Verdict(
            "unsure", "May be promoted, but not verified: no check could be judged",
            f"{detail} Nothing here shows that the model is better than a plain rate; take its "
            "figures as a start that later data will confirm or correct.",
        )  # fmt: skip
    return _Verdict("good", "May be promoted: the gate is open", detail)


def _facts(bundle: DealBundle | LeadBundle) -> list[tuple[str, str]]:
    """What the bundle was made from, label by label."""
    manifest = bundle.manifest
    facts = [("Model", manifest.name + (f", version {manifest.version}" * bool(manifest.version)))]
    if isinstance(bundle, LeadBundle) and bundle.horizon == 0:
        facts.append(("Dates", "the source has none: only the order of entry is known"))
    else:
        facts.append(("Knew of events up to", wording.moment(manifest.trained_through)))
    if manifest.trained_at:
        facts.append(("Trained at", wording.moment(manifest.trained_at)))
    facts += _deal_facts(bundle) if isinstance(bundle, DealBundle) else _lead_facts(bundle)
    facts.append(("Inputs", f"{len(bundle.features)} features, listed at the end"))
    return facts


def _deal_facts(bundle: DealBundle) -> list[tuple[str, str]]:
    model, shocks = bundle.model, bundle.shocks.summary()
    return [
        ("Answers", "the chance that an open deal is won, lost or still open at any later day"),
        (
            "Learnt from",
            f"{wording.count(model.closed)} closed deals in the fitted sample, "
            f"{wording.count(model.won)} of them won",
        ),
        ("Method", _mixture(dict(zip(_DEAL_ARMS, model.weights, strict=True)))),
        ("Looks ahead", f"{model.grid.t_max:.0f} days, in {len(model.grid.edges) - 1} steps"),
        (
            "Amounts",
            f"final against current amounts of {wording.count(bundle.amount.won)} won deals"
            + (f", in {bundle.manifest.currency}" if bundle.manifest.currency else ""),
        ),
        (
            "Shared ups and downs",
            f"standard deviation {shocks['lasting_sd']:.2f} lasting "
            f"({shocks['left_after_a_week']:.0%} left after a week) and {shocks['weekly_sd']:.2f} "
            "from week to week, on the log-odds of winning; lately wins ran "
            f"{np.expm1(shocks['log_level']):+.0%} from what the deals said",
        ),
    ]


def _lead_facts(bundle: LeadBundle) -> list[tuple[str, str]]:
    evidence = bundle.model.evidence
    days = f"within {bundle.horizon} days of entry" if bundle.horizon else "at any time"
    facts = [
        ("Answers", f"the chance that a lead is qualified {days}"),
        (
            "Learnt from",
            f"{wording.count(evidence.examples)} landmarks of leads whose outcome is known; the "
            f"rarer outcome came {wording.count(evidence.minority)} times",
        ),
        ("Method", _mixture({name: weight for name, weight, _ in bundle.model.arms})),
        ("Share of prior in the base rate", wording.percent(evidence.prior_share)),
    ]
    if bundle.win is None:
        won = f"{wording.percent(bundle.win_rate)} for all: too few closed deals came from leads"
    else:
        won = f"a model of its own, from {wording.count(bundle.win.evidence.examples)} closed deals"
    facts.append(("Won once qualified", won))
    return facts


def _mixture(weights: dict[str, float]) -> str:
    used = {name: float(w) for name, w in weights.items() if w > 0}
    if len(used) == 1:
        return f"{next(iter(used))} alone"
    return ", ".join(f"{name} {wording.percent(w, 2)}" for name, w in used.items())


def _in_short(evaluation: Evaluation) -> list[str]:
    """The evaluation in sentences."""
    served, *others = evaluation.arms
    said = [
        f"Log loss {wording.number(served['log_loss'])}, {_gap(served, arm)} that of "
        f"“{arm['name']}” ({wording.number(arm['log_loss'])})."
        for arm in others
    ]
    said.append(
        f"On average it said {wording.percent(served['mean_probability'])}, and "
        f"{wording.percent(evaluation.base_rate)} happened: {_level_words(served['calibration'])}."
    )
    said.append(_slope_words(served["calibration"]))
    return [s for s in said if s]


def _gap(served: dict[str, Any], other: dict[str, Any]) -> str:
    change = served["log_loss"] / other["log_loss"] - 1.0
    if change == 0:
        return "equal to"
    return f"{wording.percent(abs(change))} {'below' if change < 0 else 'above'}"


def _level_words(line: dict[str, Any]) -> str:
    offset, error = line.get("in_the_large"), line.get("in_the_large_error")
    if offset is None or error is None:
        return "whether by chance cannot be told"
    if abs(offset) <= 2 * error:
        return "no more apart than chance explains"
    return "too low, by more than chance explains" if offset > 0 else (
        "too high, by more than chance explains"
    )  # fmt: skip


def _slope_words(line: dict[str, Any]) -> str:
    slope, error = line["slope"], line["slope_error"]
    if slope is None or error is None:
        return ""
    text = f"Calibration slope {wording.number(slope)} ± {wording.number(error, 2)}: "
    if abs(slope - 1.0) <= 2 * error:
        return text + "neither bolder nor more timid than the evidence allows."
    return text + (
        "too timid, high chances should be higher and low ones lower." if slope > 1 else
        "too bold, high chances should be lower and low ones higher."
    )  # fmt: skip


def _best(evaluation: Evaluation | None) -> dict[str, float]:
    """The best figure among the arms, by measure."""
    if evaluation is None:
        return {}
    choose = {"log_loss": min, "brier": min, "auc": max}
    return {m: pick(float(a[m]) for a in evaluation.arms) for m, pick in choose.items()}


def _reliability(evaluation: Evaluation | None) -> Any:
    if evaluation is None or not evaluation.reliability:
        return None
    return reliability_chart(evaluation.reliability)


def _split(split: dict[str, Any]) -> _Split:
    by, parts = split["by"], split["parts"]
    charts = [
        (part, reliability_chart(part["bands"], part["name"], small=True))
        for part in parts
        if part["bands"]
    ]
    # One plot alone has nothing to be compared with; the table says the same.
    shown = charts if len(charts) > 1 else []
    return _Split(f"Does it hold for every {by}?", f"By {by}", parts, shown)


def _stages(bundle: DealBundle | LeadBundle) -> list[dict[str, Any]]:
    if not isinstance(bundle, DealBundle):
        return []
    return [{"name": name, "won": None, **row} for name, row in bundle.stage_rates.items()]
