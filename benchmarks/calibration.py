"""Calibration on the newest slice of every data set, or the drift that broke it.

Each model is trained as `dealcast train` does at the end of the data, and judged on the newest
slice, which its judged fit had not seen. The bar: the 95 % interval of the calibration slope meets
0.9 to 1.1, and the mean error (mean probability less what happened) is within 0.02. Where it is
not met, the drift is shown: the base rate before the slice and in it. Intervals count each record
once, however many landmarks it has. The bank's rows are also predicted as a service that is fed
daily would: refitted every 500 rows on the last 20,000, recalibrated on the last 2,000.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _public import datasets, read_public
from _published import Row, publish, table
from _slices import RECIPE, FloatArray, micros

from data.features import compute, declare
from data.history import WON, History
from data.synthetic import make_history
from data.timelines import DAY
from models.deal_arms import take_columns
from models.lead import LeadModel
from training.evaluation import Evaluation, evaluate_leads
from training.examples import landmarks, lead_rows
from training.run import train_deals, train_leads

SLOPES, MEAN_ERROR = (0.9, 1.1), 0.02
WINDOW, EVERY, RECENT = 20_000, 500, 2_000
HEAD = ("data set", "n", "records", "mean p", "happened", "before", "mean error", "slope",
        "verdict")  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """One data set's newest slice, and the base rate before it."""

    name: str
    evaluation: Evaluation
    before: float
    has_signal: bool = True

    @property
    def mean_error(self) -> tuple[float, float]:
        """Mean probability less what happened, and its standard error."""
        arm = self.evaluation.arms[0]
        return float(arm["mean_error"]), float(arm["mean_error_error"])

    @property
    def slope(self) -> tuple[float, float, float]:
        """Calibration slope with its 95 % interval."""
        line = self.evaluation.arms[0]["calibration"]
        value, error = float(line["slope"]), 1.96 * float(line["slope_error"])
        return value, value - error, value + error

    @property
    def verdict(self) -> str:
        """Met, or which part is not; the drift in words."""
        _, low, high = self.slope
        missed = ["mean error"] * (abs(self.mean_error[0]) > MEAN_ERROR)
        if self.has_signal and not (low <= SLOPES[1] and high >= SLOPES[0]):
            missed.append("slope")
        judged = "" if self.has_signal else " (mean error only: next to no signal)"
        if not missed:
            return f"met{judged}"
        moved = self.evaluation.base_rate - self.before
        return f"not met: {', '.join(missed)}{judged}; the base rate moved by {moved:+.3f}"


def judged_deals(name: str, history: History, at: str, *, has_signal: bool = True) -> Judged:
    """Train as of a moment; the newest slice as the run judges it."""
    print(f"{name}: training as of {at} ...", file=sys.stderr)
    evaluation = train_deals(history, np.datetime64(at, "us"), RECIPE).evaluation
    assert evaluation is not None
    found = re.search(r"within (\d+) days", evaluation.what)
    assert found is not None
    wait, start = int(found[1]) * DAY, micros(evaluation.start.removesuffix("Z"))
    past = landmarks(history, "deal", -DAY, start - wait, start, DAY, entry=False)
    won = (past.outcome == WON) & (past.end - past.at <= wait)
    return Judged(f"{name}: {evaluation.what}", evaluation, float(won.mean()), has_signal)


def judged_leads(name: str, history: History) -> Judged:
    """Train at the end of the data; the newest slice as the run judges it."""
    print(f"{name}: training ...", file=sys.stderr)
    run = train_leads(history, np.datetime64(history.observed_until, "us"), RECIPE)
    assert run.evaluation is not None
    before = run.evaluation.arm("base rate")["mean_probability"]
    return Judged(f"{name}: {run.evaluation.what}", run.evaluation, float(before))


def rolling_bank(history: History) -> Judged:
    """The last fifth of the bank's rows, each by a model that saw only earlier rows."""
    print("bank marketing, refitted: rolling ...", file=sys.stderr)
    until = history.observed_until + DAY
    rows = lead_rows(history, -DAY, until, until, 0)
    order = np.argsort(rows.snapshot.at, kind="stable")
    snapshot, y, lead = rows.snapshot.take(order), rows.label[order], rows.lead[order]
    cut = int(0.8 * len(y))
    columns = compute(snapshot, declare(history, "lead", int(snapshot.at[cut])))
    raw, served = np.full(len(y), np.nan), np.full(len(y), np.nan)
    for start in range(cut - RECENT, len(y), EVERY):
        known, ahead = np.arange(max(start - WINDOW, 0), start), np.arange(start, start + EVERY)
        ahead = ahead[ahead < len(y)]
        model = LeadModel.fit(
            take_columns(columns, known), y[known], order_time=known.astype(np.float64),
            num_threads=RECIPE.threads, seed=RECIPE.seed,
        )  # fmt: skip
        part = take_columns(columns, ahead)
        raw[ahead] = model.predict(part, calibrated=False)
        if start >= cut:
            recent = slice(start - RECENT, start)
            served[ahead] = model.calibrate(raw[recent], y[recent]).predict(part)
    arms: dict[str, FloatArray] = {"served": served[cut:], "uncalibrated": raw[cut:]}
    evaluation = evaluate_leads(
        arms, y[cut:], lead[cut:], int(snapshot.at[cut]), until, "P(yes)"
    )  # fmt: skip
    assert evaluation is not None
    return Judged("bank marketing, refitted every 500 rows", evaluation, float(y[:cut].mean()))


def judge_all(folder: Path | None) -> list[Judged]:
    """Every data set that can be had here."""
    end = np.datetime64("2026-02-16", "us")
    crm = make_history(4_000, seed=1, end=end)
    name = "synthetic CRM (4,000 deals, seed 1)"
    found = [judged_deals(name, History(crm.tables, [crm.facts]), str(end))]
    if folder is None:
        return found
    bank = read_public("bank_marketing", folder)
    return [
        *found,
        judged_deals("BPIC 2012", read_public("bpic2012", folder), "2012-03-15"),
        judged_deals("Maven CRM", read_public("maven_crm", folder), "2017-12-31", has_signal=False),
        judged_leads("X Education", read_public("xeducation_leads", folder)),
        judged_leads("bank marketing", bank),
        rolling_bank(bank),
    ]


def shown(judged: Judged) -> tuple[object, ...]:
    """One line of the table."""
    e, (error, noise), (slope, low, high) = judged.evaluation, judged.mean_error, judged.slope
    return (
        judged.name, f"{e.n:,}", f"{e.records:,}", f"{e.arms[0]['mean_probability']:.3f}",
        f"{e.base_rate:.3f}", f"{judged.before:.3f}", f"{error:+.3f} ± {1.96 * noise:.3f}",
        f"{slope:.2f} ({low:.2f} to {high:.2f})", judged.verdict,
    )  # fmt: skip


def figures(judged: Judged) -> list[Row]:
    """Mean error and slope with their intervals, and the drift of the base rate."""
    e, (error, noise), (slope, low, high) = judged.evaluation, judged.mean_error, judged.slope
    half = 1.96 * noise
    return [
        Row(judged.name, "mean error", error, MEAN_ERROR, "bar: within", e.n,
            (error - half, error + half)),
        Row(judged.name, "calibration slope", slope, 1.0, "bar: interval meets 0.9 to 1.1", e.n,
            (low, high)),
        Row(judged.name, "base rate", e.base_rate, judged.before, "before the slice", e.n),
    ]  # fmt: skip


def main() -> None:
    """Judge every data set."""
    found = judge_all(datasets())
    lines = [*(__doc__ or "").split("\n\n", 1)[1].splitlines(), ""]
    lines += table(HEAD, [shown(judged) for judged in found])
    publish(
        __file__, "Calibration on the newest slice", lines,
        [row for judged in found for row in figures(judged)], seed=RECIPE.seed,
    )  # fmt: skip


if __name__ == "__main__":
    main()
