"""What if: the open deals as they are supposed to be, beside the ones they are.

Supposing changes what the model is told of a deal, or the odds of winning; it draws no new luck.
Every deal keeps its own random numbers, dropped deals theirs unused, and added ones come after
all others: what differs between the two answers is what was supposed, and without any change
they are the same to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from data.history import Snapshot

__all__ = ["Book", "Supposed", "WhatIf", "WhatIfError"]

FloatArray = npt.NDArray[np.float64]
Objects = npt.NDArray[np.object_]
Columns = dict[str, Any]


class WhatIfError(ValueError):
    """Something that cannot be supposed; the message says what, and what is allowed."""


@dataclass(frozen=True)
class Supposed:
    """A deal as it is supposed to be; None leaves a field as it is.

    Attributes
    ----------
    stage_id : str or None
        It is in this stage, since now.
    amount : float or None
        In the base currency, 0 or more.
    expected_close_date : datetime64[D] or None
    group : str or None
        It belongs to this group of the grouping that is asked for.
    odds : float
        Factor on the odds of winning in every interval, 0 or more.
    """

    stage_id: str | None = None
    amount: float | None = None
    expected_close_date: np.datetime64 | None = None
    group: str | None = None
    odds: float = 1.0


@dataclass(frozen=True)
class WhatIf:
    """What is supposed of a forecast.

    Attributes
    ----------
    deals : dict of str to Supposed
        By deal_id.
    dropped : tuple of str
        Deals that are taken out.
    added : tuple of Supposed
        Deals that are put in: each names its stage and its amount.
    odds, arrivals : float
        Factors on the odds of winning of every open deal, and on business still to come.
    """

    deals: Mapping[str, Supposed] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    added: tuple[Supposed, ...] = ()
    odds: float = 1.0
    arrivals: float = 1.0

    def __post_init__(self) -> None:
        every = [("odds", self.odds), ("arrivals", self.arrivals)]
        every += [("odds", s.odds) for s in (*self.deals.values(), *self.added)]
        for name, value in every:
            if not 0.0 <= value < np.inf:
                raise WhatIfError(f"{name} is {value}; allowed: a factor of 0 or more, 1 for none")
        for s in (*self.deals.values(), *self.added):
            if s.amount is not None and not 0.0 <= s.amount < np.inf:
                raise WhatIfError(f"amount is {s.amount}; allowed: 0 or more")
        for i, s in enumerate(self.added):
            if s.stage_id is None or s.amount is None:
                raise WhatIfError(f"added deal {i + 1} needs a stage_id and an amount")


@dataclass(frozen=True)
class Book:
    """Open deals as a forecast reads them.

    Attributes
    ----------
    columns : dict
        Features, n rows.
    amount : float64, shape (n,)
        In the base currency, NaN where none is known.
    group : ndarray of object, shape (n,)
    odds : float64, shape (n,)
        Factor on the odds of winning.
    """

    columns: Columns
    amount: FloatArray
    group: Objects
    odds: FloatArray

    def supposing(
        self, what_if: WhatIf, snapshot: Snapshot, stages: Mapping[str, float]
    ) -> Book:  # fmt: skip
        """The deals as they are supposed to be; added ones last.

        Parameters
        ----------
        snapshot : Snapshot
            The n deals.
        stages : mapping of str to float
            The stages that a deal may be put into, and their place in the pipeline.

        Raises
        ------
        WhatIfError
            If a deal is not open, or a stage is not known.
        """
        place = {str(deal): i for i, deal in enumerate(snapshot.ids)}
        asked = [*what_if.deals, *what_if.dropped]
        for deal in asked:
            if deal not in place:
                raise WhatIfError(f"deal {deal!r} is not open then; only open deals can change")
        columns = {name: _copy(column) for name, column in self.columns.items()}
        amount, group = self.amount.copy(), self.group.copy()
        odds = self.odds * what_if.odds
        book = Book(columns, amount, group, odds)
        for deal, supposed in what_if.deals.items():
            book._put(place[deal], supposed, snapshot, stages)
        odds[[place[deal] for deal in what_if.dropped]] = 0.0
        if not what_if.added:
            return book
        wider = book._with_room(len(what_if.added), what_if.odds)
        for i, supposed in enumerate(what_if.added, len(amount)):
            wider._put(i, supposed, snapshot, stages)
            for name in ("age", "days_in_stage"):
                _set_number(wider.columns, name, i, 0.0)
        return wider

    def _with_room(self, more: int, odds: float) -> Book:
        """The same deals and so many of which nothing is known."""
        return Book(
            {name: _longer(column, more) for name, column in self.columns.items()},
            np.concatenate([self.amount, np.full(more, np.nan)]),
            np.concatenate([self.group, np.full(more, None, dtype=object)]),
            np.concatenate([self.odds, np.full(more, odds)]),
        )

    def _put(
        self, row: int, supposed: Supposed, snapshot: Snapshot, stages: Mapping[str, float]
    ) -> None:
        if supposed.stage_id is not None:
            if supposed.stage_id not in stages:
                known = ", ".join(sorted(stages))
                raise WhatIfError(f"stage_id is {supposed.stage_id!r}; allowed: {known}")
            _set_text(self.columns, "stage", row, supposed.stage_id)
            _set_number(self.columns, "stage_order", row, stages[supposed.stage_id])
            _set_number(self.columns, "days_in_stage", row, 0.0)
        if supposed.amount is not None:
            self.amount[row] = supposed.amount
            _set_number(self.columns, "amount_log", row, float(np.log1p(supposed.amount)))
        if supposed.expected_close_date is not None:
            now = snapshot.at[0] if len(snapshot) else np.int64(0)
            ahead = supposed.expected_close_date - now.astype("datetime64[us]")
            days = float(ahead / np.timedelta64(1, "D"))
            _set_number(self.columns, "days_to_expected_close", row, days)
        if supposed.group is not None:
            self.group[row] = supposed.group
        self.odds[row] *= supposed.odds


def _copy(column: Any) -> Any:
    return (column[0].copy(), column[1]) if isinstance(column, tuple) else column.copy()


def _longer(column: Any, more: int) -> Any:
    if isinstance(column, tuple):
        return np.concatenate([column[0], np.full(more, -1, dtype=column[0].dtype)]), column[1]
    return np.concatenate([column, np.full(more, np.nan)])


def _set_number(columns: Columns, name: str, row: int, value: float) -> None:
    if name in columns and not isinstance(columns[name], tuple):
        columns[name][row] = value


def _set_text(columns: Columns, name: str, row: int, value: str) -> None:
    codes, levels = columns[name]
    found = [i for i, level in enumerate(levels) if str(level) == value]
    if not found:
        levels = np.append(levels, np.array([value], dtype=object))
        columns[name] = codes, levels
        found = [len(levels) - 1]
    codes[row] = found[0]
