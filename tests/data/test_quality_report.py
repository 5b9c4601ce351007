"""The report of the data checks: order, plain JSON, terminal lines, odd histories, real data."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from data.history import History
from data.mapping import load_mapping, read_source
from data.quality import CHECKS, QualityReport, examine
from data.quality.findings import SEVERITIES
from data.records import ENTITIES, SourceFacts, Table
from tests.data.quality_rows import MINUTE, UNTIL, Crm, change, healthy

ROOT = Path(__file__).resolve().parents[2]


def _spoilt() -> Crm:
    crm = healthy()
    for deal in crm.deal[:20]:
        del deal["created_at"]
    for deal in crm.closed("lost"):
        deal["stage_id"] = "Won"
    for lead in crm.lead[:200]:
        lead.pop("qualified_at", None)
        lead.pop("disqualified_at", None)
    crm.static("team_id")
    crm.field_change.append(change(crm.deal[40], "team_id", UNTIL - MINUTE, "a", "b"))
    return crm


def test_the_gravest_come_first() -> None:
    report = _spoilt().report()
    graded = [(SEVERITIES.index(f.severity), f.code) for f in report.findings]
    assert graded == sorted(graded)
    assert report.counts == {s: sum(f.severity == s for f in report.findings) for s in SEVERITIES}
    assert report.counts["severe"] >= 2


def test_figures_and_examples() -> None:
    findings = {(f.code, f.side): f for f in _spoilt().report().findings}
    timeless = findings["DQ101", "deal"]
    assert timeless.evidence["records"] == 20
    assert len(timeless.evidence["examples"]) == 3
    assert timeless.title.startswith("20 of 624 deals without a creation time (3.21 %)")
    assert findings["DQ102", "lead"].evidence["records"] == 200
    assert findings["DQ304", "deal"].evidence["changes"] == {"team_id": 1}
    assert ("DQ102", "deal") not in findings


def test_the_report_is_plain_json() -> None:
    report = _spoilt().report()
    again = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert [f["code"] for f in again["findings"]] == [f.code for f in report.findings]
    assert set(again["learnable"]) == {"deal", "lead"}
    assert again["counts"] == report.counts


def test_the_lines_fit_a_terminal() -> None:
    report = _spoilt().report()
    lines = report.lines()
    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    assert all(f.code in text for f in report.findings)
    assert "What can be learned: deals" in text
    assert re.search(r"Findings: \d+ severe, \d+ warnings?, \d+ info", text)


def test_what_can_be_learned() -> None:
    crm = healthy()
    deals, leads = crm.report().learnable
    facts = deals.facts
    assert (facts["records"], facts["open"]) == (624, len(crm.open()))
    assert (facts["won"], facts["lost"]) == (len(crm.closed("won")), len(crm.closed("lost")))
    assert (facts["first_created"], facts["observed_until"]) == ("2023-01-02", "2024-01-01")
    days = [(d["closed_at"] - d["created_at"]).total_seconds() / 86400 for d in crm.closed()]
    assert facts["median_cycle_days"] == pytest.approx(np.median(days), abs=1e-3)
    assert facts["stages_with_history"] == 2
    assert facts["expected_close_date_known"] == 0.0
    assert any("boosted trees (251 won deals)" in s for s in deals.can)
    assert any("there is no expected_close_date" in s for s in deals.cannot)
    assert any("a linear model (172 of the rarer outcome)" in s for s in leads.can)


@pytest.mark.parametrize(
    ("won", "words"),
    [(0, "from the presets only"), (20, "shrunken rates by stage"), (100, "mostly shrunken")],
)
def test_few_won_deals_are_told(won: int, words: str) -> None:
    crm = healthy()
    crm.deal = crm.open() + crm.closed("lost") + crm.closed("won")[:won]
    assert words in crm.report().learnable[0].can[0]


def test_nothing_at_all() -> None:
    report = examine(History({}))
    assert report == QualityReport((), ())
    assert report.counts == {"severe": 0, "warning": 0, "info": 0}
    assert "no leads and no deals" in report.lines()[0]


@pytest.mark.parametrize(
    "row",
    [
        {"deal_id": "D1"},
        {"deal_id": "D1", "outcome": "won"},
        {"deal_id": "D1", "created_at": "2026-01-01T00:00:00Z", "amount": 0, "stage_id": "x"},
        {"deal_id": "D1", "closed_at": "2026-01-01T00:00:00Z", "outcome": "lost"},
    ],
)
def test_one_bare_deal_is_no_reason_to_fail(row: dict[str, object]) -> None:
    deals = Table.from_rows(ENTITIES["deal"], [row])
    report = examine(History({"deal": deals}, [SourceFacts("crm", currency="EUR")]))
    assert report.learnable[0].facts["records"] == 1
    json.dumps(report.to_dict(), allow_nan=False)
    assert report.lines()


@pytest.mark.parametrize(
    "lacking", ["created_at", "closed_at", "outcome", "stage_id", "owner_id", "amount", "seen_at"]
)
def test_a_missing_column_is_no_reason_to_fail(lacking: str) -> None:
    crm = healthy()
    for row in (*crm.deal, *crm.lead):
        row.pop(lacking, None)
    report = crm.report()
    json.dumps(report.to_dict(), allow_nan=False)
    assert report.lines()


def test_every_check_is_documented() -> None:
    text = (ROOT / "docs/checks.md").read_text("utf-8")
    rows = re.findall(r"(?m)^\| ((?:DQ|LK)\d{3}) \| .+ \| .+ \|$", text)
    assert sorted(rows) == sorted(c.code for c in CHECKS)


# --- public data -----------------------------------------------------------------------------


@cache
def _imported(name: str) -> tuple[dict[str, Table], SourceFacts]:
    folder = os.environ.get("DEALCAST_DATASETS")
    if not folder:
        pytest.skip("DEALCAST_DATASETS is not set: it names the folder of the public data sets")
    mapping = load_mapping(ROOT / f"examples/{name}.toml")
    imported = read_source(mapping, Path(folder) / name, at=np.datetime64("2026-01-01", "us"))
    return {t.entity.name: t for t in imported.tables}, imported.facts


def _codes(name: str, **facts: object) -> dict[str, str]:
    tables, declared = _imported(name)
    report = examine(History(tables, [replace(declared, **facts)]))  # type: ignore[arg-type]
    return {f.code: f.severity for f in reversed(report.findings)}  # the gravest of each code


def test_maven_as_its_mapping_declares_it() -> None:
    tables, facts = _imported("maven_crm")
    report = examine(History(tables, [facts]))
    found = {f.code: f for f in report.findings}
    assert found["DQ101"].evidence["records"] == 500
    assert "account_id" in found["LK104"].evidence["fields"]
    assert {"DQ204", "DQ205", "DQ214", "DQ301"} <= set(found)
    assert report.counts["severe"] == 0
    assert not {"DQ206", "DQ303", "LK101", "LK102"} & set(found)
    assert report.learnable[0].facts["won"] == 4238


def test_maven_without_its_declarations() -> None:
    found = _codes("maven_crm", static={}, excluded={}, observed_from=np.datetime64("NaT", "us"))
    assert (found["DQ206"], found["DQ303"], found["LK102"]) == ("warning", "warning", "severe")


def test_x_education_gives_its_leaks_away() -> None:
    found = _codes("xeducation_leads")
    assert (found["LK104"], found["LK102"]) == ("info", "warning")
    assert "severe" not in found.values()
    spoilt = {"lead": ("tags", "lead_quality")}
    assert _codes("xeducation_leads", excluded={}, static=spoilt)["LK106"] == "severe"
