"""The chain of stages: what it believes, what it learns from stays, and what it makes of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from models.stage_chain import AGES, Exits, StageChain, StagePrior

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LADDER = StagePrior(
    ("new", "talk", "offer"), np.array([0.2, 0.4, 0.8]), np.zeros(3, np.int64), np.array([1, 2, -1])
)
WON, LOST = 4, 5


def played(n: int, seed: int, lose: tuple[float, ...], until: float = np.inf) -> Exits:
    """Deals that begin in the first stage on days 0 to 100, leave one every ten days on average.

    They go on, or are lost with the chance of their stage; watched until a day.
    """
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, float, int]] = []
    for _ in range(n):
        day = float(rng.uniform(0, 100))
        for place, chance in enumerate(lose):
            if day >= until:
                break
            stay = float(rng.exponential(10.0))
            lost, last = rng.random() < chance, place == len(lose) - 1
            goes = LOST if lost else WON if last else place + 1
            left = day + stay < until
            rows.append((place, min(stay, until - day), goes if left else -1))
            day += stay
            if lost or not left:
                break
    stage, days, to = zip(*rows, strict=True)
    return Exits(np.array(stage), np.zeros(len(rows)), np.array(days), np.array(to))


def test_nothing_seen_leaves_what_is_believed() -> None:
    win = StageChain.fit(LADDER, Exits.none()).win()
    np.testing.assert_allclose(win[:, 0], [0.2, 0.4, 0.8, 0.3], rtol=0.03)
    np.testing.assert_allclose(win, np.repeat(win[:, :1], len(AGES), axis=1))


def test_a_stage_believed_worse_than_the_one_before_wins_straight() -> None:
    prior = StagePrior(("a", "b"), np.array([0.6, 0.3]), np.zeros(2, np.int64), np.array([1, -1]))
    chain = StageChain.fit(prior, Exits.none())
    np.testing.assert_allclose(chain.win()[:2, 0], [0.6, 0.3], rtol=0.03)
    assert chain.rates[0, -2] > 0


def test_many_stays_recover_the_truth() -> None:
    chain = StageChain.fit(LADDER, played(6000, 1, (0.1, 0.3, 0.5)))
    np.testing.assert_allclose(chain.win()[:3, 0], [0.315, 0.35, 0.5], rtol=0.06)
    np.testing.assert_allclose(chain.rates[:3].sum(1), 0.1, rtol=0.05)
    np.testing.assert_allclose(chain.ageing[:5], 1.0, atol=0.1)


def test_a_young_company_is_not_taken_for_one_that_loses_everything() -> None:
    """All deals are won in truth that are not lost in their first stage: one in two."""
    truth = (0.5, 0.0, 0.0)
    exits = played(400, 2, truth, until=20.0)
    closed = exits.to[exits.to >= WON]
    assert (closed == WON).mean() < 0.1
    for seed in range(5):
        win = StageChain.fit(LADDER, played(400, seed, truth, until=20.0)).win()[:3, 0]
        assert 0.25 < win[0] < 0.6 and win[1] > 0.5 and win[2] > 0.7


def test_a_stage_far_from_belief_does_not_speak_for_the_others() -> None:
    n = 2000
    rng = np.random.default_rng(0)
    to = np.where(rng.random(n) < 0.9, LOST, 1)
    exits = Exits(np.zeros(n, np.int64), np.zeros(n), rng.exponential(10.0, n), to)
    win = StageChain.fit(LADDER, exits).win()[:3, 0]
    assert win[0] < 0.06
    assert win[2] > 0.5  # nobody was seen at the offer, believed .8


@pytest.mark.parametrize(
    ("to", "low", "high"), [(1, 0.8, 0.9), (LOST, 0.4, 0.65), (WON, 0.5, 0.75)]
)
def test_closings_draw_believed_chances_together(to: int, low: float, high: float) -> None:
    """All leave the first stage: for the next one, lost or won. The offer is seen by nobody."""
    for n in (3, 50, 2000):
        exits = Exits(np.zeros(n, np.int64), np.zeros(n), np.full(n, 9.0), np.full(n, to))
        assert low < StageChain.fit(LADDER, exits).win()[2, 0] < high


def test_stages_lean_on_their_own_pipeline() -> None:
    two = StagePrior(
        ("a1", "a2", "b1", "b2"), np.array([0.3, 0.6] * 2), np.repeat([0, 1], 2),
        np.array([1, -1, 3, -1]),
    )  # fmt: skip
    stage, to = np.repeat([0, 2], 30), np.repeat([6, 3], 30)  # all lost here, none there
    exits = Exits(stage, np.zeros(60), np.full(60, 5.0), to)
    win = StageChain.fit(two, exits).win()[:, 0]
    assert win[0] < 0.12 and win[2] > 0.45
    assert win[1] < win[3]  # neither was seen: each is taken after its own pipeline


def test_old_stays_are_learnt_for_all_stages_together() -> None:
    """Nobody goes on after 16 days in a stage: losses alone remain."""
    rng = np.random.default_rng(0)
    n = 3000
    up, down = rng.exponential(8.0, n), rng.exponential(20.0, n)
    up[up > 16.0] = np.inf
    stay = np.minimum(up, down)
    stage = rng.integers(0, 2, n)
    exits = Exits(stage, np.zeros(n), stay, np.where(up < down, stage + 1, LOST))
    chain = StageChain.fit(LADDER, exits)
    assert chain.ageing[5, 0] < 0.1 < chain.ageing[3, 0]
    assert chain.win()[0, 5] < 0.2 * chain.win()[0, 0]
    # The offer was never seen, and gets the same.
    assert chain.win()[2, 5] < 0.5 * chain.win()[2, 0]


def test_incidences_rise_to_the_chance_to_win() -> None:
    chain = StageChain.fit(LADDER, played(300, 3, (0.1, 0.3, 0.5)))
    days = np.array([1.0, 5.0, 30.0, 200.0, 5000.0])
    curve = chain.incidence(days)
    assert curve.shape == (4, len(AGES), 5, 2)
    assert (np.diff(curve, axis=2) >= -1e-12).all() and curve.sum(3).max() <= 1 + 1e-9
    np.testing.assert_allclose(curve[:, :, -1, 0], chain.win(), atol=1e-6)
    fresh = np.zeros(10, np.int64)
    (closed,) = chain.incidence(np.array([chain.longest(fresh)]))[0, 0].sum(1)
    assert 0.985 < closed < 0.996
    nobody = StageChain.fit(StagePrior.of({}), Exits.none()).longest(np.zeros(0, np.int64))
    assert 150 < nobody < 180  # 99 % at 3 % a day


def test_hazards_are_those_of_the_incidence() -> None:
    chain = StageChain.fit(LADDER, played(300, 3, (0.1, 0.3, 0.5)))
    edges = np.array([0.0, 1.0, 2.0, 4.0, 8.0])
    hazards, curve = chain.hazards(edges), chain.incidence(edges[1:])
    still = np.ones(curve.shape[:2])
    for k in range(4):
        before = curve[:, :, k - 1] if k else np.zeros_like(curve[:, :, 0])
        np.testing.assert_allclose(hazards[:, :, k] * still[..., None], curve[:, :, k] - before)
        still = 1.0 - curve[:, :, k].sum(2)


@pytest.mark.parametrize(("to", "won"), [(1, True), (2, False)])
def test_deals_without_any_stage(to: int, won: bool) -> None:
    n = 50
    exits = Exits(np.zeros(n, np.int64), np.zeros(n), np.full(n, 10.0), np.full(n, to))
    chain = StageChain.fit(StagePrior.of({}), exits)
    assert chain.win().shape == (1, len(AGES))
    assert chain.win()[0, 0] == pytest.approx(float(won), abs=0.1)
