"""Answers packed for keeping: JSON, lists of alike objects turned into columns, then deflated.

The deflater is primed with the words that every answer is made of (`_WORDS`), without which a
single score would hardly shrink. A packed value begins with one byte that says how it was packed,
so that an older way stays readable when a better one comes.
"""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

from data.store.tables import StoreError

__all__ = ["pack", "unpack"]

_PLAIN, _DEFLATED = b"\0", b"\1"
_LEVEL = 6
_COLUMNS = "$columns"  # no answer has a key of this name

# Never change this: what was packed with it could no longer be read. A better one is another way
# to pack, with a byte of its own. The commonest words stand last, where references are shortest.
_WORDS = (
    b'"warnings":["no stage_changes: the time in the stage is counted from as_of",'
    b'"the amount is missing"],"coverage":{"$columns":{"level":[0.5,0.8,0.95],"measured":'
    b'[null,null,null],"n":[0,0,0]}},"drivers":{"$columns":{"deal_id":["D00001","D00002"],'
    b'"share_of_variance":[0.0,0.01]}},"currency":"EUR","levels":[0.5,0.8,0.95],"hindsight":false,'
    b'{"probability":0.0,"probability_won":0.0,"score":1,"grade":"D","percentile":50.0,'
    b'"reasons":[],"base":null,"evidence":{"method":"logistic","examples":1000,"minority":100,'
    b'"prior_share":0.0,"horizon_days":30},"warnings":[]}'
    b'{"feature":["time in stage","close date","account","amount","activities","owner","source",'
    b'"last activity","calendar","other"],"text":["in this stage for 10 days; typical for this '
    b'stage: 20 days","expected close date moved by 30 days; typical for this stage: 0 days",'
    b'"no activity for 30 days; typical for all deals: 6 days","amount 10,000; typical for this '
    b'stage: 20,000","account\'s industry: software; typical for this stage: ","time to the end of '
    b'the quarter","everything else together"],"contribution":[-0.1,0.1,-0.0]}},"base":-0.0,'
    b'{"probability_won":0.0,"probability_lost":0.0,"curve":{"$columns":{"date":["2026-01-01",'
    b'"2026-02-28","2026-03-31","2026-04-30","2026-05-31","2026-06-30","2026-07-31","2026-08-31",'
    b'"2026-09-30","2026-10-31","2026-11-30","2026-12-31"],"won":[0.0000,0.00,0.0],"lost":[0.0]}},'
    b'"close_date":{"p10":"2026-01-05","p50":"2026-02-03","p90":"2026-03-27"},'
    b'"probability_slip":0.5,"amount":{"p10":10000.00,"p50":20000.00,"p90":30000.00},'
    b'"expected_revenue":10000.00,"stage_win_probability":0.5,"score":50,"grade":"A",'
    b'"percentile":50.0,"reasons":{"$columns":{"feature":[],"base":null,"evidence":{"method":'
    b'"table + ridge + trees","examples":1000,"won":500,"stage_examples":100,"prior_share":0.01,'
    b'"shares":{"stage":0.7,"pipeline":0.2,"organisation":0.05,"preset":0.01}},"warnings":[]}'
)


def pack(value: dict[str, Any]) -> bytes:
    """A dict of plain JSON values as bytes.

    Raises
    ------
    StoreError
        If it holds anything else.

    Examples
    --------
    >>> kept = {"curve": [{"date": "2026-01-01", "won": 0.1}, {"date": "2026-01-08", "won": 0.2}]}
    >>> unpack(pack(kept)) == kept
    True
    """
    try:
        text = msgspec.json.encode(_columnar(value))
    except (TypeError, ValueError) as error:
        raise StoreError(f"an answer to be kept must be plain JSON values: {error}") from error
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=_WORDS)
    return _DEFLATED + packer.compress(text) + packer.flush()


def unpack(packed: bytes) -> dict[str, Any]:
    """What `pack` was given.

    Raises
    ------
    StoreError
        If the bytes were packed in a way that this program does not know.
    """
    how, body = packed[:1], packed[1:]
    if how == _DEFLATED:
        body = zlib.decompressobj(-zlib.MAX_WBITS, zdict=_WORDS).decompress(body)
    elif how != _PLAIN:
        raise StoreError(f"an answer was packed by a newer dealcast (way {how!r}); upgrade")
    found: dict[str, Any] = _rows(msgspec.json.decode(body))
    return found


def _columnar(value: Any) -> Any:
    """Lists of two or more objects with the same keys become one object of lists."""
    if isinstance(value, dict):
        return {k: _columnar(v) for k, v in value.items()}
    if not isinstance(value, list | tuple):
        return value
    first = value[0] if len(value) > 1 else None
    if first and isinstance(first, dict) and all(_alike(first, v) for v in value):
        return {_COLUMNS: {k: _columnar([v[k] for v in value]) for k in first}}
    return [_columnar(v) for v in value]


def _alike(first: dict[str, Any], other: Any) -> bool:
    return isinstance(other, dict) and other.keys() == first.keys()


def _rows(value: Any) -> Any:
    if isinstance(value, list):
        return [_rows(v) for v in value]
    if not isinstance(value, dict):
        return value
    columns = value.get(_COLUMNS)
    if columns is None:
        return {k: _rows(v) for k, v in value.items()}
    read = {k: _rows(v) for k, v in columns.items()}
    return [dict(zip(read, row, strict=True)) for row in zip(*read.values(), strict=True)]
