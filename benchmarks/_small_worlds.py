"""Synthetic companies for the learning curve: stage sets, what is believed of them, the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.history import History
from data.pipeline import PRESETS
from data.records import Table
from data.synthetic import PipelineWorld, StageWorld, Synthetic, World, make_history

__all__ = ["WORLDS", "Company", "company", "thinned"]

_END = np.datetime64("2026-02-16", "us")
_DAYS, _DEALS = 1_000, 7_400
_TEST_DAYS = (50, 35, 20)  # the moments that every size is judged at, days before the end


def _ladder(
    pipeline_id: str, names: Sequence[str], lose: Sequence[float], win: Sequence[float],
    pace: float = 1.0,
) -> PipelineWorld:  # fmt: skip
    """Stages one after the other, without a word of the administrator's on their chances.

    `lose` and `win` are hazards on an average working day beside .10 to advance; `pace`
    multiplies all of them.
    """
    last = len(names) - 1
    stages = [
        StageWorld(
            f"{pipeline_id}-{i}", name, np.nan, 0.8 if i == 0 else 0.2 * (i == 1),
            0.10 * pace * (i < last), 0.0, 0.0, lose[i] * pace, win[i] * pace, 0.12,
            15.0 * (last + 1 - i) / pace,
        )
        for i, name in enumerate(names)
    ]  # fmt: skip
    return PipelineWorld(pipeline_id, tuple(stages))


def _named(preset: str) -> list[str]:
    return [name for name, _ in PRESETS[preset]]


def _one_pipeline(first: PipelineWorld) -> World:
    return World(pipelines=(first, World().pipelines[1]), renewals_per_deal=0.0)


# What is believed of the stages, beside the truth of the deals found open in them.
WORLDS: dict[str, World] = {
    # The administrator's percentages, plausible and wrong; two pipelines.
    "sample CRM": World(),
    # Shipped .10 .10 .20 .50 .60 .70 .75 .90; true about .10 .14 .22 .20 .29 .33 .38 .38.
    "Salesforce stages, shipped too high": _one_pipeline(
        _ladder("new-business", _named("salesforce"), [0.025] * 7 + [0.05], [0.0] * 7 + [0.04])
    ),
    # Shipped .20 .40 .60 .80 .90, and about true.
    "HubSpot stages, shipped about right": _one_pipeline(
        _ladder(
            "new-business",
            _named("hubspot"),
            [0.10, 0.05, 0.033, 0.0125, 0.011],
            [0.0, 0.0, 0.0, 0.0, 0.10],
        )
    ),
    # Even steps .10 .30 .50 .70; true about .50 throughout, and closed within days.
    "own names, quick": _one_pipeline(
        _ladder(
            "new-business",
            ["Anfrage", "Angebot", "Bestellung", "Freigabe"],
            [0.03, 0.03, 0.03, 0.08],
            [0.03, 0.03, 0.03, 0.10],
            pace=2.5,
        )
    ),
    # The same words in both, true about .1 .2 .25 in one, .45 .5 .65 in the other; slow.
    "two pipelines, the same names, slow": World(
        pipelines=(
            _ladder(
                "new-business",
                ["Contact", "Talks", "Offer"],
                [0.10, 0.07, 0.08],
                [0.0, 0.0, 0.04],
                pace=0.4,
            ),
            _ladder(
                "renewals",
                ["Contact", "Talks", "Offer"],
                [0.006, 0.012, 0.011],
                [0.0, 0.0, 0.10],
                pace=0.4,
            ),
        ),
        renewals_per_deal=0.5,
    ),
}


@dataclass(frozen=True)
class Company:
    """A large company, the moments it is judged at, and how its deals are ranked at random."""

    crm: Synthetic
    history: History
    tests: tuple[np.datetime64, ...]
    until: int
    rank: dict[str, float]


def company(name: str, seed: int) -> Company:
    """One of the worlds, played for a thousand days."""
    crm = make_history(_DEALS, seed, end=_END, days=_DAYS, world=WORLDS[name])
    tests = tuple(_END - np.timedelta64(d, "D") for d in _TEST_DAYS)
    ids = crm.tables["deal"]["deal_id"].tolist()
    order = np.random.default_rng(seed).random(len(ids)).tolist()
    return Company(
        crm, History(crm.tables, [crm.facts]), tests, int(tests[0].astype(np.int64)),
        dict(zip(ids, order, strict=True)),
    )  # fmt: skip


def thinned(whole: Company, share: float) -> History:
    """The same company with a share of its deals: each deal stays, or goes with all of its rows."""
    gone = {deal for deal, place in whole.rank.items() if place >= share}
    tables = dict(whole.crm.tables)
    for name, key in (
        ("deal", "deal_id"), ("stage_change", "entity_id"), ("field_change", "entity_id"),
        ("activity", "deal_id"),
    ):  # fmt: skip
        stays = np.array([i not in gone for i in tables[name][key].tolist()])
        tables[name] = _rows(tables[name], stays)
    return History(tables, [whole.crm.facts])


def _rows(table: Table, mine: npt.NDArray[np.bool_]) -> Table:
    columns, attributes = (
        {name: column[mine] for name, column in part.items()}
        for part in (table.columns, table.attributes)
    )
    return Table(table.entity, columns, attributes)
