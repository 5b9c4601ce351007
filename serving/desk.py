"""The desk: store, live bundle and scoring behind one counter; knows nothing of HTTP.

Whatever is asked here, by the service or by the command line, is answered as of a moment, by a
model that may speak of that moment, and is kept as issued.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from data.features import Feature, compute
from data.history import History, Side, Snapshot
from data.pipeline import Period, PeriodKind
from data.records import Entity, RecordError, parse_time
from data.store import ForecastFilter, Store
from scoring.books import Books
from scoring.bundles import DealBundle
from scoring.changes import changes
from scoring.forecast import Forecast, ForecastError, forecast
from scoring.metrics import metrics
from scoring.renewals import renewals
from scoring.scores import DealScore, LeadScore
from serving.answers import forecast_answer, renewals_answer, time_text
from serving.batch import (
    Answer,
    Bundle,
    Question,
    UnknownError,
    answer_all,
    answer_of,
    not_there,
    scores_of,
)
from serving.current import CurrentHistory
from serving.intake import stored_snapshot
from serving.issuing import Issuer, issued_forecast, issued_score, score_answer
from serving.live import Live, NoModelError
from serving.past import deal_past, forecast_history
from serving.pipeline_answers import changes_answer, metrics_answer, stages_answer
from serving.settings import Settings
from serving.supposing import WhatIfIn, differences
from serving.writes import Rejected, Stored, write_records

__all__ = [
    "HORIZONS",
    "NO_RENEWALS",
    "AsOfError",
    "Desk",
    "Listing",
    "Scored",
    "TooManyError",
]

Clock = Callable[[], np.datetime64]

# Periods shown when no horizon is asked for, and the most there may be.
HORIZONS: dict[str, tuple[int, int]] = {"week": (4, 53), "month": (3, 24), "quarter": (2, 12)}
NO_RENEWALS = (
    "no pipeline is declared as renewals; name them in the setting renewal_pipelines "
    "(DEALCAST_RENEWAL_PIPELINES), and train again"
)
_NOW = np.timedelta64(60, "s")  # an as_of this close to now means now
_WEEK = np.timedelta64(7, "D")
_PEERS_TOLERANCE = 60.0  # seconds that context from other records may be out of date
_SETTLE_SECONDS = 2.0  # that a look at issued numbers waits for those on their way
_RANKING_KEPT = np.timedelta64(60, "s")


class AsOfError(ValueError):
    """No model may answer for that moment."""


class TooManyError(ValueError):
    """More records than one call may carry."""


@dataclass(frozen=True)
class Scored:
    """Scores of a call, in the order of its records.

    Attributes
    ----------
    as_of : datetime64[us]
    hindsight : bool
        Whether the model knew of later times than as_of.
    results : tuple of (dict or Rejected)
    """

    as_of: np.datetime64
    hindsight: bool
    results: tuple[dict[str, Any] | Rejected, ...]


@dataclass(frozen=True)
class Listing:
    """A page of stored open records, best first; `total` counts all that pass the filters."""

    as_of: np.datetime64
    total: int
    items: list[dict[str, Any]]


@dataclass(frozen=True)
class _Ranking:
    """All stored open records of a kind, best first, as of one moment."""

    reading: int
    version: str
    as_of: np.datetime64
    snapshot: Snapshot
    grades: npt.NDArray[np.object_]
    issued: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Forecast:
    """A forecast with what it was made from."""

    history: History
    bundle: DealBundle
    periods: list[Period]
    found: Forecast
    answer: dict[str, Any]


class Desk:
    """Answers questions.

    Parameters
    ----------
    store : Store
    live : Live
    settings : Settings
    clock : callable
        The moment now, datetime64[us] UTC.
    issuer : Issuer
        Keeps what is given out.
    """

    def __init__(
        self, store: Store, live: Live, settings: Settings, clock: Clock, issuer: Issuer
    ) -> None:
        self._store, self._live, self._settings, self._clock = store, live, settings, clock
        self._issuer = issuer
        self._current = CurrentHistory(store, settings.currency, settings.refresh_seconds)
        self._rankings: dict[str, _Ranking] = {}

    # --- scores of records that come with the question

    def score_records(
        self,
        kind: Side,
        records: Sequence[Mapping[str, Any]],
        *,
        as_of: str | None = None,
        explain: bool = True,
        context: Mapping[str, Any] | None = None,
        hindsight: bool = False,
    ) -> Scored:
        """Score records that need not be stored; a bad one gets its error, the others their scores.

        Parameters
        ----------
        as_of : str, optional
            ISO 8601; a bare date is 00:00 in the organisation's time zone. Now when missing.
        context : mapping, optional
            Values of context features, by name, for all records; a record's own `context` counts
            first. A context feature that is not given is missing.
        hindsight : bool
            Let the champion answer for a past moment.

        Raises
        ------
        RecordError
            If as_of is no time.
        AsOfError
            If no model may answer for as_of.
        TooManyError, NoModelError, StoreError
        """
        self._check_count(len(records))
        now = self._clock()
        at, past = self._moment(as_of, now)
        bundle = self._bundle(kind, at, past and not hindsight)
        rules = self._current.rules()
        question = Question(
            kind,
            bundle,
            at,
            as_of is not None,
            explain,
            context or {},
            rules.tables,
            self._base(bundle),
            self._settings.currency or rules.currency,
        )
        found = answer_all(question, records)
        late = _knows_later(bundle, at)
        answers = [a for a in found if isinstance(a, dict)]
        for answer in answers if late else ():
            answer["hindsight"] = True
        self._issue(kind, answers, now)
        results = tuple(
            Rejected(i, _told_id(kind, records[i]), a) if isinstance(a, Exception) else a
            for i, a in enumerate(found)
        )
        return Scored(at, late, results)

    # --- scores of stored records

    def score_stored(self, kind: Side, record_id: str, *, explain: bool = True) -> Answer:
        """Score a stored record as of now, from what the store holds of it this moment.

        Raises
        ------
        UnknownError, GoneError
            If it is not stored, or left.
        NoModelError, StoreError, HistoryError
        """
        now = self._clock()
        bundle = self._bundle(kind, now, past=False)
        tables = self._store.read_records(kind, [record_id])
        if len(tables[kind]) == 0:
            raise UnknownError(f"no {kind} {record_id!r} is stored; push it with POST /v1/{kind}s")
        facts = self._store.sources()
        snapshot = stored_snapshot(kind, tables, bundle.features, facts, self._base(bundle), now)
        if not snapshot.exists[0]:
            raise not_there(kind, record_id, snapshot, 0)
        context, warnings = self._peers(kind, record_id, bundle.features, now)
        score = scores_of(snapshot, bundle, explain, context)[0]
        answer = answer_of(score, record_id, warnings)
        self._issue(kind, [answer], now)
        return answer

    def _peers(
        self, kind: Side, record_id: str, features: Sequence[Feature], now: np.datetime64
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """What other records say: from the whole history, which may be a minute old."""
        wanted = [f for f in features if f.scope == "context"]
        if not wanted:
            return {}, ()
        history = self._current.get(_PEERS_TOLERANCE).history
        row = history.ledger(kind).row_of.get(record_id)
        if row is None:
            names = ", ".join(f.name for f in wanted)
            return dict.fromkeys(f.name for f in wanted), (
                f"the {kind} is new: not yet known are {names}",
            )
        at = np.array([now], dtype="datetime64[us]").astype(np.int64)
        snapshot = history.landmarks(kind, np.array([row], dtype=np.int64), at)
        columns = compute(snapshot, wanted)
        return {f.name: _first_value(columns[f.name]) for f in wanted}, ()

    def scores_issued(self, kind: Side, record_id: str, limit: int) -> dict[str, Any]:
        """The newest scores given out for a record, oldest first; of a deal, how it ended too.

        Raises
        ------
        UnknownError
            If none was given out and it is not stored either.
        """
        self._issuer.settle(_SETTLE_SECONDS)
        found = self._store.scores_issued(kind, record_id, limit)
        tables = self._store.read_records(kind, [record_id])
        if not found and len(tables[kind]) == 0:
            raise UnknownError(f"no {kind} {record_id!r} is stored, and none was scored")
        told = [{"issued_at": time_text(s.issued_at), **score_answer(s)} for s in found]
        answer: dict[str, Any] = {f"{kind}_id": record_id, "scores": told}
        if kind == "deal":
            own = History(tables, self._store.sources(), self._settings.currency)
            answer |= deal_past(own, record_id, found, self._clock())
        return answer

    def list_scored(
        self,
        kind: Side,
        *,
        owner_id: str | None = None,
        grade: str | None = None,
        limit: int = 100,
        offset: int = 0,
        explain: bool = False,
    ) -> Listing:
        """Stored open records with their scores, the most promising first.

        Raises
        ------
        NoModelError, StoreError, HistoryError
        """
        now = self._clock()
        bundle = self._bundle(kind, now, past=False)
        ranking = self._ranking(kind, bundle, now)
        keep = np.ones(len(ranking.snapshot), dtype=bool)
        if grade is not None:
            keep &= ranking.grades == grade
        owners = ranking.snapshot.value("owner_id").texts()
        if owner_id is not None:
            keep &= owners == owner_id
        rows = np.flatnonzero(keep)
        page = rows[offset : offset + limit]
        scores = scores_of(ranking.snapshot.take(page), bundle, explain)
        items = [answer_of(s, _id_of(s)) for s in scores]
        fresh = [a for a in items if a[f"{kind}_id"] not in ranking.issued]
        ranking.issued.update(a[f"{kind}_id"] for a in fresh)
        self._issue(kind, fresh, now)
        return Listing(
            ranking.as_of,
            len(rows),
            [{**a, "owner_id": owners[row]} for a, row in zip(items, page, strict=True)],
        )

    def _ranking(self, kind: Side, bundle: Bundle, now: np.datetime64) -> _Ranking:
        held = self._current.get()
        known = self._rankings.get(kind)
        if (
            known is not None
            and (known.reading, known.version) == (held.reading, bundle.manifest.version)
            and now - known.as_of < _RANKING_KEPT
        ):
            return known
        snapshot = held.history.as_of(kind, now)
        scores = scores_of(snapshot, bundle, explain=False)
        chance = np.array([_chance(s) for s in scores], dtype=np.float64)
        order = np.lexsort((snapshot.ids.astype(str), -chance))
        grades = np.array([s.grade for s in scores], dtype=object)[order]
        made = _Ranking(held.reading, bundle.manifest.version, now, snapshot.take(order), grades)
        self._rankings[kind] = made
        return made

    # --- forecasts

    def forecast(
        self,
        period: PeriodKind,
        *,
        by: str | None = None,
        levels: Sequence[float] = (0.5, 0.8, 0.95),
        as_of: str | None = None,
        horizon: int | None = None,
        hindsight: bool = False,
        measure: str = "amount",
    ) -> dict[str, Any]:
        """Forecast the won revenue of the periods ahead, the one in progress first.

        Parameters
        ----------
        horizon : int, optional
            How many periods; 4 weeks, 3 months or 2 quarters when missing.
        measure : str
            "amount", "recurring" or "count".

        Raises
        ------
        RecordError, ForecastError, CalendarError
            If an argument is not one of those allowed.
        AsOfError
            If no model may answer for as_of.
        NoModelError, StoreError, HistoryError
        """
        found = self._forecast(period, by, levels, as_of, horizon, hindsight, measure)
        return found.answer

    def what_if(self, asked: WhatIfIn) -> dict[str, Any]:
        """A forecast as of now, as it is and as supposed; neither is kept as issued.

        Raises
        ------
        WhatIfError
            If something cannot be supposed.
        RecordError, ForecastError, CalendarError, NoModelError, StoreError, HistoryError
            As for a forecast.
        """
        count = _horizon(asked.period, asked.horizon)
        at = self._clock()
        bundle = self._bundle("deal", at, False)
        assert isinstance(bundle, DealBundle)
        history, calendar = self._current.get().history, self._settings.calendar
        periods = calendar.periods(asked.period, at, count)
        levels, measure = asked.levels, asked.measure
        found, supposed = (
            forecast(
                history, bundle, at, periods, asked.by, levels=levels, measure=measure, what_if=w
            )
            for w in (None, asked.what_if())
        )
        answer, other = (forecast_answer(f, calendar) for f in (found, supposed))
        shared = {name: answer[name] for name in ("as_of", "by", "measure", "currency", "model")}
        return shared | {
            "period": asked.period,
            "horizon": count,
            "levels": levels,
            "as_is": answer["periods"],
            "supposed": other["periods"],
            "differences": differences(answer["periods"], other["periods"]),
            "warnings": answer["warnings"] + self._forecast_warnings(found, bundle),
        }

    def renewals(
        self,
        period: PeriodKind,
        *,
        levels: Sequence[float] = (0.5, 0.8, 0.95),
        as_of: str | None = None,
        horizon: int | None = None,
        hindsight: bool = False,
    ) -> dict[str, Any]:
        """What the renewal pipelines will keep of what is up in the periods ahead.

        Raises
        ------
        ForecastError
            If no pipeline is declared as renewals.
        RecordError, CalendarError, AsOfError, NoModelError, StoreError, HistoryError
            As for a forecast.
        """
        pipelines = self._settings.renewals
        if not pipelines:
            raise ForecastError(NO_RENEWALS)
        asked = self._forecast(period, "pipeline", levels, as_of, horizon, hindsight, "amount")
        kept = renewals(asked.history, asked.bundle, asked.found, asked.periods, pipelines)
        return renewals_answer(kept, asked.answer, self._settings.calendar)

    def _forecast(
        self,
        period: PeriodKind,
        by: str | None,
        levels: Sequence[float],
        as_of: str | None,
        horizon: int | None,
        hindsight: bool,
        measure: str,
    ) -> _Forecast:
        """A forecast, issued."""
        count = _horizon(period, horizon)
        now = self._clock()
        at, past = self._moment(as_of, now)
        periods = self._settings.calendar.periods(period, at, count)
        bundle = self._bundle("deal", at, past and not hindsight)
        assert isinstance(bundle, DealBundle)
        history = self._current.get().history
        found = forecast(history, bundle, at, periods, by, levels=levels, measure=measure)
        answer = forecast_answer(found, self._settings.calendar)
        answer |= {"period": period, "horizon": count, "levels": list(levels)}
        answer["hindsight"] = _knows_later(bundle, at)
        answer["warnings"] += self._forecast_warnings(found, bundle)
        self._issuer.submit(forecasts=[issued_forecast(found, answer, now, history.fingerprint)])
        return _Forecast(history, bundle, periods, found, answer)

    def _forecast_warnings(self, found: Forecast, bundle: DealBundle) -> list[str]:
        warnings = []
        if bundle.calendar != self._settings.calendar:
            warnings.append(
                "the model was trained with another fiscal calendar or time zone; train again"
            )
        if bundle.renewals != self._settings.renewals:
            warnings.append(
                "the model was trained with other renewal pipelines, and may count renewals as new "
                "business; train again"
            )
        own = bundle.manifest.currency
        if own and own != found.currency:
            warnings.append(
                f"the model was trained in {own}; the amounts here are {found.currency}"
            )
        return warnings

    def forecast_history(
        self,
        asked: ForecastFilter,
        *,
        first: str | None = None,
        last: str | None = None,
    ) -> dict[str, Any]:
        """Forecasts as issued, newest first, and what happened.

        Parameters
        ----------
        first, last : str, optional
            Periods that begin from `first` on, and before `last`: ISO 8601; a bare date is 00:00
            in the organisation's time zone.

        Raises
        ------
        RecordError
            If one of them is no time.
        StoreError, HistoryError
        """
        start, end = (
            None if text is None else self._time(name, text)
            for name, text in (("from", first), ("to", last))
        )
        asked = replace(asked, start=start, end=end)
        self._issuer.settle(_SETTLE_SECONDS)
        history = self._current.get().history
        return forecast_history(self._store, history, self._settings.calendar, asked, self._clock())

    # --- the pipeline as it stands, and as it moved

    def changes(
        self,
        start: str | None = None,
        end: str | None = None,
        *,
        by: str | None = None,
        period: str | None = None,
        most: int = 20,
    ) -> dict[str, Any]:
        """What moved in the open pipeline; by default in the seven days up to now.

        Parameters
        ----------
        period : str, optional
            Only what is expected to close in it: a name like 2026-Q1, or week, month or quarter
            for the one that holds the end.
        most : int
            How many deals to list, the largest first.

        Raises
        ------
        RecordError, ForecastError, CalendarError, ChangesError
            If an argument is not one of those allowed.
        StoreError, HistoryError
        """
        now = self._clock()
        to = self._moment(end, now, "to")[0]
        since = to - _WEEK if start is None else self._moment(start, now, "from")[0]
        calendar = self._settings.calendar
        within = None if period is None else calendar.named(period, to)[1]
        history = self._current.get().history
        found = changes(history, since, to, by, period=within, calendar=calendar, most=most)
        return changes_answer(found, calendar)

    def metrics(
        self, *, as_of: str | None = None, period: str = "quarter", most: int = 20
    ) -> dict[str, Any]:
        """The KPIs, the pace of the period, and the deals that want a look.

        A model is asked where one may answer for the moment; what needs one says so where not.

        Raises
        ------
        RecordError, CalendarError
            If an argument is not one of those allowed.
        StoreError, HistoryError
        """
        return metrics_answer(metrics(self._books(as_of, period), most))

    def stages(self, *, as_of: str | None = None) -> dict[str, Any]:
        """The table of stages.

        Raises
        ------
        RecordError
            If as_of is no time.
        StoreError, HistoryError
        """
        return stages_answer(self._books(as_of, "quarter"))

    def _books(self, as_of: str | None, period: str) -> Books:
        now = self._clock()
        at, past = self._moment(as_of, now)
        calendar = self._settings.calendar
        kind, found = calendar.named(period, at)
        try:
            bundle = self._bundle("deal", at, past)
        except (AsOfError, NoModelError):
            bundle = None
        assert bundle is None or isinstance(bundle, DealBundle)
        return Books(self._current.get().history, calendar, at, kind, found, bundle)

    # --- records

    def write(
        self, entity: Entity, records: Sequence[Mapping[str, Any]], *, partial: bool = False
    ) -> Stored:
        """Store records: all of them or none, unless `partial`. They are durable on return.

        Raises
        ------
        RejectedError, ConflictError
            If some are not valid, or contradict a stored event, and not `partial`.
        TooManyError, StoreError
        """
        self._check_count(len(records))
        default = self._settings.currency or self._current.rules().currency
        try:
            return write_records(
                self._store, entity, records, at=self._clock(), currency=default, partial=partial
            )
        finally:
            self._current.changed()

    # --- what all of them need

    def _check_count(self, count: int) -> None:
        most = self._settings.max_records
        if count > most:
            raise TooManyError(f"there are {count:,} records; allowed: {most:,} a call; send parts")

    def _moment(
        self, as_of: str | None, now: np.datetime64, name: str = "as_of"
    ) -> tuple[np.datetime64, bool]:
        """The moment asked for, and whether it is past."""
        if as_of is None:
            return now, False
        at = parse_time(as_of, ZoneInfo(self._settings.time_zone))
        allowed = "an ISO 8601 time or date, like 2026-03-31T14:00:00Z, up to now"
        if at is None or at > now + _NOW:
            raise RecordError(name, as_of, allowed)
        return at, bool(at < now - _NOW)

    def _time(self, name: str, text: str) -> np.datetime64:
        found = parse_time(text, ZoneInfo(self._settings.time_zone))
        if found is None:
            raise RecordError(name, text, "an ISO 8601 time or date, like 2026-03-31")
        return found

    def _bundle(self, kind: Side, at: np.datetime64, past: bool) -> Bundle:
        """The bundle that may answer for a moment."""
        if not past:
            return self._live.deal() if kind == "deal" else self._live.lead()
        found = self._live.at(kind, at)
        if found is None:
            raise AsOfError(
                f"as_of is {time_text(at)}, and every {kind} model knows of later times; train "
                f"one for that date with `dealcast train {kind} --as-of`, or ask with "
                "hindsight=true"
            )
        return found

    def _base(self, bundle: Bundle) -> str | None:
        """The base currency: what the model's amounts are in."""
        return bundle.manifest.currency or self._settings.currency

    def _issue(self, kind: Side, answers: Sequence[dict[str, Any]], now: np.datetime64) -> None:
        """Have answers kept as given out."""
        if answers:
            self._issuer.submit([issued_score(kind, answer, now) for answer in answers])


def _knows_later(bundle: Bundle, at: np.datetime64) -> bool:
    return bool(np.datetime64(bundle.manifest.trained_through.removesuffix("Z"), "us") > at)


def _id_of(score: LeadScore | DealScore) -> str:
    return score.deal_id if isinstance(score, DealScore) else score.lead_id


def _chance(score: LeadScore | DealScore) -> float:
    return score.probability_won if isinstance(score, DealScore) else score.probability


def _first_value(column: Any) -> Any:
    """The first value of a feature's column as plain JSON, None for missing."""
    if isinstance(column, tuple):
        codes, levels = column
        return None if codes[0] < 0 else str(levels[codes[0]])
    return None if math.isnan(column[0]) else float(column[0])


def _told_id(kind: Side, record: Mapping[str, Any]) -> str | None:
    given = record.get(f"{kind}_id")
    return str(given) if isinstance(given, str | int) else None


def _horizon(period: PeriodKind, horizon: int | None) -> int:
    """How many periods, the usual number where none is asked for."""
    usual, most = HORIZONS.get(period, (1, 1))
    count = usual if horizon is None else horizon
    if period in HORIZONS and not 1 <= count <= most:
        raise RecordError("horizon", horizon, f"1 to {most} periods of a {period}")
    return count
