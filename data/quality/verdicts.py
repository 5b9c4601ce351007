"""From evidence to verdicts: the thresholds of the leak report.

`docs/checks.md` says how far each stands from the fields of public data sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.quality.evidence import Evidence
from data.quality.findings import Severity, share_text

__all__ = ["Verdict", "verdicts"]

# Lower bounds of the AUC within windows of time. Fields known at entry stay below .70.
_AUC_SEVERE, _AUC_WARNING = 0.80, 0.65
# Difference of the share missing between won and lost, and between open and closed.
_GAP_SEVERE, _OPEN_GAP_SEVERE, _GAP_WARNING = 0.6, 0.5, 0.3
# Lower bound of the ratio of odds between filled and empty, and the least share it must concern.
_FILLED_SEVERE, _FILLED_SHARE, _FILLED_WARNING = 30.0, 0.1, 2.0
# Values almost certain both ways, or one way: lower bound of their odds, and their least share.
_BOTH_ODDS, _BOTH_SURE, _BOTH_SHARE = 3.0, 10.0, 0.02
_BOTH_GAP, _BOTH_FILLED = 0.2, 1.5  # what emptiness has to tell beside them
_ONE_SEVERE, _ONE_SHARE_SEVERE = 100.0, 0.3
_ONE_WARNING, _ONE_SHARE_WARNING = 10.0, 0.05
# Share of closed records whose date is the day of closing, or lies after the day of entry.
_CLOSING_SEVERE, _CLOSING_WARNING, _AFTER_ENTRY = 0.6, 0.3, 0.5
_COUNTS_AUC = 0.52


@dataclass(frozen=True)
class Verdict:
    """One thing that speaks against a field.

    Attributes
    ----------
    code : str
    severity : {"severe", "warning", "info"}
    words : str
        Its figures, to be read after the field's name.
    figures : mapping of str to object
        The same as plain JSON.
    """

    code: str
    severity: Severity
    words: str
    figures: Mapping[str, Any]


def verdicts(found: Evidence, words: tuple[str, str]) -> list[Verdict]:
    """All that speaks against a field; `words` are what the two outcomes are called."""
    given = (
        _value_knows(found),
        _absence_knows(found, words),
        _is_closing_date(found),
        _certain_values(found, words),
        _filled_in_bulk(found),
        _counts_up(found),
        _after_entry(found),
    )
    return [v for v in given if v is not None]


def _value_knows(found: Evidence) -> Verdict | None:
    if found.auc_low < _AUC_WARNING:
        return None
    return Verdict(
        "LK101",
        "severe" if found.auc_low >= _AUC_SEVERE else "warning",
        f"AUC {found.auc:.2f}",
        {
            "auc": round(found.auc, 3),
            "auc_low": round(found.auc_low, 3),
            "windows": found.windows,
        },
    )


def _absence_knows(found: Evidence, words: tuple[str, str]) -> Verdict | None:
    won, lost, still = found.missing
    most = 0.0 if np.isnan(won) or np.isnan(lost) else max(1.0 - won, 1.0 - lost)
    one_sided = found.filled_odds >= _FILLED_SEVERE and most >= _FILLED_SHARE
    severe = found.gap >= _GAP_SEVERE or found.open_gap >= _OPEN_GAP_SEVERE or one_sided
    gap = max(found.gap, found.open_gap)
    if not severe and gap < _GAP_WARNING and found.filled_odds < _FILLED_WARNING:
        return None
    good, bad = words
    return Verdict(
        "LK102",
        "severe" if severe else "warning",
        ", ".join(
            f"{share_text(share, 1.0)} of {word}"
            for share, word in zip(found.missing, (good, bad, "open"), strict=True)
            if not np.isnan(share)
        ),
        {
            "missing": {good: _plain(won), bad: _plain(lost), "open": _plain(still)},
            "odds_low": round(found.filled_odds, 2),
        },
    )


def _is_closing_date(found: Evidence) -> Verdict | None:
    if not found.at_closing >= _CLOSING_WARNING:
        return None
    return Verdict(
        "LK105",
        "severe" if found.at_closing >= _CLOSING_SEVERE else "warning",
        share_text(found.at_closing, 1.0),
        {"at_closing": round(found.at_closing, 4)},
    )


def _certain_values(found: Evidence, words: tuple[str, str]) -> Verdict | None:
    sides = (found.won, found.lost)
    both = all(s.odds >= _BOTH_ODDS and s.share >= _BOTH_SHARE for s in sides)
    # A good channel and a bad one exist; somebody's opinion is surer still, or is given only to
    # some, so that its absence tells as well.
    absence = found.gap >= _BOTH_GAP or found.filled_odds >= _BOTH_FILLED
    sure = absence or all(s.odds >= _BOTH_SURE for s in sides)
    # A rule may refuse a kind of record at entry; nothing known then is sure to win.
    wins = found.won.odds >= _ONE_SEVERE and found.won.share >= _ONE_SHARE_SEVERE
    mild = [s.odds >= _ONE_WARNING and s.share >= _ONE_SHARE_WARNING for s in sides]
    if not both and not any(mild):
        return None
    told = [
        f"{share_text(s.share, 1.0)} of all {word} have a value with which {_percent(s.rate)} are"
        for s, word, shown in zip(sides, words, mild, strict=True)
        if both or shown
    ]
    return Verdict(
        "LK106",
        "severe" if wins or (both and sure) else "warning",
        "; ".join(told),
        {
            word: {
                "records": s.records,
                "rate": round(s.rate, 4),
                "odds_low": round(s.odds, 1),
                "share": round(s.share, 4),
            }
            for s, word in zip(sides, words, strict=True)
        },
    )


def _filled_in_bulk(found: Evidence) -> Verdict | None:
    if not found.emptied:
        return None
    won, lost, _ = found.missing
    return Verdict(
        "LK107",
        "warning",
        f"{_percent(won)} and {_percent(lost)} missing",
        {"missing": [_plain(won), _plain(lost)]},
    )


def _counts_up(found: Evidence) -> Verdict | None:
    tells = found.auc_low >= _COUNTS_AUC or found.filled_odds >= _FILLED_WARNING
    if not found.counts_up or not tells:
        return None
    return Verdict("LK108", "warning", f"AUC {found.auc:.2f}", {"auc": round(found.auc, 3)})


def _after_entry(found: Evidence) -> Verdict | None:
    if not found.after_entry >= _AFTER_ENTRY or found.name == "expected_close_date":
        return None
    return Verdict(
        "LK109",
        "warning",
        share_text(found.after_entry, 1.0),
        {"after_entry": round(found.after_entry, 4)},
    )


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else share_text(share, 1.0)


def _plain(share: float) -> float | None:
    return None if np.isnan(share) else round(share, 4)
