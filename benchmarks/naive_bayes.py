"""The naive Bayes of the best-known open CRM beside the served model, on later time.

At close: counted, as that CRM does, from the fields as they stood when records closed. As of: the
same formula counted at landmarks, from the fields as known then. Judged at closing: what the
formula seems to achieve on fields that already know the end, which is how such a score is often
shown, and never what it achieves on open records.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from _published import Row, publish, table
from _slices import RECIPE, FloatArray, Later, arm_figures, histories, later_deals, later_leads

from data.features import compute
from data.history import OPEN, WON, Snapshot
from data.timelines import DAY, NEVER
from models.encoding import IntArray, ObjectArray
from models.naive_bayes import NaiveBayes, Records
from scoring.bundles import DealBundle
from training.examples import landmarks, open_spells

# What that CRM scores by, as far as a data set has it; tags besides.
STANDARD = ("field[lead_source]", "field[country]", "account[country]", "field[state]",
            "field[language]")  # fmt: skip
SOURCE = "naive Bayes as of, same run"
HEAD = ("arm", "log loss", "Brier", "AUC", "mean p", "calibration slope")


def encoded(texts: Sequence[str | None]) -> tuple[IntArray, ObjectArray]:
    """Texts as codes and levels."""
    levels = sorted({t for t in texts if t is not None})
    place = {level: i for i, level in enumerate(levels)}
    codes = np.array([-1 if t is None else place[t] for t in texts], dtype=np.int32)
    return codes, np.array(levels, dtype=object)


def stages_in_order(later: Later) -> list[str]:
    """Open stages of all pipelines, each pipeline's in order."""
    stage = later.history.tables["stage"]
    order = np.lexsort((np.nan_to_num(stage["sort_order"]), stage["pipeline_id"].astype(str)))
    return [str(stage["stage_id"][i]) for i in order if stage["kind"][i] == "open"]


def records(later: Later, fields: Sequence[str], snapshot: Snapshot, *, closed: bool) -> Records:
    """Records as known at the snapshot's moments, or `closed`: as they ended up."""
    features = [f for f in later.bundle.features if f.name in fields]
    known = {
        name: column for name, column in compute(snapshot, features).items()
        if isinstance(column, tuple)
    }  # fmt: skip
    tags = snapshot.value("tags").texts() if "tags" in snapshot.ledger.fields else None
    if tags is not None and closed:
        # A field without history is known from its export on, long after the end.
        last = Snapshot(later.history, snapshot.ledger, snapshot.rows, snapshot.at * 0 + NEVER - 1)
        tags = last.value("tags").texts()
    if later.side == "lead":
        told = None if tags is None else [() if t is None else (str(t),) for t in tags]
        return Records(known, tags=told)
    levels = snapshot.ledger.stage_levels
    order = set(stages_in_order(later))
    inside = np.array([str(level) in order for level in levels] + [False])
    # In the moment of closing some CRMs move a deal to a stage of its own: the one before counts.
    before = Snapshot(later.history, snapshot.ledger, snapshot.rows, snapshot.at - int(closed))
    code = np.where(inside[before.stage], before.stage, -1).astype(np.int32)
    pipeline, team = snapshot.value("pipeline_id").texts(), snapshot.team.texts()
    return Records(
        known, (code, levels), encoded([f"{p}/{t}" for p, t in zip(pipeline, team, strict=True)])
    )


def at_close(later: Later, fields: Sequence[str]) -> NaiveBayes:
    """Counted once a closed record, from its fields at the end."""
    ledger = later.history.ledger(later.side)
    spells = open_spells(ledger, later.cut, instant=True)
    ended = np.flatnonzero(spells.outcome != OPEN)
    snapshot = later.history.landmarks(later.side, spells.row[ended], spells.end[ended])
    return NaiveBayes.fit(
        records(later, fields, snapshot, closed=True), spells.outcome[ended] == WON,
        stages=stages_in_order(later),
    )  # fmt: skip


def as_of(later: Later, fields: Sequence[str]) -> NaiveBayes:
    """Counted at every landmark of a closed record (leads: at entry), from what was known then."""
    every = int(later.bundle.model.grid.edges[1]) if isinstance(later.bundle, DealBundle) else 1
    entry = later.side == "lead"
    marks = landmarks(
        later.history, later.side, -DAY, later.cut, later.cut, every * DAY, entry=entry
    )
    row, at, outcome = marks.row, marks.at, marks.outcome
    if entry:
        spells = open_spells(later.history.leads, later.cut)
        row, at, outcome = spells.row, spells.begin, spells.outcome
    closed = np.flatnonzero(outcome != OPEN)
    snapshot = later.history.landmarks(later.side, row[closed], at[closed])
    return NaiveBayes.fit(
        records(later, fields, snapshot, closed=False), outcome[closed] == WON,
        stages=stages_in_order(later),
    )  # fmt: skip


def arms(later: Later, fields: Sequence[str]) -> dict[str, FloatArray]:
    """Probabilities of every arm at the landmarks, shape (n,) each; equal ones once.

    Where nothing changes at closing, the arms at close are the one as of.
    """
    known = records(later, fields, later.snapshot, closed=False)
    ended = later.history.landmarks(later.side, later.record, later.end)
    counted = at_close(later, fields)
    found = {"served": later.served}
    if isinstance(later.bundle, DealBundle):
        found["stage rate"] = stage_rate(later.bundle, later.snapshot)
    found["base rate before"] = np.full(len(later.y), later.before.mean())
    found["naive Bayes as of"] = as_of(later, fields).predict(known)
    found["naive Bayes at close"] = counted.predict(known)
    found["naive Bayes at close, judged at closing (a leak)"] = counted.predict(
        records(later, fields, ended, closed=True)
    )
    first = {p.tobytes(): name for name, p in reversed(found.items())}
    return {name: p for name, p in found.items() if first[p.tobytes()] == name}


def stage_rate(bundle: DealBundle, snapshot: Snapshot) -> FloatArray:
    """The win rate of each deal's stage, as most CRMs show it."""
    rates = [bundle.stage_rates.get(str(s), {}).get("rate", np.nan)
             for s in snapshot.ledger.stage_levels]  # fmt: skip
    found: npt.NDArray[np.float64] = np.array([*rates, np.nan])[snapshot.stage]
    return np.where(np.isnan(found), np.nanmean(rates), found)


def section(later: Later, fields: Sequence[str]) -> tuple[list[str], list[Row]]:
    """One data set: a table, and rows for the figures file."""
    figures = {name: arm_figures(p, later) for name, p in arms(later, fields).items()}
    used = sorted(f.name for f in later.bundle.features if f.name in fields)
    extra = ["stage, team"] * (later.side == "deal")
    extra += ["tags"] * ("tags" in later.history.ledger(later.side).fields)
    lines = [
        f"### {later.name}: {later.question}", "",
        f"n = {len(later.y):,} landmarks of {len(np.unique(later.record)):,} records after the "
        f"cut, base rate {later.y.mean():.3f} (before: {later.before.mean():.3f}). Fields: "
        f"{', '.join([*extra, *used]) or 'none'}.", "",
    ]  # fmt: skip
    shown = [
        (name, *(f[k] for k in HEAD[1:5]),
         "" if np.isnan(f["slope"]) else f"{f['slope']:.2f} ± {f['slope error']:.2f}")
        for name, f in figures.items()
    ]  # fmt: skip
    rows = [
        Row(f"{later.name}: {name}", metric, f[metric], figures["naive Bayes as of"][metric],
            SOURCE, len(later.y), f[f"{metric} interval"])
        for name, f in figures.items()
        for metric in ("log loss", "Brier", "AUC")
    ]  # fmt: skip
    return [*lines, *table(HEAD, shown), ""], rows


def main() -> None:
    """Measure every data set."""
    found: list[tuple[Later, tuple[str, ...]]] = []
    found += [(later_deals(h), STANDARD) for h in histories(maven=False)]
    education = later_leads("xeducation_leads", "X Education")
    if education is not None:
        found.append((education, STANDARD))
    bank = later_leads("bank_marketing", "bank marketing, fitted once")
    if bank is not None:
        # It has none of that CRM's own fields, which lets one choose: all its categories.
        found.append((bank, tuple(f.name for f in bank.bundle.features if f.dtype == "category")))
    lines, rows = [*(__doc__ or "").split("\n\n", 1)[1].splitlines(), ""], []
    for later, fields in found:
        more, figures = section(later, fields)
        lines += more
        rows += figures
    publish(__file__, "Naive Bayes of an open CRM", lines, rows, seed=RECIPE.seed)


if __name__ == "__main__":
    main()
