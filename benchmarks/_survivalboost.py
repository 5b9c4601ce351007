"""SurvivalBoost of hazardous, run in the benchmarks' own environment: arrays in, arrays out.

    python _survivalboost.py IN.npz OUT.npz

IN: x (n, q), event (n,), duration (n,), x_new (m, q), times (t,).
OUT: incidence (m, causes + 1, t), the chance to be open first; seconds (2,) to fit and to predict.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from hazardous import SurvivalBoost  # type: ignore[import-not-found]


def main() -> None:
    """Fit, predict and write."""
    given = np.load(sys.argv[1], allow_pickle=False)
    target = {"event": given["event"], "duration": given["duration"]}
    began = time.perf_counter()
    model = SurvivalBoost(random_state=0, show_progressbar=False)
    model.fit(given["x"], target)
    fitted = time.perf_counter()
    parts = [
        model.predict_cumulative_incidence(part, given["times"])
        for part in np.array_split(given["x_new"], 10)
    ]
    done = time.perf_counter()
    np.savez(
        sys.argv[2],
        incidence=np.concatenate(parts),
        seconds=np.array([fitted - began, done - fitted]),
    )


if __name__ == "__main__":
    main()
