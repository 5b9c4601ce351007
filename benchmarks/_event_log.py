"""BPIC 2012 event by event: the whole log as a history, and a landmark at each of its events.

Process mining predicts after every event, so the k-th prefix of a case must hold its first k
events and no more. A history looks at times, and events of one moment are known together: the
outcome's own events come in threes. So the order inside a moment is written into the times, a
microsecond apart; the log itself counts milliseconds.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from _public import read_public

from data.history import Snapshot

__all__ = ["EventLog", "read_log"]

_MAPPING = Path(__file__).with_name("bpic2012_log.toml")


@dataclass(frozen=True)
class EventLog:
    """Every event of the log with what was known at it; arrays of shape (m,), by case and order.

    Attributes
    ----------
    snapshot : Snapshot
        The case at the moment of each event.
    name : ndarray of str
        Activity, with " planned" or " started" for the lifecycles SCHEDULE and START.
    position : int64
        Place of the event in its case, from 1: the length of the prefix that it ends.
    """

    snapshot: Snapshot
    name: npt.NDArray[np.object_]
    position: npt.NDArray[np.int64]

    @property
    def case(self) -> npt.NDArray[np.int64]:
        """Number of the case."""
        return self.snapshot.rows

    @property
    def at(self) -> npt.NDArray[np.int64]:
        """Microseconds since 1970 UTC."""
        return self.snapshot.at

    @property
    def begun(self) -> npt.NDArray[np.int64]:
        """Moment of each case's first event, shape (cases,)."""
        return np.asarray(self.at[self.position == 1])


def read_log(folder: Path) -> EventLog:
    """The log in the folder of the public data sets."""
    log = pd.read_csv(folder / "bpic2012" / "events.csv.gz", dtype=str)
    at = pd.to_datetime(log["timestamp"], utc=True, format="ISO8601")
    place = log.sort_values("event_no", key=lambda c: c.astype(int), kind="stable")
    again = place.groupby(["case_id", "timestamp"]).cumcount().reindex(log.index)
    at += pd.to_timedelta(again, unit="us")
    log["timestamp"] = at.dt.strftime("%Y-%m-%dT%H:%M:%S.%f+00:00")
    with tempfile.TemporaryDirectory() as made:
        (Path(made) / "bpic2012").mkdir()
        log.to_csv(Path(made) / "bpic2012" / "events.csv", index=False)
        history = read_public("bpic2012", Path(made), _MAPPING)
    events = history.deals.activities
    snapshot = history.landmarks("deal", events.row, events.at)
    position = np.arange(len(events.row)) - events.start[events.row] + 1
    return EventLog(snapshot, history.deals.activity_levels[events.value], position)
