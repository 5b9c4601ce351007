"""What training and scoring print: as tables, and as JSON values."""

from __future__ import annotations

from typing import Any

from dealcast import show
from dealcast.doors import Kind
from training.backtest import summary
from training.evaluation import plain
from training.walk import Trained

__all__ = ["show_scores", "show_trained", "training_answer"]


def training_answer(trained: Trained) -> dict[str, Any]:
    """What a training run is in JSON."""
    return {
        "model": trained.version.name,
        "version": trained.version.version,
        "promoted": trained.promoted,
        "trained_through": trained.version.trained_through,
        "evaluation": plain(trained.run.evaluation),
        "forecast": plain(summary(trained.run.issued)),
        "checks": plain(trained.run.checks),
        "notes": list(trained.run.notes),
        "withheld": dict(trained.run.leaks.withheld),
        "trusted": dict(trained.run.leaks.trusted),
        "report": str(trained.report),
    }


def show_trained(trained: Trained) -> None:
    """A training run as tables and notes."""
    evaluation = trained.run.evaluation
    if evaluation is not None:
        show.table(
            f"{evaluation.what}, {evaluation.n:,} landmarks of {evaluation.records:,} records, "
            f"{evaluation.start[:10]} to {evaluation.stop[:10]}, "
            f"{show.share(evaluation.base_rate)} happened",
            ["arm", "log loss", "Brier", "AUC", "mean p", "slope", "intercept"],
            [
                [
                    a["name"],
                    f"{a['log_loss']:.4f}",
                    f"{a['brier']:.4f}",
                    f"{a['auc']:.3f}",
                    show.share(a["mean_probability"]),
                    _line(a, "slope"),
                    _line(a, "intercept"),
                ]
                for a in evaluation.arms
            ],
        )
    rows = [r for r in summary(trained.run.issued) if r["horizon"] is None]
    if rows:
        show.table(
            "Forecast, all back-tested horizons",
            ["method", "n", "CRPS / mean actual", "bias", "80 % range holds"],
            [
                [
                    r["method"],
                    r["n"],
                    f"{r['crps']:.3f}",
                    f"{r['bias']:+.3f}",
                    "" if r["coverage"] is None else show.share(r["coverage"]["0.8"]),
                ]
                for r in rows
            ],
        )
    for c in trained.run.checks:
        verdict = {True: "passed", False: "failed", None: "not judged"}[c.passed]
        show.note(f"{c.code} {verdict}: {c.text}")
    for note in trained.run.notes:
        show.note(f"note: {note}")
    show.note(f"report: {trained.report}")


def _line(arm: dict[str, Any], name: str) -> str:
    line = arm["calibration"]
    if line[name] is None:
        return ""
    return f"{line[name]:.2f} +- {line[name + '_error']:.2f}"


def show_scores(rows: list[dict[str, Any]], kind: Kind, *, points: bool) -> None:
    """Scores, or what was said of points in time, as a table of the first ones."""
    most = 25
    if points:
        show.table(
            f"{len(rows):,} points",
            ["id", "as of", "horizon, days", "probability"],
            [
                [r["id"], r["as_of"], f"{r['horizon']:g}", f"{r['probability']:.4f}"]
                for r in rows[:most]
            ],
        )
    else:
        name = "probability" if kind == "lead" else "probability_won"
        show.table(
            f"{len(rows):,} open {kind}s, highest first",
            ["id", "probability", "score", "grade", "why"],
            [
                [
                    r[f"{kind}_id"],
                    f"{r[name]:.3f}",
                    r["score"],
                    r["grade"],
                    r["reasons"][0]["text"] if r["reasons"] else "",
                ]
                for r in rows[:most]
            ],
        )
    if len(rows) > most:
        show.note(f"... and {len(rows) - most:,} more; --output FILE writes them all")
