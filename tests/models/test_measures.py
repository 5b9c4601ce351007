"""Measures against theory: proper scores are best at the truth, intervals hold what they say."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy import integrate, stats

from models import measures as m

FloatArray = npt.NDArray[np.float64]


@pytest.fixture
def truth() -> tuple[FloatArray, FloatArray]:
    """True probabilities and outcomes drawn from them."""
    rng = np.random.default_rng(7)
    p = rng.beta(2, 5, 20_000)
    return p, (rng.random(20_000) < p).astype(float)


@pytest.mark.parametrize("score", [m.log_loss, m.brier])
def test_scores_of_a_probability_are_best_at_the_truth(score: Callable[..., float]) -> None:
    # Expected score of saying q when the truth is .3: outcomes weighted by their probability.
    y, weight = np.array([1.0, 0.0]), np.array([0.3, 0.7])
    said = np.linspace(0.01, 0.99, 99)
    expected = [score(np.full(2, q), y, weight) for q in said]
    assert said[np.argmin(expected)] == pytest.approx(0.3)


@pytest.mark.parametrize("score", [m.log_loss, m.brier])
@pytest.mark.parametrize("wrong", [lambda p: p * 0.8, lambda p: p**0.5, lambda p: 0 * p + 0.29])
def test_a_distorted_truth_scores_worse(
    score: Callable[..., float],
    wrong: Callable[[FloatArray], FloatArray],
    truth: tuple[FloatArray, FloatArray],
) -> None:
    p, y = truth
    assert score(p, y) < score(wrong(p), y)


def test_known_values() -> None:
    assert m.log_loss([0.5, 0.25], [1, 0]) == pytest.approx((np.log(2) - np.log(0.75)) / 2)
    assert m.brier([0.5, 0.25], [1, 0], [3, 1]) == pytest.approx((3 * 0.25 + 0.0625) / 4)
    assert np.isfinite(m.log_loss([0.0, 1.0], [1, 0]))
    assert m.auc([0.1, 0.2, 0.2, 0.9], [0, 0, 1, 1]) == pytest.approx(3.5 / 4)
    assert np.isnan(m.auc([0.1, 0.2], [0, 0]))
    assert m.wape([1, 3], [2, 2]) == pytest.approx(0.5)
    assert m.bias([1, 4], [2, 2]) == pytest.approx(0.25)
    assert np.isnan(m.wape([1.0], [0.0])) and np.isnan(m.bias([1.0], [0.0]))


def test_alift_is_the_area_under_the_gains_curve() -> None:
    rng = np.random.default_rng(0)
    p = rng.permutation(500) / 500
    y = (rng.random(500) < p).astype(float)
    gains = np.concatenate([[0], np.cumsum(y[np.argsort(-p)]) / y.sum()])
    assert m.alift(p, y) == pytest.approx(np.trapezoid(gains, dx=1 / 500))


def test_brier_parts_add_up_and_tell_miscalibration_from_ignorance(
    truth: tuple[FloatArray, FloatArray],
) -> None:
    p, y = truth
    good, distorted = m.brier_decomposition(p, y), m.brier_decomposition(p**0.5, y)
    for said, parts in ((p, good), (p**0.5, distorted)):
        total = parts.reliability - parts.resolution + parts.uncertainty
        assert total == pytest.approx(m.brier(said, y), abs=1e-12)
    assert good.reliability < 0.002 < 0.02 < distorted.reliability
    # A monotone distortion ranks as well, so only reliability suffers.
    assert distorted.resolution == pytest.approx(good.resolution, abs=1e-12)
    ignorant = m.brier_decomposition(np.full_like(p, 0.3), y)
    assert ignorant.resolution == pytest.approx(0, abs=1e-12)
    assert ignorant.reliability == pytest.approx((0.3 - y.mean()) ** 2, abs=1e-12)


def test_calibration_line_recovers_a_known_distortion(
    truth: tuple[FloatArray, FloatArray],
) -> None:
    p, y = truth
    line = m.calibration_slope_intercept(p, y)
    assert abs(line.slope - 1) < 3 * line.slope_error < 0.2
    assert abs(line.in_the_large) < 3 * line.in_the_large_error < 0.1
    odds = (p / (1 - p)) ** 2 * np.exp(0.5)
    bent = m.calibration_slope_intercept(odds / (1 + odds), y)
    assert bent.slope == pytest.approx(line.slope / 2, rel=1e-6)
    assert bent.intercept == pytest.approx(line.intercept - 0.25 * line.slope, abs=1e-6)


def test_repeating_every_row_changes_no_clustered_error() -> None:
    rng = np.random.default_rng(2)
    p = rng.uniform(0.1, 0.9, 300)
    y = (rng.random(300) < p).astype(float)
    once = m.calibration_slope_intercept(p, y)
    rows = np.repeat(np.arange(300), 4)
    naive = m.calibration_slope_intercept(p[rows], y[rows])
    clustered = m.calibration_slope_intercept(p[rows], y[rows], groups=rows)
    assert clustered.slope == pytest.approx(once.slope)
    assert clustered.slope_error == pytest.approx(once.slope_error)
    assert naive.slope_error < 0.6 * clustered.slope_error


def test_slope_errors_hold_what_they_say() -> None:
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(200):
        p = rng.uniform(0.05, 0.95, 200)
        line = m.calibration_slope_intercept(p, rng.random(200) < p)
        inside += abs(line.slope - 1) < 1.96 * line.slope_error
    assert 0.9 <= inside / 200 <= 0.99


@pytest.mark.parametrize(
    ("p", "y"),
    [([0.2, 0.3, 0.4], [0, 0, 0]), ([0.3, 0.3, 0.3], [0, 1, 0]), ([0.1, 0.2, 0.8], [0, 0, 1])],
)
def test_a_line_that_cannot_be_drawn_is_nan(p: list[float], y: list[float]) -> None:
    assert np.isnan(m.calibration_slope_intercept(p, y).slope)


def competing(n: int, seed: int) -> tuple[FloatArray, npt.NDArray[np.int64], FloatArray]:
    """Exponential times with rates .05 (cause 1) and .1 (cause 2), censoring rate .08."""
    rng = np.random.default_rng(seed)
    time, censor = rng.exponential(1 / 0.15, n), rng.exponential(1 / 0.08, n)
    cause = np.where(rng.random(n) < 1 / 3, 1, 2)
    return np.minimum(time, censor), np.where(time <= censor, cause, 0), time


def test_integrated_brier_is_best_at_the_true_incidence_despite_censoring() -> None:
    time, event, _ = competing(4000, 0)
    grid = np.linspace(1, 15, 15)
    true = (1 - np.exp(-0.15 * grid)) / 3
    said = [
        m.integrated_brier(np.tile(true * k, (4000, 1)), grid, time, event)
        for k in (0.5, 0.8, 1.0, 1.2, 1.5)
    ]
    assert np.argmin(said) == 2


def test_censoring_weights_recover_the_score_of_full_observation() -> None:
    time, event, full = competing(60_000, 1)
    grid = np.array([2.0, 5.0, 10.0])
    f = np.tile(np.array([0.1, 0.2, 0.3]), (60_000, 1))
    cause_full = np.where(np.random.default_rng(9).random(60_000) < 1 / 3, 1, 2)
    seen = m.brier_by_time(f, grid, time, event)
    whole = m.brier_by_time(f, grid, full, cause_full)
    np.testing.assert_allclose(seen, whole, atol=0.006)
    # Without weights the censored rows would be dropped as they are: clearly another number.
    known = event != 0
    assert abs(m.brier_by_time(f[known], grid, time[known], event[known])[2] - whole[2]) > 0.012


def test_a_row_censored_at_the_horizon_is_known_to_be_open_there() -> None:
    score = m.brier_by_time([[0.25], [0.25]], [35.0], [35.0, 10.0], [0, 1])
    assert score[0] == pytest.approx((0.25**2 + 0.75**2) / 2)
    with pytest.raises(m.MeasureError, match=r"last follow-up ends at 35\.0"):
        m.brier_by_time([[0.25], [0.25]], [36.0], [35.0, 10.0], [0, 0])


def test_observation_survival_is_kaplan_meier_with_events_first() -> None:
    # At 2 an event and a censoring: the event has left, so one of two remaining is censored.
    g = m.observation_survival([1, 2, 2, 3], [1, 1, 0, 1], [1, 2, 2.5, 9])
    assert g.tolist() == [1, 1, 0.5, 0.5]


def test_crps_of_draws_matches_its_definition() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(3, 50)), rng.normal(size=3)
    gaps = np.abs(x[:, :, None] - x[:, None, :]).sum(axis=(1, 2))
    mean = np.abs(x - y[:, None]).mean(axis=1)
    np.testing.assert_allclose(m.crps_sample(x, y), mean - gaps / (2 * 50**2))
    np.testing.assert_allclose(m.crps_sample(x, y, fair=True), mean - gaps / (2 * 50 * 49))
    assert m.crps_sample([3.0, 3.0], 1.0) == 2.0


def test_crps_approaches_the_closed_form_and_is_best_at_the_truth() -> None:
    # CRPS of N(0, 1) at y (Gneiting et al., 2005).
    y = 0.7
    exact = y * (2 * stats.norm.cdf(y) - 1) + 2 * stats.norm.pdf(y) - 1 / np.sqrt(np.pi)
    grid = stats.norm.ppf((np.arange(4000) + 0.5) / 4000)
    assert m.crps_sample(grid, y) == pytest.approx(exact, abs=1e-3)
    levels = np.array([0.01, 0.025, *np.arange(0.05, 1, 0.05), 0.975, 0.99])
    assert m.crps_quantiles(stats.norm.ppf(levels), y, levels) == pytest.approx(exact, abs=0.01)
    happened = np.random.default_rng(5).normal(size=2000)
    by_width = {
        s: float(m.crps_sample(np.tile(grid[::20] * s, (2000, 1)), happened).mean())
        for s in (0.6, 1.0, 1.6)
    }
    assert min(by_width, key=lambda s: by_width[s]) == 1.0


def test_fair_crps_of_few_draws_is_unbiased() -> None:
    draws = np.random.default_rng(6).normal(size=(20_000, 5))
    exact = 2 * stats.norm.pdf(0.0) - 1 / np.sqrt(np.pi)
    zero = np.zeros(20_000)
    assert m.crps_sample(draws, zero, fair=True).mean() == pytest.approx(exact, abs=0.01)
    assert m.crps_sample(draws, zero).mean() > exact + 0.08


def test_pinball_is_best_at_the_quantile_and_integrates_to_the_crps() -> None:
    said = np.linspace(-2, 2, 41)
    happened = stats.norm.ppf((np.arange(2000) + 0.5) / 2000)
    mean = [float(m.pinball(np.full(2000, q), happened, 0.8).mean()) for q in said]
    assert said[np.argmin(mean)] == pytest.approx(stats.norm.ppf(0.8), abs=0.1)
    area, _ = integrate.quad(lambda a: 2 * m.pinball(stats.uniform.ppf(a), 0.25, a), 0, 1)
    levels = (np.arange(200) + 0.5) / 200
    assert m.crps_quantiles(levels, 0.25, levels) == pytest.approx(area, abs=1e-4)


@pytest.mark.parametrize("interval", [m.wilson_interval, m.jeffreys_interval])
def test_intervals_cover_on_average_what_they_say(
    interval: Callable[[float, float], tuple[float, float]],
) -> None:
    n = 40
    held = []
    for p in np.linspace(0.05, 0.95, 19):
        ranges = [interval(k, n) for k in range(n + 1)]
        inside = [low <= p <= high for low, high in ranges]
        held.append(stats.binom.pmf(np.arange(n + 1), n, p) @ inside)
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)
    assert interval(0, n)[0] == 0 and interval(n, n)[1] == 1


def test_wilson_interval_matches_scipy() -> None:
    ci = stats.binomtest(7, 21).proportion_ci(0.95, method="wilson")
    assert m.wilson_interval(7, 21) == pytest.approx((ci.low, ci.high))
    assert m.wilson_interval(0, 0) == (0.0, 1.0)


def test_coverage_counts_both_ends_and_carries_its_interval() -> None:
    seen = m.coverage([0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0.5, 1.1])
    assert (seen.share, seen.n) == (0.75, 4)
    assert (seen.low, seen.high) == m.wilson_interval(3, 4)
    assert np.isnan(m.coverage([], [], []).share)


def test_reliability_bins_hold_every_row_once_and_the_truth_in_their_bands(
    truth: tuple[FloatArray, FloatArray],
) -> None:
    p, y = truth
    table = m.reliability_table(p, y)
    assert len(table) == 10 and sum(b.n for b in table) == len(p)
    assert max(b.n for b in table) < 1.02 * min(b.n for b in table)
    assert sum(b.band_low <= b.predicted <= b.band_high for b in table) >= 7
    assert sum(b.observed * b.n for b in table) == pytest.approx(y.sum())
    tied = m.reliability_table(np.array([0.1] * 90 + [0.6] * 10), np.zeros(100))
    assert [(b.low, b.high, b.n) for b in tied] == [(0.1, 0.1, 90), (0.6, 0.6, 10)]


def test_many_rows_of_one_record_widen_its_band() -> None:
    rng = np.random.default_rng(3)
    p = rng.uniform(0.1, 0.9, 400)
    y = (rng.random(400) < p).astype(float)
    again = np.repeat(np.arange(400), 9)
    once = m.reliability_table(p, y, 5)
    alike = m.reliability_table(p[again], y[again], 5, groups=again)
    naive = m.reliability_table(p[again], y[again], 5)
    for a, b, c in zip(once, alike, naive, strict=True):
        assert (b.n, b.records, c.records) == (9 * a.n, a.n, 9 * a.n)
        assert b.observed == pytest.approx(a.observed)
        # Nine copies are one experience, and nine rows of strangers are nine.
        assert b.band_high - b.band_low == pytest.approx(a.band_high - a.band_low, rel=0.02)
        assert c.band_high - c.band_low < 0.4 * (a.band_high - a.band_low)
    strangers = m.reliability_table(p[again], rng.random(3600) < p[again], 5, groups=again)
    for b, c in zip(strangers, naive, strict=True):
        assert b.band_high - b.band_low < 1.35 * (c.band_high - c.band_low)


@pytest.mark.parametrize("like", [0.3, 0.9])
def test_a_band_holds_the_truth_as_often_as_it_says(like: float) -> None:
    held = total = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        record = np.repeat(np.arange(60), rng.poisson(7, 60) + 1)
        chance, fate = rng.uniform(0.05, 0.7, 60)[record], rng.random(60)[record]
        same = rng.random(len(record)) < np.sqrt(like)
        y = np.where(same, fate, rng.random(len(record))) < chance
        table = m.reliability_table(chance, y, 4, groups=record)
        held += sum(b.band_low <= b.predicted <= b.band_high for b in table)
        total += len(table)
    assert 0.86 < held / total < 0.98  # 90 % ranges; without records they hold 35 to 60 %


def test_a_band_that_nothing_happened_in_is_wide_with_few_records() -> None:
    (many,) = m.reliability_table(np.full(200, 0.1), np.zeros(200), 1)
    (few,) = m.reliability_table(np.full(200, 0.1), np.zeros(200), 1, groups=np.arange(200) // 50)
    assert (few.band_low, few.records) == (0.0, 4) and few.band_high > 0.2 > 0.02 > many.band_high


def test_limits_between_bins_can_be_given() -> None:
    p = np.array([0.05, 0.1, 0.29, 0.3, 0.8])
    table = m.reliability_table(p, np.zeros(5), edges=(0.1, 0.3, 0.6))
    assert [(b.low, b.high, b.n) for b in table] == [(0.05, 0.05, 1), (0.1, 0.29, 2), (0.3, 0.3, 1),
                                                     (0.8, 0.8, 1)]  # fmt: skip
    with pytest.raises(m.MeasureError, match=r"groups has shape \(2,\), y \(5,\)"):
        m.reliability_table(p, np.zeros(5), groups=[1, 2])


@pytest.mark.parametrize(
    ("p", "y", "says"),
    [
        ([0.5, 1.5], [0, 1], "p holds 1.5"),
        ([0.5, np.nan], [0, 1], "p holds nan"),
        ([0.5, 0.5], [0, 2], r"y holds 2.0; give outcomes 0 or 1"),
        ([0.5], [0, 1], r"p has shape \(1,\), y \(2,\)"),
        ([], [], "at least one row"),
    ],
)
def test_refusals_name_what_was_seen(p: list[float], y: list[float], says: str) -> None:
    with pytest.raises(m.MeasureError, match=says):
        m.log_loss(p, y)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(m.MeasureError, match="two when fair"):
        m.crps_sample([[1.0]], [1.0], fair=True)
    with pytest.raises(m.MeasureError, match="increasing levels"):
        m.crps_quantiles([[1.0, 2.0]], [1.0], [0.9, 0.1])
    with pytest.raises(m.MeasureError, match="at least two, increasing"):
        m.integrated_brier([[0.1]], [1.0], [1.0], [1])
    with pytest.raises(m.MeasureError, match=r"give \(rows, times\)"):
        m.brier_by_time([[0.1]], [1.0, 2.0], [1.0], [1])
    with pytest.raises(m.MeasureError, match="give one per row"):
        m.calibration_slope_intercept([0.1, 0.2], [0, 1], groups=[1])
    with pytest.raises(m.MeasureError, match="predicted has shape"):
        m.wape([1.0], [1.0, 2.0])
