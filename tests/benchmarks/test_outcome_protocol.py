from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def _load(name: str) -> ModuleType:
    """A part of the benchmarks: scripts beside each other, no package."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


protocol = _load("_outcome_protocol")
_load("_event_features")
recipe = _load("_outcome_models")
DATASETS = os.environ.get("DEALCAST_DATASETS")

# Three cases: 0 is accepted after a cancelled offer, 1 declined, 2 never had an offer.
CASE = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])
NAME = np.array(
    ["A", "O_CANCELLED", "O_ACCEPTED", "W", "A", "O_SENT", "O_DECLINED", "A", "W"], dtype=object
)
POSITION = np.array([1, 2, 3, 4, 1, 2, 3, 1, 2])
AT = np.array([0, 10, 20, 30, 5, 15, 25, 7, 9])


def test_the_last_offer_event_is_the_label() -> None:
    last = protocol.last_offer(CASE, NAME, 3)
    assert last.tolist() == [2, 6, -1]
    assert protocol.labels_of(NAME, last).tolist() == [0, 1, -1]


def test_an_offer_event_that_is_no_outcome_gives_no_label() -> None:
    last = protocol.last_offer(CASE[:6], NAME[:6], 2)
    assert protocol.labels_of(NAME[:6], last).tolist() == [0, -1]


def test_cases_are_split_by_their_first_event_and_others_stay_out() -> None:
    begun = np.array([40, 10, 30, 20, 50])
    first, later = protocol.split_cases(begun, np.array([0, 1, 3, 4]), 0.5)
    assert first.tolist() == [1, 3]
    assert later.tolist() == [0, 4]


def test_training_cases_are_cut_at_the_test_start_and_test_cases_are_not() -> None:
    kept = protocol.prefixes(CASE, POSITION, AT, np.array([0]), before=20)
    assert kept.tolist() == [0, 1]  # the event at the very moment is cut too
    assert protocol.prefixes(CASE, POSITION, AT, np.array([1])).tolist() == [4, 5, 6]


def test_prefixes_end_at_the_fortieth_event() -> None:
    position = np.arange(1, 60)
    case = np.zeros(59, dtype=np.int64)
    assert len(protocol.prefixes(case, position, position, np.array([0]))) == 40


def test_weighted_auc_counts_a_case_drawn_twice_as_two_with_ties_shared() -> None:
    rng = np.random.default_rng(0)
    p, y = rng.integers(0, 5, 60) / 5.0, rng.random(60) < 0.4
    weight = np.stack([np.ones(60), rng.integers(0, 3, 60).astype(float)])
    found = protocol.weighted_auc(p, y, weight)
    twice = np.repeat(np.arange(60), weight[1].astype(int))
    assert found[0] == pytest.approx(roc_auc_score(y, p), abs=1e-12)
    assert found[1] == pytest.approx(roc_auc_score(y[twice], p[twice]), abs=1e-12)


def test_case_weighted_auc_weighs_lengths_by_cases_and_skips_lengths_of_one_class() -> None:
    # Length 1: four cases, AUC 1; length 2: two cases, AUC 0; length 3: one class only.
    position = np.array([1, 1, 1, 1, 2, 2, 3])
    p = np.array([0.1, 0.2, 0.8, 0.9, 0.9, 0.1, 0.5])
    y = np.array([False, False, True, True, False, True, True])
    found = protocol.case_weighted_auc(p, y, position, np.ones((1, 7)))
    assert found[0] == pytest.approx(4 / 6)


def test_resamples_draw_whole_cases() -> None:
    weight = protocol.case_bootstrap(CASE, 20, np.random.default_rng(0))
    assert (weight[0] == 1).all()
    for case in range(3):
        assert np.ptp(weight[:, case == CASE], axis=1).max() == 0
    assert (np.stack([weight[:, i] for i in (0, 4, 7)]).sum(axis=0)[1:] == 3).all()


def test_stability_is_a_mean_over_cases_of_the_change_from_prefix_to_prefix() -> None:
    scored = protocol.Scored(
        np.array([0, 0, 0, 1, 1]),
        np.array([0, 0, 0, 1, 1]),
        np.array([1, 2, 3, 1, 2]),
        np.ones(5, dtype=bool),
        np.ones((1, 5)),
    )
    accepted = np.array([0.2, 0.4, 0.8, 0.5, 0.6])
    p = np.stack([accepted, (1 - accepted) / 2, (1 - accepted) / 2], axis=1)
    found = protocol.measure(scored, p)
    assert found["O_ACCEPTED", "temporal stability"][0] == pytest.approx(1 - (0.3 + 0.1) / 2)


def test_the_blend_gives_chances_that_add_up_and_find_what_tells_cases_apart() -> None:
    rng = np.random.default_rng(0)
    types = np.array(["A_SUBMITTED", "O_SENT"], dtype=object)
    columns = {name: rng.normal(size=3_000) for name in recipe.wide_features(types)}
    label = np.digitize(columns["amount_log"], [-0.5, 0.5])
    train, test = np.arange(2_000), np.arange(2_000, 3_000)
    p = recipe.blend(columns, types, label, np.arange(3_000) // 20, train, test)
    assert p.sum(axis=1) == pytest.approx(1.0)
    assert (p.argmax(axis=1) == label[test]).mean() > 0.8


def test_the_weights_of_the_blend_add_up_to_one() -> None:
    boosters = [*recipe._CHOSEN, *recipe._BESIDE, *recipe._BESIDE]
    assert sum(weight for weight, *_ in boosters) + recipe._RIDGE == pytest.approx(1.0)


@pytest.mark.skipif(DATASETS is None, reason="DEALCAST_DATASETS is not set")
def test_the_counts_of_bpic_2012_are_those_of_the_paper() -> None:
    assert DATASETS is not None
    _load("_public")
    log = _load("_event_log").read_log(Path(DATASETS))
    assert len(log.name) == 262_200
    last = protocol.last_offer(log.case, log.name, len(log.begun))
    label = protocol.labels_of(log.name, last)
    assert np.bincount(label[label >= 0]).tolist() == [2_243, 802, 1_640]
    first, later = protocol.split_cases(log.begun, np.flatnonzero(label >= 0), 0.8)
    assert (len(first), len(later)) == (3_748, 937)
    tested = protocol.prefixes(log.case, log.position, log.at, later)
    assert len(tested) == 30_637
    start = np.datetime64(int(log.begun[later].min()), "us")
    assert str(start.astype("datetime64[m]")) == "2012-01-27T14:58"  # 15:58 in the Netherlands
    # A prefix of k events has seen k events: not one more of the same moment.
    lo, hi = log.snapshot.seen(log.snapshot.ledger.activities)
    assert (hi - lo == log.position).all()
