"""Evaluation on later data, beside the baselines, by proper scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from data.history import WON, History
from data.timelines import DAY
from models import measures
from models.deal import DealRows
from models.encoding import Columns
from models.hazard_table import incidence, read_curve
from scoring.bundles import DealBundle
from training.examples import deal_rows
from training.reliability import Split, grade_split, level_split, segments

__all__ = ["Evaluation", "evaluate_deals", "evaluate_leads", "plain", "stage_rate"]

FloatArray = npt.NDArray[np.float64]

_LEAD_TIMES = (1.0, 7.0, 14.0, 28.0)
_TINY = 1e-6


@dataclass(frozen=True)
class Evaluation:
    """What later data say about a model and its baselines.

    Attributes
    ----------
    what : str
        The question, in words.
    start, stop : str
        Landmarks judged lie in [start, stop), ISO 8601 UTC.
    n, records, events : int
        Landmarks, distinct records, and landmarks with the event.
    base_rate : float
    arms : list of dict
        For each arm: name, log_loss, brier, auc, calibration slope and intercept with standard
        errors clustered by record, mean probability and how much it is above the rate
        (`mean_error`); `lead` is how much more log loss it has than the served model. With `_error`
        behind the name: the standard error, clustered by record. The served model first.
    reliability : list of dict
        Bands of the served probability: mean probability, observed rate, its range, n, records.
    levels : list of dict
        Predicted / actual by lead time: days, count, value.
    splits : list of dict
        The served probability by stage (deals), by segment and by grade: `by`, and `parts` with
        name, n, records, predicted, observed, its range, and finer `bands`.
    """

    what: str
    start: str
    stop: str
    n: int
    records: int
    events: int
    base_rate: float
    arms: list[dict[str, Any]]
    reliability: list[dict[str, Any]]
    levels: list[dict[str, Any]] = field(default_factory=list)
    splits: list[dict[str, Any]] = field(default_factory=list)

    def arm(self, name: str) -> dict[str, Any]:
        """The figures of one arm."""
        return next(a for a in self.arms if a["name"] == name)


def evaluate_deals(
    history: History, bundle: DealBundle, start: int, stop: int, until: int, horizon: float,
    *, limit: int = 20_000, seed: int = 0,
) -> Evaluation | None:  # fmt: skip
    """Judge P(won within `horizon` days) at landmarks in [start, stop), outcomes by `until`.

    The landmarks must be later than anything the bundle learnt from. None where there are none,
    or no deal was won.
    """
    stop = min(stop, until - int(horizon * DAY))
    if stop <= start:
        return None
    rows, snapshot = deal_rows(
        history, bundle.features, bundle.model.grid, bundle.calendar, start, stop, until,
        limit=limit, seed=seed, entry=False,
    )  # fmt: skip
    y = ((rows.outcome == WON) & (rows.time <= horizon)).astype(np.float64)
    if len(rows) == 0 or y.min() == y.max():
        return None
    curve = bundle.model.incidence(rows.columns, rows.cells)[:, :, 0]
    table = replace(
        bundle.model, encoder=None, weights=np.array([1.0, 0.0, 0.0]),
        correction=np.ones_like(bundle.model.correction),
    )  # fmt: skip
    p = {
        "served": _at(curve, rows, horizon),
        "Aalen-Johansen table": _at(
            incidence(table.hazards(rows.columns, rows.cells))[:, :, 0], rows, horizon
        ),
        "stage rate": stage_rate(bundle, rows),
    }
    stage = rows.columns["stage"]
    assert isinstance(stage, tuple)
    order = list(bundle.stage_rates)
    by_stage = level_split("stage", stage, p["served"], y, rows.deal, order)
    return Evaluation(
        f"P(won within {horizon:g} days) of open deals",
        _iso(start), _iso(stop), len(rows), len(np.unique(rows.deal)), int(y.sum()),
        float(y.mean()),
        [_arm(name, values, p["served"], y, rows.deal) for name, values in p.items()],
        plain(measures.reliability_table(p["served"], y, groups=rows.deal)),
        _levels(rows, curve, np.nan_to_num(snapshot.amount)),
        plain([by_stage, *_splits(p["served"], y, rows.deal, rows.columns)]),
    )  # fmt: skip


def evaluate_leads(
    p: Mapping[str, FloatArray], y: FloatArray, lead: npt.NDArray[np.int64], start: int, stop: int,
    what: str, columns: Columns | None = None,
) -> Evaluation | None:  # fmt: skip
    """Judge lead probabilities by arm, the served one first; None where one outcome is missing.

    `columns` are the features at the landmarks, for reliability by segment.
    """
    if len(y) == 0 or y.min() == y.max():
        return None
    served = next(iter(p.values()))
    return Evaluation(
        what, _iso(start), _iso(stop), len(y), len(np.unique(lead)), int(y.sum()), float(y.mean()),
        [_arm(name, values, served, y, lead) for name, values in p.items()],
        plain(measures.reliability_table(served, y, groups=lead)),
        splits=plain(_splits(served, y, lead, columns or {})),
    )  # fmt: skip


def _splits(
    p: FloatArray, y: FloatArray, record: npt.NDArray[np.int64], columns: Columns
) -> list[Split]:
    by_segment = [level_split(by, c, p, y, record) for by, c in segments(columns).items()]
    return [grade_split(p, y, record), *by_segment]


def _arm(
    name: str, p: FloatArray, served: FloatArray, y: FloatArray, record: npt.NDArray[np.int64]
) -> dict[str, Any]:
    p = np.clip(p, _TINY, 1 - _TINY)
    line = measures.calibration_slope_intercept(p, y, groups=record)
    served = np.clip(served, _TINY, 1 - _TINY)
    more = y * np.log(served / p) + (1 - y) * np.log((1 - served) / (1 - p))
    lead, lead_error = _clustered_mean(more, record)
    mean_error, mean_error_error = _clustered_mean(p - y, record)
    return {
        "name": name,
        "log_loss": measures.log_loss(p, y),
        "brier": measures.brier(p, y),
        "auc": measures.auc(p, y),
        "mean_probability": float(p.mean()),
        "mean_error": mean_error,
        "mean_error_error": mean_error_error,
        "calibration": plain(line),
        "lead": lead,
        "lead_error": lead_error,
    }


def _clustered_mean(values: FloatArray, record: npt.NDArray[np.int64]) -> tuple[float, float]:
    """A mean over rows, and its standard error by records."""
    mean = float(values.mean())
    _, place = np.unique(record, return_inverse=True)
    sums = np.bincount(place, values - mean)
    return mean, float(np.sqrt((sums**2).sum()) / len(values))


def _at(curve: FloatArray, rows: DealRows, days: float) -> FloatArray:
    """A cumulative curve (m, k) read at one horizon: (m,)."""
    return read_curve(curve, rows.cells, np.array([[days]]))[:, 0]


def stage_rate(bundle: DealBundle, rows: DealRows) -> FloatArray:
    """What a CRM would say: the shrunken win rate of each landmark's stage, shape (m,)."""
    stage = rows.columns["stage"]
    assert isinstance(stage, tuple)
    rates = [bundle.stage_rates.get(str(s), {}).get("rate", np.nan) for s in stage[1]]
    known = np.array([*rates, np.nan])[stage[0]]
    overall = np.nanmean(rates) if rates and not np.isnan(rates).all() else 0.5
    return np.where(np.isnan(known), overall, known)


def _levels(rows: DealRows, curve: FloatArray, amount: FloatArray) -> list[dict[str, Any]]:
    """Predicted / actual wins and value by lead time."""
    out = []
    for days in _LEAD_TIMES:
        p = _at(curve, rows, days)
        won = (rows.outcome == WON) & (rows.time <= days)
        if won.any():
            value = float((amount * won).sum())
            out.append(
                {
                    "days": days,
                    "count": float(p.sum() / won.sum()),
                    "value": float((amount * p).sum() / value) if value > 0 else None,
                }
            )
    return out


def plain(value: Any) -> Any:
    """Dataclasses, arrays and numpy scalars as JSON values; NaN as None."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if hasattr(value, "_asdict"):  # a named tuple
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.datetime64):
        return str(value)
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(v) for v in value]
    return value


def _iso(moment: int) -> str:
    return str(np.datetime64(moment, "us").astype("datetime64[s]")) + "Z"
