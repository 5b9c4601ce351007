"""The lead model: every tier learns, nothing jumps, reasons add up, bits stay the same."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models import bundle, lead
from models.calibration import Calibrator, expit, logit
from models.encoding import Columns
from models.lead import UNEXPLAINED, LeadError, LeadModel, tier_weights
from models.measures import auc, calibration_slope_intercept, log_loss

FloatArray = npt.NDArray[np.float64]
_SOURCES = np.array(["web", "fair", "referral", "cold"], dtype=object)
_EFFECT = np.array([0.0, -0.8, 1.2, -1.5])


def leads(n: int, seed: int, level: float = -1.5) -> tuple[Columns, FloatArray, FloatArray]:
    """Columns, outcomes and true probabilities; six inputs of which two say nothing."""
    rng = np.random.default_rng(seed)
    source = rng.integers(0, 4, n).astype(np.int32)
    size, visits = rng.normal(3, 1, n), rng.poisson(2, n).astype(float)
    z = level + _EFFECT[source] + 0.6 * (size - 3) + 0.4 * np.minimum(visits - 2, 3)
    size[rng.random(n) < 0.1] = np.nan
    source[rng.random(n) < 0.05] = -1
    owner = np.array([f"o{i}" for i in range(9)], dtype=object)
    columns: Columns = {
        "source": (source, _SOURCES),
        "size": size,
        "visits": visits,
        "free_mail": (rng.random(n) < 0.5).astype(float),
        "owner": (rng.integers(0, 9, n).astype(np.int32), owner),
        "constant": np.ones(n),
    }
    p = expit(z)
    return columns, (rng.random(n) < p).astype(float), p


def rows(columns: Columns, at: Any) -> Columns:
    return {k: (c[0][at], c[1]) if isinstance(c, tuple) else c[at] for k, c in columns.items()}


def fitted(n: int, seed: int = 0, **options: Any) -> LeadModel:
    columns, y, _ = leads(n, seed)
    return LeadModel.fit(columns, y, order_time=np.arange(n, dtype=float), **options)


# One size per arm, and one inside a hand-over.
SIZES = {60: "rates", 120: "rates + small logistic", 220: "small logistic", 900: "logistic"}
BLENDED = {2500: "logistic + trees"}


@pytest.fixture(scope="module")
def models() -> dict[int, LeadModel]:
    return {n: fitted(n) for n in (SIZES | BLENDED)}


def test_weights_sum_to_one_and_never_jump() -> None:
    grid = np.exp(np.linspace(np.log(1), np.log(5000), 4000))
    weights = np.array([tier_weights(n) for n in grid])
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    assert weights.min() >= 0
    assert np.abs(np.diff(weights, axis=0)).max() < 0.005
    assert tier_weights(0) == (1.0, 0.0, 0.0, 0.0)
    assert tier_weights(30) == pytest.approx((0.5, 0.5, 0, 0))
    assert tier_weights(100) == pytest.approx((0, 0.5, 0.5, 0))
    assert tier_weights(500) == pytest.approx((0, 0, 0.75, 0.25))
    assert tier_weights(1e9) == (0.0, 0.0, 0.5, 0.5)


def largest_step(boundary: float) -> float:
    """Root mean square change of the log-odds of later leads, as outcomes grow by 4 % a step."""
    columns, y, _ = leads(4500, 21)
    later, _, _ = leads(1000, 22)
    wanted = np.unique(np.round(boundary * 1.04 ** np.arange(-3, 4)))
    sizes = np.searchsorted(np.cumsum(y), wanted) + 1
    said = [
        LeadModel.fit(rows(columns, slice(0, n)), y[:n], order_time=np.zeros(n)).log_odds(later)
        for n in sizes.tolist()
    ]
    return max(float(np.sqrt(np.mean((b - a) ** 2))) for a, b in pairwise(said))


@pytest.mark.parametrize("boundary", [30.0, 100.0, 500.0])
def test_scores_do_not_jump_where_one_arm_hands_over_to_the_next(
    boundary: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert largest_step(boundary) < 0.2

    def switched(minority: float) -> tuple[float, float, float, float]:
        if minority >= 500:
            return 0.0, 0.0, 0.5, 0.5
        return float(minority < 30), float(30 <= minority < 100), float(minority >= 100), 0.0

    monkeypatch.setattr(lead, "tier_weights", switched)
    assert largest_step(boundary) > 0.2


def test_a_column_helps_the_rates_more_and_more_as_its_evidence_grows() -> None:
    """One more lead never turns a column on at full strength."""
    levels = np.array(["web", "fair"], dtype=object)
    said = []
    for n in range(4, 60):
        codes = (np.arange(n) % 2).astype(np.int32)
        y = (np.arange(n) % 4 == 1).astype(float)  # half of the fairs, none of the webs
        known: Columns = {"source": (codes, levels)}
        model = LeadModel.fit(known, y, order_time=np.zeros(n), min_count=1)
        said.append(model.log_odds({"source": (np.array([0, 1], dtype=np.int32), levels)}))
    apart = np.diff(np.array(said), axis=1)[:, 0]
    assert apart[0] < 0.3 < 1.0 < apart[-1]
    assert np.abs(np.diff(apart)).max() < 0.2


def test_weighted_outcomes_count_as_the_equal_ones_that_know_as_much() -> None:
    columns, y, _ = leads(2000, 1)
    days = np.arange(2000, dtype=float)
    weight = np.exp2((days - 1999) / 300)[y == 1]
    model = LeadModel.fit(columns, y, order_time=days, half_life=300)
    kish = weight.sum() ** 2 / (weight**2).sum()
    assert [w for _, w, _ in model.arms] == pytest.approx([w for w in tier_weights(kish) if w > 0])


def test_the_method_follows_the_outcomes_and_is_told(models: dict[int, LeadModel]) -> None:
    for n, method in (SIZES | BLENDED).items():
        evidence = models[n].evidence
        _, y, _ = leads(n, 0)
        assert evidence.method == method
        assert (evidence.examples, evidence.minority) == (n, y.sum())
        assert evidence.prior_share == pytest.approx(1 / (n + 1))


def test_each_tier_beats_the_base_rate_on_later_leads(models: dict[int, LeadModel]) -> None:
    columns, y, p = leads(4000, 99)
    best = log_loss(p, y)
    base = log_loss(np.full(4000, y.mean()), y)
    left = {n: (log_loss(m.predict(columns), y) - best) / (base - best) for n, m in models.items()}
    assert all(share < 1 for share in left.values())
    assert left[900] < 0.3 and left[2500] < 0.2
    assert auc(models[2500].predict(columns), y) > auc(p, y) - 0.02


def test_probabilities_of_the_full_blend_are_calibrated(models: dict[int, LeadModel]) -> None:
    columns, y, _ = leads(8000, 98)
    line = calibration_slope_intercept(models[2500].predict(columns), y)
    assert line.slope == pytest.approx(1, abs=0.2)
    assert line.in_the_large == pytest.approx(0, abs=0.2)


def test_one_row_and_a_batch_give_the_same_bits(models: dict[int, LeadModel]) -> None:
    columns, _, _ = leads(97, 5)
    for model in models.values():
        batch, (base, parts, _) = model.predict(columns), model.contributions(columns)
        for i in range(97):
            one = rows(columns, slice(i, i + 1))
            assert model.predict(one).tobytes() == batch[i].tobytes()
            alone = model.contributions(one)
            assert alone[0] == base and alone[1].tobytes() == parts[i].tobytes()


def test_contributions_add_up_from_the_base_rate(models: dict[int, LeadModel]) -> None:
    columns, _, _ = leads(500, 6)
    for n, model in models.items():
        _, y, _ = leads(n, 0)
        said = LeadModel.calibrate(model, np.full(300, 0.4), np.arange(300) % 3 == 0)
        for each in (model, said):
            base, parts, names = each.contributions(columns)
            assert names == (*columns, UNEXPLAINED)
            np.testing.assert_allclose(
                base + parts.sum(axis=1), each.log_odds(columns), rtol=0, atol=1e-9
            )
            assert np.abs(parts[:, -1]).max() < 1e-9
            assert np.all(parts[:, names.index("constant")] == 0)
        assert model.contributions(columns)[0] == pytest.approx(logit(y.mean()), abs=0.05)


def test_contributions_add_up_after_a_calibrator_that_bends(models: dict[int, LeadModel]) -> None:
    columns, _, _ = leads(200, 6)
    for model in models.values():
        bent = replace(model, calibrator=Calibrator("beta", a=0.6, b=1.4, c=0.2))
        base, parts, _ = bent.contributions(columns)
        np.testing.assert_allclose(base + parts.sum(1), bent.log_odds(columns), rtol=0, atol=1e-9)
        assert np.abs(parts[:, -1]).max() < 1e-9
        straight = model.contributions(columns)[1]
        told = np.abs(straight[:, :-1]) > 1e-6  # a monotone map turns no sign
        assert (np.sign(parts[:, :-1])[told] == np.sign(straight[:, :-1])[told]).all()


def test_what_matters_contributes_most_and_in_the_right_direction(
    models: dict[int, LeadModel],
) -> None:
    columns, _, _ = leads(2000, 7)
    _, parts, names = models[2500].contributions(columns)
    size = dict(zip(names, np.abs(parts).mean(axis=0), strict=True))
    assert min(size["source"], size["size"], size["visits"]) > 3 * size["free_mail"]
    source = columns["source"][0]
    by_source = [parts[source == k, 0].mean() for k in range(4)]
    assert np.argsort(by_source).tolist() == np.argsort(_EFFECT).tolist()


def test_none_nan_and_an_absent_column_score_the_same(models: dict[int, LeadModel]) -> None:
    visits = np.array([2.0])
    absent: Columns = {"visits": visits}
    none: Any = {"visits": visits, "source": None, "size": np.array([None], dtype=object)}
    nan: Columns = {
        "visits": visits,
        "source": (np.array([-1], dtype=np.int32), _SOURCES),
        "size": np.array([np.nan]),
    }
    for model in models.values():
        said = {model.predict(c).tobytes() for c in (absent, none, nan)}
        assert len(said) == 1


def test_the_prior_speaks_first_and_gives_way() -> None:
    empty: Columns = {}
    start = LeadModel.fit(empty, [], order_time=[], prior=(0.1, 20))
    row: Columns = {"visits": np.array([3.0])}
    assert start.predict(row) == pytest.approx([0.1])
    assert start.evidence.prior_share == 1.0 and start.contributions(row)[2] == (UNEXPLAINED,)
    said = []
    for n in (5, 40, 400):
        columns: Columns = {"visits": np.full(n, 3.0)}
        model = LeadModel.fit(columns, np.ones(n), order_time=np.zeros(n), prior=(0.1, 20))
        assert model.evidence.prior_share == pytest.approx(20 / (20 + n))
        said.append(float(model.predict(row)[0]))
    np.testing.assert_allclose(said, [(2 + n) / (20 + n) for n in (5, 40, 400)])


def test_rates_shrink_a_level_seen_a_few_times() -> None:
    codes = np.repeat([0, 1], [60, 12]).astype(np.int32)
    levels = np.array(["web", "fair"], dtype=object)
    y = np.concatenate([np.arange(60) % 15 == 0, np.arange(12) % 2 == 0]).astype(float)
    model = LeadModel.fit({"source": (codes, levels)}, y, order_time=np.zeros(72))
    web, fair = model.predict({"source": (np.array([0, 1], dtype=np.int32), levels)})
    assert model.evidence.method == "rates"
    assert y[:60].mean() < web < y.mean() < fair < y[60:].mean()


def test_noise_alone_moves_the_rates_hardly_at_all() -> None:
    moved = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        columns: Columns = {f"x{j}": rng.normal(size=100) for j in range(20)}
        y = (rng.random(100) < 0.15).astype(float)
        p = LeadModel.fit(columns, y, order_time=np.zeros(100)).predict(columns)
        moved.append(np.abs(p - y.mean()).mean())
    assert np.mean(moved) < 0.05


def test_recent_rows_weigh_more_with_a_half_life() -> None:
    n = 400
    y = np.concatenate([np.arange(200) % 10 == 0, np.arange(200) % 2 == 0]).astype(float)
    columns: Columns = {"x": np.tile([0.0, 1.0], 200)}
    days = np.arange(n, dtype=float)
    even = LeadModel.fit(columns, y, order_time=days).predict(columns).mean()
    recent = LeadModel.fit(columns, y, order_time=days, half_life=40).predict(columns).mean()
    assert even == pytest.approx(0.3, abs=0.03) and recent == pytest.approx(0.49, abs=0.03)


def test_rows_of_one_group_count_as_one_outcome() -> None:
    columns, y, _ = leads(50, 1)
    again = np.repeat(np.arange(50), 40)
    many = rows(columns, again)
    grouped = LeadModel.fit(many, y[again], order_time=np.zeros(2000), groups=again).evidence
    alone = LeadModel.fit(many, y[again], order_time=np.zeros(2000)).evidence
    assert (grouped.method, grouped.minority) == ("rates", y.sum())
    assert (alone.method, alone.minority) == ("logistic", 40 * y.sum())


def test_calibrate_corrects_the_level_and_slope_of_later_rows(
    models: dict[int, LeadModel],
) -> None:
    model = models[2500]
    lately, happened, _ = leads(2500, 8, level=0.0)
    later, y, _ = leads(4000, 9, level=0.0)
    fresh = model.calibrate(model.predict(lately), happened)
    late = model.calibrate(model.predict(lately), happened, late=True)
    losses = [log_loss(m.predict(later), y) for m in (fresh, late, model)]
    assert losses == sorted(losses) and losses[2] - losses[0] > 0.1
    assert fresh.calibrator.examples == 2000 and late.calibrator.slope == 1.0
    assert fresh.predict(later, calibrated=False).tobytes() == model.predict(later).tobytes()


def test_recalibration_is_done_only_where_it_would_have_helped_lately(
    models: dict[int, LeadModel],
) -> None:
    model = models[2500]
    moved, happened, _ = leads(1500, 8, level=0.0)
    same, as_before, _ = leads(1500, 8)
    done = model.recalibrate(model.predict(moved), happened)
    assert done.calibrator == model.calibrate(model.predict(moved), happened).calibrator
    assert model.recalibrate(model.predict(same), as_before).calibrator.name == "none"
    late = model.recalibrate(model.predict(moved), happened, late=True).calibrator
    assert late.slope == 1.0 and 0 < late.c < done.predict(moved).mean() * 2


def test_a_saved_model_answers_with_the_same_bits(
    models: dict[int, LeadModel], tmp_path: Path
) -> None:
    columns, y, _ = leads(200, 10)
    for n, model in models.items():
        said = model.calibrate(model.predict(columns), y)
        bundle.save(tmp_path / str(n), said.to_state())
        again = LeadModel.from_state(bundle.load(tmp_path / str(n)))
        assert again.evidence == said.evidence
        assert again.predict(columns).tobytes() == said.predict(columns).tobytes()
        assert again.contributions(columns)[1].tobytes() == said.contributions(columns)[1].tobytes()


def test_fitting_again_gives_the_same_model(models: dict[int, LeadModel]) -> None:
    columns, _, _ = leads(300, 11)
    again = fitted(2500, num_threads=2)
    assert again.predict(columns).tobytes() == models[2500].predict(columns).tobytes()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"y": np.zeros(3)}, r"2 rows of columns, y of shape \(3,\)"),
        ({"y": np.array([0.0, np.nan])}, "leave immature rows out"),
        ({"order_time": np.array([0.0, np.nan])}, "give every row its time"),
        ({"prior": (1.0, 20)}, "rate between 0 and 1"),
        ({"half_life": 0.0}, "half_life is 0.0"),
        ({"columns": {}, "y": np.empty(0), "order_time": np.empty(0)}, "0 rows and no prior"),
    ],
)
def test_refusals_say_what_was_seen(change: dict[str, Any], says: str) -> None:
    good: dict[str, Any] = {
        "columns": {"x": np.zeros(2)},
        "y": np.zeros(2),
        "order_time": np.zeros(2),
    }
    with pytest.raises(LeadError, match=says):
        LeadModel.fit(**{**good, **change})
