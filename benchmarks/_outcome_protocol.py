"""The published protocol of outcome prediction, and its measures over resamples of test cases.

Teinemaa, Dumas, La Rosa, Maggi: Outcome-Oriented Predictive Process Monitoring, TKDD 13(2), 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "CLASSES",
    "LONGEST",
    "Scored",
    "case_bootstrap",
    "case_weighted_auc",
    "labels_of",
    "last_offer",
    "measure",
    "prefixes",
    "split_cases",
    "weighted_auc",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

CLASSES = ("O_ACCEPTED", "O_DECLINED", "O_CANCELLED")
LONGEST = 40
_CHUNK = 50  # resamples at once: bounds the memory


def last_offer(case: IntArray, name: npt.NDArray[np.object_], cases: int) -> IntArray:
    """Position of each case's last event whose name begins with O, -1 for none; (cases,).

    Parameters
    ----------
    case, name : shape (m,)
        Events, in order inside each case.
    """
    found = np.full(cases, -1, dtype=np.int64)
    offers = np.flatnonzero([str(n).startswith("O") for n in name.tolist()])
    found[case[offers]] = offers  # in order, so that the last one stays
    return found


def labels_of(name: npt.NDArray[np.object_], last: IntArray) -> IntArray:
    """Class of each case by its last offer event; -1 where that says no outcome."""
    code = {label: i for i, label in enumerate(CLASSES)}
    return np.array([code.get(name[i], -1) if i >= 0 else -1 for i in last], dtype=np.int64)


def split_cases(begun: IntArray, chosen: IntArray, share: float) -> tuple[IntArray, IntArray]:
    """The first `share` of the chosen cases by their first event, and the others."""
    order = chosen[np.argsort(begun[chosen], kind="stable")]
    first = int(len(order) * share)
    return order[:first], order[first:]


def prefixes(
    case: IntArray, position: IntArray, at: IntArray, cases: IntArray, before: int | None = None
) -> IntArray:
    """Events that end a prefix of the protocol: of these cases, at most the 40th.

    Training cases are cut `before` the moment at which the first test case begins; what is left
    of them keeps its label.
    """
    kept = np.isin(case, cases) & (position <= LONGEST)
    if before is not None:
        kept &= at < before
    return np.flatnonzero(kept)


def case_bootstrap(case: IntArray, resamples: int, rng: np.random.Generator) -> FloatArray:
    """Weights of rows (1 + resamples, m): first all ones, then cases drawn with replacement."""
    found, place = np.unique(case, return_inverse=True)
    drawn = rng.multinomial(len(found), np.full(len(found), 1 / len(found)), size=resamples)
    return np.concatenate([np.ones((1, len(case))), drawn[:, place]]).astype(np.float64)


def weighted_auc(p: FloatArray, y: BoolArray, weight: FloatArray) -> FloatArray:
    """AUC for each row of weights (b, m), ties counted half; NaN with one class."""
    order = np.argsort(p, kind="stable")
    tied = np.flatnonzero(np.r_[True, np.diff(p[order]) > 0])
    y = y[order]
    out = np.empty(len(weight))
    for start in range(0, len(weight), _CHUNK):
        w = weight[start : start + _CHUNK, order]
        won = np.add.reduceat(w * y, tied, axis=1)
        lost = np.add.reduceat(w * ~y, tied, axis=1)
        below = np.cumsum(lost, axis=1) - lost / 2
        pairs = won.sum(axis=1) * lost.sum(axis=1)
        area = (won * below).sum(axis=1)
        out[start : start + _CHUNK] = np.where(
            pairs > 0, area / np.where(pairs > 0, pairs, 1), np.nan
        )
    return out


def case_weighted_auc(
    p: FloatArray, y: BoolArray, position: IntArray, weight: FloatArray
) -> FloatArray:
    """AUC at each prefix length, averaged by how many cases are that long; (b,).

    A length at which all cases end alike has no AUC and is left out; NaN if all are such.
    """
    total, share = np.zeros(len(weight)), np.zeros(len(weight))
    for length in np.unique(position):
        here = position == length
        area = weighted_auc(p[here], y[here], weight[:, here])
        cases = np.where(np.isnan(area), 0.0, weight[:, here].sum(axis=1))
        total += cases * np.nan_to_num(area)
        share += cases
    return np.where(share > 0, total / np.where(share > 0, share, 1), np.nan)


@dataclass(frozen=True)
class Scored:
    """Test prefixes, sorted by case and length, and how they ended.

    Attributes
    ----------
    label : int64, shape (m,)
        Class of the case.
    case, position : int64, shape (m,)
    undecided : bool, shape (m,)
        Whether the event that decides the label is still to come.
    weight : float64, shape (b, m)
        Resamples from `case_bootstrap`.
    """

    label: IntArray
    case: IntArray
    position: IntArray
    undecided: BoolArray
    weight: FloatArray


def measure(scored: Scored, p: FloatArray) -> dict[tuple[str, str], FloatArray]:
    """Every measure of probabilities (m, classes), by class and metric; (b,) each.

    Class "" holds the log loss over all classes.
    """
    w, total = scored.weight, scored.weight.sum(axis=1)
    chosen = np.maximum(p[np.arange(len(p)), scored.label], 1e-15)
    found = {("", "log loss"): w @ -np.log(chosen) / total}
    open_ = scored.undecided
    for i, name in enumerate(CLASSES):
        q, y = p[:, i], scored.label == i
        found[name, "case-weighted AUC"] = case_weighted_auc(q, y, scored.position, w)
        found[name, "pooled AUC"] = weighted_auc(q, y, w)
        found[name, "pooled AUC before the outcome"] = weighted_auc(q[open_], y[open_], w[:, open_])
        found[name, "Brier"] = w @ (q - y) ** 2 / total
        found[name, "log loss"] = w @ -np.log(np.maximum(np.where(y, q, 1 - q), 1e-15)) / total
        found[name, "temporal stability"] = _stability(scored, q)
    return found


def _stability(scored: Scored, q: FloatArray) -> FloatArray:
    """1 - mean absolute change from one prefix to the next: mean of each case, then over cases."""
    first = np.flatnonzero(np.r_[True, scored.case[1:] != scored.case[:-1]])
    step = np.abs(np.diff(q, prepend=0.0))
    step[first] = 0.0
    size = np.diff(np.r_[first, len(q)]) - 1
    change = np.add.reduceat(step, first) / np.maximum(size, 1)
    w = scored.weight[:, first] * (size > 0)
    return np.asarray(1 - w @ change / w.sum(axis=1), dtype=np.float64)
