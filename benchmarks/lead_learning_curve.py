"""Lead model from 5 to 5,000 leads on synthetic truth: no cliff, never worse than rates alone.

Each world is a company of its own. The same later leads judge every size; a fit gets the newest
leads before them, at their entry.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from _published import Row, publish, table

from data.features import compute, declare
from data.history import History
from data.synthetic import make_history
from data.timelines import DAY
from models import measures
from models.baseline import shrunken_rate
from models.encoding import Columns
from models.lead import LeadModel
from training.examples import lead_rows

FloatArray = npt.NDArray[np.float64]

# Worlds 0-23 chose how rates are weighed and what the prior is worth; others judge.
SEED, WORLDS, FIRST_WORLD = 0, 16, 100
SIZES = (5, 10, 20, 35, 60, 100, 150, 250, 400, 600, 1000, 1500, 2500, 5000)
HORIZON, JUDGED = 30, 2000
PRIOR, PRIOR_LEADS = 0.3, 10.0  # as the product's training has them
ARMS = ("served", "prior alone", "shrunken base rate", "shrunken rates by source")


@dataclass(frozen=True)
class Leads:
    """Leads of one world at their entry, oldest first: columns, whether they qualified, sources."""

    columns: Columns
    y: FloatArray
    at: FloatArray

    def part(self, start: int, stop: int) -> Columns:
        """Columns of the leads from start up to stop."""
        return {
            name: (c[0][start:stop], c[1]) if isinstance(c, tuple) else c[start:stop]
            for name, c in self.columns.items()
        }


def world(seed: int) -> Leads:
    """Enough leads for the largest size and those that judge."""
    made = make_history(4_000, seed=seed)
    history = History(made.tables, [made.facts])
    until = history.observed_until
    rows = lead_rows(history, 0, until, until, HORIZON)
    entered = np.flatnonzero(rows.snapshot.age == 0)
    order = entered[np.argsort(rows.snapshot.at[entered], kind="stable")]
    snapshot = rows.snapshot.take(order[-(SIZES[-1] + JUDGED) :])
    y = rows.label[order[-(SIZES[-1] + JUDGED) :]]
    return Leads(compute(snapshot, declare(history, "lead", until)), y, snapshot.at / DAY)


def losses(found: Leads, size: int) -> list[float]:
    """Log loss of every arm on the judged leads, learnt from the `size` leads before them."""
    stop = len(found.y) - JUDGED
    start, y = stop - size, found.y[stop:]
    known, happened = found.part(start, stop), found.y[start:stop]
    later = found.part(stop, len(found.y))
    model = LeadModel.fit(
        known, happened, order_time=found.at[start:stop], prior=(PRIOR, PRIOR_LEADS), seed=SEED
    )
    base = (happened.sum() + PRIOR * PRIOR_LEADS) / (size + PRIOR_LEADS)
    p = (
        model.predict(later),
        np.full(JUDGED, PRIOR),
        np.full(JUDGED, base),
        _by_source(known, happened, later, float(base)),
    )
    return [measures.log_loss(each, y) for each in p]


def _by_source(known: Columns, y: FloatArray, later: Columns, base: float) -> FloatArray:
    name = "field[lead_source]"
    (codes, levels), (asked, _) = known[name], later[name]
    rates = [
        shrunken_rate(float(y[codes == k].sum()), float((codes == k).sum()), base)["rate"]
        for k in range(len(levels))
    ]
    return np.array([*rates, base])[asked]


def main() -> None:
    """Average every size over the worlds."""
    found = np.empty((WORLDS, len(SIZES), len(ARMS)))
    truth: list[float] = []
    for seed in range(WORLDS):
        print(f"world {seed + 1} of {WORLDS}", file=sys.stderr, flush=True)
        leads = world(FIRST_WORLD + seed)
        truth.append(float(leads.y[-JUDGED:].mean()))
        for i, size in enumerate(SIZES):
            found[seed, i] = losses(leads, size)
    lines, rows = [], []
    for i, size in enumerate(SIZES):
        mean = found[:, i].mean(axis=0)
        rival = 1 + int(np.argmin(mean[1:]))
        more = found[:, i, 0] - found[:, i, rival]
        error = float(more.std(ddof=1) / np.sqrt(WORLDS))
        lines.append([f"{size:,}", *mean.tolist(), f"{more.mean():+.4f} ± {error:.4f}"])
        rows.append(
            Row(f"Lead learning curve, {size} leads: served", "log loss", float(mean[0]),
                float(mean[rival]), f"{ARMS[rival]}, same run", WORLDS * JUDGED,
                (float(mean[0] - 1.96 * error), float(mean[0] + 1.96 * error)))
        )  # fmt: skip
    text = [
        f"{WORLDS} synthetic companies; the next {JUDGED:,} leads judge, P(qualified within "
        f"{HORIZON} days) at entry, base rate {np.mean(truth):.3f}. Log loss, and served less the "
        "better rival ± a standard error over worlds; a row's interval is that of the difference. "
        f"The prior alone ({PRIOR:.1f}) happens to be right here, which the first leads do "
        "not know: they pay for learning the rate.",
        "",
        *table(["leads", *ARMS, "served - best rival"], lines),
    ]
    publish(__file__, "Lead model: learning curve", text, rows, seed=SEED)


if __name__ == "__main__":
    main()
