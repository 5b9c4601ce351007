"""The Aalen-Johansen table: what it counts, how it shrinks, how curves are chained and read."""

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.grid import Cells, HazardGrid
from models.hazard_table import HazardTable, incidence, interval_labels, read_curve
from models.stage_chain import Exits, StageChain, StagePrior

FloatArray = npt.NDArray[np.float64]
GRID = HazardGrid.for_durations(20.0, 40.0)
EDGES = np.array(GRID.edges)
JANUARY = 19_738.0  # 2024-01-16, so that the month ends inside the grid


def plain_cells(edges: FloatArray, n: int) -> Cells:
    """The steps themselves as intervals, without cuts."""
    shape = (n, len(edges) - 1)
    return Cells(
        np.broadcast_to(edges[:-1], shape),
        np.broadcast_to(edges[1:], shape),
        np.broadcast_to(np.arange(shape[1]), shape),
        {},
    )


def stages(*names: str) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.object_]]:
    levels = np.array(sorted(set(names)), dtype=object)
    return np.array([list(levels).index(n) for n in names], dtype=np.int32), levels


def constant_world(
    n: int, seed: int, won: float, lost: float, censor: float
) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Times and outcomes under constant chances a day, last seen after up to `censor` days."""
    rng = np.random.default_rng(seed)
    rate = -np.log1p(-(won + lost))
    time = rng.exponential(1 / rate, n)
    outcome = np.where(rng.random(n) < won / (won + lost), 1, 2)
    seen = rng.uniform(0, censor, n)
    return np.minimum(time, seen), np.where(time <= seen, outcome, 0)


@example(np.array([[[0.80548448, 0.4353452], [1.0, 0.0]] + [[0.0, 0.0]] * 5] * 3))
@given(arrays(np.float64, (3, 7, 2), elements=st.floats(0, 1)))
def test_incidences_rise_and_sum_to_at_most_one(raw: FloatArray) -> None:
    hazards = raw / np.maximum(raw.sum(axis=2, keepdims=True), 1.0)
    curve = incidence(hazards)
    assert (np.diff(curve, axis=1) >= 0).all() and (curve >= 0).all()
    assert curve.sum(axis=2).max() <= 1 + 1e-12
    for i in range(3):
        still, total = 1.0, np.zeros(2)
        for k in range(7):
            total = total + still * hazards[i, k]
            still *= 1 - hazards[i, k].sum()
            np.testing.assert_allclose(curve[i, k], total, atol=1e-12)


def test_labels_by_case() -> None:
    begin = np.array([[0.0, 1.0, 2.0, 2.0, 4.0]])
    end = np.array([[1.0, 2.0, 2.0, 4.0, 8.0]])
    cells = Cells(begin, end, np.array([[0, 1, 1, 2, 3]]), {}).take(np.zeros(6, dtype=np.int64))
    time = np.array([0.5, 1.0, 3.0, 3.0, 2.0, 99.0])
    outcome = np.array([1, 2, 0, 1, 0, 1])
    share, label = interval_labels(cells, time, outcome)
    cases: list[list[float]] = [
        [1, 0, 0, 0, 0],  # closed inside: the whole interval counts
        [1, 1, 0, 0, 0],  # closed at an edge: in the interval that begins there
        [1, 1, 0, 0.5, 0],  # last seen in the middle: the part until then
        [1, 1, 0, 1, 0],
        [1, 1, 0, 0, 0],  # last seen at an edge; an interval of no length never counts
        [1, 1, 0, 1, 1],  # closed after the grid: open throughout
    ]
    np.testing.assert_allclose(share, cases)
    expected = np.zeros((6, 5), dtype=int)
    expected[0, 0], expected[1, 1], expected[3, 3] = 1, 2, 1
    np.testing.assert_array_equal(label, expected)


@given(st.floats(0, 60), st.integers(0, 2), st.floats(19_000, 20_000))
def test_exposure_is_the_time_seen(time: float, outcome: int, local: float) -> None:
    cells = GRID.cells(np.array([local]))
    share, label = interval_labels(cells, np.array([time]), np.array([outcome]))
    length = cells.end - cells.begin
    inside = time < GRID.t_max
    assert (label > 0).sum() == (inside and outcome > 0)
    if outcome > 0 and inside:
        at = np.flatnonzero(label[0])[0]
        assert cells.begin[0, at] <= time < cells.end[0, at]
        np.testing.assert_allclose((share * length).sum(), cells.end[0, at])
    else:
        np.testing.assert_allclose((share * length).sum(), min(time, GRID.t_max), atol=1e-9)


def believing(**chance: float) -> StageChain:
    """A chain that has seen nothing."""
    return StageChain.fit(StagePrior.of(chance), Exits.none())


def fitted(n: int, seed: int = 0, cells: Any = None, **options: Any) -> HazardTable:
    """A table of two stages: `a` closes at 5 % a day, two in five won; `b` at 10 %, one in five."""
    parts = [constant_world(n, seed, 0.02, 0.03, 60.0), constant_world(n, seed + 1, 0.02, 0.08, 60)]
    time, outcome = (np.concatenate(p) for p in zip(*parts, strict=True))
    where = plain_cells(EDGES, 2 * n) if cells is None else cells
    return HazardTable.fit(
        stages(*["a"] * n, *["b"] * n), np.zeros(2 * n), where, time, outcome, GRID.edges,
        **{"chain": believing(a=0.5, b=0.5), **options},
    )  # fmt: skip


def test_many_rows_recover_the_rates() -> None:
    table = fitted(20_000)
    for row, (won, lost) in enumerate([(0.02, 0.03), (0.02, 0.08)]):
        whole = 1 - (1 - won - lost) ** np.diff(EDGES)
        np.testing.assert_allclose(
            table.chance[row, 0, :10].sum(-1), whole[:10], rtol=0.12, err_msg=str(row)
        )
        split = table.chance[row, 0, :, 0].sum() / table.chance[row, 0].sum()
        np.testing.assert_allclose(split, won / (won + lost), rtol=0.06)


def test_no_rows_leave_the_prior() -> None:
    nothing, chain = np.zeros(0), believing(early=0.1, late=0.7)
    table = HazardTable.fit(
        (np.zeros(0, np.int32), np.zeros(0, object)), nothing, plain_cells(EDGES, 0), nothing,
        np.zeros(0, np.int64), GRID.edges, chain=chain,
    )  # fmt: skip
    where = stages("early", "late", "never heard of")
    curve = incidence(table.chances(where, np.zeros(3), plain_cells(EDGES, 3)))
    np.testing.assert_allclose(curve[:, -1, 0] / curve[:, -1].sum(1), [0.1, 0.7, 0.3], rtol=1e-3)
    np.testing.assert_allclose(curve, chain.incidence(EDGES[1:])[:, 0], rtol=1e-3, atol=1e-4)


def test_few_deals_stay_near_the_chain_and_more_move_away() -> None:
    # Chance to close on the first day: about 4.4 % as the chain has it, in truth 5 %.
    before = believing(a=0.5, b=0.5).hazards(EDGES)[0, 0, 0].sum()
    closing = {n: [fitted(n, s).chance[0, 0, 0].sum() for s in range(12)] for n in (0, 3, 3000)}
    np.testing.assert_allclose(closing[0], before)
    assert max(np.abs(np.array(closing[3]) - before)) < 0.08  # one of three closed on its first day
    np.testing.assert_allclose(closing[3000], 0.05, atol=0.012)
    assert abs(np.mean(closing[3]) - before) < 0.01 and abs(np.mean(closing[3000]) - 0.05) < 0.003


def test_many_rows_of_one_deal_are_one_experience() -> None:
    def early(rows_per_deal: float) -> float:
        table = fitted(400, 1, rows_per_deal=rows_per_deal)
        return float(table.chance[0, 0, :, 0].sum() / table.chance[0, 0].sum())

    truth, prior = 0.4, 0.5
    assert abs(early(1) - truth) < 0.01
    assert early(1) + 0.01 < early(100) < early(10_000) < prior


def test_a_stage_unknown_to_the_table_gets_the_average() -> None:
    stays, outcome = constant_world(3000, 5, 0.02, 0.05, 60.0)
    to = np.select([outcome == 1, outcome == 2], [3, 4], -1)
    exits = Exits(np.arange(3000) % 2, np.zeros(3000), stays, to)
    table = fitted(3000, chain=StageChain.fit(StagePrior.of({"a": 0.5, "b": 0.5}), exits))
    codes = np.array([0, 1, -1], dtype=np.int32)
    where = (codes, np.array(["a", "renamed"], dtype=object))
    chances = table.chances(where, np.full(3, np.nan), plain_cells(EDGES, 3))
    np.testing.assert_array_equal(chances[1], chances[2])
    np.testing.assert_allclose(chances[1], table.chance[-1, 0], rtol=1e-12)
    low, high = sorted(table.chance[:2, 0, 0].sum(-1))
    assert low < chances[1, 0].sum() < high


def test_cutting_the_grid_changes_neither_the_table_nor_its_incidence() -> None:
    n = 300
    cut = GRID.cells(np.full(2 * n, JANUARY + 0.37))
    assert cut.begin.shape[1] > len(EDGES) - 1
    table, same = fitted(n), fitted(n, cells=cut)
    np.testing.assert_allclose(same.chance, table.chance, rtol=1e-9)
    where, days = stages("a", "b"), np.array([0.0, 5.0])
    whole = incidence(table.chances(where, days, plain_cells(EDGES, 2)))
    parts = incidence(table.chances(where, days, cut.take(np.array([0, 1]))))
    for c in (0, 1):
        read = read_curve(parts[:, :, c], cut.take(np.array([0, 1])), EDGES[None, 1:])
        np.testing.assert_allclose(read, whole[:, :, c], rtol=1e-9)


def test_chances_are_proper_for_anything_counted() -> None:
    rng = np.random.default_rng(3)
    n = 500
    time, outcome = rng.choice([0.0, 0.5, 1.0, 30.0], n), rng.integers(0, 3, n)
    cells = GRID.cells(rng.uniform(19_000, 19_100, n))
    where = stages(*rng.choice(["a", "b", "c"], n))
    table = HazardTable.fit(
        where, rng.uniform(0, 99, n), cells, time, outcome, GRID.edges, chain=believing()
    )
    assert (table.chance > 0).all() and table.chance.sum(-1).max() < 1
    chances = table.chances(where, rng.uniform(0, 99, n), cells)
    assert np.isfinite(chances).all() and (chances >= 0).all() and chances.sum(-1).max() < 1


def test_reading_a_curve() -> None:
    begin = np.array([[0.0, 1.0, 1.0, 3.0]])
    end = np.array([[1.0, 1.0, 3.0, 3.0]])
    cells = Cells(begin, end, np.zeros((1, 4), np.int64), {})
    curve = np.array([[0.2, 0.2, 0.6, 0.6]])
    days = np.array([[0.0, 0.5, 1.0, 2.0, 3.0, 50.0, np.inf]])
    np.testing.assert_allclose(
        read_curve(curve, cells, days), [[0.0, 0.1, 0.2, 0.4, 0.6, 0.6, 0.6]]
    )


def test_a_table_comes_back_from_its_state() -> None:
    table = fitted(50)
    again = HazardTable.from_state(table.to_state())
    assert (again.stages, again.bins) == (table.stages, table.bins)
    np.testing.assert_array_equal(again.chance, table.chance)
    np.testing.assert_array_equal(again.steps, table.steps)
