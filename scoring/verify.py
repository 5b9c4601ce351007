"""What was issued, held against what is known now.

With the labels in `training.examples` this is the only module that looks past a cutoff. What it
finds goes into no model: it says how good the numbers were that people were given, and whether a
person's number in their place was better.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from data.columns import DAY, NEVER
from data.events import rank_within
from data.history import OPEN, WON, History, Side
from models import measures
from scoring.grouping import UNASSIGNED, WHOLE, group_of

__all__ = [
    "Claim",
    "DealOutcome",
    "ScoreClaims",
    "Verdict",
    "crps_of",
    "deal_outcomes",
    "forecast_summary",
    "known_until",
    "score_summary",
    "verify_forecasts",
    "verify_scores",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_DENSE = (np.arange(200) + 0.5) / 200.0  # levels at which a distribution is read for its CRPS


@dataclass(frozen=True)
class Claim:
    """One period and group of a forecast as issued; money in the base currency.

    Attributes
    ----------
    as_of, issued_at, start, end : datetime64[us], UTC
    by : str or None
        What the forecast was grouped by.
    group : str
    groups : frozenset of str
        All groups of the forecast: what happened in others counts as unassigned.
    measure : str
    mean : float
    quantiles : dict of str to float
        By level as text, "0.1".
    target, probability_of_target : float or None
    hindsight : bool
        Whether the model knew of later times than as_of.
    """

    as_of: np.datetime64
    issued_at: np.datetime64
    start: np.datetime64
    end: np.datetime64
    by: str | None
    group: str
    groups: frozenset[str]
    measure: str
    mean: float
    quantiles: Mapping[str, float]
    target: float | None
    probability_of_target: float | None
    hindsight: bool

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells a claim from others."""
        return (self.issued_at, self.as_of, self.start, self.end, self.by, self.group, self.measure)

    @property
    def foretold(self) -> bool:
        """Whether it was said before its period was over, by a model that knew no more."""
        return bool(self.issued_at < self.end) and not self.hindsight


@dataclass(frozen=True)
class Verdict:
    """What became of a claim whose period is over.

    Attributes
    ----------
    actual : float
    error : float
        Mean said - actual.
    crps : float
        Read off the quantiles: see `crps_of`.
    held : dict of float to bool
        By level, whether the central range held the actual.
    reached : bool or None
        Whether the target was reached.
    """

    actual: float
    error: float
    crps: float
    held: dict[float, bool]
    reached: bool | None


def known_until(history: History, now: np.datetime64) -> np.datetime64:
    """The moment up to which it can be known what happened: now, or when the records end."""
    return np.datetime64(min(_micros(now), history.observed_until), "us")


# --- forecasts


def verify_forecasts(
    history: History, claims: Sequence[Claim], now: np.datetime64
) -> list[Verdict | None]:
    """A verdict on each claim, None where its period is not over, or not yet known.

    A deal open at a forecast's as_of counts for its group then, a later one for its group at
    creation, and what was won before for the group at closing: as the forecast counted them.
    """
    known = known_until(history, now)
    over = [i for i, claim in enumerate(claims) if claim.end <= known]
    shared: dict[tuple[Any, ...], dict[str, float]] = {}
    actual = np.zeros(len(over))
    for k, i in enumerate(over):
        claim = claims[i]
        key = (claim.measure, claim.as_of, claim.start, claim.end, claim.by, claim.groups)
        if key not in shared:
            shared[key] = _happened(history, claim, known)
        actual[k] = shared[key].get(claim.group, 0.0)
    judged = [claims[i] for i in over]
    out: list[Verdict | None] = [None] * len(claims)
    for k, crps in enumerate(_crps_of_all([c.quantiles for c in judged], actual).tolist()):
        out[over[k]] = _verdict(judged[k], float(actual[k]), crps)
    return out


def _happened(history: History, claim: Claim, known: np.datetime64) -> dict[str, float]:
    """What came in the period of a claim, of all and of each group of its forecast."""
    rows, at, known_at, value = history.won_events(claim.measure)
    start, end, until = (_micros(t) for t in (claim.start, claim.end, known))
    here = (at >= start) & (at < end) & (known_at <= until) & (history.deals.gone_at[rows] > until)
    rows, at, known_at, value = rows[here], at[here], known_at[here], value[here]
    parts: dict[str, list[float]] = defaultdict(list)
    for name, amount in zip(_groups(history, claim, rows, at, known_at), value, strict=True):
        parts[name if name in claim.groups else UNASSIGNED].append(float(amount))
    # fsum is exact but for the last rounding: groups add up to the whole, to the cent.
    return {name: fsum(amounts) for name, amounts in parts.items()} | {WHOLE: fsum(value)}


def _groups(
    history: History, claim: Claim, rows: IntArray, at: IntArray, known_at: IntArray
) -> npt.NDArray[np.object_]:
    """The group that each win counts for, seen from the forecast's as_of."""
    as_of = _micros(claim.as_of)
    to_date = (at <= as_of) & (known_at <= as_of)
    was_open = np.isin(rows, history.as_of("deal", claim.as_of).rows)
    created = history.deals.known_from[rows]
    moment = np.where(was_open, as_of, np.where(created > as_of, created, at))
    return group_of(history.landmarks("deal", rows, np.where(to_date, at, moment)), claim.by)


def _verdict(claim: Claim, actual: float, crps: float) -> Verdict:
    target = claim.target
    return Verdict(
        actual,
        claim.mean - actual,
        crps,
        _held(claim.quantiles, actual),
        None if target is None else actual >= target,
    )


def crps_of(quantiles: Mapping[str, float], actual: float) -> float:
    """CRPS of a distribution of which some quantiles are known.

    Between them, and beyond the outermost two, quantiles run straight on the scale of normal
    scores. With the seven of the usual ranges (50, 80, 95 %) that is exact for a normal law and
    within 0.3 % on average for gamma, log-normal and mixed laws, 1 to 3 % in a single case; with
    three (80 %) within 3 % on average. The step function through the quantiles alone is 2 to 4 %
    too low with seven, and up to 16 % with three.

    Examples
    --------
    >>> round(crps_of({"0.1": -1.2816, "0.5": 0.0, "0.9": 1.2816}, 0.0), 3)
    0.234
    """
    return float(_crps_of_all([quantiles], np.array([actual]))[0])


def _crps_of_all(said: Sequence[Mapping[str, float]], actual: FloatArray) -> FloatArray:
    """`crps_of` of each, shape (n,)."""
    alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, quantiles in enumerate(said):
        alike[tuple(quantiles)].append(i)
    out = np.zeros(len(said))
    dense = ndtri(_DENSE)
    for names, members in alike.items():
        score = ndtri(np.array([float(q) for q in names]))
        value = np.array([list(said[i].values()) for i in members], dtype=np.float64)
        if len(names) > 1:
            k = np.clip(np.searchsorted(score, dense) - 1, 0, len(score) - 2)
            slope = np.diff(value, axis=1) / np.diff(score)
            read = value[:, k] + (dense - score[k]) * slope[:, k]
            out[members] = measures.crps_quantiles(read, actual[members], _DENSE)
        else:
            out[members] = np.abs(value[:, 0] - actual[members])
    return out


def _held(quantiles: Mapping[str, float], actual: float) -> dict[float, bool]:
    """By level of the central ranges, whether they held; the ends belong to a range."""
    found = {}
    for low, bottom in quantiles.items():
        level = round(1 - 2 * float(low), 6)
        top = quantiles.get(f"{round((1 + level) / 2, 6):g}")
        if level > 0 and top is not None:
            found[level] = bool(bottom <= actual <= top)
    return dict(sorted(found.items()))


def forecast_summary(claims: Sequence[Claim], verdicts: Sequence[Verdict | None]) -> dict[str, Any]:
    """How good the forecasts were whose period is over.

    Only those count that were said before the period was over, by a model that knew nothing
    later. Claims of one period are about the same sum: `periods` says how many different ones
    there are, and intervals take each claim as a case of its own, so they are too narrow.

    Returns
    -------
    dict
        n, periods, pending (not over), excluded (said afterwards or with hindsight); bias, mae
        and crps as shares of the mean actual (None where nothing happened); coverage: list of
        level, measured, low, high (95 % Wilson), n; reached: Brier score of the chance to reach
        the target and n, or None.
    """
    told = [(c, v) for c, v in zip(claims, verdicts, strict=True) if c.foretold]
    judged = [(c, v) for c, v in told if v is not None]
    verdict = [v for _, v in judged]
    scale = abs(fsum(v.actual for v in verdict)) / max(len(verdict), 1)

    def share(values: Iterable[float]) -> float | None:
        return fsum(values) / len(verdict) / scale if scale > 0 else None

    return {
        "n": len(judged),
        "periods": len({(c.start, c.end) for c, _ in judged}),
        "pending": len(told) - len(judged),
        "excluded": len(claims) - len(told),
        "bias": share(v.error for v in verdict),
        "mae": share(abs(v.error) for v in verdict),
        "crps": share(v.crps for v in verdict),
        "coverage": _coverage(verdict),
        "target": _target(judged),
    }


def _coverage(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    found = []
    for level in sorted({level for v in verdicts for level in v.held}):
        held = [v.held[level] for v in verdicts if level in v.held]
        low, high = measures.wilson_interval(sum(held), len(held))
        share = sum(held) / len(held)
        found.append({"level": level, "measured": share, "low": low, "high": high, "n": len(held)})
    return found


def _target(judged: Sequence[tuple[Claim, Verdict]]) -> dict[str, Any] | None:
    told = [
        (c.probability_of_target, float(v.reached))
        for c, v in judged
        if c.probability_of_target is not None and v.reached is not None
    ]
    if not told:
        return None
    chance, reached = zip(*told, strict=True)
    return {
        "brier": measures.brier(chance, reached),
        "mean_probability": float(np.mean(chance)),
        "reached": float(np.mean(reached)),
        "n": len(told),
    }


# --- scores


@dataclass(frozen=True)
class ScoreClaims:
    """Probabilities as issued, as columns of shape (n,).

    Attributes
    ----------
    side : str
        "lead" or "deal".
    ids : ndarray of object
    as_of, issued_at : int64 microseconds
    days : float64
        The record is won (a lead: qualified) within so many days after as_of.
    probability : float64
    hindsight : bool
    """

    side: Side
    ids: npt.NDArray[np.object_]
    as_of: IntArray
    issued_at: IntArray
    days: FloatArray
    probability: FloatArray
    hindsight: BoolArray


def verify_scores(history: History, claims: ScoreClaims, now: np.datetime64) -> FloatArray:
    """What became of each score: 1 it happened in time, 0 it did not, NaN not yet known.

    A score is matured when its days are over, whether the record closed early or not: to judge
    the closed ones alone would favour what closes fast. A record that was deleted or merged in
    the meantime, or that is not stored, has no outcome.
    """
    ledger = history.ledger(claims.side)
    until = _micros(known_until(history, now))
    row = np.array([ledger.row_of.get(str(i), -1) for i in claims.ids], dtype=np.int64)
    end = claims.as_of + np.round(claims.days * DAY).astype(np.int64)
    known = (row >= 0) & (end <= until)
    known &= np.where(row >= 0, ledger.gone_at[row], NEVER) > end
    out = np.full(len(row), np.nan)
    events = ledger.outcomes
    wins = np.flatnonzero((events.value == WON) & (events.known_at <= until))
    wins = wins[np.lexsort((events.at[wins], events.row[wins]))]
    lo = np.searchsorted(events.row[wins], row[known], "left")
    hi = np.searchsorted(events.row[wins], row[known], "right")
    at = events.at[wins]
    before = rank_within(at, lo, hi, claims.as_of[known])
    out[known] = rank_within(at, lo, hi, end[known]) > before
    return out


def score_summary(claims: ScoreClaims, happened: FloatArray) -> list[dict[str, Any]]:
    """How good the matured scores were, by days ahead.

    Returns
    -------
    list of dict
        days, n, records (different ones), pending, excluded (given after the end of their days,
        or with hindsight), mean_probability, rate, log_loss, brier (None without any case) and
        the reliability by up to 5 bands: predicted, observed, low, high (90 %), n.
    """
    end = claims.as_of + np.round(claims.days * DAY).astype(np.int64)
    told = (claims.issued_at < end) & ~claims.hindsight
    found = []
    for days in np.unique(claims.days).tolist():
        of_days = claims.days == days
        judged = of_days & told & ~np.isnan(happened)
        found.append(
            {
                "days": days,
                "n": int(judged.sum()),
                "records": len(np.unique(claims.ids[judged].astype(str))),
                "pending": int((of_days & told & np.isnan(happened)).sum()),
                "excluded": int((of_days & ~told).sum()),
                **_scored(claims.ids[judged], claims.probability[judged], happened[judged]),
            }
        )
    return found


def _scored(ids: npt.NDArray[np.object_], p: FloatArray, y: FloatArray) -> dict[str, Any]:
    if len(p) == 0:
        return dict.fromkeys(("mean_probability", "rate", "log_loss", "brier")) | {"bands": []}
    return {
        "mean_probability": float(p.mean()),
        "rate": float(y.mean()),
        "log_loss": measures.log_loss(p, y),
        "brier": measures.brier(p, y),
        "bands": [
            {
                "predicted": b.predicted,
                "observed": b.observed,
                "low": b.band_low,
                "high": b.band_high,
                "n": b.n,
            }
            for b in measures.reliability_table(p, y, 5, groups=ids.astype(str))
        ],
    }


# --- single deals


@dataclass(frozen=True)
class DealOutcome:
    """How a deal that closed stands now.

    Attributes
    ----------
    outcome : int
        WON or LOST.
    closed_at : datetime64[us]
    closed_day : float
        The same in days since 1970, UTC.
    amount : float
        Won, in the base currency.
    """

    outcome: int
    closed_at: np.datetime64
    closed_day: float
    amount: float


def deal_outcomes(
    history: History, ids: Sequence[str], now: np.datetime64
) -> list[DealOutcome | None]:
    """How deals ended, as far as is known; None for those open, gone, or not stored."""
    ledger, until = history.deals, _micros(known_until(history, now))
    row_of = ledger.row_of
    rows = np.array(sorted({row_of[i] for i in ids if i in row_of}), dtype=np.int64)
    snapshot = history.landmarks("deal", rows, np.full(len(rows), until))
    events = ledger.outcomes
    last = events.latest(*snapshot.seen(events))
    won_rows, _, known_at, value = history.wins
    found = {}
    for row, event, outcome, there in zip(
        rows.tolist(), last.tolist(), snapshot.outcome.tolist(), snapshot.exists, strict=True
    ):
        if outcome != OPEN and there:
            at = int(events.at[event])
            mine = slice(*np.searchsorted(won_rows, [row, row + 1]))
            amount = fsum(value[mine][known_at[mine] <= until])
            found[str(ledger.ids[row])] = DealOutcome(
                outcome, np.datetime64(at, "us"), float(at // DAY), amount
            )
    return [found.get(i) for i in ids]


def _micros(moment: np.datetime64) -> int:
    return int(moment.astype("datetime64[us]").astype(np.int64))
