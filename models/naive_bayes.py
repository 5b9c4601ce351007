"""The naive Bayes of the best-known open CRM, from its published behaviour: a named baseline.

Counts of won and lost records for each value of each field, per team, multiplied as if fields
knew nothing of each other. It is implemented as it is, faults included, to be measured beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.encoding import FloatArray, IntArray, ObjectArray

__all__ = ["NaiveBayes", "NaiveBayesError", "Records"]

Categories = tuple[IntArray, ObjectArray]

_ADDED = 0.1  # to every count, once, so that none is 0
_LEAST_TAGGED = 50  # records with a tag before it counts
_CLAMP = 1e-4
_TAGS, _STAGE = "tags", "stage"


class NaiveBayesError(ValueError):
    """Records that cannot be counted; the message says what was seen and allowed."""


@dataclass(frozen=True)
class Records:
    """Records as they stood at one moment each: n rows.

    Attributes
    ----------
    fields : mapping of str to (codes, levels)
        Source, country, state, language, quality of e-mail and telephone: whatever there is.
        Codes int32 (n,), -1 where empty.
    stage : (codes, levels), optional
        None where records have no stages.
    team : (codes, levels), optional
        None: all are of one team.
    tags : sequence of sequences of str, optional
        Any number of tags a record.
    """

    fields: Mapping[str, Categories]
    stage: Categories | None = None
    team: Categories | None = None
    tags: Sequence[Sequence[str]] | None = None

    def __len__(self) -> int:
        given = [*self.fields.values(), self.stage, self.team]
        lengths = {len(column[0]) for column in given if column is not None}
        lengths |= set() if self.tags is None else {len(self.tags)}
        if len(lengths) != 1:
            raise NaiveBayesError(
                f"columns of lengths {sorted(lengths)}; give every record every column"
            )
        return lengths.pop()


@dataclass(frozen=True)
class _Values:
    """Which rows have which values of a field: pairs (row, code), and the levels."""

    row: npt.NDArray[np.intp]
    code: npt.NDArray[np.intp]
    levels: tuple[str, ...]

    @classmethod
    def of(cls, column: Categories) -> _Values:
        codes, levels = column
        row = np.flatnonzero(codes >= 0)
        return cls(row, codes[row].astype(np.intp), tuple(str(level) for level in levels))

    @classmethod
    def of_tags(cls, tags: Sequence[Sequence[str]]) -> _Values:
        levels = tuple(sorted({tag for given in tags for tag in given}))
        place = {tag: i for i, tag in enumerate(levels)}
        pairs = [(i, place[tag]) for i, given in enumerate(tags) for tag in sorted(set(given))]
        row, code = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
        return cls(row, code, levels)


@dataclass(frozen=True)
class NaiveBayes:
    """Counts of won and lost records.

    With W, L the counts of the first stage,

        S_won = W / (W + L) x product over the fields of won(value) / den,

    den = W for the stage, else the sum of won(.) over the values of that field; S_lost likewise;
    the answer is S_won / (S_won + S_lost), kept within [.0001, .9999]. Values that are empty, or
    were never counted, are skipped.

    Attributes
    ----------
    teams : tuple of str
        The last row of every count serves all other teams: all records pooled.
    levels : mapping of str to tuple of str
        Values of each field.
    counts : mapping of str to float64 (teams + 1, values, 2)
        Won and lost, .1 added; 0 where a value was not seen.
    first : float64, shape (teams + 1, 2)
        W and L.

    Examples
    --------
    >>> import numpy as np
    >>> source = np.array([0, 0, 1], np.int32), np.array(["web", "fair"], object)
    >>> model = NaiveBayes.fit(Records({"source": source}), np.array([True, False, False]))
    >>> model.predict(Records({"source": source})).round(3)
    array([0.49, 0.49, 0.08])
    """

    teams: tuple[str, ...]
    levels: Mapping[str, tuple[str, ...]]
    counts: Mapping[str, FloatArray]
    first: FloatArray

    @classmethod
    def fit(cls, records: Records, won: npt.ArrayLike, *, stages: Sequence[str] = ()) -> NaiveBayes:
        """Count closed records.

        Parameters
        ----------
        records : Records
            As they stood when they closed, as that CRM counts them, or at an earlier moment.
        won : array_like of bool, shape (n,)
        stages : sequence of str
            The stages in order; needed where records have any. A won record counts in every
            stage, a lost one in its stage and all before.

        Raises
        ------
        NaiveBayesError
            If there are no records, lengths differ, or a stage is not among `stages`.
        """
        result = np.asarray(won, dtype=np.bool_)
        if result.shape != (len(records),) or len(records) == 0:
            raise NaiveBayesError(
                f"{len(records)} records and outcomes of shape {result.shape}; give at least one "
                "closed record, and one outcome each"
            )
        team, teams = _teams(records)
        values = {name: _Values.of(column) for name, column in records.fields.items()}
        if records.tags is not None:
            values[_TAGS] = _Values.of_tags(records.tags)
        raw = {
            name: _count(team[v.row], v.code, result[v.row], len(teams), len(v.levels))
            for name, v in values.items()
        }
        if _TAGS in raw:
            raw[_TAGS][raw[_TAGS].sum(axis=2) < _LEAST_TAGGED] = 0.0
        levels = {name: v.levels for name, v in values.items()}
        ever = _count(team, np.zeros(len(team), np.intp), result, len(teams), 1)
        if records.stage is not None:
            levels[_STAGE] = tuple(stages)
            raw[_STAGE] = _stage_counts(records.stage, team, result, len(teams), levels[_STAGE])
            ever = raw[_STAGE][:, :1]
        return cls(
            teams,
            levels,
            {name: _added(counts) for name, counts in raw.items()},
            _added(ever)[:, 0],
        )

    def predict(self, records: Records) -> FloatArray:
        """Chance to be won, shape (n,)."""
        n, pooled = len(records), len(self.teams)
        team = np.full(n, pooled)
        if records.team is not None:
            given = _Values.of(records.team)
            place = {name: i for i, name in enumerate(self.teams)}
            known = np.array([place.get(level, pooled) for level in given.levels], dtype=np.intp)
            team[given.row] = known[given.code]
        score = np.log(self.first[team])
        for name, values in self._values(records).items():
            if name not in self.counts:
                continue
            place = {level: i for i, level in enumerate(self.levels[name])}
            known = np.array([place.get(level, -1) for level in values.levels], dtype=np.intp)
            code, row = known[values.code], values.row
            row, code = row[code >= 0], code[code >= 0]
            counts = self.counts[name][team[row], code]
            whole = self.first if name == _STAGE else self.counts[name].sum(axis=1)
            counted = counts[:, 0] > 0
            row, counts = row[counted], counts[counted]
            np.add.at(score, row, np.log(counts) - np.log(whole[team[row]]))
        odds = score[:, 0] - score[:, 1]
        p = 1.0 / (1.0 + np.exp(-np.clip(odds, -700.0, 700.0)))
        return np.asarray(np.clip(p, _CLAMP, 1.0 - _CLAMP), dtype=np.float64)

    def _values(self, records: Records) -> dict[str, _Values]:
        values = {name: _Values.of(column) for name, column in records.fields.items()}
        if records.stage is not None:
            values[_STAGE] = _Values.of(records.stage)
        if records.tags is not None:
            values[_TAGS] = _Values.of_tags(records.tags)
        return values


def _teams(records: Records) -> tuple[npt.NDArray[np.intp], tuple[str, ...]]:
    """Team of each record, -1 where it has none, and the names of those that have records."""
    if records.team is None:
        return np.full(len(records), -1, dtype=np.intp), ()
    codes, levels = records.team
    used = np.unique(codes[codes >= 0])
    place = np.full(len(levels) + 1, -1, dtype=np.intp)
    place[used] = np.arange(len(used))
    return place[codes], tuple(str(levels[code]) for code in used)


def _count(
    team: npt.NDArray[np.intp], code: npt.NDArray[np.intp], won: npt.NDArray[np.bool_],
    teams: int, values: int,
) -> FloatArray:  # fmt: skip
    """Won and lost by team and value, all records in the last row: (teams + 1, values, 2)."""
    counts = np.zeros((teams + 1, values, 2))
    lost = (~won).astype(np.intp)
    own = team >= 0
    np.add.at(counts, (team[own], code[own], lost[own]), 1.0)
    np.add.at(counts, (np.full(len(code), teams), code, lost), 1.0)
    return counts


def _stage_counts(
    stage: Categories, team: npt.NDArray[np.intp], won: npt.NDArray[np.bool_], teams: int,
    stages: tuple[str, ...],
) -> FloatArray:  # fmt: skip
    """A won record in every stage, a lost one in its own and all before; empty is skipped."""
    codes, levels = stage
    place = {name: i for i, name in enumerate(stages)}
    strange = {str(levels[c]) for c in np.unique(codes[codes >= 0])} - set(place)
    if strange or not stages:
        raise NaiveBayesError(
            f"stages {sorted(strange)} are not among {list(stages)}; give all stages in order"
        )
    last = np.array([place.get(str(level), -1) for level in levels] + [-1], dtype=np.intp)[codes]
    last[won] = len(stages) - 1
    counts = _count(team[last >= 0], last[last >= 0], won[last >= 0], teams, len(stages))
    # Reached a stage: ended in it or in a later one.
    return np.asarray(counts[:, ::-1].cumsum(axis=1)[:, ::-1], dtype=np.float64)


def _added(counts: FloatArray) -> FloatArray:
    seen = counts.sum(axis=2, keepdims=True) > 0
    return np.where(seen, counts + _ADDED, 0.0)
