"""Every check finds what it is for, and is silent where all is well or the case is another."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import numpy as np
import pytest

from data.pipeline import FiscalCalendar
from data.quality import CHECKS
from tests.data.quality_rows import DAY, MINUTE, START, UNTIL, Crm, change, healthy

Edit = Callable[[Crm], None]
FOUND: dict[str, tuple[str, Edit]] = {}  # code -> severity expected, how to spoil the data
SILENT: dict[str, Edit] = {}  # code -> something alike that is no fault


def found(code: str, severity: str) -> Callable[[Edit], Edit]:
    def register(edit: Edit) -> Edit:
        FOUND[code] = (severity, edit)
        return edit

    return register


def silent(code: str) -> Callable[[Edit], Edit]:
    def register(edit: Edit) -> Edit:
        SILENT[code] = edit
        return edit

    return register


# --- clocks ----------------------------------------------------------------------------------


@found("DQ101", "warning")
def _(crm: Crm) -> None:
    for deal in crm.deal[:20]:
        del deal["created_at"]


@silent("DQ101")
def _(crm: Crm) -> None:
    crm.deal[0]["created_at"] = crm.deal[1]["created_at"]


@found("DQ102", "severe")
def _(crm: Crm) -> None:
    for deal in crm.closed()[:60]:
        del deal["closed_at"]


@silent("DQ102")
def _(crm: Crm) -> None:  # the history tells the closing
    for deal in crm.closed()[:60]:
        at, outcome = deal.pop("closed_at"), deal["outcome"]
        crm.field_change.append(change(deal, "outcome", at, "open", outcome))


@found("DQ103", "warning")
def _(crm: Crm) -> None:
    for deal in crm.closed()[:3]:
        deal["closed_at"] = deal["created_at"] - DAY


@silent("DQ103")
def _(crm: Crm) -> None:
    for deal in crm.closed()[:3]:
        deal["closed_at"] = deal["created_at"]


@found("DQ104", "warning")
def _(crm: Crm) -> None:
    for move in crm.stage_change[:20:2]:
        move["changed_at"] -= 3 * DAY


@silent("DQ104")
def _(crm: Crm) -> None:  # moves known by their date only
    for move in crm.stage_change:
        move["changed_at"] = dt.datetime.combine(move["changed_at"], dt.time(), dt.UTC)


@found("DQ105", "warning")
def _(crm: Crm) -> None:
    for move in crm.stage_change[::10]:
        move["recorded_at"] = move["changed_at"] - 2 * 60 * MINUTE


@silent("DQ105")
def _(crm: Crm) -> None:  # a meeting planned, not yet done; and a write time that is assumed
    deal = crm.deal[0]
    at = deal["created_at"]
    crm.activity.append(
        {"activity_id": "A1", "type": "meeting", "deal_id": deal["deal_id"], "is_done": False,
         "occurred_at": at + 9 * DAY, "recorded_at": at}
    )  # fmt: skip
    crm.stage_change[0].update(recorded_at=at - DAY, recorded_assumed=True)


@found("DQ106", "warning")
def _(crm: Crm) -> None:
    for move in crm.stage_change[:300]:
        move["recorded_at"] = UNTIL


@silent("DQ106")
def _(crm: Crm) -> None:
    for move in crm.stage_change[:300]:
        move["recorded_at"] = move["changed_at"] + 5 * DAY


@found("DQ107", "warning")
def _(crm: Crm) -> None:
    crm.stage_change = [m for m in crm.stage_change if m["to_stage_id"] != "Contact"]
    for deal in crm.deal[:100]:
        crm.stage_change.append(
            {**crm.moves_of(crm.deal[0])[0], "entity_id": deal["deal_id"], "to_stage_id": "Other",
             "changed_at": deal["created_at"], "recorded_at": deal["created_at"]}
        )  # fmt: skip


@silent("DQ107")
def _(crm: Crm) -> None:  # both moves at the same moment, told apart by their order
    for deal in crm.deal[:100]:
        for move in crm.moves_of(deal):
            move["changed_at"] = deal["created_at"]


@found("DQ108", "warning")
def _(crm: Crm) -> None:
    for deal in crm.open()[:3]:
        crm.field_change.append(change(deal, "outcome", UNTIL - MINUTE, "open", "won"))


@silent("DQ108")
def _(crm: Crm) -> None:  # closed, reopened, and open in its row too
    for deal in crm.open()[:3]:
        at = deal["created_at"] + MINUTE
        crm.field_change.append(change(deal, "outcome", at, "open", "lost"))
        crm.field_change.append(change(deal, "outcome", at + MINUTE, "lost", "open"))


@found("DQ109", "warning")
def _(crm: Crm) -> None:
    for deal in crm.closed()[:4]:
        deal["closed_at"] = UNTIL + 40 * DAY


@silent("DQ109")
def _(crm: Crm) -> None:  # a source without an end of its own
    crm.facts.pop("observed_until")
    crm.closed()[0]["closed_at"] = UNTIL + 40 * DAY


@found("DQ110", "warning")
def _(crm: Crm) -> None:
    for deal in crm.deal[:3]:
        deal["created_at"] = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@silent("DQ110")
def _(crm: Crm) -> None:
    crm.deal[0]["created_at"] = dt.datetime(1995, 5, 3, tzinfo=dt.UTC)


@found("DQ111", "warning")
def _(crm: Crm) -> None:  # midnight in Berlin, winter and summer, read as UTC
    for deal in crm.deal:
        hour = 22 if 3 < deal["created_at"].month < 10 else 23
        deal["created_at"] = dt.datetime.combine(deal["created_at"], dt.time(hour), dt.UTC)


@silent("DQ111")
def _(crm: Crm) -> None:
    for deal in crm.deal:
        deal["created_at"] = deal["created_at"].replace(minute=0, second=0)


@found("DQ112", "info")
def _(crm: Crm) -> None:
    crm.facts["pseudo_times"] = ("deal",)


# --- flow ------------------------------------------------------------------------------------


@found("DQ201", "warning")
def _(crm: Crm) -> None:
    late = [d for d in crm.closed("lost") if d["created_at"] < START + 120 * DAY][:40]
    for i, deal in enumerate(late):
        deal["closed_at"] = START + 200 * DAY + i * dt.timedelta(seconds=5)


@silent("DQ201")
def _(crm: Crm) -> None:  # the same number over a day
    for i, deal in enumerate(crm.closed("lost")[:40]):
        deal["closed_at"] = START + 200 * DAY + i * 10 * MINUTE


@found("DQ202", "warning")
def _(crm: Crm) -> None:
    for i, deal in enumerate(crm.deal[:60]):
        deal["created_at"] = START + i * dt.timedelta(seconds=4)


@silent("DQ202")
def _(crm: Crm) -> None:
    for i, deal in enumerate(crm.deal[:60]):
        deal["created_at"] = START + i * 7 * MINUTE


@found("DQ203", "info")
def _(crm: Crm) -> None:
    for deal in crm.closed("lost")[:100]:
        deal["closed_at"] = deal["created_at"] + MINUTE
        for move in crm.moves_of(deal):
            move["changed_at"] = deal["created_at"]


@silent("DQ203")
def _(crm: Crm) -> None:
    for deal in crm.closed("lost")[:100]:
        deal["closed_at"] = deal["created_at"] + 60 * MINUTE


def _reopen(crm: Crm, age: int) -> None:
    for deal in crm.closed("lost"):
        if deal["created_at"] < UNTIL - age * DAY:
            deal["outcome"], deal["stage_id"] = "open", "Proposal"
            del deal["closed_at"]


@found("DQ204", "warning")
def _(crm: Crm) -> None:
    _reopen(crm, 300)


@silent("DQ204")
def _(crm: Crm) -> None:  # old, but deals do take that long here
    for deal in crm.closed()[:200]:
        deal["closed_at"] = min(deal["created_at"] + 300 * DAY, UNTIL - MINUTE)
    _reopen(crm, 330)


@found("DQ205", "info")
def _(crm: Crm) -> None:
    crm.facts["observed_from"] = np.datetime64("2023-02-01", "us")


@silent("DQ205")
def _(crm: Crm) -> None:  # before the first record
    crm.facts["observed_from"] = np.datetime64("2023-01-01", "us")


def _drop_early_closings(crm: Crm) -> None:
    since = START + 90 * DAY
    crm.deal = [d for d in crm.deal if d.get("closed_at", UNTIL) >= since]


@found("DQ206", "warning")
def _(crm: Crm) -> None:
    _drop_early_closings(crm)


@silent("DQ206")
def _(crm: Crm) -> None:  # lost with it, but declared
    _drop_early_closings(crm)
    crm.facts["observed_from"] = np.datetime64("2023-04-02", "us")


@found("DQ207", "info")
def _(crm: Crm) -> None:
    crm.calendar = FiscalCalendar(first_month=3)


@silent("DQ207")
def _(crm: Crm) -> None:  # another first month, the same quarters
    crm.calendar = FiscalCalendar(first_month=4)


@found("DQ208", "warning")
def _(crm: Crm) -> None:
    crm.facts["observed_until"] = np.datetime64("2024-03-01", "us")


@silent("DQ208")
def _(crm: Crm) -> None:
    crm.facts["observed_until"] = np.datetime64("2024-01-10", "us")


def _pause(crm: Crm, until: int) -> None:
    begin, end = START + 140 * DAY, START + until * DAY
    crm.deal = [d for d in crm.deal if not begin <= d["created_at"] < end]


@found("DQ209", "warning")
def _(crm: Crm) -> None:
    _pause(crm, 161)


@silent("DQ209")
def _(crm: Crm) -> None:  # half a week is no week
    _pause(crm, 144)


@found("DQ210", "severe")
def _(crm: Crm) -> None:
    crm.deal = [d for d in crm.deal if d["outcome"] != "lost"]


@silent("DQ210")
def _(crm: Crm) -> None:  # a few won deals are few outcomes, not one outcome
    crm.deal = crm.closed("won")[:5]


@found("DQ211", "warning")
def _(crm: Crm) -> None:
    crm.deal = crm.open() + crm.closed("won")[:20] + crm.closed("lost")


@silent("DQ211")
def _(crm: Crm) -> None:
    crm.deal = crm.open() + crm.closed("won")[:30] + crm.closed("lost")


@found("DQ212", "warning")
def _(crm: Crm) -> None:
    for n, deal in enumerate(crm.closed()):
        won = n % 10 < (2 if deal["created_at"] < START + 180 * DAY else 7)
        deal.update(outcome="won" if won else "lost", stage_id="Won" if won else "Lost")


@silent("DQ212")
def _(crm: Crm) -> None:  # the young ones are the quickly lost: not ripe, no change
    for deal in crm.closed():
        if deal["created_at"] > UNTIL - 30 * DAY:
            deal.update(outcome="lost", stage_id="Lost")


@found("DQ213", "warning")
def _(crm: Crm) -> None:
    for lead in crm.lead:
        lead["qualified_at" if lead["outcome"] == "qualified" else "disqualified_at"] = UNTIL
        lead["outcome"] = "qualified" if lead["outcome"] == "qualified" else "disqualified"


@silent("DQ213")
def _(crm: Crm) -> None:  # none open, and old enough to be decided
    crm.lead = [x for x in crm.lead if x["created_at"] < UNTIL - 90 * DAY]


@found("DQ214", "info")
def _(crm: Crm) -> None:
    for n, deal in enumerate(crm.closed()):
        won = n % 10 < (8 if deal["closed_at"].month % 3 == 0 else 4)
        deal.update(outcome="won" if won else "lost", stage_id="Won" if won else "Lost")


@silent("DQ214")
def _(crm: Crm) -> None:  # one good quarter end is no rhythm
    for deal in crm.closed():
        if deal["closed_at"].month == 3:
            deal.update(outcome="won", stage_id="Won")


@found("DQ215", "info")
def _(crm: Crm) -> None:
    for deal in crm.open()[:10]:
        at = deal["created_at"] + MINUTE
        crm.field_change.append(change(deal, "outcome", at, "open", "lost"))
        crm.field_change.append(change(deal, "outcome", at + MINUTE, "lost", "open"))


# --- histories and leaks ---------------------------------------------------------------------


@found("DQ301", "warning")
def _(crm: Crm) -> None:
    crm.stage_change = []


@silent("DQ301")
def _(crm: Crm) -> None:
    crm.stage_change = crm.stage_change[:200]


@found("DQ302", "warning")
def _(crm: Crm) -> None:
    crm.stage_change = [m for m in crm.stage_change if m["changed_at"] > START + 150 * DAY]


@silent("DQ302")
def _(crm: Crm) -> None:
    crm.stage_change = [m for m in crm.stage_change if m["changed_at"] > START + 20 * DAY]


def _attribute(crm: Crm, name: str, value: Callable[[int, dict[str, object]], object]) -> None:
    for n, deal in enumerate(crm.deal):
        deal["attributes"] = {**deal["attributes"], name: value(n, deal)}


@found("DQ303", "warning")
def _(crm: Crm) -> None:
    _attribute(crm, "size", lambda n, _: ["small", "large"][n % 2])


@silent("DQ303")
def _(crm: Crm) -> None:  # excluded, with a history, always the same, or about a person
    _attribute(crm, "size", lambda n, _: ["small", "large"][n % 2])
    _attribute(crm, "office", lambda n, _: "Berlin")
    crm.facts["excluded"] = {"deal": ("size",)}
    for n, deal in enumerate(crm.deal):
        deal.update(deal_type=["new", "renewal"][n % 2], name=f"Deal {n % 7}")
    first = crm.deal[0]
    crm.field_change.append(change(first, "deal_type", START + 9 * DAY, "renewal", "new"))


@found("DQ304", "warning")
def _(crm: Crm) -> None:
    for deal in crm.deal[:4]:
        at = deal["created_at"] + MINUTE
        crm.field_change.append(change(deal, "owner_id", at, "rep-1", "rep-2"))


@silent("DQ304")
def _(crm: Crm) -> None:
    at = crm.deal[0]["created_at"] + MINUTE
    crm.field_change.append(change(crm.deal[0], "product_family", at, "A", "B"))


@found("LK101", "severe")
def _(crm: Crm) -> None:
    _attribute(crm, "note", lambda n, d: "signed" if d["outcome"] == "won" else "talking")
    crm.static("note")


@silent("LK101")
def _(crm: Crm) -> None:  # a good sign, with many levels, is no leak
    _attribute(crm, "fit", lambda n, d: (n % 3) + 2 * (d["outcome"] == "won") * (n % 4 == 0))
    _attribute(crm, "town", lambda n, _: f"town {n // 2}")
    crm.static("fit", "town")


@found("LK102", "warning")
def _(crm: Crm) -> None:  # as a customer that is filled in on closing
    half = {d["deal_id"] for d in crm.open()[::3]}
    _attribute(crm, "site", lambda n, d: None if d["deal_id"] in half else f"s{n % 9}")
    crm.static("site")


@silent("LK102")
def _(crm: Crm) -> None:  # a field that is young: missing in what closed long ago
    _attribute(
        crm, "site",
        lambda n, d: None if d["created_at"] < START + 180 * DAY else f"s{n % 9}",  # type: ignore[operator]
    )  # fmt: skip
    crm.static("site")


@found("LK103", "info")
def _(crm: Crm) -> None:
    for deal in crm.closed():
        crm.field_change.append(change(deal, "amount", deal["closed_at"], "100", "90"))


@silent("LK103")
def _(crm: Crm) -> None:
    for deal in crm.closed():
        at = deal["created_at"] + (deal["closed_at"] - deal["created_at"]) / 2
        crm.field_change.append(change(deal, "amount", at, "100", "90"))


@found("LK104", "info")
def _(crm: Crm) -> None:
    _attribute(crm, "note", lambda n, d: "signed" if d["outcome"] == "won" else "talking")
    crm.facts["excluded"] = {"deal": ("note",)}


@silent("LK104")
def _(crm: Crm) -> None:
    crm.facts["excluded"] = {"deal": ("region",)}


@found("LK105", "warning")
def _(crm: Crm) -> None:
    for deal in crm.closed():
        deal["expected_close_date"] = deal["closed_at"].date()


@silent("LK105")
def _(crm: Crm) -> None:
    for deal in crm.closed():
        deal["expected_close_date"] = (deal["created_at"] + 20 * DAY).date()


@found("LK106", "severe")
def _(crm: Crm) -> None:  # somebody's opinion, which follows the outcome where it is strong
    told = {"won": "hot", "lost": "dead"}
    _attribute(crm, "mood", lambda n, d: told.get(str(d["outcome"])) if n % 3 == 0 else "fair")


@silent("LK106")
def _(crm: Crm) -> None:  # strong signs both ways, far from certain
    _attribute(
        crm, "mood",
        lambda n, d: "hot" if (n % 10 < 7) == (d["outcome"] == "won") else "cold",
    )  # fmt: skip


@found("LK107", "warning")
def _(crm: Crm) -> None:  # filled by a service that was off for some months
    _attribute(
        crm, "index",
        lambda n, d: None if 100 < (d["created_at"] - START) / DAY < 200 else n % 7,  # type: ignore[operator]
    )  # fmt: skip


@silent("LK107")
def _(crm: Crm) -> None:  # a young field
    _attribute(
        crm, "index",
        lambda n, d: None if (d["created_at"] - START) / DAY < 200 else n % 7,  # type: ignore[operator]
    )  # fmt: skip


@found("LK108", "warning")
def _(crm: Crm) -> None:  # those that win go on visiting
    _attribute(crm, "visits", lambda n, d: (n % 5) * (n % 7) * (4 if d["outcome"] == "won" else 1))


@silent("LK108")
def _(crm: Crm) -> None:  # a total that tells nothing, and a number that does not begin at zero
    _attribute(crm, "visits", lambda n, _: (n % 5) * (n % 7) * (n % 11))
    _attribute(crm, "size", lambda n, d: 50 + n % 13 + 5 * (d["outcome"] == "won"))


def _day_of(deal: dict[str, object], days: int) -> str:
    """The date so many days after a deal's creation."""
    created = deal["created_at"]
    assert isinstance(created, dt.datetime)
    return (created + days * DAY).date().isoformat()


@found("LK109", "warning")
def _(crm: Crm) -> None:
    _attribute(crm, "touched", lambda n, d: _day_of(d, 2 + n % 90))


@silent("LK109")
def _(crm: Crm) -> None:
    _attribute(crm, "founded", lambda n, d: _day_of(d, -(n % 900)))


@found("LK110", "warning")
def _(crm: Crm) -> None:
    for n, deal in enumerate(crm.deal[:40]):
        at = START + 300 * DAY + 377 * MINUTE
        crm.field_change.append(change(deal, "deal_type", at, None, ["new", "renewal"][n % 2]))


@silent("LK110")
def _(crm: Crm) -> None:
    for n, deal in enumerate(crm.deal[:40]):
        at = START + 300 * DAY + (377 + n) * MINUTE
        crm.field_change.append(change(deal, "deal_type", at, None, ["new", "renewal"][n % 2]))


# --- values ----------------------------------------------------------------------------------


@found("DQ401", "warning")
def _(crm: Crm) -> None:
    for deal in crm.deal[::3]:
        deal.pop("amount")
        deal.pop("closed_amount", None)


@silent("DQ401")
def _(crm: Crm) -> None:  # a handful of open ones
    for deal in crm.open()[:4]:
        deal.pop("amount")


@found("DQ402", "warning")
def _(crm: Crm) -> None:
    crm.deal[0]["amount"] = -100.0


@silent("DQ402")
def _(crm: Crm) -> None:
    crm.deal[0]["amount"] = 0.01


@found("DQ403", "warning")
def _(crm: Crm) -> None:
    crm.open()[0]["amount"] = 9e7


@silent("DQ403")
def _(crm: Crm) -> None:  # a wide business: from 10 to ten million
    for n, deal in enumerate(crm.deal):
        deal["amount"] = 10.0 ** (1 + n % 7)


@found("DQ404", "severe")
def _(crm: Crm) -> None:
    crm.currency = "EUR"
    crm.deal[300]["currency"] = "USD"
    crm.exchange_rate = [_rate("2023-12-01")]


def _rate(day: str) -> dict[str, object]:
    return {"date": day, "from_currency": "USD", "to_currency": "EUR", "rate": 0.9}


@silent("DQ404")
def _(crm: Crm) -> None:
    crm.currency = "EUR"
    crm.deal[300]["currency"] = "USD"
    crm.exchange_rate = [_rate("2023-01-01")]


@found("DQ405", "severe")
def _(crm: Crm) -> None:
    crm.facts["currency"] = None


@silent("DQ405")
def _(crm: Crm) -> None:  # no amounts, no need
    crm.facts["currency"] = None
    for deal in crm.deal:
        deal.pop("amount")
        deal.pop("closed_amount", None)


@found("DQ406", "warning")
def _(crm: Crm) -> None:
    for deal in crm.open():
        deal["expected_close_date"] = (UNTIL - 20 * DAY).date()


@silent("DQ406")
def _(crm: Crm) -> None:
    for deal in crm.open():
        deal["expected_close_date"] = UNTIL.date()
    crm.closed()[0]["expected_close_date"] = START.date()


@found("DQ407", "warning")
def _(crm: Crm) -> None:
    crm.stage = [s for s in crm.stage if s["stage_id"] != "Proposal"]


@silent("DQ407")
def _(crm: Crm) -> None:
    crm.stage.append({"pipeline_id": "sales", "stage_id": "Unused", "kind": "open"})


@found("DQ408", "severe")
def _(crm: Crm) -> None:
    for deal in crm.closed("lost"):
        deal["stage_id"] = "Won"


@silent("DQ408")
def _(crm: Crm) -> None:  # closed deals that keep their last open stage
    for deal in crm.closed("lost"):
        deal["stage_id"] = "Proposal"


@found("DQ409", "warning")
def _(crm: Crm) -> None:
    for deal in crm.open():
        del deal["owner_id"]


@silent("DQ409")
def _(crm: Crm) -> None:
    for deal in crm.closed("lost"):
        del deal["owner_id"]


@found("DQ410", "warning")
def _(crm: Crm) -> None:
    for move in crm.stage_change[::5]:
        move["entity_id"] = f"gone-{move['entity_id']}"


@silent("DQ410")
def _(crm: Crm) -> None:  # no owner table, nothing to look up
    crm.owner = []
    crm.deal[0]["owner_id"] = "somebody"


@found("DQ411", "warning")
def _(crm: Crm) -> None:
    crm.deal += [{**d, "deal_id": f"{d['deal_id']}-copy"} for d in crm.closed()[:30]]


@silent("DQ411")
def _(crm: Crm) -> None:  # few values, known to the day: alike by chance
    crm.deal += [
        {**d, "deal_id": f"{d['deal_id']}-next", "created_at": d["created_at"] + DAY}
        for d in crm.closed()[:30]
    ]


@found("DQ412", "info")
def _(crm: Crm) -> None:
    _attribute(crm, "office", lambda n, _: "Berlin")
    crm.static("office")


@silent("DQ412")
def _(crm: Crm) -> None:
    _attribute(crm, "office", lambda n, _: "Rome" if n % 50 == 0 else "Berlin")
    crm.static("office")


@found("DQ413", "warning")
def _(crm: Crm) -> None:
    for deal in crm.deal:
        deal["probability"] = 40


@silent("DQ413")
def _(crm: Crm) -> None:
    for deal in crm.deal:
        deal["probability"] = 1


@found("DQ414", "warning")
def _(crm: Crm) -> None:
    _attribute(crm, "reply_to", lambda n, _: f"anna{n % 40}@example.com")
    crm.static("reply_to")


@silent("DQ414")
def _(crm: Crm) -> None:  # a flag, a code and a date; and an address that is kept out
    _attribute(crm, "do_not_email", lambda n, _: n % 2 == 0)
    _attribute(crm, "article", lambda n, _: f"2024-{n % 40:03d}-{n % 7}")
    _attribute(crm, "since", lambda n, _: f"2023-0{1 + n % 9}-11")
    _attribute(crm, "email", lambda n, _: f"anna{n % 40}@example.com")
    crm.facts["excluded"] = {"deal": ("email",)}


@found("DQ415", "info")
def _(crm: Crm) -> None:
    _attribute(crm, "contact_age", lambda n, _: 20 + n % 50)
    crm.static("contact_age")


@silent("DQ415")
def _(crm: Crm) -> None:
    _attribute(crm, "percentage", lambda n, _: n % 50)
    crm.static("percentage")


# --- the checks ------------------------------------------------------------------------------

CODES = [check.code for check in CHECKS]


def test_every_check_has_a_case_of_its_own() -> None:
    assert len(set(CODES)) == len(CODES)
    assert sorted(FOUND) == sorted(CODES)
    assert set(SILENT) <= set(CODES)


def test_a_healthy_crm_gets_no_finding() -> None:
    assert healthy().report().findings == ()


@pytest.mark.parametrize("code", CODES)
def test_it_is_found(code: str) -> None:
    crm = healthy()
    severity, edit = FOUND[code]
    edit(crm)
    findings = crm.find(code)
    assert {(f.code, f.severity) for f in findings} == {(code, severity)}
    assert findings[0].title
    assert findings[0].cure


@pytest.mark.parametrize("code", SILENT)
def test_it_is_silent_where_the_case_is_another(code: str) -> None:
    crm = healthy()
    SILENT[code](crm)
    assert crm.find(code) == []
