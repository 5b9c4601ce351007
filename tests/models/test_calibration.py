"""Calibrators: they undo a known distortion, bend no further than the rows allow, keep ranks."""

import json
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from models.calibration import (
    CalibrationError,
    Calibrator,
    expit,
    fit_beta,
    fit_calibrator,
    fit_intercept,
    fit_isotonic,
    fit_platt,
    fit_recalibration,
    logit,
    newest_line,
)
from models.measures import log_loss

FloatArray = npt.NDArray[np.float64]
KINDS = [fit_intercept, fit_platt, fit_beta, fit_isotonic]


def rows(n: int, seed: int, distort: Callable[[FloatArray], FloatArray]) -> tuple[FloatArray, ...]:
    """(said, happened, true) for log-odds N(-1, 1.2) that a model distorts before saying them."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-1, 1.2, n)
    true = expit(z)
    return expit(distort(z)), (rng.random(n) < true).astype(float), true


def test_no_rows_change_nothing() -> None:
    same = fit_calibrator([], [])
    assert same == Calibrator()
    np.testing.assert_allclose(same.predict([0.1, 0.5]), [0.1, 0.5])


@pytest.mark.parametrize(
    ("n", "said", "share", "name"),
    [(99, 0.4, 0.5, "intercept"), (400, 0.1, 0.03, "intercept"), (400, 0.4, 0.3, "platt")],
)
def test_the_kind_follows_the_number_of_rows(n: int, said: float, share: float, name: str) -> None:
    y = (np.arange(n) < share * n).astype(float)
    p = np.full(n, said) + np.linspace(-0.05, 0.05, n)
    assert fit_calibrator(p, y).name == name


def test_few_rows_move_the_level_less_than_many() -> None:
    moved = [
        fit_calibrator(np.full(n, 0.5), np.arange(n) % 4 == 0).c / logit(0.25) for n in (8, 40, 96)
    ]
    assert 0.2 < moved[0] < 0.5 < moved[1] < 0.8 < moved[2] < 1.0


def test_one_class_alone_is_finite_and_one_sided() -> None:
    calibrator = fit_calibrator(np.full(30, 0.3), np.zeros(30))
    assert calibrator.name == "intercept" and -3 < calibrator.c < -0.5


def test_platt_undoes_a_line_and_shrinks_with_few_rows() -> None:
    said, happened, _ = rows(5000, 1, lambda z: 2 * z + 1)
    many, few = fit_platt(said, happened), fit_platt(said[:100], happened[:100])
    assert many.slope == pytest.approx(0.5, abs=0.05)
    assert many.c == pytest.approx(-0.5, abs=0.1)
    assert few.slope is not None and many.slope is not None and many.slope < few.slope < 1


def test_weights_count_as_repeated_rows() -> None:
    said, happened, _ = rows(300, 2, lambda z: 1.5 * z)
    weight = np.tile([1.0, 3.0], 150)
    again = np.repeat(np.arange(300), weight.astype(int))
    for fit in KINDS:
        weighted = fit(said, happened, weight).predict(said)
        np.testing.assert_allclose(weighted, fit(said[again], happened[again]).predict(said), 1e-4)


def test_a_line_is_kept_when_the_truth_is_a_line() -> None:
    said, happened, _ = rows(6000, 3, lambda z: 1.3 * z - 0.4)
    assert fit_calibrator(said, happened).name == "platt"


def test_a_curve_is_chosen_when_it_wins_later() -> None:
    # The model says the same for all good leads and exaggerates bad ones.
    said, happened, true = rows(9000, 4, lambda z: np.where(z > -1, 0.1 * z, 5 * (z + 1)))
    chosen = fit_calibrator(said, happened)
    assert chosen.name in ("beta", "isotonic")
    line = fit_platt(said, happened)
    assert (
        np.abs(chosen.predict(said) - true).mean() < 0.9 * np.abs(line.predict(said) - true).mean()
    )


def test_a_curve_that_held_only_in_the_past_is_refused() -> None:
    said, happened, _ = rows(9000, 4, lambda z: np.where(z > -1, 0.1 * z, 5 * (z + 1)))
    past, newest = slice(0, 6000), slice(6000, None)
    # In the newest third the line that fitted the past has become the truth.
    truth = fit_platt(said[past], happened[past]).predict(said[newest])
    happened[newest] = np.random.default_rng(5).random(3000) < truth
    assert fit_calibrator(said, happened).name == "platt"


@pytest.mark.parametrize("fit", KINDS)
def test_every_kind_is_monotone_and_never_certain(fit: Callable[..., Calibrator]) -> None:
    rng = np.random.default_rng(6)
    for n in (3, 50, 500):
        p = rng.random(n) ** 3
        calibrator = fit(p, (rng.random(n) < p**2).astype(float))
        answers = calibrator.predict(np.concatenate([[0.0], np.sort(rng.random(999)), [1.0]]))
        assert np.all(np.diff(answers) >= 0)
        assert answers[0] > 0 and answers[-1] < 1
        assert np.isnan(calibrator.predict([np.nan])[0])


def test_predictions_that_say_the_reverse_are_flattened_not_turned() -> None:
    said, happened, _ = rows(4000, 7, lambda z: -z)
    for calibrator in (fit_platt(said, happened), fit_beta(said, happened)):
        flat = calibrator.predict([0.1, 0.9])
        assert 0 < flat[1] - flat[0] < 0.05
        assert flat.mean() == pytest.approx(happened.mean(), abs=0.03)


@pytest.mark.parametrize("fit", KINDS)
def test_calibrating_lowers_the_log_loss_of_a_distorted_model(
    fit: Callable[..., Calibrator],
) -> None:
    said, happened, _ = rows(3000, 8, lambda z: z * 1.6 + 1.5)
    later_said, later, _ = rows(3000, 9, lambda z: z * 1.6 + 1.5)
    calibrator = fit(said, happened)
    assert log_loss(calibrator.predict(later_said), later) < log_loss(later_said, later) - 0.05


@pytest.mark.parametrize("fit", [*KINDS, fit_calibrator])
def test_state_is_json_and_one_row_equals_a_batch(fit: Callable[..., Calibrator]) -> None:
    said, happened, _ = rows(400, 10, lambda z: 1.4 * z)
    calibrator = fit(said, happened)
    again = Calibrator.from_state(json.loads(json.dumps(calibrator.to_state())))
    assert again == calibrator
    batch = calibrator.predict(said)
    assert b"".join(again.predict(said[i : i + 1]).tobytes() for i in range(400)) == (
        batch.tobytes()
    )
    np.testing.assert_array_equal(calibrator.predict(said.reshape(20, 20)).ravel(), batch)


@pytest.mark.parametrize(
    ("p", "y", "w", "says"),
    [
        ([0.5], [0, 1], None, r"p has shape \(1,\)"),
        ([0.5, 1.2], [0, 1], None, "outside"),
        ([0.5, np.nan], [0, 1], None, "outside"),
        ([0.5, 0.2], [0, 0.5], None, "other than 0 and 1"),
        ([0.5, 0.2], [0, 1], [1.0, -1.0], "negative"),
    ],
)
def test_refusals_say_what_is_allowed(
    p: list[float], y: list[float], w: list[float] | None, says: str
) -> None:
    with pytest.raises(CalibrationError, match=says):
        fit_calibrator(p, y, w)


def test_the_mean_slope_between_two_log_odds_leads_from_one_to_the_other() -> None:
    z = np.array([-4.0, -1.0, 0.2999999, 0.3, 0.3000001, 5.0])
    bent = (
        Calibrator("beta", a=0.5, b=1.5, c=0.1),
        Calibrator("isotonic", knots=((-1.0, -2.0), (0.0, 0.5), (1.0, 0.6))),
    )
    for calibrator in (*bent, Calibrator("platt", a=0.7, b=0.7, c=-0.2)):
        slope = calibrator.mean_slope(0.3, z)
        led = calibrator.log_odds(0.3) + slope * (z - 0.3)
        np.testing.assert_allclose(led, calibrator.log_odds(z), rtol=0, atol=1e-6)
        far = np.abs(z - 0.3) > 0.1
        np.testing.assert_allclose(led[far], calibrator.log_odds(z)[far], rtol=0, atol=1e-12)
        assert (slope > 0).all() and np.ptp(slope[2:5]) < 1e-6


# --- recalibration that has to earn its place -------------------------------------------------


def outcomes(rate: FloatArray, seed: int = 0) -> FloatArray:
    return (np.random.default_rng(seed).random(len(rate)) < rate).astype(float)


def test_a_lasting_error_of_the_level_is_corrected() -> None:
    p = np.full(2000, 0.1)
    found = fit_recalibration(p, outcomes(np.full(2000, 0.25)))
    assert found.name == "platt"
    assert found.predict([0.1])[0] == pytest.approx(0.25, abs=0.03)


def test_bursts_that_are_over_before_they_are_known_are_not_chased() -> None:
    """Each burst of 250 rows is followed by as many quiet ones: correcting comes too late."""
    rate = np.where(np.arange(4000) // 250 % 2 == 0, 0.3, 0.1)
    y, p = outcomes(rate), np.full(4000, 0.2)
    assert fit_recalibration(p, y) == Calibrator()
    assert fit_recalibration(p[:99], y[:99]) == Calibrator()
    assert fit_recalibration([], []) == Calibrator()


def test_the_replay_knows_only_outcomes_that_had_time_to_be_known() -> None:
    """The level moved 300 rows ago: seen at once it is worth correcting, seen late it is not."""
    rate = np.where(np.arange(2300) < 2000, 0.1, 0.6)
    y, p = outcomes(rate), np.full(2300, 0.1)
    days = np.arange(2300) / 10
    assert fit_recalibration(p, y, at=days).name == "platt"
    assert fit_recalibration(p, y, at=days, wait=200.0) == Calibrator()


def test_late_labels_move_the_level_half_way() -> None:
    p, y = np.full(2000, 0.1), outcomes(np.full(2000, 0.3))
    half, whole = newest_line(p, y, late=True), fit_intercept(p, y)
    assert half.slope == 1.0 and half.c == pytest.approx(whole.c / 2)
    assert fit_recalibration(p, y, late=True) == half
    older = np.concatenate([np.ones(5000), y])
    assert newest_line(np.full(7000, 0.1), older, late=True) == half
