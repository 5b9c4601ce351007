"""Batch work behind the commands: many scores, points, forecasts, replays."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from joblib import cpu_count

from data.pipeline import Period, PeriodKind
from data.store import IssuedForecast, IssuedScore, StoreError
from dealcast.doors import Doors, Kind, UsageError
from scoring.books import Books
from scoring.bundles import DealBundle, LeadBundle
from scoring.changes import changes
from scoring.forecast import forecast
from scoring.metrics import metrics
from scoring.points import points_of, probabilities
from scoring.renewals import renewals
from scoring.scores import score_deals, score_leads
from serving.answers import (
    deal_answer,
    forecast_answer,
    lead_answer,
    renewals_answer,
    time_text,
)
from serving.desk import HORIZONS, NO_RENEWALS
from serving.issuing import issued_forecast, issued_score
from serving.pipeline_answers import changes_answer, metrics_answer, stages_answer

__all__ = [
    "changes_rows",
    "forecast_rows",
    "metrics_rows",
    "score_open",
    "score_points",
    "write_rows",
]

_FORMATS = ("csv", "json", "parquet")
_KEPT_AT_ONCE = 10_000  # scores of one transaction
Say = Callable[[str], None]


def score_open(
    doors: Doors,
    kind: Kind,
    as_of: np.datetime64,
    *,
    explain: bool,
    hindsight: bool,
    retrain: bool,
    say: Say,
) -> list[dict[str, Any]]:
    """Scores of all records open at a moment, highest first."""
    bundle = doors.bundle_at(kind, as_of, hindsight=hindsight, retrain=retrain, say=say)
    snapshot = doors.history.as_of(kind, as_of)
    if isinstance(bundle, DealBundle):
        deals = score_deals(snapshot, bundle, explain=explain)
        rows, best = [deal_answer(s, s.deal_id) for s in deals], "probability_won"
    else:
        leads = score_leads(snapshot, bundle, explain=explain)
        rows, best = [lead_answer(s, s.lead_id) for s in leads], "probability"
    if bundle.manifest.trained_through > time_text(as_of):
        rows = [{**row, "hindsight": True} for row in rows]
    for first in range(0, len(rows), _KEPT_AT_ONCE):
        some = rows[first : first + _KEPT_AT_ONCE]
        _keep(doors, say, scores=[issued_score(kind, row, doors.clock) for row in some])
    return sorted(rows, key=lambda r: -r[best])


def _keep(
    doors: Doors,
    say: Say,
    scores: Sequence[IssuedScore] = (),
    forecasts: Sequence[IssuedForecast] = (),
) -> None:
    """Keep numbers as given out; an answer does not fail because that failed."""
    try:
        doors.store.issue(scores, forecasts)
    except StoreError as error:
        say(f"note: these numbers are not kept as issued: {error}")


def score_points(
    doors: Doors,
    kind: Kind,
    file: Path,
    *,
    hindsight: bool,
    retrain: bool,
    refit_days: float,
    say: Say,
) -> list[dict[str, Any]]:
    """Probability of winning or qualifying within the horizon, for every point of a file.

    Each point is answered from what was known at its as_of, by a model that knew nothing later:
    one model for all points that fall within `refit_days` of each other when retraining.
    """
    frame = _read_points(file)
    moments = np.array([doors.moment(t) for t in frame["as_of"]], dtype="datetime64[us]")
    points = points_of(
        doors.history,
        kind,
        [str(i) for i in frame["id"]],
        moments,
        frame["horizon"].to_numpy(np.float64),
    )
    probability = np.empty(len(frame))
    versions = np.empty(len(frame), dtype=object)
    for members, bundle in _bundles(doors, kind, moments, hindsight, retrain, refit_days, say):
        part = type(points)(points.rows[members], points.at[members], points.days[members])
        probability[members] = probabilities(doors.history, bundle, part)
        versions[members] = bundle.manifest.trained_through
    return [
        {
            "id": str(i),
            "as_of": time_text(at),
            "horizon": float(days),
            "probability": float(p),
            "trained_through": through,
        }
        for i, at, days, p, through in zip(
            frame["id"], moments, points.days, probability, versions, strict=True
        )
    ]


def _bundles(
    doors: Doors,
    kind: Kind,
    moments: npt.NDArray[np.datetime64],
    hindsight: bool,
    retrain: bool,
    refit_days: float,
    say: Say,
) -> list[tuple[npt.NDArray[np.int64], LeadBundle | DealBundle]]:
    """Which points each model answers."""
    order = np.argsort(moments, kind="stable")
    found: list[tuple[npt.NDArray[np.int64], LeadBundle | DealBundle]] = []
    begin = 0
    for i in range(1, len(order) + 1):
        first = moments[order[begin]]
        wide = np.timedelta64(int(refit_days * 86_400), "s")
        if i < len(order) and (
            moments[order[i]] == first or (retrain and moments[order[i]] - first < wide)
        ):
            continue
        members = order[begin:i]
        bundle = doors.bundle_at(kind, first, hindsight=hindsight, retrain=retrain, say=say)
        found.append((members, bundle))
        begin = i
    return found


def _read_points(file: Path) -> pd.DataFrame:
    if not file.exists():
        raise UsageError(f"there is no file {file}")
    if file.suffix == ".parquet":
        frame = pd.read_parquet(file)
    elif file.suffix == ".json":
        frame = pd.DataFrame(json.loads(file.read_text(encoding="utf-8")))
    else:
        frame = pd.read_csv(file, dtype={"id": str, "as_of": str})
    missing = {"id", "as_of", "horizon"} - set(frame.columns)
    if missing:
        raise UsageError(
            f"{file} has the columns {list(frame.columns)}; needed: id, as_of, horizon (in days)"
        )
    if frame[["id", "as_of", "horizon"]].isna().any(axis=None):
        line = int(frame[["id", "as_of", "horizon"]].isna().any(axis=1).to_numpy().argmax()) + 2
        raise UsageError(f"{file}, line {line}: id, as_of and horizon must all be given")
    try:
        frame["horizon"] = frame["horizon"].astype(float)
    except ValueError as error:
        raise UsageError(f"{file}: horizon must be a number of days ({error})") from error
    frame["as_of"] = frame["as_of"].map(
        lambda v: v if isinstance(v, str) else pd.Timestamp(v).isoformat()
    )
    return frame


def forecast_rows(
    doors: Doors,
    as_of: np.datetime64,
    *,
    period: str,
    by: str | None,
    horizon: int | None,
    days: float | None,
    levels: Sequence[float],
    hindsight: bool,
    retrain: bool,
    say: Say,
    measure: str = "amount",
    as_renewals: bool = False,
) -> dict[str, Any]:
    """The forecast of the coming periods, or of one window of `days` from the moment on.

    With `as_renewals`, what the renewal pipelines will keep in them.
    """
    if as_renewals:
        by, measure = "pipeline", "amount"
        if not doors.settings.renewals:
            raise UsageError(NO_RENEWALS)
    bundle = doors.bundle_at("deal", as_of, hindsight=hindsight, retrain=retrain, say=say)
    assert isinstance(bundle, DealBundle)
    if days is not None:
        end = as_of + np.timedelta64(int(days * 86_400_000_000), "us")
        periods = [Period(as_of, end, f"{days:g} days")]
        period, count = "days", 1
    else:
        if period not in HORIZONS:
            raise UsageError(f"period is {period!r}; allowed: {', '.join(HORIZONS)}")
        count = HORIZONS[period][0] if horizon is None else horizon
        periods = doors.calendar.periods(cast(PeriodKind, period), as_of, count)
    found = forecast(
        doors.history, bundle, as_of, periods, by, levels=levels, measure=measure,
        threads=cpu_count(),
    )  # fmt: skip
    answer = forecast_answer(found, doors.calendar) | {
        "period": period,
        "horizon": count,
        "levels": list(levels),
        "hindsight": bundle.manifest.trained_through > time_text(as_of),
    }
    kept = issued_forecast(found, answer, doors.clock, doors.history.fingerprint)
    _keep(doors, say, forecasts=[kept])
    if as_renewals:
        pipelines = doors.settings.renewals
        told = renewals(doors.history, bundle, found, periods, pipelines)
        return renewals_answer(told, answer, doors.calendar)
    return answer


def changes_rows(
    doors: Doors,
    start: str | None,
    end: str | None,
    *,
    by: str | None,
    period: str | None,
    most: int,
) -> dict[str, Any]:
    """What moved in the open pipeline; by default in the seven days up to now."""
    to = doors.moment(end)
    since = to - np.timedelta64(7, "D") if start is None else doors.moment(start)
    within = None if period is None else doors.calendar.named(period, to)[1]
    found = changes(doors.history, since, to, by, period=within, calendar=doors.calendar, most=most)
    return changes_answer(found, doors.calendar)


def metrics_rows(
    doors: Doors, as_of: np.datetime64, *, period: str, most: int, say: Say
) -> dict[str, Any]:
    """The KPIs, the pace, the stages and the deals that want a look, as of a moment."""
    kind, found = doors.calendar.named(period, as_of)
    try:
        bundle = doors.bundle_at("deal", as_of, say=say)
    except UsageError as error:
        say(f"note: without a model: {error}")
        bundle = None
    assert bundle is None or isinstance(bundle, DealBundle)
    books = Books(doors.history, doors.calendar, as_of, kind, found, bundle)
    return metrics_answer(metrics(books, most)) | {"stages": stages_answer(books)["stages"]}


def write_rows(rows: Sequence[dict[str, Any]], file: Path, form: str | None) -> None:
    """Write rows as CSV, JSON or Parquet; nested values become JSON texts in tables."""
    kind = form or file.suffix.removeprefix(".")
    if kind not in _FORMATS:
        raise UsageError(f"format is {kind!r}; allowed: {', '.join(_FORMATS)}")
    temporary = file.with_name(file.name + ".part")
    if kind == "json":
        temporary.write_text(json.dumps(list(rows), ensure_ascii=False, indent=1), encoding="utf-8")
    else:
        flat = [
            {
                k: json.dumps(v, ensure_ascii=False) if isinstance(v, dict | list) else v
                for k, v in row.items()
            }
            for row in rows
        ]
        if kind == "parquet":
            pd.DataFrame(flat).to_parquet(temporary)
        else:
            with temporary.open("w", encoding="utf-8", newline="") as stream:
                writer = csv.DictWriter(stream, fieldnames=list(flat[0]) if flat else ["id"])
                writer.writeheader()
                writer.writerows(flat)
    temporary.replace(file)
