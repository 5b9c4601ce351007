"""What-if questions as they come over the wire, and what is answered."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from data.records import RecordError
from scoring.what_if import Supposed, WhatIf
from serving.schemas import ForecastPeriodOut, ModelOfAnswer

__all__ = ["WhatIfIn", "WhatIfOut", "differences"]

_MOST = 1000  # deals that one question may change, drop or add


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _DealIn(_Asked):
    """A deal as it is supposed to be; what is left out stays as it is."""

    stage_id: str | None = Field(None, description="in this stage, since now")
    amount: float | None = Field(None, description="in the base currency", examples=[25000.0])
    expected_close_date: str | None = Field(None, examples=["2026-03-20"])
    group: str | None = Field(
        None, description="an owner_id, team_id ..., as `by` says; by amount, its amount says it"
    )
    odds: float = Field(1.0, description="times the odds of winning at any time")

    def supposed(self, where: str) -> Supposed:
        """The same for scoring."""
        date = None
        if self.expected_close_date is not None:
            try:
                date = np.datetime64(dt.date.fromisoformat(self.expected_close_date), "D")
            except ValueError as error:
                raise RecordError(
                    f"{where}.expected_close_date", self.expected_close_date,
                    "a date like 2026-03-20",
                ) from error  # fmt: skip
        return Supposed(self.stage_id, self.amount, date, self.group, self.odds)


class WhatIfIn(_Asked):
    """A forecast, and what is supposed of it."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "period": "quarter", "by": "team",
                    "deals": {"D000012": {"amount": 40000.0, "expected_close_date": "2026-03-20"}},
                    "drop": ["D000034"],
                    "odds": 1.1,
                }
            ]
        },
    )  # fmt: skip

    period: Literal["week", "month", "quarter"] = "quarter"
    by: str | None = None
    levels: list[float] = Field([0.5, 0.8, 0.95], max_length=20)
    horizon: int | None = Field(None, description="how many periods, the one in progress included")
    measure: Literal["amount", "count"] = "amount"
    deals: dict[str, _DealIn] = Field(default_factory=dict, max_length=_MOST)
    drop: list[str] = Field(default_factory=list, max_length=_MOST)
    add: list[_DealIn] = Field(
        default_factory=list, max_length=_MOST, description="each with its stage_id and amount"
    )
    odds: float = Field(1.0, description="times the odds of winning of every open deal")
    arrivals: float = Field(1.0, description="times the business still to come")

    def what_if(self) -> WhatIf:
        """What is supposed, for scoring.

        Raises
        ------
        RecordError, WhatIfError
            If a value is not one of those allowed.
        """
        return WhatIf(
            {deal: d.supposed(f"deals.{deal}") for deal, d in self.deals.items()},
            tuple(self.drop),
            tuple(d.supposed(f"add.{i}") for i, d in enumerate(self.add)),
            self.odds,
            self.arrivals,
        )


class _Told(BaseModel):
    # Tests hold every answer against these, so that nothing is undocumented.
    model_config = ConfigDict(extra="forbid")


class _Difference(_Told):
    period: str = Field(examples=["2026-Q1"])
    group: str
    mean: float = Field(description="supposed less as it is, with the same luck")
    probability_of_target: float | None


class WhatIfOut(_Told):
    """The forecast as it is, as supposed, and the difference."""

    as_of: str
    period: str
    by: str | None
    measure: str
    horizon: int
    levels: list[float]
    currency: str
    as_is: list[ForecastPeriodOut]
    supposed: list[ForecastPeriodOut]
    differences: list[_Difference]
    warnings: list[str]
    model: ModelOfAnswer


def differences(
    as_is: list[dict[str, Any]], supposed: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """By period and group, what the supposed answer has more; a new group counts from nothing."""
    before = {(cell["period"], cell["group"]): cell for cell in as_is}
    found = []
    for cell in supposed:
        usual = before.get((cell["period"], cell["group"]), {})
        chances = cell["probability_of_target"], usual.get("probability_of_target")
        found.append(
            {
                "period": cell["period"],
                "group": cell["group"],
                "mean": round(cell["mean"] - usual.get("mean", 0.0), 2),
                "probability_of_target": None if None in chances else chances[0] - chances[1],
            }
        )
    return found
