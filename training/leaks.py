"""The leak report before every training: which fields know the outcome, and are left out.

Fields are judged as a model would believe them at the entry of a record, by outcomes known at the
cutoff, with the measures of `dealcast check` (`data.quality.evidence`). At entry nobody can know
how a record will end: what tells it there was written later. Values with a time of their own
(stages, activities, changes of a field) are known from that time on, and are not suspected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from data.history import History, Side
from data.quality.findings import Finding, View
from data.quality.leaks import judge_at_entry, leak_findings
from data.quality.verdicts import Verdict

__all__ = ["LeakReport", "leak_report"]


@dataclass(frozen=True)
class LeakReport:
    """What the fields of one side know of the outcome, by a moment.

    Attributes
    ----------
    findings : tuple of Finding
        The gravest first.
    withheld : dict of str to str
        Fields that training leaves out, with the codes that speak against each.
    trusted : dict of str to str
        Fields that it reads because the user vouches for them, likewise.
    """

    findings: tuple[Finding, ...] = ()
    withheld: Mapping[str, str] = field(default_factory=dict)
    trusted: Mapping[str, str] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        """What a person should know, in sentences; nothing where all is well."""
        said = []
        if self.withheld:
            said.append(
                f"Left out, as they know the outcome: {_listed(self.withheld)} (see dealcast "
                "check; list a field under trusted in the mapping, or --trust it, to use it)"
            )
        if self.trusted:
            said.append(
                f"Used although they look as if they knew the outcome: {_listed(self.trusted)}"
            )
        return said


def leak_report(
    history: History, side: Side, until: int, trusted: Iterable[str] = ()
) -> LeakReport:
    """Judge every field of the leads or the deals by what was known at `until`.

    Parameters
    ----------
    until : int
        Int64 microseconds; nothing later is looked at.
    trusted : iterable of str
        Fields the user vouches for, besides those of the sources.
    """
    judged = [j for j in judge_at_entry(history, side, until, trusted) if j.use != "excluded"]
    found = leak_findings(judged, View(history, side))
    order = ("severe", "warning", "info")
    return LeakReport(
        tuple(sorted(found, key=lambda f: (order.index(f.severity), f.code))),
        {j.name: _codes(j.verdicts, "severe") for j in judged if j.left_out},
        {j.name: _codes(j.verdicts, "warning") for j in judged if j.trusted and j.verdicts},
    )


def _codes(verdicts: Iterable[Verdict], severity: str) -> str:
    return ", ".join(v.code for v in verdicts if v.severity == severity)


def _listed(fields: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({codes})" for name, codes in fields.items())
