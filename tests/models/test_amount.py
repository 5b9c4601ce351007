"""Final amounts: quantiles in order, few deals near unchanged, missing amounts from finals."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from models import bundle
from models.amount import AmountModel

FloatArray = npt.NDArray[np.float64]
Stages = tuple[npt.NDArray[np.int32], npt.NDArray[np.object_]]
LEVELS = np.array(["new", "offer"], dtype=object)


def won_deals(n: int, seed: int) -> tuple[Stages, FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """Two landmarks a deal: new deals lose a fifth of their amount, at the offer none."""
    rng = np.random.default_rng(seed)
    stage = np.tile(np.array([0, 1], dtype=np.int32), n)
    final = np.repeat(rng.lognormal(8, 1, n), 2)
    ratio = np.where(stage == 0, 0.8, 1.0) * rng.lognormal(0, 0.1, 2 * n)
    return (stage, LEVELS), final / ratio, final, np.repeat(np.arange(n), 2)


def fitted(n: int, seed: int = 1) -> AmountModel:
    return AmountModel.fit(*won_deals(n, seed))


def at(codes: list[int]) -> Stages:
    return np.array(codes, dtype=np.int32), LEVELS


def test_quantiles_rise_with_the_level() -> None:
    levels = np.linspace(0, 1, 300)
    for n in (1, 7, 400):
        for code in (0, 1, -1):
            for current in (500.0, np.nan):
                amounts = fitted(n).final(at([code] * 300), np.full(300, current), levels)
                assert (np.diff(amounts) >= 0).all() and (amounts > 0).all()


def test_many_deals_teach_each_stage_its_ratio() -> None:
    model = fitted(4000)
    half = np.full(2, 0.5)
    np.testing.assert_allclose(
        model.final(at([0, 1]), np.array([100.0, 100.0]), half), [80.0, 100.0], rtol=0.02
    )
    draws = model.final(
        at([0] * 20_000), np.full(20_000, 100.0), np.random.default_rng(0).random(20_000)
    )
    np.testing.assert_allclose(draws.mean(), 80 * np.exp(0.005), rtol=0.02)


def test_no_won_deal_means_no_change() -> None:
    nothing = np.zeros(0)
    model = AmountModel.fit(at([]), nothing, nothing, np.zeros(0, dtype=np.int64))
    amounts = model.final(at([0, 1, -1]), np.array([10.0, 20.0, 30.0]), np.array([0.1, 0.5, 0.9]))
    np.testing.assert_array_equal(amounts, [10, 20, 30])
    assert model.won == 0
    assert model.final(at([0]), np.array([np.nan]), np.array([0.5])).tolist() == [0.0]


def test_one_deal_that_closed_at_a_tenth_does_not_rule() -> None:
    model = AmountModel.fit(
        at([0]), np.array([1000.0]), np.array([100.0]), np.zeros(1, dtype=np.int64)
    )
    assert model.final(at([0]), np.array([1000.0]), np.array([0.5]))[0] > 500.0


def test_missing_amounts_are_drawn_from_final_ones() -> None:
    model = fitted(500)
    _, _, final, _ = won_deals(500, 1)
    level = np.random.default_rng(0).random(20_000)
    draws = model.final(at([0] * 20_000), np.full(20_000, np.nan), level)
    np.testing.assert_allclose(
        np.quantile(draws, [0.1, 0.5, 0.9]), np.quantile(final[::2], [0.1, 0.5, 0.9]), rtol=0.05
    )


def test_landmarks_without_amounts_teach_nothing_but_their_final() -> None:
    codes, levels = at([0, 0, 1])
    current, final = np.array([np.nan, 0.0, 100.0]), np.array([50.0, 60.0, np.nan])
    model = AmountModel.fit((codes, levels), current, final, np.arange(3))
    assert model.won == 2 and model.stages == ()
    np.testing.assert_array_equal(model.log_ratio, 0.0)
    assert model.final(at([0]), np.array([np.nan]), np.array([1.0]))[0] == pytest.approx(60.0)


def test_many_landmarks_of_one_deal_are_one_deal() -> None:
    few, copies = (
        AmountModel.fit(
            at([0] * k), np.full(k, 100.0), np.full(k, 50.0), np.zeros(k, dtype=np.int64)
        )
        for k in (1, 50)
    )
    np.testing.assert_allclose(copies.log_ratio, few.log_ratio)


def test_a_model_comes_back_from_disk(tmp_path: Path) -> None:
    model = fitted(50)
    bundle.save(tmp_path / "amount", model.to_state())
    again = AmountModel.from_state(bundle.load(tmp_path / "amount"))
    level = np.linspace(0, 1, 50)
    for current in (700.0, np.nan):
        codes = at([0, 1, -1, 0, 1] * 10)
        one, two = (m.final(codes, np.full(50, current), level) for m in (model, again))
        assert one.tobytes() == two.tobytes()
