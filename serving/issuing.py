"""Numbers on their way out: every score and forecast is kept as it was given.

The service keeps them in the background, so that an answer neither waits for the store nor fails
with it (`Issuer`); the command line writes at once.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.history import Side
from data.store import IssuedCell, IssuedForecast, IssuedScore, Store, StoreError
from scoring.forecast import Forecast
from serving.answers import time_text

__all__ = ["Issuer", "issued_forecast", "issued_score", "score_answer"]

_log = logging.getLogger(__name__)

_MOST = 20_000  # scores and cells of forecasts that may wait: about 60 MB
_PATIENCE = 0.25  # seconds that an answer waits for room among them
_AT_ONCE = 2_000  # of them in one transaction
_AGAIN = 1.0  # seconds until a store that refused is tried again
_LAST = 10.0  # seconds that the end of the service waits for the last ones
# What the columns of a kept cell say.
_OF_CELLS = {
    *("start", "end", "group", "mean", "target", "probability_of_target"),
    *("components", "quantiles"),
}


def issued_score(kind: Side, answer: Mapping[str, Any], now: np.datetime64) -> IssuedScore:
    """An answer for one record, as it is kept."""
    known = (f"{kind}_id", "as_of", "model")
    lead = kind == "lead"
    return IssuedScore(
        kind,
        answer[f"{kind}_id"],
        np.datetime64(answer["as_of"].removesuffix("Z"), "us"),
        now,
        answer["model"],
        answer["probability" if lead else "probability_won"],
        answer["evidence"].get("horizon_days") if lead else None,
        {k: v for k, v in answer.items() if k not in known},
    )


def score_answer(kept: IssuedScore) -> dict[str, Any]:
    """The answer that was given."""
    return {
        f"{kept.entity}_id": kept.entity_id,
        "as_of": time_text(kept.as_of),
        **kept.detail,
        "model": kept.model,
    }


def issued_forecast(
    found: Forecast, answer: Mapping[str, Any], now: np.datetime64, inputs: str | None
) -> IssuedForecast:
    """A forecast as it is kept: the numbers of its answer, the bounds of its periods exact.

    Parameters
    ----------
    answer : mapping
        What is given out, with "period", "horizon", "levels" and "hindsight".
    inputs : str or None
        Fingerprint of the records.
    """
    cells = tuple(
        IssuedCell(
            cell.period.start,
            cell.period.end,
            told["group"],
            told["mean"],
            told["target"],
            told["probability_of_target"],
            told["components"],
            told["quantiles"],
            {k: v for k, v in told.items() if k not in _OF_CELLS},
        )
        for cell, told in zip(found.cells, answer["periods"], strict=True)
    )
    known = ("as_of", "by", "measure", "period", "periods", "hindsight", "model")
    return IssuedForecast(
        found.as_of.astype("datetime64[us]"),
        now,
        answer["period"],
        found.by,
        found.measure,
        answer["hindsight"],
        dict(found.model),
        cells,
        found.draws,
        found.seed,
        inputs,
        {k: v for k, v in answer.items() if k not in known},
    )


@dataclass(frozen=True)
class _Batch:
    """What one answer gave out."""

    scores: Sequence[IssuedScore]
    forecasts: Sequence[IssuedForecast]

    def __len__(self) -> int:
        return len(self.scores) + sum(len(f.cells) for f in self.forecasts)


class Issuer:
    """Keeps what is given out, in a thread of its own.

    `submit` never raises, and returns at once while fewer than 20,000 numbers (scores, or periods
    and groups of forecasts) wait to be written; it waits a quarter of a second for room where
    more do. What then still finds no room is lost to the log of issued numbers: counted, logged as
    an error, and told by `problem`. A store that refuses is tried again every second. `close`
    writes what is left, for ten seconds at most.

    Parameters
    ----------
    store : Store
    most : int
        How many numbers may wait.
    patience : float
        Seconds that `submit` waits for room.
    """

    def __init__(self, store: Store, most: int = _MOST, patience: float = _PATIENCE) -> None:
        self._store, self._most, self._patience = store, most, patience
        self._change = threading.Condition()
        self._waiting: deque[_Batch] = deque()
        self._pending = 0  # numbers that wait or are being written
        self._submitted = self._done = 0  # batches ever
        self._lost = 0
        self._refused: str | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="issuer", daemon=True)
        self._thread.start()

    def __enter__(self) -> Issuer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def problem(self) -> str | None:
        """What is wrong, in a sentence for the operator; None if nothing is."""
        with self._change:
            if self._lost:
                return (
                    f"{self._lost:,} issued numbers could not be kept since the service began; "
                    "the log says why"
                )
            if self._refused is not None:
                return f"{self._pending:,} issued numbers wait for the store to answer"
        return None

    def submit(
        self, scores: Sequence[IssuedScore] = (), forecasts: Sequence[IssuedForecast] = ()
    ) -> None:
        """Have numbers kept soon."""
        batch = _Batch(scores, forecasts)
        with self._change:
            room = self._change.wait_for(
                lambda: self._pending == 0 or self._pending + len(batch) <= self._most,
                self._patience,
            )
            if self._closing or not room:
                self._lose(batch, "no room: the store is too slow, or does not answer")
                return
            self._waiting.append(batch)
            self._pending += len(batch)
            self._submitted += 1
            self._change.notify_all()

    def settle(self, seconds: float) -> bool:
        """Wait until all that was submitted before is kept; False if it took too long."""
        with self._change:
            goal = self._submitted
            return self._change.wait_for(lambda: self._done >= goal, seconds)

    def close(self, seconds: float = _LAST) -> None:
        """Keep what is left, and stop."""
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join(seconds)
        with self._change:
            for batch in self._waiting:
                self._lose(batch, "the service ended")
            self._waiting.clear()

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._closing)
                some = self._some()
            if not some:
                return
            kept = self._keep(some)
            with self._change:
                for _ in range(kept):
                    self._pending -= len(self._waiting.popleft()) if self._waiting else 0
                self._done += kept
                self._change.notify_all()
                if kept < len(some):
                    self._change.wait(_AGAIN)

    def _some(self) -> list[_Batch]:
        """The first batches in the queue, which stay there until they are kept."""
        some: list[_Batch] = []
        for batch in self._waiting:
            if some and sum(map(len, some)) + len(batch) > _AT_ONCE:
                break
            some.append(batch)
        return some

    def _keep(self, some: Sequence[_Batch]) -> int:
        """How many of the first batches are done with: kept, or impossible to keep."""
        try:
            self._store.issue(
                [s for b in some for s in b.scores], [f for b in some for f in b.forecasts]
            )
        except StoreError as error:
            return self._keep_singly(some) if len(some) > 1 else self._refuse(some[0], error)
        except Exception:
            _log.exception("issued numbers could not be kept")
            with self._change:
                self._lose(some[0], "they cannot be written")
            return 1
        with self._change:
            self._refused = None
        return len(some)

    def _keep_singly(self, some: Sequence[_Batch]) -> int:
        done = 0
        for batch in some:
            if not self._keep([batch]):
                break
            done += 1
        return done

    def _refuse(self, batch: _Batch, error: StoreError) -> int:
        """1 if the fault is the batch's, for the store answers otherwise; 0 to try again."""
        try:
            self._store.ping()
        except StoreError:
            with self._change:
                if self._refused is None:
                    _log.error("issued numbers wait: %s", error)
                self._refused = str(error)
            return 0
        with self._change:
            self._lose(batch, str(error))
        return 1

    def _lose(self, batch: _Batch, why: str) -> None:
        self._lost += len(batch)
        _log.error("%d issued numbers are not kept: %s", len(batch), why)
