"""The methods a forecast is held against, each fed with what was known at the origin.

All of them forecast what is still to come in a window; what was won in it to date is added. A
method that has nothing to go by, or whose records do not reach back far enough, says nothing: it
is absent from that origin, and `NEEDS` tells what it would have needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from data.chronicle import known_times
from data.history import History
from data.timelines import DAY
from models import baseline
from models.series import LEAST_STEPS, SeriesModel, fit_series
from scoring.bundles import DealBundle
from scoring.forecast import Simulation
from scoring.grouping import WHOLE, group_of
from training.windows import Stretch, Window

__all__ = ["NEEDS", "POINTS", "RIVALS", "Outlook"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

RIVALS = {
    "stage-weighted": "open pipeline x stage win rate, no timing: what most CRMs show",
    "CRM's own": "open amounts x the CRM's own probabilities, by expected close date",
    "conversion": "open pipeline x the share that past pipelines brought in the same time",
    "growth": "won to date x how much past periods still grew from the same point on",
    "past mean": "won to date + the mean of what past periods of the same length still brought",
    "seasonal naive": "won to date + what the same period a year or a quarter earlier brought",
    "exponential smoothing": "an ETS model of weekly won revenue, chosen by AICc",
    "commit": "the newest number that a person committed to for exactly this period",
}
NEEDS = {
    "CRM's own": "open deals whose probability in the CRM was known then",
    "conversion": "past windows that began with at least half of the pipeline of now",
    "growth": "a calendar period in progress with something won, and past ones likewise",
    "past mean": "one past window of the same length",
    "seasonal naive": "the same window a quarter earlier",
    "exponential smoothing": f"{LEAST_STEPS} weeks since the first win",
    "commit": "a commit for exactly this period and group, given by then",
}
# These may know a number and nothing of its range: their draws are then all alike.
POINTS = ("seasonal naive", "commit")
_HALF = 0.5  # a pipeline that was still filling up says nothing of a full one
_LEAST_TO_DATE = 0.02  # share of a period's total, to read its growth off


@dataclass(frozen=True)
class Outlook:
    """What the methods may look at, at one origin.

    Attributes
    ----------
    drawn : Simulation
        The served forecast: its groups and open deals are the methods' too, not its draws.
    first : datetime64[us]
        Earliest moment from which the records tell everything.
    """

    history: History
    bundle: DealBundle
    drawn: Simulation
    origin: np.datetime64
    by: str | None
    first: np.datetime64
    draws: int
    rng: np.random.Generator

    def forecasts(self, window: Window, place: int | None) -> dict[str, FloatArray]:
        """Draws of a window's revenue by method, for one group (None: the whole)."""
        to_date = self._to_date(window.stretch, place)
        rest = {
            "stage-weighted": self._stage_weighted(place),
            "CRM's own": self._own_probabilities(window, place),
            "conversion": self._conversion(window, place),
            "growth": self._growth(window, place, to_date),
            "past mean": self._past_mean(window, place),
            "seasonal naive": self._seasonal(window, place),
            "exponential smoothing": self._smoothed(window, place),
        }
        found = {name: to_date + draws for name, draws in rest.items() if draws is not None}
        committed = self._commit(window, place)
        if committed is not None:
            found["commit"] = baseline.point(committed, self.draws)
        return found

    # --- what was known ------------------------------------------------------------------------

    @cached_property
    def _wins(self) -> tuple[IntArray, IntArray, FloatArray]:
        """Revenue events known at the origin, by time: deal row, moment, amount."""
        rows, at, known, value = self.history.wins
        now = _micros(self.origin)
        here = np.flatnonzero((known <= now) & (at <= now))
        here = here[np.argsort(at[here], kind="stable")]
        return rows[here], at[here], value[here]

    def _places(self, groups: npt.NDArray[np.object_]) -> IntArray:
        """Place of each group among the forecast's; those it does not know come after them."""
        place = {g: i for i, g in enumerate(self.drawn.groups)}
        return np.array([place.get(str(g), len(place)) for g in groups], dtype=np.int64)

    def _seen(self, rows: IntArray, at: IntArray) -> IntArray:
        """Place of the group of deals as known at moments, or at their creation if later."""
        if self.by is None:
            return np.zeros(len(rows), dtype=np.int64)
        moments = np.maximum(at, self.history.deals.known_from[rows])
        return self._places(group_of(self.history.landmarks("deal", rows, moments), self.by))

    @cached_property
    def _sums(self) -> dict[Stretch, tuple[FloatArray, FloatArray]]:
        """Won to date and after the mark by place, of stretches as they are asked for."""
        return {}

    def _won(self, stretch: Stretch) -> tuple[FloatArray, FloatArray]:
        """What a past stretch brought, by the rule that the forecast's own is judged by.

        A win counts for the deal's group at the mark, or at its creation if that came later; one
        before the mark for its group at the closing.
        """
        if stretch not in self._sums:
            rows, at, value = self._wins
            mark, size = _micros(stretch.mark), len(self.drawn.groups) + 1
            edges = [_micros(t) for t in (stretch.start, *stretch.rest)]
            lo, mid, hi = np.searchsorted(at, edges).tolist()
            before = self._seen(rows[lo:mid], at[lo:mid])
            after = self._seen(rows[mid:hi], np.full(hi - mid, mark))
            self._sums[stretch] = (
                np.bincount(before, value[lo:mid], size).astype(np.float64),
                np.bincount(after, value[mid:hi], size).astype(np.float64),
            )
        return self._sums[stretch]

    def _to_date(self, stretch: Stretch, place: int | None) -> float:
        return _of(self._won(stretch)[0], place)

    def _rest(self, stretch: Stretch, place: int | None) -> float:
        return _of(self._won(stretch)[1], place)

    @cached_property
    def _pipelines(self) -> dict[np.datetime64, FloatArray]:
        """Open amounts at past moments by place, as they are asked for."""
        return {}

    def _pipeline(self, at: np.datetime64, place: int | None) -> float:
        if at not in self._pipelines:
            then = self.history.as_of("deal", at)
            places, amount = self._places(group_of(then, self.by)), np.nan_to_num(then.amount)
            sums = np.bincount(places, amount, len(self.drawn.groups) + 1)
            self._pipelines[at] = sums.astype(np.float64)
        return _of(self._pipelines[at], place)

    @cached_property
    def _open_places(self) -> IntArray:
        return self._places(self.drawn.open_groups)

    def _inside(self, place: int | None) -> npt.NDArray[np.bool_]:
        """Which open deals are the group's."""
        if place is None:
            return np.ones(len(self._open_places), dtype=bool)
        return np.asarray(self._open_places == place)

    # --- the methods ---------------------------------------------------------------------------

    def _stage_weighted(self, place: int | None) -> FloatArray:
        now, inside = self.drawn.open_deals, self._inside(place)
        rates = {stage: found["rate"] for stage, found in self.bundle.stage_rates.items()}
        average = float(np.mean(list(rates.values()))) if rates else 0.0
        stages = [str(now.ledger.stage_levels[s]) if s >= 0 else "" for s in now.stage]
        rate = np.array([rates.get(s, average) for s in stages])
        return baseline.weighted_pipeline(now.amount[inside], rate[inside], self.draws, self.rng)

    def _own_probabilities(self, window: Window, place: int | None) -> FloatArray | None:
        """Deals without a probability say nothing; those without a close date, at any time."""
        now = self.drawn.open_deals
        chance = now.value("probability").numbers()
        if np.isnan(chance).all():
            return None
        due = now.value("expected_close_date").numbers()
        start, end = window.stretch.rest
        local = self.bundle.calendar.local_days(np.array([_micros(start), _micros(end)]))
        # What is overdue must close now, if it does.
        late_enough = (due >= np.floor(local[0])) | (start <= self.origin)
        counts = self._inside(place) & (np.isnan(due) | (late_enough & (due < local[1])))
        chance = np.clip(np.nan_to_num(chance), 0.0, 1.0)
        return baseline.weighted_pipeline(now.amount[counts], chance[counts], self.draws, self.rng)

    def _conversion(self, window: Window, place: int | None) -> FloatArray | None:
        pipeline = self._pipeline(self.origin, place)
        past = [(self._rest(s, place), self._pipeline(s.mark, place)) for s in window.past]
        ratios = [rest / then for rest, then in past if then > _HALF * pipeline]
        if not ratios:
            return None
        return baseline.conversion_ratio(np.array(ratios), pipeline, self.draws, self.rng)

    def _growth(self, window: Window, place: int | None, to_date: float) -> FloatArray | None:
        past = [(self._to_date(s, place), self._rest(s, place)) for s in window.past]
        ratios = [(a + b) / a for a, b in past if a > _LEAST_TO_DATE * (a + b) > 0]
        if to_date <= 0 or not ratios:
            return None
        total = baseline.growth_ratio(np.array(ratios), to_date, self.draws, self.rng)
        return total - to_date

    def _past_mean(self, window: Window, place: int | None) -> FloatArray | None:
        if not window.past:
            return None
        past = np.array([self._rest(s, place) for s in window.past])
        return baseline.past_mean(past, self.draws, self.rng)

    def _seasonal(self, window: Window, place: int | None) -> FloatArray | None:
        season = window.season
        if season is None:
            return None
        off = [self._rest(a, place) - self._rest(b, place) for a, b in season.pairs]
        earlier = self._rest(season.earlier, place)
        if not off:
            return baseline.point(earlier, self.draws)
        return baseline.seasonal_naive(earlier, np.array(off), self.draws, self.rng)

    def _smoothed(self, window: Window, place: int | None) -> FloatArray | None:
        model = self._series(place)
        if model is None:
            return None
        start, end = window.stretch.rest
        day = np.timedelta64(1, "D")
        begin, stop = (start - self.origin) / day / 7.0, (end - self.origin) / day / 7.0
        weeks = int(np.ceil(stop))
        week = np.arange(weeks)
        weight = np.clip(np.minimum(week + 1.0, stop) - np.maximum(week, begin), 0.0, 1.0)
        return baseline.series_totals(model.paths(weeks, self.draws, self.rng), weight)

    @cached_property
    def _models(self) -> dict[int | None, SeriesModel | None]:
        """Fitted series by place, as they are asked for: one fit serves all windows."""
        return {}

    def _series(self, place: int | None) -> SeriesModel | None:
        if place not in self._models:
            self._models[place] = fit_series(_of_each(self._weekly, place))
        return self._models[place]

    @cached_property
    def _weekly(self) -> FloatArray:
        """Won revenue of whole weeks up to the origin, oldest first: (weeks, places).

        Each week as seen from its beginning.
        """
        rows, at, value = self._wins
        now, week, size = _micros(self.origin), 7 * DAY, len(self.drawn.groups) + 1
        known = max(now - _micros(self.first), 0) // week
        ago = (now - at) // week
        here = np.flatnonzero(ago < known)
        place = self._seen(rows[here], now - (ago[here] + 1) * week)
        flat = (known - 1 - ago[here]) * size + place
        sums = np.bincount(flat, value[here], known * size).astype(np.float64)
        return sums.reshape(known, size)

    def _commit(self, window: Window, place: int | None) -> float | None:
        """The newest commit for exactly this period and group, whoever gave it."""
        table = self.history.tables["commit"]
        scope = "all" if place is None else self.by
        name = WHOLE if place is None else self.drawn.groups[place]
        day_of = self.bundle.calendar.day_of
        known = known_times(table)
        here = (
            (table["scope"] == scope)
            & ((table["scope_id"] == name) | (scope == "all"))
            & (table["period_start"] == np.datetime64(day_of(window.stretch.start), "D"))
            & (table["period_end"] == np.datetime64(day_of(window.stretch.end), "D"))
            & (known <= _micros(self.origin))
        )
        if not here.any():
            return None
        found = np.flatnonzero(here)
        return float(table["amount"][found[np.argmax(known[found])]])


def _of(sums: FloatArray, place: int | None) -> float:
    """The sum of one place, or of all."""
    return float(sums.sum() if place is None else sums[place])


def _of_each(sums: FloatArray, place: int | None) -> FloatArray:
    """The same for each row of a table, shape (rows,)."""
    return np.asarray(sums.sum(axis=1) if place is None else sums[:, place], dtype=np.float64)


def _micros(moment: np.datetime64) -> int:
    return int(moment.astype("datetime64[us]").astype(np.int64))
