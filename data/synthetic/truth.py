"""The truth: the oracle that a model is held against, exact to the day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from data.synthetic.hazards import (
    CLOSES,
    DAY,
    OPENS,
    Calendar,
    Chain,
    Flags,
    Floats,
    Ints,
    Objects,
    decision_delays,
    sigmoid,
)
from data.synthetic.world import World

__all__ = ["Truth", "record_ids"]


@dataclass(frozen=True, eq=False)
class Truth:
    """What really drives the records: the oracle that a model is held against.

    Attributes
    ----------
    world : World
        The parameters.
    start : datetime64[D]
        The first day.
    owner_effect : dict of str to float
        Each rep's effect on the deals (log scale).
    deal_effect : ndarray of shape (deals,)
        Each deal's whole effect: owner, source, industry, amount and interest.
    log_shock : ndarray of shape (days,)
        The realised shared shocks on the log of the win hazard; zeros without shocks.
    lead_logit : ndarray of shape (leads,)
        Log-odds that the lead is ever qualified.
    """

    world: World
    start: np.datetime64
    owner_effect: dict[str, float]
    deal_effect: Floats
    log_shock: Floats
    lead_logit: Floats
    deal_pipeline: Ints = field(repr=False)
    deal_closed: Ints = field(repr=False)  # microseconds after start; beyond the end: open
    changes: tuple[Ints, Ints, Ints] = field(repr=False)  # deal, microseconds, stage entered
    amounts: tuple[Ints, Ints, Floats] = field(repr=False)  # deal, microseconds, value from then
    lead_created: Ints = field(repr=False)
    lead_decided: Ints = field(repr=False)

    def deal_incidence(
        self,
        deal_ids: Sequence[str] | Objects,
        as_of: np.datetime64,
        days: npt.ArrayLike,
        *,
        log_shock: npt.ArrayLike | None = None,
    ) -> Floats:
        """Exact P(won) and P(lost) within so many days, for deals open at `as_of`.

        Computed by moving the distribution over (stage, days in stage) forward day by day: no
        simulation. In a world with shocks the default answer holds their factor at its mean, one.

        Parameters
        ----------
        deal_ids : sequence of str, length n
        as_of : datetime64
            A midnight.
        days : array_like of shape (k,)
            Whole days after `as_of`.
        log_shock : array_like of shape (max(days),), optional
            Shocks on the log of the win hazard for each day after `as_of`; `Truth.log_shock`
            holds the realised ones.

        Returns
        -------
        ndarray of shape (n, k, 2)
            Won, lost.

        Raises
        ------
        ValueError
            If a deal is unknown or not open, `as_of` is not a midnight, or days are not whole.
        """
        rows = _positions(deal_ids, "D", len(self.deal_effect))
        day = _midnight(as_of, self.start)
        wanted = np.asarray(days)
        if wanted.ndim != 1 or not len(wanted) or (wanted < 0).any() or (wanted % 1 != 0).any():
            raise ValueError(f"days is {wanted}; allowed: a list of whole days, 0 or more")
        wanted = wanted.astype(np.int64)
        shocks = np.zeros(wanted.max()) if log_shock is None else np.asarray(log_shock, float)
        if len(shocks) < wanted.max():
            raise ValueError(f"log_shock has {len(shocks)} days; needed: {wanted.max()}")
        stage, entered = self._state(rows, day * DAY)
        calendar = Calendar.of(self.world, self.start + day, max(int(wanted.max()), 1))
        out = np.zeros((len(rows), len(wanted), 2))
        for p, pipeline in enumerate(self.world.pipelines):
            chain = Chain.of(self.world, pipeline)
            mine = np.flatnonzero(self.deal_pipeline[rows] == p)
            for part in np.array_split(mine, len(mine) // 2_000 + 1):
                age = np.minimum(day - entered[part] // DAY, chain.ages)
                mass = np.zeros((len(part), chain.stages * chain.ages))
                mass[np.arange(len(part)), stage[part] * chain.ages + age - 1] = 1.0
                own = chain.factors(self.deal_effect[rows[part]])
                out[part] = _incidence(chain, mass, own, calendar, shocks, wanted)
        return out

    def expected_won(
        self, deal_ids: Sequence[str] | Objects, as_of: np.datetime64, days: npt.ArrayLike
    ) -> Floats:
        """Expected closed amount within so many days, EUR, shape (n, k).

        Edits keep the mean, and discounts and edits are independent of the outcome: so this is
        P(won) x current amount x (1 - mean discount), up to the rounding of amounts to 10 EUR.
        Parameters and errors as in `deal_incidence`.
        """
        won = self.deal_incidence(deal_ids, as_of, days)[:, :, 0]
        rows = _positions(deal_ids, "D", len(self.deal_effect))
        deal, since, value = self.amounts
        amount = value[_latest(deal, since, rows, _midnight(as_of, self.start) * DAY)]
        return np.asarray(won * amount[:, None] * self.world.kept)

    def lead_probability(
        self,
        lead_ids: Sequence[str] | Objects,
        days: float | None = None,
        *,
        as_of: np.datetime64 | None = None,
    ) -> Floats:
        """Exact P(qualified within `days`), for leads open at `as_of`.

        Parameters
        ----------
        lead_ids : sequence of str, length n
        days : float, optional
            Horizon; `World.lead_horizon_days` when missing, infinity for ever.
        as_of : datetime64, optional
            Any moment; each lead's creation when missing.

        Returns
        -------
        ndarray of shape (n,)

        Raises
        ------
        ValueError
            If a lead is unknown or not open at `as_of`, or `days` is negative.
        """
        rows = _positions(lead_ids, "L", len(self.lead_logit))
        created = self.lead_created[rows]
        now = created if as_of is None else np.full(len(rows), _micros(as_of, self.start))
        closed = (now < created) | (now >= self.lead_decided[rows])
        if closed.any():
            _refuse_closed(lead_ids, closed, as_of)
        horizon = self.world.lead_horizon_days if days is None else days
        if not horizon >= 0:
            raise ValueError(f"days is {days}; allowed: a number of days, 0 or more")
        p = sigmoid(self.lead_logit[rows])
        yes, no = decision_delays(self.world)
        then = now + int(min(horizon, 10_000) * DAY)
        yes_now, no_now = (self._decided_by(created, now, cdf) for cdf in (yes, no))
        still = p * (1 - yes_now) + (1 - p) * (1 - no_now)
        return np.asarray(p * (self._decided_by(created, then, yes) - yes_now) / still)

    def _decided_by(self, created: Ints, moment: Ints, cdf: Floats) -> Floats:
        """Chance that a decision with these delays has fallen by `moment`, shape (n,)."""
        first, today = self.start + created // DAY + 1, self.start + moment // DAY
        full = np.maximum(np.busday_count(first, today), 0)
        cap = len(cdf) - 1
        before = cdf[np.minimum(full, cap)]
        on_today = np.where(
            np.is_busday(today) & (today >= first), cdf[np.minimum(full + 1, cap)] - before, 0.0
        )
        passed = np.clip((moment % DAY - OPENS) / (CLOSES - OPENS), 0, 1)
        return np.asarray(before + on_today * passed)

    def _state(self, rows: Ints, moment: int) -> tuple[Ints, Ints]:
        """Stage and moment of entry of open deals, each of shape (n,)."""
        deal, since, stage = self.changes
        at = _latest(deal, since, rows, moment)
        known = at >= 0
        known[known] = deal[at[known]] == rows[known]
        closed = ~known | (self.deal_closed[rows] < moment)
        if closed.any():
            ids = record_ids("D", len(self.deal_effect))[rows]
            _refuse_closed(ids, closed, self.start + np.timedelta64(moment // DAY, "D"))
        return stage[at], since[at]


def _incidence(
    chain: Chain, mass: Floats, own: Floats, calendar: Calendar, shocks: Floats, wanted: Ints
) -> Floats:
    out = np.zeros((len(mass), len(wanted), 2))
    closed = np.zeros((len(mass), 2))
    for k in range(int(wanted.max())):
        mass, today = chain.step(mass, own * calendar.factors(k, shocks[k]))
        closed = closed + today
        out[:, wanted == k + 1] = closed[:, None, :]
    return out


def _latest(owner: Ints, since: Ints, rows: Ints, moment: int) -> Ints:
    """Position of the last entry of each row before `moment`; entries sorted by (owner, since)."""
    before = np.flatnonzero(since < moment)
    at = np.searchsorted(owner[before], rows, side="right") - 1
    return np.asarray(np.where(at >= 0, before[at] if len(before) else -1, -1))


def record_ids(letter: str, n: int) -> Objects:
    """The ids of n records, in their order: D000001, D000002, ..."""
    return np.char.mod(letter + "%06d", np.arange(1, n + 1)).astype(object)


def _positions(ids: Sequence[str] | Objects, letter: str, n: int) -> Ints:
    rows = np.array(
        [int(i[1:]) if i[:1] == letter and i[1:].isdecimal() else 0 for i in ids], dtype=np.int64
    )
    bad = (rows < 1) | (rows > n)
    if bad.any():
        first = list(ids)[int(np.argmax(bad))]
        raise ValueError(f"id is {first!r}; allowed: {letter}000001 to {letter}{n:06d}")
    return rows - 1


def _micros(moment: np.datetime64, start: np.datetime64) -> int:
    return int((moment.astype("datetime64[us]") - start.astype("datetime64[us]")).astype(np.int64))


def _midnight(moment: np.datetime64, start: np.datetime64) -> int:
    micros = _micros(moment, start)
    if micros % DAY:
        raise ValueError(
            f"as_of is {moment}; allowed: a midnight UTC, since hazards are daily; round it"
        )
    return micros // DAY


def _refuse_closed(
    ids: Sequence[str] | Objects, closed: Flags, as_of: np.datetime64 | None
) -> None:
    raise ValueError(
        f"{list(ids)[int(np.argmax(closed))]} is not open at {as_of}; allowed: records created "
        f"before and not decided by then; drop the {int(closed.sum())} that are not open"
    )
