"""The commands, end to end, on a small sample CRM: what a new user would type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from data.history import History
from data.store import Store, StoreError
from dealcast.cli import app


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `dealcast demo --no-serve` has run."""
    folder = tmp_path_factory.mktemp("shop")
    result = CliRunner().invoke(
        app, ["demo", "--no-serve", "--folder", str(folder), "--deals", "500"]
    )
    assert result.exit_code == 0, result.output
    assert "curl" in result.output and "DEALCAST_KEY=dc_" in result.output
    return folder


@pytest.fixture
def run(shop: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command against the demo's store and models; gives its standard output."""
    monkeypatch.setenv("DEALCAST_STORE", f"sqlite:///{shop / 'dealcast.db'}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shop / 'mlflow.db'}")
    monkeypatch.setenv("DEALCAST_ARTIFACTS", str(shop / "mlflow"))

    def invoke(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == code, result.output
        return result.stdout if code == 0 else result.output

    return invoke


def test_a_rerun_of_the_demo_reuses_what_is_there(shop: Path) -> None:
    with Store(f"sqlite:///{shop / 'dealcast.db'}") as store:
        before = len(store.read(["deal"])["deal"])
    result = CliRunner().invoke(app, ["demo", "--no-serve", "--folder", str(shop)])
    assert result.exit_code == 0, result.output
    assert "making a sample CRM" not in result.output and "fitting" not in result.output
    with Store(f"sqlite:///{shop / 'dealcast.db'}") as store:
        assert len(store.read(["deal"])["deal"]) == before


def test_a_forecast_adds_up_and_says_what_it_knows(run: Any) -> None:
    answer = json.loads(run("forecast", "--period", "month", "--by", "team", "--json"))
    whole = [c for c in answer["periods"] if c["group"] == "all"]
    teams = [c for c in answer["periods"] if c["group"] != "all"]
    assert answer["currency"] == "EUR" and not answer["hindsight"]
    for cell in whole:
        parts = [c["mean"] for c in teams if c["period"] == cell["period"]]
        assert sum(parts) == pytest.approx(cell["mean"], abs=0.05)
        assert sum(cell["components"].values()) == pytest.approx(cell["mean"], abs=0.05)
        assert cell["quantiles"]["0.1"] <= cell["quantiles"]["0.5"] <= cell["quantiles"]["0.9"]


def test_a_past_date_needs_a_model_of_that_date(run: Any, shop: Path) -> None:
    with Store(f"sqlite:///{shop / 'dealcast.db'}") as store:
        history = History(store.read(), store.sources())
    past = str(
        history.deals.created_at.max().astype("datetime64[us]").astype("datetime64[D]") - 200
    )
    refusal = run("forecast", "--as-of", past, code=2)
    assert "--retrain" in refusal and "--hindsight" in refusal
    with_hindsight = json.loads(run("forecast", "--as-of", past, "--hindsight", "--json"))
    assert with_hindsight["hindsight"]
    then = json.loads(run("forecast", "--as-of", past, "--retrain", "--days", "30", "--json"))
    assert not then["hindsight"] and len(then["periods"]) == 1
    assert then["model"]["trained_through"].startswith(past)


def test_scores_and_points(run: Any, shop: Path, tmp_path: Path) -> None:
    open_deals = json.loads(run("score", "deals", "--json"))
    assert open_deals and all(1 <= d["score"] <= 99 for d in open_deals)
    assert open_deals == sorted(open_deals, key=lambda d: -d["probability_won"])
    points = tmp_path / "points.csv"
    day = open_deals[0]["as_of"]
    lines = [f"{d['deal_id']},{day},{days}" for d in open_deals[:5] for days in (7, 30, 1000)]
    points.write_text("id,as_of,horizon\n" + "\n".join(lines) + "\n", encoding="utf-8")
    out = tmp_path / "scores.json"
    run("score", "deals", "--points", str(points), "--output", str(out))
    rows = json.loads(out.read_text(encoding="utf-8"))
    assert [r["id"] for r in rows] == [line.split(",")[0] for line in lines]
    for i in range(0, 15, 3):
        seven, thirty, ever = (r["probability"] for r in rows[i : i + 3])
        assert 0 <= seven <= thirty <= ever <= 1
    points.write_text(f"id,as_of,horizon\nnobody,{day},7\n", encoding="utf-8")
    assert "nobody" in run("score", "deals", "--points", str(points), code=2)


def test_numbers_given_out_are_kept_and_shown_again(run: Any) -> None:
    said = json.loads(run("forecast", "--period", "week", "--horizon", "2", "--json"))
    for _ in range(2):
        found = json.loads(run("forecast", "--history", "--period", "week", "--json"))
        (first, second) = found["items"]
        assert first["mean"] == said["periods"][0]["mean"] and first["outcome"] is None
        assert second["quantiles"] == said["periods"][1]["quantiles"]
    assert "not yet known" in run("forecast", "--history", "--group", "all", "--limit", "1")
    assert "period is 'year'" in run("forecast", "--history", "--period", "year", code=2)
    deals = json.loads(run("score", "deals", "--json"))
    kept = json.loads(run("score", "deals", "--history", "--json"))
    assert kept["issued"] >= len(deals)
    assert sum(r["pending"] for r in kept["by_days"] if r["days"] == 7) >= len(deals)
    assert "scores of leads as issued" in run("score", "leads", "--history")


def test_renewals_and_other_measures(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "DEALCAST_RENEWAL_PIPELINES" in run("forecast", "--renewals", code=2)
    monkeypatch.setenv("DEALCAST_RENEWAL_PIPELINES", "renewals")
    (first, *_) = json.loads(run("forecast", "--renewals", "--json"))["items"]
    assert first["pipeline"] == "renewals" and first["up_for_renewal"] > 0
    assert "gross" in run("forecast", "--renewals")
    assert "Deals won, as of" in run("forecast", "--measure", "count")
    assert "allowed: amount" in run("forecast", "--measure", "profit", code=2)


def test_a_forecast_comes_though_it_cannot_be_kept(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(Store, "issue", refuse)
    assert json.loads(run("forecast", "--json"))["periods"]


def test_a_backtest_writes_its_page_and_refuses_an_unfinished_window(
    run: Any, tmp_path: Path
) -> None:
    page, kept = tmp_path / "page.html", tmp_path / "kept"
    words = ["backtest", "--every", "42", "--horizons", "14,28", "--html", str(page), "--jobs", "1",
             "--cache", str(kept)]  # fmt: skip
    answer = json.loads(run(*words, "--json"))
    assert page.read_text(encoding="utf-8").startswith("<!")
    methods = {r["method"] for r in answer["summary"]}
    assert methods == set(answer["methods"]) - set(answer["absent"])
    assert {"dealcast", "past mean", "exponential smoothing", "seasonal naive"} <= methods
    assert answer["groups"] == {} and answer["currency"] == "EUR"
    files = {f: f.stat().st_mtime_ns for f in kept.iterdir()}
    assert len(files) == len({i["origin"] for i in answer["issued"]}) == 3
    told = run(*words)  # from what is kept
    assert "all methods, best first" in told and "dealcast by horizon" in told
    assert {f: f.stat().st_mtime_ns for f in kept.iterdir()} == files
    run(*words, "--fresh")
    assert all(f.stat().st_mtime_ns > then for f, then in files.items())
    last = max(i["origin"] for i in answer["issued"])
    refusal = run("backtest", "--from", last[:10], "--to", "2199-01-01", code=2)
    assert "last origin allowed" in refusal


def test_a_backtest_of_calendar_periods_by_group(run: Any, tmp_path: Path) -> None:
    words = ["backtest", "--period", "month", "--every", "60", "--by", "team", "--jobs", "1",
             "--cache", str(tmp_path), "--html", str(tmp_path / "page.html")]  # fmt: skip
    answer = json.loads(run(*words, "--json"))
    assert {r["window"] for r in answer["summary"]} == {"this month", "next month", None}
    assert "growth" in {r["method"] for r in answer["summary"]}
    teams = {i["group"] for i in answer["issued"]} - {"all"}
    assert len(teams) > 1 and set(answer["groups"]) == {"each group", *teams}
    assert "allowed" in run("backtest", "--every", "0", code=2)
    assert "allowed" in run("backtest", "--period", "month", "--ahead", "0", code=2)
    assert "fewer than 99" in run("backtest", "--period", "month", "--ahead", "99",
                                  "--from", "2025-01-06", "--to", "2025-01-06", code=2)  # fmt: skip


def test_models_are_listed_promoted_and_rolled_back(run: Any) -> None:
    run("train", "deal")
    listed = json.loads(run("models", "list", "--json"))
    versions = [v["version"] for v in listed if v["name"] == "dealcast-deal"]
    assert versions == ["2", "1"]
    run("models", "promote", "deal", "2")
    assert json.loads(run("models", "show", "deal", "--json"))["version"] == "2"
    run("models", "rollback", "deal")
    assert json.loads(run("models", "show", "deal", "--json"))["version"] == "1"
    assert "nothing" in run("models", "show", "deal", "--which", "nothing", code=2)


def test_keys(run: Any) -> None:
    token = run("keys", "create", "crm", "--scopes", "score,records").strip()
    assert token.startswith("dc_")
    listed = json.loads(run("keys", "list", "--json"))
    key = next(k for k in listed if k["name"] == "crm")
    assert key["scopes"] == ["score", "records"] and token not in json.dumps(listed)
    run("keys", "revoke", key["key_id"])
    assert "allowed" in run("keys", "create", "crm", "--scopes", "everything", code=2)


def test_check_speaks_plainly(run: Any) -> None:
    told = run("check")
    assert "What can be learned" in told
    assert json.loads(run("check", "--json"))


def test_only_a_field_that_exists_can_be_trusted(run: Any) -> None:
    said = run("train", "lead", "--trust", "lead_sourc", code=2)
    assert "lead_source" in said


def test_an_empty_store_says_how_to_begin(run: Any, tmp_path: Path) -> None:
    told = run("forecast", "--store", str(tmp_path / "empty.db"), code=2)
    assert "dealcast import" in told


def test_a_wrong_moment_is_refused(run: Any) -> None:
    assert "2026-03-31" in run("forecast", "--as-of", "soon", code=2)


def test_what_moved_adds_up_and_is_told_in_tables(run: Any) -> None:
    answer = json.loads(run("changes", "--by", "team", "--json"))
    for group in answer["groups"]:
        effects = sum(round(100 * c["effect"]) for c in group["changes"])
        before, after = (round(100 * group[side]["amount"]) for side in ("before", "after"))
        assert before + effects == after
    told = run("changes", "--by", "team", "--period", "quarter", "--deals", "3")
    assert "created" in told and "EUR" in told and "By team" in told
    assert "must not be later" in run(
        "changes", "--from", "2025-03-01", "--to", "2025-02-01", code=2
    )


def test_the_kpis_are_told_with_units_and_reasons(run: Any) -> None:
    answer = json.loads(run("metrics", "--period", "month", "--json"))
    assert answer["model"] and answer["stages"] and answer["kpis"]
    result = CliRunner().invoke(app, ["metrics", "--period", "month"])
    assert result.exit_code == 0
    for words in ("win rate", "Pace:", "median days", "not told: error of the commit"):
        assert words in result.output
    assert "2026-W09" in run("metrics", "--period", "year", code=2)
