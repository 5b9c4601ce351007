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
    b'"warnings":["no stage_changes: the time in the stage is counted from as_of"],'
    b'"hindsight":true,'
    b'"coverage":{"$columns":{"level":[0.5,0.8,0.95],"measured":[null,null,null],"n":[0,0,0]}},'
    b'"drivers":{"$columns":{"deal_id":["D00001"],"share_of_variance":[0.0,0.01]}},"currency":"EUR",'
    b'"levels":[0.5,0.8,0.95],"probability":0.0,"minority":100,"horizon_days":30,"logistic",'
    b'{"feature":["industry","title","contact data","age","lead_source","has_phone","country",'
    b'"response","employee_count","owner","product_family","deal_type","moves","time of entry"'
    b'"the address is at a free mail provider: yes; typical for all leads: no",'
    b'"whether a telephone number is known: no; typical for all leads: yes",'
    b'"industry of the company: manufacturing, as is typical for all leads",'
    b'"job title: not known; typical for all leads: Manager",'
    b'"country: DE, as is typical for all leads","channel it came from: referral; typical for all '
    b'leads: website","activities so far: 0","call activities in the last 28 days: 1; typical for '
    b'all leads: 0","share of the contact fields filled in: 83%","time since the lead came in: 16 '
    b'days; typical for all leads: 4.3 days","last activity: email","no activity yet",'
    b'"size of the company: 84 persons","wait for the first activity: 8 days","product: Starter",'
    b'"in this stage for 10 days","expected close date moved by 30 days; typical for this stage: 0 '
    b'days","changes of the expected close date: 0; typical for this stage: 1","changes of the '
    b'amount: 1","deals lost with the account before: 1","times the deal entered this stage: 2",'
    b'"moves to an earlier stage: 1","owner\'s win rate in 90 days: 37%","deals the owner closed '
    b'in 90 days: 13","amount down 13% since the first one; typical for this stage: unchanged",'
    b'"activities since the stage began: 2; typical for this stage: 0","account\'s industry: '
    b'software","time to the end of the quarter: 38 days; typical for this stage: 46 days",'
    b'"amount 22,400; typical for this stage: 10,080","channel it came from: website, as is '
    b'typical for this stage","everything else together"],'
    b'"contribution":[-0.1,0.1,-0.0]}},"base":-0.0,'
    b'"probability_won":0.0,"score":1,"grade":"D","percentile":50.0,"reasons":[],"base":null,'
    b'{"probability_won":0.0,"probability_lost":0.0,"curve":{"$columns":{"date":["2026-01-01",'
    b'"2026-02-28","2026-03-31","2026-04-30","2026-05-31","2026-06-30","2026-07-31","2026-08-31",'
    b'"2026-09-30","2026-10-31","2026-11-30","2026-12-31"],"won":[0.0000,0.00,0.0],"lost":[0.0]}},'
    b'"close_date":{"p10":"2026-01-05","p50":"2026-02-03","p90":"2026-03-27"},'
    b'"probability_slip":0.5,"amount":{"p10":10000.00,"p50":20000.00,"p90":30000.00},'
    b'"expected_revenue":10000.00,"stage_win_probability":0.5,"score":50,"grade":"A",'
    b'"percentile":50.0,"reasons":{"$columns":{"feature":["time in stage","close date","account",'
    b'"amount","activities","last activity","calendar","other"],"base":null,"evidence":{"method":'
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
