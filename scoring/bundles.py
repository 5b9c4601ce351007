"""Everything needed to score: the fitted parts, and the features they read, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from data.features import Feature
from data.pipeline import FiscalCalendar
from models.amount import AmountModel
from models.arrivals import ArrivalModel
from models.deal import DealModel
from models.deal_attribution import DealAttribution
from models.encoding import Columns, row_count
from models.lead import LeadModel
from models.ranges import RangeMap
from models.shocks import ShockModel

__all__ = ["DealBundle", "LeadBundle", "Manifest", "Reference", "bundle_of"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself.

    Attributes
    ----------
    kind : str
        "lead" or "deal".
    trained_at, trained_through : str
        ISO 8601 UTC: when training ran, and the last moment it knew of.
    evaluation : dict
        Figures on later data beside the baselines, as the report shows them.
    coverage : list of dict
        Measured coverage of the ranges: horizon_days, level, measured, n. Each forecast's range
        is read as the others, which share no days with it, taught.
    version : str
        Version in the registry; empty before registration.
    withheld : dict of str to str
        Fields that no feature reads, as they know the outcome, with the codes that say so.
    """

    kind: str
    trained_at: str
    trained_through: str
    currency: str = ""
    evaluation: dict[str, Any] = field(default_factory=dict)
    coverage: list[dict[str, Any]] = field(default_factory=list)
    version: str = ""
    withheld: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The registered model's name."""
        return f"dealcast-{self.kind}"

    @property
    def answer(self) -> dict[str, str]:
        """What every answer says of the model behind it."""
        return {
            "name": self.name,
            "version": self.version,
            "trained_at": self.trained_at,
            "trained_through": self.trained_through,
        }


@dataclass(frozen=True)
class Reference:
    """Typical records, for reasons and ranks.

    Attributes
    ----------
    columns : Columns
        One row of typical values per key: medians and commonest levels.
    keys : tuple of str
        Stages for deals; one empty key for leads. The last row serves all other keys.
    scores : float64, shape (s,)
        Sorted probabilities of recent open records: a percentile is a rank among them.
    records : Columns
        Records that contributions are counted from, shape (r,); only for deals.
    local : float64, shape (r,)
        Their moments on the organisation's clock, days since 1970.
    """

    columns: Columns
    keys: tuple[str, ...]
    scores: FloatArray
    records: Columns = field(default_factory=dict)
    local: FloatArray = field(default_factory=lambda: np.zeros(0))

    def percentile(self, probability: FloatArray) -> FloatArray:
        """Rank among the reference records, 0-100."""
        if len(self.scores) == 0:
            return np.full(len(probability), np.nan)
        low = np.searchsorted(self.scores, probability, side="left")
        high = np.searchsorted(self.scores, probability, side="right")
        return np.asarray(100.0 * (low + high) / (2.0 * len(self.scores)))

    def to_state(self) -> dict[str, Any]:
        """Plain values and arrays."""
        return {
            "columns": _column_states(self.columns),
            "keys": list(self.keys),
            "scores": self.scores,
            "records": _column_states(self.records),
            "local": self.local,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Reference:
        """Rebuild from `to_state`."""
        columns = _columns_of(state["columns"])
        if "records" not in state:  # before 0.2 a bundle had no others than the typical ones
            return cls(columns, tuple(state["keys"]), state["scores"])
        records = _columns_of(state["records"])
        return cls(columns, tuple(state["keys"]), state["scores"], records, state["local"])


@dataclass(frozen=True)
class LeadBundle:
    """The lead model with what it needs.

    Attributes
    ----------
    horizon : int
        Days within which a lead is to be qualified; 0 where times are pseudo.
    delay : float64, shape (d + 1,)
        Share of qualifications within i days of entry, i = 0 .. d, for other horizons.
    win : LeadModel or None
        P(won given qualified), on features frozen at qualification.
    win_rate : float
        Shrunken win rate of qualified leads, where `win` is None.
    """

    manifest: Manifest
    features: tuple[Feature, ...]
    model: LeadModel
    horizon: int
    delay: FloatArray
    win: LeadModel | None
    win_rate: float
    reference: Reference

    def to_state(self) -> dict[str, Any]:
        """Plain values, arrays and boosters."""
        return {
            "manifest": vars(self.manifest),
            "features": _feature_states(self.features),
            "model": self.model.to_state(),
            "horizon": self.horizon,
            "delay": self.delay,
            "win": None if self.win is None else self.win.to_state(),
            "win_rate": self.win_rate,
            "reference": self.reference.to_state(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> LeadBundle:
        """Rebuild from `to_state`."""
        return cls(
            Manifest(**state["manifest"]),
            tuple(Feature(**f) for f in state["features"]),
            LeadModel.from_state(state["model"]),
            int(state["horizon"]),
            state["delay"],
            None if state["win"] is None else LeadModel.from_state(state["win"]),
            float(state["win_rate"]),
            Reference.from_state(state["reference"]),
        )

    def versioned(self, version: str) -> LeadBundle:
        """The same bundle under a registry version."""
        return replace(self, manifest=replace(self.manifest, version=version))


@dataclass(frozen=True)
class DealBundle:
    """The deal model with what it needs.

    Attributes
    ----------
    stage_rates : dict of str to dict
        By stage: the shrunken rate of deals that were won (`rate`), its 80 % range (`low`,
        `high`), the deals behind it (`n`) and the share of prior (`prior`).
    renewals : tuple of str
        Pipelines of renewals, which are no new business.
    ranges : RangeMap
        How far out in the draws a range's level is read, after what back-tests measured.
    """

    manifest: Manifest
    features: tuple[Feature, ...]
    calendar: FiscalCalendar
    model: DealModel
    amount: AmountModel
    arrivals: ArrivalModel
    shocks: ShockModel
    stage_rates: dict[str, dict[str, float]]
    reference: Reference
    renewals: tuple[str, ...] = ()
    ranges: RangeMap = field(default_factory=RangeMap.as_drawn)

    @cached_property
    def attribution(self) -> DealAttribution:
        """What reasons are counted with: made when it is first asked for, in about a second."""
        reference = self.reference
        records, local = reference.records, reference.local
        if len(local) == 0:
            records = reference.columns
            through = np.array([self.manifest.trained_through.removesuffix("Z")], "datetime64[us]")
            local = np.repeat(
                self.calendar.local_days(through.astype(np.int64)), row_count(records)
            )
        cells = self.model.grid.cells(local, self.calendar.marks)
        return DealAttribution.of(self.model, records, cells)

    def to_state(self) -> dict[str, Any]:
        """Plain values, arrays and boosters."""
        return {
            "manifest": vars(self.manifest),
            "features": _feature_states(self.features),
            "calendar": asdict(self.calendar),
            "model": self.model.to_state(),
            "amount": self.amount.to_state(),
            "arrivals": self.arrivals.to_state(),
            "shocks": self.shocks.to_state(),
            # Names as values: a key of a bundle must not begin with "$", a stage's id may.
            "stage_rates": {
                "stages": list(self.stage_rates),
                "rates": list(self.stage_rates.values()),
            },
            "reference": self.reference.to_state(),
            "renewals": list(self.renewals),
            "ranges": self.ranges.to_state(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> DealBundle:
        """Rebuild from `to_state`."""
        return cls(
            Manifest(**state["manifest"]),
            tuple(Feature(**f) for f in state["features"]),
            FiscalCalendar(**state["calendar"]),
            DealModel.from_state(state["model"]),
            AmountModel.from_state(state["amount"]),
            ArrivalModel.from_state(state["arrivals"]),
            ShockModel.from_state(state["shocks"]),
            dict(zip(state["stage_rates"]["stages"], state["stage_rates"]["rates"], strict=True)),
            Reference.from_state(state["reference"]),
            tuple(state["renewals"]),
            RangeMap.from_state(state["ranges"]),
        )

    def versioned(self, version: str) -> DealBundle:
        """The same bundle under a registry version."""
        return replace(self, manifest=replace(self.manifest, version=version))


def bundle_of(state: Mapping[str, Any]) -> LeadBundle | DealBundle:
    """The bundle behind a state that `models.bundle.load` read."""
    kind = state["manifest"]["kind"]
    return LeadBundle.from_state(state) if kind == "lead" else DealBundle.from_state(state)


def _feature_states(features: tuple[Feature, ...]) -> list[dict[str, str]]:
    return [
        {f: getattr(feature, f) for f in ("name", "dtype", "unit", "meaning", "scope", "group")}
        for feature in features
    ]


def _column_states(columns: Columns) -> dict[str, Any]:
    return {
        name: {"codes": column[0], "levels": [str(v) for v in column[1]]}
        if isinstance(column, tuple)
        else column
        for name, column in columns.items()
    }


def _columns_of(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: (np.asarray(c["codes"], dtype=np.int32), np.array(c["levels"], dtype=object))
        if isinstance(c, dict)
        else c
        for name, c in state.items()
    }
