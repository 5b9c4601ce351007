"""Money in whole cents of the base currency: integers, whose sums depend on no order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data.history import History, HistoryError, Snapshot

__all__ = ["base_currency", "in_cents", "rounded"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_MOST = 1e14  # beyond it cents are no longer told apart, and sums would overflow


def base_currency(history: History) -> str:
    """The base currency; empty where no deal ever carried an amount and none is declared.

    Raises
    ------
    HistoryError
        If there are amounts, and no base currency.
    """
    try:
        return history.currency
    except HistoryError:
        deals = history.deals.table
        if (np.isnan(deals["amount"]) & np.isnan(deals["closed_amount"])).all():
            return ""
        raise


def rounded(amount: FloatArray) -> IntArray:
    """Amounts -> whole cents; missing ones count as nothing.

    >>> rounded(np.array([10.0, 0.125, np.nan])).tolist()
    [1000, 12, 0]
    """
    return np.rint(np.nan_to_num(amount) * 100.0).astype(np.int64)


def in_cents(
    history: History,
    deals: Snapshot,
    own: FloatArray,
    currency: npt.NDArray[np.object_],
    wanted: npt.NDArray[np.bool_],
) -> IntArray:
    """Amounts of deals in cents of the base currency, each at the rate of its row's moment.

    Parameters
    ----------
    deals : Snapshot
        Whose amounts they are, and at which moments; shape (m,).
    own, currency : shape (m,)
        The amounts in their own currency; NaN counts as nothing.
    wanted : bool, shape (m,)
        Rows that matter: the others are 0, and need no rate.

    Raises
    ------
    HistoryError
        If a rate is missing, or an amount is beyond reason.
    """
    found = np.zeros(len(deals), dtype=np.int64)
    rows = np.flatnonzero(wanted & ~np.isnan(own))
    amount = own[rows] * history.conversion(currency[rows], deals.rows[rows], deals.at[rows])
    beyond = np.flatnonzero(np.abs(amount) > _MOST)
    if len(beyond):
        worst = rows[beyond[0]]
        raise HistoryError(
            f"deal {deals.ids[worst]} has the amount {own[worst]:g}; sums to the cent allow up to "
            f"{_MOST:g}; correct it"
        )
    found[rows] = rounded(amount)
    return found
