"""Shocks learnt from past weeks: what they find in played weeks, and what they draw."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from models.shocks import ShockModel

FloatArray = npt.NDArray[np.float64]

PRIOR = ShockModel.fit(np.zeros(0), np.zeros(0))


def played(
    seed: int, lasting: float, weekly: float, left: float, weeks: int = 26, size: float = 200.0
) -> tuple[FloatArray, FloatArray, float]:
    """Expected and won by week under a law, and the factor's lasting part after them."""
    rng = np.random.default_rng(seed)
    z = lasting * rng.standard_normal()
    expected = rng.uniform(0.5, 1.5, weeks) * size
    won = np.empty(weeks)
    for w in range(weeks):
        log = z - lasting**2 / 2 + weekly * rng.standard_normal() - weekly**2 / 2
        won[w] = rng.poisson(expected[w] * np.exp(log))
        z = left * z + lasting * np.sqrt(1 - left**2) * rng.standard_normal()
    return expected, won, z - lasting**2 / 2


def test_sizes_are_learnt_and_lean_on_what_is_usual() -> None:
    calm, rough = (
        [ShockModel.fit(*played(s, lasting, weekly, 0.9)[:2]).summary() for s in range(12)]
        for lasting, weekly in ((0.0, 0.0), (0.4, 0.3))
    )
    usual = PRIOR.summary()
    for part in ("lasting_sd", "weekly_sd"):
        low, high = (np.mean([f[part] for f in fits]) for fits in (calm, rough))
        assert low < 0.6 * usual[part] < usual[part] < 0.8 * high
    few = ShockModel.fit(*played(0, 0.0, 0.0, 0.9, weeks=26, size=0.3)[:2]).summary()
    assert few["lasting_sd"] == pytest.approx(usual["lasting_sd"], rel=0.15)


def test_the_level_now_is_found_and_fades() -> None:
    """Told by the weeks, the lasting part is known better than as its mean, and goes back to it."""
    found, true = [], []
    for seed in range(40):
        expected, won, now = played(seed, 0.3, 0.1, 0.95)
        model = ShockModel.fit(expected, won)
        level = np.log(model.level(200))
        assert abs(level[-1]) < 0.05 + 0.3 * abs(level[0])
        assert abs(np.log(model.level(1, age=400.0))[0]) < 0.05 + 0.3 * abs(level[0])
        found.append(level[0])
        true.append(now)
    assert np.corrcoef(found, true)[0, 1] > 0.85
    assert np.mean(np.subtract(found, true) ** 2) < 0.4 * np.var(true)


def test_nothing_known_is_a_level_of_one() -> None:
    np.testing.assert_allclose(PRIOR.level(30), 1.0, atol=2e-3)
    assert PRIOR.weight.sum() == pytest.approx(1.0)
    same = ShockModel.fit(np.zeros(26), np.zeros(26))
    np.testing.assert_array_equal(same.state, PRIOR.state)


@pytest.mark.parametrize("age", [0.0, 20.0])
def test_draws_have_mean_one_around_the_level_and_the_spread_of_the_law(age: float) -> None:
    model = ShockModel.fit(*played(3, 0.3, 0.2, 0.9)[:2])
    drawn = model.draw(60_000, 30, np.random.default_rng(0), age)
    np.testing.assert_allclose(np.exp(drawn).mean(0), 1.0, atol=0.015)
    far = drawn[:, -1].std()
    law = np.sqrt(model.weight @ (model.lasting**2 + model.weekly**2))
    assert far == pytest.approx(law, rel=0.1)
    assert drawn[:, 0].std() < far


def test_coming_weeks_are_told_with_the_chances_they_have() -> None:
    """Of wins in the four weeks after, 80 % ranges of the shared factor hold about 80 %."""
    held = []
    for seed in range(100):
        expected, won, _ = played(1000 + seed, 0.25, 0.15, 0.9, weeks=30, size=400.0)
        model = ShockModel.fit(expected[:26], won[:26])
        factor = np.exp(model.draw(2_000, 4, np.random.default_rng(seed))) * model.level(4)
        rng = np.random.default_rng(seed)
        total = rng.poisson(factor * expected[26:]).sum(1)
        low, high = np.quantile(total, [0.1, 0.9])
        held.append(low <= won[26:].sum() <= high)
    # With a true level of .80 within this in 99 % of tests.
    assert 0.69 <= np.mean(held) <= 0.90


def test_a_calm_law_draws_nothing() -> None:
    calm = ShockModel.known(0.0, 0.0)
    assert not calm.draw(10, 5, np.random.default_rng(0)).any()
    np.testing.assert_allclose(calm.level(5), 1.0)


def test_state_goes_round() -> None:
    model = ShockModel.fit(*played(1, 0.2, 0.1, 0.9)[:2])
    again = ShockModel.from_state(model.to_state())
    for name, value in model.to_state().items():
        np.testing.assert_array_equal(again.to_state()[name], value)
