"""Checks of what records say: copies, fields that tell nothing, data about persons."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from data.quality.findings import Check, Finding, View, has_value, listed, share_text
from data.timelines import NEVER, Column

__all__ = ["CONTENT_CHECKS"]

_WORD = re.compile(r"[a-z]+")
_MAIL = re.compile(r"[^@\s]+@[^@\s]+\.[a-zA-Z]{2,}")
# Written for people: with a plus or brackets, or in groups; bare digits are taken for a code.
_PHONE = re.compile(
    r"(?=(?:\D*\d){9})"
    r"(?:[+(][\d\s()./-]{8,22}|0\d{1,4}[ /-]\d[\d /-]{4,14}|\d{3}[-. ]\d{3}[-. ]\d{4})"
)
_PERSONAL = {"email", "mail", "phone", "mobile", "telephone", "surname", "iban", "ssn", "passport"}
_PERSONAL_PAIRS = (
    ("first", "name"), ("last", "name"), ("full", "name"), ("contact", "name"),
    ("street", "address"), ("ip", "address"),
)  # fmt: skip
_PROTECTED = {
    "age", "birth", "birthday", "birthdate", "gender", "sex", "marital", "religion", "ethnicity",
    "race", "nationality", "disability", "pregnant", "pregnancy",
}  # fmt: skip
_KEY_WORDS = {"id", "uuid", "guid", "key", "number", "no", "nr"}


def _contents(view: View) -> dict[str, npt.NDArray[Any]]:
    """What each record says, without its ids: the source's own rows where they are kept."""
    raws = view.table["raw"]
    if np.mean([r is not None for r in raws]) > 0.9:
        names = dict.fromkeys(k for r in raws[:1000] if r for k in r)
        columns = {
            k: np.array([None if r is None else _hashable(r.get(k)) for r in raws], dtype=object)
            for k in names
        }
    else:
        declared = [f.name for f in view.table.entity.fields if not f.name.startswith("merged_")]
        columns = {name: view.table[name].astype(object) for name in declared}
        for name, values in columns.items():
            values[~has_value(view.table[name])] = None
        columns |= {
            name: np.array([_hashable(v) for v in values], dtype=object)
            for name, values in view.table.attributes.items()
        }
        if view.ledger.pseudo_times:
            columns.pop("created_at")
    own = view.table[f"{view.side}_id"]
    return {name: values for name, values in columns.items() if not _is_key(name, values, own)}


def _hashable(value: Any) -> Any:
    return str(value) if isinstance(value, list | dict) else value


def _is_key(name: str, values: npt.NDArray[Any], own: npt.NDArray[Any]) -> bool:
    """Whether a column identifies its row: it is the id, or named like one and never repeats."""
    if np.mean(values[:1000].astype(str) == own[:1000].astype(str)) > 0.9:
        return True
    named = bool(_KEY_WORDS & set(_WORD.findall(name.lower())))
    return named and len(set(values)) == len(values)


def _duplicates(view: View) -> Finding | None:
    # Without a time of creation, records that few fields tell apart look alike by nature.
    rows_judged = np.flatnonzero(view.timed)
    kept = {k: v[rows_judged] for k, v in _contents(view).items()}
    kept = {k: v for k, v in kept.items() if len(set(v)) > 1}
    if len(kept) < 3:
        return None
    groups = Counter(rows := list(zip(*kept.values(), strict=True)))
    pairs = sum(n * (n - 1) // 2 for n in groups.values())
    extra = sum(n - 1 for n in groups.values())
    chance = _pairs_by_chance(kept, len(rows))
    if pairs <= 5 * chance + 2 or (view.ledger.pseudo_times and extra > 0.01 * len(rows)):
        return None
    first = next(row for row in rows if groups[row] > 1)
    same = [i for i, row in zip(rows_judged, rows, strict=True) if row == first]
    return view.finding(
        "warning" if extra >= 0.01 * len(view) else "info",
        f"{view.count(extra, 'repeats', 'repeat')} another one in all {len(kept)} fields, under an "
        f"id of its own ({share_text(extra, len(view))})",
        "remove the copies in the CRM, or merge them (merged_into_id); where few fields tell "
        "records apart, two real ones may look alike",
        examples=np.array(same),
        copies=extra,
        pairs_by_chance=round(chance, 2),
    )


def _pairs_by_chance(columns: Mapping[str, npt.NDArray[Any]], n: int) -> float:
    """Expected pairs of equal rows if all fields were independent."""
    equal = 1.0
    for values in columns.values():
        counts = np.array(list(Counter(values).values()), dtype=np.float64)
        equal *= float((counts * (counts - 1)).sum() / (n * (n - 1)))
    return equal * n * (n - 1) / 2


def _features(view: View) -> dict[str, Column]:
    """Attributes that may become features, as they stand today."""
    return {
        name: view.ledger.timeline(name).at(
            np.arange(len(view)), np.full(len(view), NEVER - 1, dtype=np.int64)
        )
        for name in view.ledger.fields
        if name in view.table.attributes and not view.fact(name, "excluded")
    }


def _uninformative(view: View) -> Finding | None:
    if len(view) < 50:
        return None
    found: dict[str, str] = {}
    for name, column in _features(view).items():
        codes = column.values if column.kind == "text" else np.nan_to_num(column.values, nan=-1.0)
        _, counts = np.unique(codes, return_counts=True)
        if counts.max() >= 0.998 * len(view):
            found[name] = "nearly always the same"
        elif column.kind == "text" and len(counts) > 0.9 * len(view):
            found[name] = "nearly always another"
    if not found:
        return None
    return view.finding(
        "info",
        f"fields of {view.noun} that tell nothing, as nearly every record has the same value, or "
        f"each a different one: {listed(found)}",
        "nothing to do; to tidy up, list them under `drop` in the mapping",
        fields=found,
    )


def _words(name: str) -> list[str]:
    return _WORD.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())


def _personal_name(name: str) -> bool:
    words = _words(name)
    return bool(_PERSONAL & set(words)) or any(pair in _PERSONAL_PAIRS for pair in pairwise(words))


def _looks_personal(column: Column) -> bool:
    """Whether at least a fifth of the values read like addresses or telephone numbers."""
    texts = [str(t) for t in column.levels[:500]]
    hits = sum(bool(_MAIL.fullmatch(t) or _PHONE.fullmatch(t)) for t in texts)
    return len(texts) > 0 and hits >= 0.2 * len(texts)


def _personal_data(view: View) -> Finding | None:
    found = [
        name
        for name, column in _features(view).items()
        if column.kind == "text" and (_personal_name(name) or _looks_personal(column))
    ]
    if not found:
        return None
    return view.finding(
        "warning",
        f"fields of {view.noun} look like personal data, and nothing keeps them from the models: "
        f"{listed(found)}",
        "drop them in the mapping, or list them under `exclude`; of an e-mail address, map the "
        "part after the @ to email_domain",
        fields=found,
    )


def _protected(view: View) -> Finding | None:
    found = [name for name in _features(view) if _PROTECTED & set(_words(name))]
    if not found:
        return None
    return view.finding(
        "info",
        f"fields of {view.noun} describe persons in ways the law may protect: {listed(found)}",
        "make sure that you may score people by them; if not, list them under `exclude`",
        fields=found,
    )


CONTENT_CHECKS = (
    Check("DQ411", _duplicates, timed=False),
    Check("DQ412", _uninformative, timed=False),
    Check("DQ414", _personal_data, timed=False),
    Check("DQ415", _protected, timed=False),
)
