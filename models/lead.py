"""P(a lead qualifies within the horizon), from the first lead to the millionth.

Four arms, weighted by how many of the rarer outcome there are and summed on the log-odds: rates
shrunken towards the base rate, a ridge logistic on a few inputs, a logistic on all, and small
boosted trees. Every arm is additive on the log-odds, so the blend is, and so are its reasons.
One row and a batch give the same bits: rows are never summed by a matrix product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from models.calibration import (
    Calibrator,
    expit,
    fit_recalibration,
    logit,
    newest_line,
    shrunken_line,
)
from models.encoding import (
    CategoricalColumn,
    Columns,
    FloatArray,
    TableEncoder,
    row_count,
)
from models.leaf_tables import Forest, LeafTable

__all__ = ["UNEXPLAINED", "Evidence", "LeadError", "LeadModel", "tier_weights"]

UNEXPLAINED = "unexplained"
"""Name of the last column of contributions: what the arms cannot attribute to a column."""

_ARMS = ("rates", "small logistic", "logistic", "trees")
# Minority outcomes at which one arm hands over to the next; the change is spread over a factor
# of _SPREAD to each side, linearly in log n.
_BOUNDARIES = (30.0, 100.0, 500.0)
_SPREAD = 1.5
_LEAST_INPUTS, _MOST_INPUTS = 5, 8
_HELPED = 1.0
_HALF_HELPED = 2.0  # nats of help at which a column's rates count half
_TINY = 1e-9
_SMALL_C = 0.1
# Prior variance of a coefficient: one 2,000th per outcome of the rarer class, within these limits.
_LEAST_C, _MOST_C, _OUTCOMES_PER_C = 0.05, 0.5, 2000.0
_NEWTON_COLUMNS = 300
_TREES = 150
_TREE_PARAMS: dict[str, Any] = {
    "objective": "binary",
    "num_leaves": 15,
    "min_data_in_leaf": 30,
    "lambda_l2": 5.0,
    "learning_rate": 0.05,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
_REFERENCE_ROWS = 300
_ONE_THREAD_ROWS = 5000


class LeadError(ValueError):
    """Arrays that a lead model cannot learn from; the message says what was seen and allowed."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an answer rests on.

    Attributes
    ----------
    method : str
        The arms in use: "rates", "rates + small logistic", ..., "logistic + trees".
    examples, minority : int
        Rows learnt from, and how many (groups, where given) had the rarer outcome.
    prior_share : float
        Weight of the prior in the base rate, from 0 to 1.
    """

    method: str
    examples: int
    minority: int
    prior_share: float


def tier_weights(minority: float) -> tuple[float, float, float, float]:
    """Weights of (rates, small logistic, logistic, trees) by outcomes of the rarer class.

    Rates alone up to 20, small logistic alone from 45 to 66, logistic alone from 150 to 333,
    half logistic and half trees from 750; linear in log n between, so that nothing jumps.

    Examples
    --------
    >>> tier_weights(10), tier_weights(50), tier_weights(200), tier_weights(5000)
    ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.5, 0.5))
    """
    past = []
    for boundary in _BOUNDARIES:
        position = np.log(max(minority, 1e-9) / boundary) / (2 * np.log(_SPREAD))
        past.append(float(np.clip(0.5 + position, 0.0, 1.0)))
    small, full, trees = past
    return 1 - small, small - full, full - trees / 2, trees / 2


@dataclass(frozen=True)
class _Rates:
    """Base rate, and per column a shrunken log-odds offset for each level.

    A category is a level, a number falls in one of up to three bins, missing is the last level.
    `edges` is None for a categorical column. Offsets are centred and damped: together the
    columns say the same thing more than once.
    """

    base: float
    edges: tuple[FloatArray | None, ...]
    offsets: tuple[FloatArray, ...]

    def parts(self, trees: FloatArray, linear: FloatArray) -> FloatArray:
        out = np.empty(trees.shape)
        for j, (edges, offsets) in enumerate(zip(self.edges, self.offsets, strict=True)):
            out[:, j] = offsets[_levels(trees[:, j], edges, len(offsets))]
        return out

    def log_odds(self, trees: FloatArray, linear: FloatArray) -> FloatArray:
        return self.base + _row_sums(self.parts(trees, linear))

    def to_state(self) -> dict[str, Any]:
        return {"base": self.base, "edges": list(self.edges), "offsets": list(self.offsets)}


@dataclass(frozen=True)
class _Logistic:
    """Coefficients on the linear matrix; `sources` (q,) are the columns they belong to."""

    base: float
    coef: FloatArray
    sources: npt.NDArray[np.intp]

    def parts(self, trees: FloatArray, linear: FloatArray) -> FloatArray:
        out = np.zeros(trees.shape)
        product = linear * self.coef
        for i, j in enumerate(self.sources):
            out[:, j] += product[:, i]
        return out

    def log_odds(self, trees: FloatArray, linear: FloatArray) -> FloatArray:
        return self.base + _row_sums(linear * self.coef)

    def to_state(self) -> dict[str, Any]:
        return {"base": self.base, "coef": self.coef, "sources": self.sources}


@dataclass(frozen=True)
class _Trees:
    """A booster on the tree matrix; `base` is its expected value over the fitted rows."""

    base: float
    booster: lgb.Booster

    @cached_property
    def table(self) -> LeafTable:
        return Forest.of([self.booster]).table(self.booster.num_feature())

    def parts(self, trees: FloatArray, linear: FloatArray) -> FloatArray:
        return self.table.sums(trees, _threads(trees))

    def log_odds(self, trees: FloatArray, linear: FloatArray) -> FloatArray:
        if not len(trees):
            return np.zeros(0)
        found = self.booster.predict(trees, num_threads=_threads(trees), raw_score=True)
        return np.asarray(found, dtype=np.float64)

    def to_state(self) -> dict[str, Any]:
        return {"base": self.base, "booster": self.booster}


def _threads(rows: FloatArray) -> int:
    # A thread team costs one row more than its trees do.
    return 1 if len(rows) < _ONE_THREAD_ROWS else 0


_Arm = _Rates | _Logistic | _Trees


@dataclass(frozen=True)
class LeadModel:
    """A fitted lead model.

    Attributes
    ----------
    encoder : TableEncoder
        How columns become numbers.
    arms : tuple of (str, float, arm)
        Name, weight and fitted arm; weights sum to 1.
    base : float
        Log-odds of the organisation's base rate, before the calibrator.
    centre : ndarray of shape (p,)
        Taken off each column's contribution, so that contributions start from `base`.
    calibrator : Calibrator
        A line on the log-odds, learnt from out-of-time predictions.
    evidence : Evidence
        Method, number of examples, share of prior.
    """

    encoder: TableEncoder
    arms: tuple[tuple[str, float, _Arm], ...]
    base: float
    centre: FloatArray
    calibrator: Calibrator
    evidence: Evidence

    @classmethod
    def fit(
        cls,
        columns: Columns,
        y: npt.ArrayLike,
        *,
        order_time: npt.ArrayLike,
        groups: npt.ArrayLike | None = None,
        prior: tuple[float, float] | None = None,
        half_life: float | None = None,
        min_count: int = 10,
        num_threads: int = 1,
        seed: int = 0,
    ) -> LeadModel:
        """Fit the arms that the number of outcomes pays for.

        Parameters
        ----------
        columns : Columns
            Inputs, n rows.
        y : array_like of shape (n,)
            Outcomes, 0 or 1, all matured.
        order_time : array_like of shape (n,)
            When each row was scored, in days; the newest row has recency weight 1.
        groups : array_like of shape (n,), optional
            Rows of one group (the same lead, the same account) count as one outcome when the
            arms are chosen, and are left out together where a rate is tried on its own rows.
        prior : (float, float), optional
            Base rate expected beforehand, and how many examples it is worth. Without it Beta(1/2,
            1/2), which is next to nothing.
        half_life : float, optional
            Days after which a row weighs half.
        min_count : int
            Levels seen in fewer rows are pooled.
        num_threads, seed : int
            For LightGBM; the model does not depend on the number of threads.

        Raises
        ------
        LeadError
            If lengths differ, y is not 0 or 1, or there are no rows and no prior.
        """
        outcome, w, group = _checked(columns, y, order_time, groups, prior, half_life)
        n = len(outcome)
        encoder = (
            TableEncoder.fit(columns, weight=w, min_count=min_count) if n else TableEncoder(())
        )
        trees = encoder.trees(columns) if n else np.empty((0, 0))
        rate, strength = (0.5, 1.0) if prior is None else prior
        base = float(logit((rate * strength + (w * outcome).sum()) / (strength + w.sum())))
        rows = _Rows(encoder, trees, encoder.linear_of(trees), outcome, w, group, base)
        # Without an input that varies only the base rate is left to learn.
        minority = rows.minority(w) if rows.linear.shape[1] else 0.0
        arms = _fit_arms(tier_weights(minority), rows, num_threads, seed)
        base, centre = _centre(arms, rows)
        evidence = Evidence(
            method=" + ".join(name for name, *_ in arms),
            examples=n,
            minority=int(rows.minority(np.ones(n))),
            prior_share=float(strength / (strength + w.sum())),
        )
        return cls(encoder, arms, base, centre, Calibrator(), evidence)

    def predict(self, columns: Columns, *, calibrated: bool = True) -> FloatArray:
        """Probabilities, shape (n,), strictly between 0 and 1."""
        return expit(self.log_odds(columns, calibrated=calibrated))

    def log_odds(self, columns: Columns, *, calibrated: bool = True) -> FloatArray:
        """Log-odds of `predict`, shape (n,)."""
        trees = self.encoder.trees(columns)
        return self._log_odds(trees, self.encoder.linear_of(trees), calibrated)

    def _log_odds(self, trees: FloatArray, linear: FloatArray, calibrated: bool) -> FloatArray:
        total = np.zeros(len(trees))
        for _, weight, arm in self.arms:
            total += weight * arm.log_odds(trees, linear)
        return self.calibrator.log_odds(total) if calibrated else total

    def contributions(self, columns: Columns) -> tuple[float, FloatArray, tuple[str, ...]]:
        """What each column adds to the served log-odds, from the organisation's base rate.

        Returns
        -------
        base : float
            Log-odds of the base rate, after the calibrator.
        parts : ndarray of shape (n, k + 1)
            Contributions of the k columns, then what is unexplained; base + parts.sum(axis=1)
            is `log_odds(columns)`.
        names : tuple of str
            The columns, then `UNEXPLAINED`.
        """
        trees = self.encoder.trees(columns)
        linear = self.encoder.linear_of(trees)
        parts = np.empty((len(trees), trees.shape[1] + 1))
        base = float(self.calibrator.log_odds(self.base))
        raw = self._log_odds(trees, linear, calibrated=False)
        served = self.calibrator.log_odds(raw)
        slope = self.calibrator.mean_slope(self.base, raw)[:, None]
        parts[:, :-1] = slope * (_weighted_parts(self.arms, trees, linear) - self.centre)
        parts[:, -1] = served - (base + _row_sums(np.ascontiguousarray(parts[:, :-1])))
        return base, parts, (*self.encoder.names, UNEXPLAINED)

    def calibrate(
        self, out_of_time_p: npt.ArrayLike, y: npt.ArrayLike, *, late: bool = False
    ) -> LeadModel:
        """The same model, its level and slope set right by what happened lately.

        Parameters
        ----------
        out_of_time_p : array_like of shape (m,)
            Uncalibrated predictions by fits of this recipe that had not seen the rows, oldest
            first; the newest 2,000 are used.
        y : array_like of shape (m,)
            What happened.
        late : bool
            True where outcomes mature late, so that the newest known rows are old: the level
            is then moved half way and the slope is left alone.
        """
        return replace(self, calibrator=newest_line(out_of_time_p, y, late=late))

    def recalibrate(
        self,
        out_of_time_p: npt.ArrayLike,
        y: npt.ArrayLike,
        *,
        at: npt.ArrayLike | None = None,
        wait: float = 0.0,
        late: bool = False,
    ) -> LeadModel:
        """As `calibrate`, but only where doing so would have helped lately.

        Arguments as in `models.calibration.fit_recalibration`. A line, not a curve: contributions
        are to add up, and a curve chosen on 2,000 rows saved no more than .002 log loss on the
        later rows of two public sets.
        """
        line = fit_recalibration(out_of_time_p, y, at=at, wait=wait, late=late)
        return replace(self, calibrator=line)

    def to_state(self) -> dict[str, Any]:
        """JSON values, arrays and boosters, for `models.bundle`."""
        return {
            "encoder": self.encoder.to_state(),
            "arms": [
                {"name": name, "weight": weight, **arm.to_state()}
                for name, weight, arm in self.arms
            ],
            "base": self.base,
            "centre": self.centre,
            "calibrator": self.calibrator.to_state(),
            "evidence": {
                "method": self.evidence.method,
                "examples": self.evidence.examples,
                "minority": self.evidence.minority,
                "prior_share": self.evidence.prior_share,
            },
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> LeadModel:
        """Rebuild a model from `to_state`."""
        return cls(
            TableEncoder.from_state(state["encoder"]),
            tuple((arm["name"], float(arm["weight"]), _arm_of(arm)) for arm in state["arms"]),
            float(state["base"]),
            np.asarray(state["centre"], dtype=np.float64),
            Calibrator.from_state(state["calibrator"]),
            Evidence(**state["evidence"]),
        )


def _arm_of(state: Mapping[str, Any]) -> _Arm:
    if state["name"] == "trees":
        return _Trees(float(state["base"]), state["booster"])
    if state["name"] == "rates":
        return _Rates(float(state["base"]), tuple(state["edges"]), tuple(state["offsets"]))
    return _Logistic(float(state["base"]), state["coef"], state["sources"])


@dataclass(frozen=True)
class _Rows:
    """What the arms are fitted on: n encoded rows, and the log-odds of their base rate."""

    encoder: TableEncoder
    trees: FloatArray
    linear: FloatArray
    y: FloatArray
    w: FloatArray
    group: npt.NDArray[np.intp]
    base: float

    def minority(self, w: FloatArray) -> float:
        """Outcomes of the rarer class, each group counted once with its heaviest row.

        Unequal weights count as the equal ones that would know as much (Kish): (sum w)^2 / sum w^2.
        """
        rarer = self.y == float(2 * (self.w * self.y).sum() <= self.w.sum())
        heaviest = np.zeros(int(self.group.max(initial=-1)) + 1)
        np.maximum.at(heaviest, self.group[rarer], w[rarer])
        return float(heaviest.sum() ** 2 / max((heaviest**2).sum(), _TINY))

    def average(self, values: FloatArray) -> float:
        return float((values * self.w).sum() / max(self.w.sum(), _TINY))


def _fit_arms(
    weights: tuple[float, float, float, float], rows: _Rows, num_threads: int, seed: int
) -> tuple[tuple[str, float, _Arm], ...]:
    """Only the arms whose weight is above 0, in the order of `_ARMS`."""
    arms: list[tuple[str, float, _Arm]] = []
    for name, weight in zip(_ARMS, weights, strict=True):
        if weight <= 0:
            continue
        if name == "trees":
            arms.append((name, weight, _fit_trees(rows, num_threads, seed)))
        elif name == "rates":
            arms.append((name, weight, _fit_rates(rows)[0]))
        elif name == "small logistic":
            chosen = _chosen_inputs(_fit_rates(rows)[1])
            arms.append((name, weight, _fit_logistic(rows, chosen, _SMALL_C)))
        else:
            everything = np.arange(rows.trees.shape[1])
            c = float(np.clip(rows.minority(rows.w) / _OUTCOMES_PER_C, _LEAST_C, _MOST_C))
            arms.append((name, weight, _fit_logistic(rows, everything, c)))
    return tuple(arms)


def _chosen_inputs(gain: FloatArray) -> npt.NDArray[np.intp]:
    """Positions of the best inputs: those that helped, but no fewer than 5 and no more than 8."""
    ranked = np.argsort(-gain, kind="stable")
    count = int(np.clip(np.count_nonzero(gain > _HELPED), _LEAST_INPUTS, _MOST_INPUTS))
    return ranked[:count]


def _fit_logistic(rows: _Rows, inputs: npt.NDArray[np.intp], c: float) -> _Logistic:
    """Ridge logistic on some columns, given by position; the others get coefficient 0.

    `c` is the prior variance of a coefficient: it does not depend on the number of rows.
    """
    position = {name: j for j, name in enumerate(rows.encoder.names)}
    sources = np.array([position[name] for name in rows.encoder.linear_names], dtype=np.intp)
    columns, coef = np.isin(sources, inputs), np.zeros(len(sources))
    if not columns.any():
        return _Logistic(rows.base, coef, sources)
    # The same optimum either way; Newton takes a tenth of the time until its Hessian grows large.
    solver = "newton-cholesky" if columns.sum() <= _NEWTON_COLUMNS else "lbfgs"
    model = LogisticRegression(C=c, solver=solver, max_iter=2000, tol=1e-6)
    # One thread, as in `models.deal_arms`: more stall on a busy machine.
    with threadpool_limits(limits=1, user_api="blas"):
        model.fit(rows.linear[:, columns], rows.y, sample_weight=rows.w)
    coef[columns] = model.coef_[0]
    return _Logistic(float(model.intercept_[0]), coef, sources)


def _fit_trees(rows: _Rows, num_threads: int, seed: int) -> _Trees:
    categorical = list(rows.encoder.categorical)
    data = lgb.Dataset(rows.trees, rows.y, weight=rows.w, categorical_feature=categorical)
    params = {**_TREE_PARAMS, "num_threads": num_threads, "seed": seed}
    booster = lgb.train(params, data, num_boost_round=_TREES)
    return _Trees(float(Forest.of([booster]).table(rows.trees.shape[1]).start[0]), booster)


def _fit_rates(rows: _Rows) -> tuple[_Rates, FloatArray]:
    """The rates arm, and how much each column helped rows it had not seen (log loss, summed).

    A column that helped by g nats counts g / (g + 2), one that did not help nothing: noise often
    helps by one, and a threshold would make scores jump from lead to lead. The damping is the
    slope of y on the summed left-one-out offsets, with prior .3 +- .25, held between 0 and 1: the
    columns were weighed by the same rows.
    """
    edges: list[FloatArray | None] = []
    tables, unseen = [], np.zeros(rows.trees.shape)
    for j, column in enumerate(rows.encoder.columns):
        values = rows.trees[:, j]
        bins = None if isinstance(column, CategoricalColumn) else _bins(values)
        # Levels, or bins less one, then "other" or the last bin, then missing.
        size = 2 + len(column.levels if isinstance(column, CategoricalColumn) else _bins(values))
        level = _levels(values, bins, size)
        table, unseen[:, j] = _offsets(level, size, rows)
        edges.append(bins)
        tables.append(table - rows.average(table[level]))
    gain = _gains(unseen, rows)
    helped = np.maximum(gain, 0.0)
    share = helped / (helped + _HALF_HELPED)
    score = _row_sums(unseen * share)
    # The base rate carries the level, so the intercept is held at 0.
    _, slope = shrunken_line(
        (score - rows.average(score))[:, None],
        np.full(len(score), rows.base),
        rows.y,
        rows.w,
        mean=np.full(1, 0.3),
        sd=np.full(1, 0.25),
        intercept_sd=1e-6,
    )
    factors = share * np.clip(slope, 0.0, 1.0)
    offsets = tuple(table * factor for table, factor in zip(tables, factors, strict=True))
    return _Rates(rows.base, tuple(edges), offsets), gain


def _bins(values: FloatArray) -> FloatArray:
    """Upper edges of up to three bins of about equal count; a flag or a rare count gets two."""
    known = values[~np.isnan(values)]
    if len(known) == 0 or known.min() == known.max():
        return np.empty(0)
    edges = np.unique(np.quantile(known, [1 / 3, 2 / 3], method="inverted_cdf"))
    edges = edges[edges < known.max()]
    return edges if len(edges) else np.array([known[known < known.max()].max()])


def _levels(values: FloatArray, edges: FloatArray | None, size: int) -> npt.NDArray[np.intp]:
    """Level of each value, shape (n,): the code or the bin; missing is the last, size - 1."""
    missing = np.isnan(values)
    known = np.where(missing, 0.0, values)
    level = known.astype(np.intp) if edges is None else np.searchsorted(edges, known, "left")
    return np.where(missing, size - 1, level).astype(np.intp)


def _offsets(level: npt.NDArray[np.intp], size: int, rows: _Rows) -> tuple[FloatArray, FloatArray]:
    """Shrunken log-odds offset per level (size,), and per row with its group left out (n,)."""
    y, w, rate = rows.y, rows.w, float(expit(rows.base))
    n, k = _sums(level, w), _sums(level, w * y)
    n, k = (np.append(total, np.zeros(size - len(total))) for total in (n, k))
    m = _strength(n, k, rate)
    table = logit((k + m * rate) / (n + m)) - logit(rate)
    # The group is left out of the base rate too, or a column that says nothing would seem to
    # know the outcome.
    total = w.sum()
    gone, won = (_sums(rows.group, values)[rows.group] for values in (w, w * y))
    others = np.clip((total * rate - won) / np.maximum(total - gone, _TINY), 0.0, 1.0)
    _, own = np.unique(rows.group * size + level, return_inverse=True)
    gone, won = (_sums(own, values)[own] for values in (w, w * y))
    without = (k[level] - won + m * others) / np.maximum(n[level] - gone + m, _TINY)
    return table, logit(without) - logit(others)


def _sums(at: npt.NDArray[np.intp], values: FloatArray) -> FloatArray:
    return np.asarray(np.bincount(at, values), dtype=np.float64)


def _strength(n: FloatArray, k: FloatArray, rate: float) -> float:
    """How many examples at the base rate each level is pooled with (empirical Bayes).

    Moment estimate of the beta-binomial correlation rho over J levels: with S = sum n (k/n -
    r)^2, E S / r(1 - r) = (1 - rho)(J - 1) + rho (N - sum n^2 / N). Averaged with 1/21 (20
    examples) as if that were known from one level; never fewer than 5 nor more than 1,000.
    """
    n, k = n[n > 0], k[n > 0]
    spare = len(n) - 1
    room = n.sum() - (n**2).sum() / max(n.sum(), 1e-9) - spare
    if spare < 1 or room <= 0 or not 0 < rate < 1:
        return 20.0
    observed = k.sum() / n.sum()
    spread = (n * (k / n - observed) ** 2).sum() / (rate * (1 - rate))
    rho = float(np.clip((spread - spare) / room, 0.0, 1.0))
    rho = (1 / 21 + spare * rho) / (1 + spare)
    return float(np.clip(1 / rho - 1, 5.0, 1000.0))


def _gains(unseen: FloatArray, rows: _Rows) -> FloatArray:
    """Log loss that each column's left-out offsets take off the base rate, shape (p,)."""
    y, q, r = rows.y[:, None], expit(rows.base + unseen), expit(rows.base)
    loss = -(y * np.log(q) + (1 - y) * np.log1p(-q))
    before = -(y * np.log(r) + (1 - y) * np.log1p(-r))
    return np.asarray((rows.w[:, None] * (before - loss)).sum(axis=0), dtype=np.float64)


def _centre(arms: tuple[tuple[str, float, _Arm], ...], rows: _Rows) -> tuple[float, FloatArray]:
    """Where contributions start, and what is taken off each column's part for that.

    The mean of the log-odds is not the log-odds of the mean: the gap comes from the spread of
    the columns and is shared out by the variance of their parts, over rows spread evenly.
    """
    n, p = rows.trees.shape
    if n == 0 or p == 0:
        return rows.base, np.zeros(p)
    some = np.unique(np.linspace(0, n - 1, _REFERENCE_ROWS).astype(np.intp))
    parts = _weighted_parts(arms, rows.trees[some], rows.linear[some])
    start = sum(weight * arm.base for _, weight, arm in arms)
    mean, variance = parts.mean(axis=0), parts.var(axis=0)
    if not variance.sum() > 0:
        return float(start + mean.sum()), mean
    gap = rows.base - start - mean.sum()
    return rows.base, np.asarray(mean + gap * variance / variance.sum(), dtype=np.float64)


def _weighted_parts(
    arms: tuple[tuple[str, float, _Arm], ...], trees: FloatArray, linear: FloatArray
) -> FloatArray:
    total = np.zeros(trees.shape)
    for _, weight, arm in arms:
        total += weight * arm.parts(trees, linear)
    return total


def _row_sums(values: FloatArray) -> FloatArray:
    # Over the last axis of a C-ordered array numpy adds each row alone, in the same order
    # whatever the number of rows; a matrix product does not.
    return np.asarray(values.sum(axis=1), dtype=np.float64)


def _checked(
    columns: Columns,
    y: npt.ArrayLike,
    order_time: npt.ArrayLike,
    groups: npt.ArrayLike | None,
    prior: tuple[float, float] | None,
    half_life: float | None,
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.intp]]:
    """Outcomes, recency weights and group numbers, all of shape (n,)."""
    outcome, days = np.asarray(y, dtype=np.float64), np.asarray(order_time, dtype=np.float64)
    n = row_count(columns)
    named = np.arange(n) if groups is None else np.asarray(groups)
    if not outcome.shape == days.shape == named.shape == (n,):
        raise LeadError(
            f"{n} rows of columns, y of shape {outcome.shape}, order_time {days.shape}, groups "
            f"{named.shape}; give one of each per row"
        )
    if not np.all((outcome == 0) | (outcome == 1)):
        raise LeadError("y holds values other than 0 and 1; leave immature rows out")
    if not np.all(np.isfinite(days)):
        raise LeadError("order_time holds NaN or infinity; give every row its time in days")
    if prior is not None and not (0 < prior[0] < 1 and prior[1] > 0):
        raise LeadError(f"prior is {prior}; give (rate between 0 and 1, examples above 0)")
    if n == 0 and prior is None:
        raise LeadError("0 rows and no prior; give rows, or a prior such as (0.1, 20)")
    if half_life is not None and not half_life > 0:
        raise LeadError(f"half_life is {half_life}; give days above 0, or None for equal weights")
    group = np.unique(named, return_inverse=True)[1].astype(np.intp)
    if half_life is None or n == 0:
        return outcome, np.ones(n), group
    return outcome, np.exp2((days - days.max()) / half_life), group
