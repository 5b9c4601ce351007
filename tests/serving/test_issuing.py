"""Kept in the background: nothing lost while the store answers, nothing slowed when it does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from data.store import IssuedForecast, IssuedScore, Store, StoreError
from serving.issuing import Issuer, issued_score, score_answer
from tests.data.stored_rows import T1, T3, score
from tests.serving.conftest import House


@dataclass
class Flaky:
    """A store that can be away, slow, or refuse single scores."""

    away: bool = False
    gate: threading.Event | None = None
    kept: list[IssuedScore] = field(default_factory=list)
    tries: int = 0

    def issue(
        self, scores: Sequence[IssuedScore] = (), forecasts: Sequence[IssuedForecast] = ()
    ) -> None:
        self.tries += 1
        if self.gate is not None:
            self.gate.wait(10)
        if self.away or any(s.entity_id == "bad" for s in scores):
            raise StoreError("refused")
        self.kept += scores

    def ping(self) -> None:
        if self.away:
            raise StoreError("away")


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    monkeypatch.setattr("serving.issuing._AGAIN", 0.01)
    yield Flaky()


def _issuer(store: Any, **options: Any) -> Issuer:
    return Issuer(store, **options)


def test_what_is_submitted_is_kept_in_order(store: Store) -> None:
    with Issuer(store) as issuer:
        for i in range(30):
            issuer.submit([score(f"D{i}"), score(f"E{i}")])
        assert issuer.settle(30)
        assert issuer.problem is None
        found = [s.entity_id for s in store.scores_issued("deal")]
    assert found == [f"{x}{i}" for i in range(30) for x in "DE"]


def test_the_end_waits_for_the_last_ones(store: Store) -> None:
    issuer = Issuer(store)
    for i in range(20):
        issuer.submit([score(f"D{i}")])
    issuer.close()
    assert len(store.scores_issued("deal")) == 20
    issuer.submit([score("late")])  # nobody is there to keep it any more
    assert "1 issued numbers could not be kept" in str(issuer.problem)


def test_a_store_that_comes_back_gets_what_waited(flaky: Flaky) -> None:
    flaky.away = True
    with _issuer(flaky) as issuer:
        issuer.submit([score("D1")])
        issuer.submit([score("D2")])
        assert not issuer.settle(0.2)
        assert "2 issued numbers wait for the store" in str(issuer.problem)
        flaky.away = False
        assert issuer.settle(10)
        assert issuer.problem is None
    assert [s.entity_id for s in flaky.kept] == ["D1", "D2"]


def test_one_that_cannot_be_kept_does_not_hold_up_the_others(flaky: Flaky) -> None:
    flaky.gate = threading.Event()
    with _issuer(flaky) as issuer:
        for name in ("D1", "bad", "D2"):
            issuer.submit([score(name)])
        flaky.gate.set()
        assert issuer.settle(10)
        assert "1 issued numbers could not be kept" in str(issuer.problem)
    assert [s.entity_id for s in flaky.kept] == ["D1", "D2"]


def test_a_full_queue_costs_an_answer_a_moment_and_never_an_error(
    flaky: Flaky, caplog: pytest.LogCaptureFixture
) -> None:
    flaky.gate = threading.Event()
    with _issuer(flaky, most=3, patience=0.05) as issuer:
        for name in ("D1", "D2", "D3"):
            issuer.submit([score(name)])
        began = time.perf_counter()
        issuer.submit([score("D4")])
        assert time.perf_counter() - began < 2
        assert "1 issued numbers could not be kept" in str(issuer.problem)
        assert "no room" in caplog.text
        flaky.gate.set()
    assert [s.entity_id for s in flaky.kept] == ["D1", "D2", "D3"]


def test_one_answer_larger_than_the_queue_still_gets_in(flaky: Flaky) -> None:
    with _issuer(flaky, most=3) as issuer:
        issuer.submit([score(f"D{i}") for i in range(10)])
        assert issuer.settle(10) and issuer.problem is None
    assert len(flaky.kept) == 10


def test_the_end_does_not_wait_for_ever(flaky: Flaky) -> None:
    flaky.away = True
    issuer = _issuer(flaky)
    issuer.submit([score("D1")])
    began = time.perf_counter()
    issuer.close(0.1)
    assert time.perf_counter() - began < 5
    assert "1 issued numbers could not be kept" in str(issuer.problem)


def test_an_answer_comes_back_as_it_was() -> None:
    lead = {
        "lead_id": "L1", "as_of": "2026-01-10T09:00:00Z", "probability": 0.3, "score": 30,
        "probability_won": 0.1, "evidence": {"method": "logistic", "horizon_days": 30},
        "model": {"name": "dealcast-lead", "version": "1"},
    }  # fmt: skip
    kept = issued_score("lead", lead, T3)
    assert (kept.as_of, kept.issued_at, kept.probability, kept.horizon) == (T1, T3, 0.3, 30)
    assert score_answer(kept) == lead
    closed = {**lead, "evidence": {"method": "closed"}}
    assert issued_score("lead", closed, T3).horizon is None


def test_readiness_tells_of_numbers_that_are_not_kept(house: House) -> None:
    with house.client() as client:
        found = client.get("/readyz").json()
        assert found["ready"] and found["issued"] == {"ready": True, "problem": None}


def test_an_answer_comes_though_it_cannot_be_kept(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise StoreError("the disk is full")

    with house.client("admin") as client:
        monkeypatch.setattr(Store, "issue", refuse)
        answer = client.get("/v1/deals/D000001/score")
        assert answer.status_code == 200
        for _ in range(100):
            found = client.get("/readyz").json()["issued"]
            if found["problem"]:
                break
            time.sleep(0.05)
    assert "1 issued numbers could not be kept" in found["problem"]
    assert "disk" not in found["problem"]  # that is for the log
