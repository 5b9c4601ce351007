"""What becomes of the deals: day by day through their stages, with dates and amounts edited."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.synthetic.drawing import Deals, Reps
from data.synthetic.hazards import (
    CLOSES,
    DAY,
    HOUR,
    LOSE,
    OPENS,
    SHIFT,
    Calendar,
    Chain,
    Floats,
    Ints,
    Objects,
)
from data.synthetic.world import World

__all__ = ["Edits", "Paths", "Stages", "WorkingTime", "draw_edits", "walk"]

_Events = tuple[Ints, Ints, Ints, Ints]  # deal, moment, old, new


@dataclass(frozen=True, eq=False)
class Stages:
    """All stages under one code: open ones, pipeline by pipeline; then won, lost of each.

    Arrays of shape (stages,); `first` is the code of each pipeline's first stage, and what only
    open stages have comes in arrays of shape (open_count,).
    """

    ids: Objects
    names: Objects
    pipeline: Ints
    default: Floats
    first: Ints
    open_count: int
    believed_days: Floats
    activity: Floats

    @classmethod
    def of(cls, world: World) -> Stages:
        """The stages of the world's pipelines."""
        opened = [(p, s) for p, line in enumerate(world.pipelines) for s in line.stages]
        closed = [(p, kind) for p in range(len(world.pipelines)) for kind in ("won", "lost")]
        ids = [s.stage_id for _, s in opened]
        ids += [f"{world.pipelines[p].pipeline_id}-{kind}" for p, kind in closed]
        sizes = [len(line.stages) for line in world.pipelines]
        return cls(
            np.array(ids, dtype=object),
            np.array([s.name for _, s in opened] + [k.title() for _, k in closed], dtype=object),
            np.array([p for p, _ in (*opened, *closed)]),
            np.array([s.default_probability for _, s in opened] + [1.0, 0.0] * len(sizes)),
            np.cumsum([0, *sizes[:-1]]),
            len(opened),
            np.array([s.remaining_days for _, s in opened]),
            np.array([s.activity for _, s in opened]),
        )


# ------------------------------------------------------------------ stages and dates


@dataclass(frozen=True, eq=False)
class Paths:
    """What became of the deals: stage entries (sorted by deal, moment) and date changes."""

    stages: Stages  # what the codes of stages mean
    stage: Ints  # code of the stage at the end
    closed: Ints  # beyond the end: open
    changes: _Events  # deal, moment, from (-1: created), to
    dates: _Events  # deal, moment, old day, new day
    expected: Ints  # expected close day at the end


def walk(
    world: World,
    start: np.datetime64,
    deals: Deals,
    reps: Reps,
    calendar: Calendar,
    log_shock: Floats,
    rng: np.random.Generator,
) -> Paths:
    """Move all deals day by day; what happens on a day depends on the state before it only.

    Parameters
    ----------
    start : datetime64[D]
        Day 0.
    calendar : Calendar
        Of the days to play.
    log_shock : ndarray of shape (days,)
        On the log of the win hazard.
    """
    days = len(log_shock)
    state = _Walk(world, start, deals, reps, days, rng)
    arrived = np.searchsorted(deals.created // DAY, np.arange(days))  # created before each day
    opened = np.arange(0)
    for day in range(days):
        opened = np.concatenate([opened, np.arange(arrived[max(day - 1, 0)], arrived[day])])
        if calendar.work[day] and len(opened):
            state.push_dates(day, opened)
            state.move(day, opened, calendar.factors(day, log_shock[day]))
            opened = opened[state.stage[opened] < state.stages.open_count]
    changes, dates = _by_deal(state.moves), _by_deal(state.dates)
    return Paths(state.stages, state.stage, state.closed, changes, dates, state.expected)


class _Walk:
    """The state of all deals, and what has happened to them so far."""

    def __init__(
        self,
        world: World,
        start: np.datetime64,
        deals: Deals,
        reps: Reps,
        days: int,
        rng: np.random.Generator,
    ) -> None:
        self.world, self.start, self.deals, self.rng = world, start, deals, rng
        self.stages = Stages.of(world)
        chains = [Chain.of(world, line) for line in world.pipelines]
        self.base = np.concatenate([c.base.reshape(5, c.stages, c.ages) for c in chains], axis=1)
        self.own = chains[0].factors(deals.effect)
        everyone = np.arange(len(deals.created))
        self.stage = _entry_stages(world, self.stages, deals, rng)
        self.entered = deals.created // DAY
        self.closed = np.full(len(everyone), (days + 1) * DAY)
        self.belief = reps.bias[deals.owner] - world.interest_on_date * deals.interest
        self.expected = self._guess(everyone, self.entered)
        created = (everyone, deals.created, np.full(len(everyone), -1), self.stage.copy())
        self.moves = [created]
        self.dates: list[_Events] = []

    def push_dates(self, day: int, opened: Ints) -> None:
        """Move passed close dates, first thing in the morning: before anything can happen."""
        passed = self.expected[opened] < day
        late = opened[passed & (self.rng.random(len(opened)) < self.world.push_rate)]
        self._guess_anew(day, late, day * DAY + self.rng.integers(OPENS - HOUR, OPENS, len(late)))

    def move(self, day: int, opened: Ints, factors: Floats) -> None:
        """Let the day's hazards act on the open deals."""
        age = np.minimum(day - self.entered[opened], self.world.age_cap) - 1
        hazards = self.base[:, self.stage[opened], age].T * self.own[opened] * factors
        hazards = np.cumsum(hazards, axis=1)
        drawn = self.rng.standard_exponential(len(opened))
        hit = np.flatnonzero(drawn < hazards[:, -1])  # P = 1 - exp(-sum of the hazards)
        who, hazards = opened[hit], hazards[hit]
        kind = (hazards < self.rng.random(len(who))[:, None] * hazards[:, -1:]).sum(axis=1)
        shut = kind <= LOSE
        before = self.stage[who]
        ended = self.stages.open_count + 2 * self.deals.pipeline[who] + (kind == LOSE)
        after = np.where(shut, ended, before + SHIFT[kind])
        moment = day * DAY + self.rng.integers(OPENS, CLOSES, len(who))
        self.moves.append((who, moment, before, after))
        self.stage[who], self.entered[who] = after, day
        self.closed[who[shut]] = moment[shut]
        again = ~shut & (self.rng.random(len(who)) < self.world.reguess)
        self._guess_anew(day, who[again], moment[again])

    def _guess_anew(self, day: int, deal: Ints, moment: Ints) -> None:
        new = self._guess(deal, day)
        self.dates.append((deal, moment, self.expected[deal], new))
        self.expected[deal] = new

    def _guess(self, deal: Ints, today: Ints | int) -> Ints:
        """Close days as reps guess them: from the stage and their own bias, no real date."""
        noise = self.world.date_noise * self.rng.standard_normal(len(deal))
        believed = self.stages.believed_days[self.stage[deal]]
        remaining = believed * np.exp(self.belief[deal] + noise)
        day = today + np.maximum(np.round(remaining), 2).astype(np.int64)
        month = (self.start + day).astype("datetime64[M]") + 1
        last = (month.astype("datetime64[D]") - self.start).astype(np.int64) - 1
        return np.where(self.rng.random(len(deal)) < self.world.month_end, last, day)


def _by_deal(parts: list[_Events]) -> _Events:
    """Join event columns and sort them by deal, then moment; dates that stay are dropped."""
    a, b, c, d = (
        np.concatenate([p[i] for p in parts]) if parts else np.arange(0) for i in range(4)
    )
    order = np.lexsort((b, a))
    order = order[c[order] != d[order]]
    return a[order], b[order], c[order], d[order]


def _entry_stages(world: World, stages: Stages, deals: Deals, rng: np.random.Generator) -> Ints:
    out = np.zeros(len(deals.created), dtype=np.int64)
    for p, line in enumerate(world.pipelines):
        mine = deals.pipeline == p
        shares = np.array([s.entry for s in line.stages])
        out[mine] = stages.first[p] + rng.choice(
            len(shares), int(mine.sum()), p=shares / shares.sum()
        )
    return out


# ------------------------------------------------------------------ what happens between the moves


class WorkingTime:
    """Poisson events on the working calendar, inside intervals of time."""

    def __init__(self, work: Floats) -> None:
        self._cumulative = np.concatenate([[0.0], np.cumsum(work)])

    def events(
        self, since: Ints, until: Ints, rate: Floats, rng: np.random.Generator
    ) -> tuple[Ints, Ints]:
        """Events of each interval: its position and the moments, sorted by both.

        Drawn for whole days and cut to (since, until): what is seen of a day says nothing
        about when the interval ends.
        """
        total = self._cumulative
        last = len(total) - 1
        first, stop = total[since // DAY], total[np.minimum(until // DAY + 1, last)]
        which = np.repeat(np.arange(len(since)), rng.poisson(rate * (stop - first)))
        place = first[which] + rng.random(len(which)) * (stop - first)[which]
        day = np.clip(np.searchsorted(total, place, side="right") - 1, 0, last - 1)
        moment = day * DAY + rng.integers(OPENS, CLOSES, len(which))
        inside = (moment > since[which]) & (moment < until[which])
        which, moment = which[inside], moment[inside]
        order = np.lexsort((moment, which))
        return which[order], moment[order]


@dataclass(frozen=True, eq=False)
class Edits:
    """Amount edits sorted by deal and moment, and the amounts at the end."""

    deal: Ints
    moment: Ints
    old: Floats
    new: Floats
    final: Floats


def draw_edits(
    world: World, work: WorkingTime, deals: Deals, paths: Paths, rng: np.random.Generator
) -> Edits:
    """Amount edits over the lives of the deals; they keep the mean."""
    n = len(deals.created)
    deal, moment = work.events(deals.created, paths.closed, np.full(n, world.edit_rate), rng)
    change = world.edit_sd * rng.standard_normal(len(deal)) - world.edit_sd**2 / 2
    total = np.cumsum(change)
    first = np.searchsorted(deal, deal)  # the first edit of the same deal
    since_created = total - (total[first] - change[first])
    new = np.maximum(np.round(deals.amount[deal] * np.exp(since_created), -1), 10.0)
    old = np.where(first == np.arange(len(deal)), deals.amount[deal], np.roll(new, 1))
    final = deals.amount.copy()
    final[deal] = new  # the last assignment of a deal stays
    kept = new != old
    return Edits(deal[kept], moment[kept], old[kept], new[kept], final)
