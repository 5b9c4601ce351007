"""Groups of deals: what a forecast, a back-test and a list of changes can be broken down by."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from data.history import Snapshot
from data.timelines import Column

__all__ = [
    "BANDS",
    "GROUPINGS",
    "UNASSIGNED",
    "WHOLE",
    "GroupingError",
    "band_of",
    "group_of",
    "in_order",
]

FloatArray = npt.NDArray[np.float64]
Objects = npt.NDArray[np.object_]

WHOLE = "all"  # the group of everything, beside any others
UNASSIGNED = "unassigned"
# What is broken down by, and the field that says it.
GROUPINGS: dict[str, str] = {
    "owner": "owner_id",
    "team": "team_id",
    "pipeline": "pipeline_id",
    "product": "product_family",
    "source": "lead_source",
    "type": "deal_type",
    "amount": "amount",
}
# Bands of amounts are the same at every date and in every organisation: bands that followed the
# deals would let later ones decide where an earlier one belongs.
_EDGES = tuple(float(m * 10**e) for e in range(2, 8) for m in (1, 2, 5) if m * 10**e <= 1e7)
BANDS: tuple[str, ...] = (
    f"under {_EDGES[0]:,.0f}",
    *(f"{low:,.0f} to {high:,.0f}" for low, high in pairwise(_EDGES)),
    f"{_EDGES[-1]:,.0f} and more",
)


class GroupingError(ValueError):
    """A grouping that does not exist; the message says which do."""


def group_of(snapshot: Snapshot, by: str | None) -> Objects:
    """The group of each row of a snapshot, as text.

    The band of an amount is that of the base currency, as known at the row's moment.

    Raises
    ------
    GroupingError
        If the grouping is unknown.
    """
    if by is None:
        return np.full(len(snapshot), WHOLE, dtype=object)
    if by not in GROUPINGS:
        raise GroupingError(f"by is {by!r}; allowed: {', '.join(GROUPINGS)}")
    if by == "amount":
        return band_of(snapshot.amount)
    column: Column = snapshot.team if by == "team" else snapshot.value(GROUPINGS[by])
    return np.array([UNASSIGNED if t is None else t for t in column.texts()], dtype=object)


def band_of(amount: FloatArray) -> Objects:
    """The band of amounts in the base currency; its lower end belongs to it, NaN to none."""
    names = np.array([*BANDS, UNASSIGNED], dtype=object)
    band = np.searchsorted(_EDGES, amount, side="right")
    return np.asarray(names[np.where(np.isnan(amount), len(BANDS), band)])


def in_order(names: Iterable[str], by: str | None) -> tuple[str, ...]:
    """Names of groups without repetition: bands from small to large, others by the alphabet."""
    if by != "amount":
        return tuple(sorted(set(names)))
    place = {band: i for i, band in enumerate(BANDS)}
    return tuple(sorted(set(names), key=lambda name: (place.get(name, len(place)), name)))
