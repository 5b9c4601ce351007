"""Scores through the API: what they hold, as of when, and of which records there are none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from serving import schemas
from serving.desk import Desk
from serving.issuing import Issuer
from tests.serving.conftest import NOW, House, request_record

DEAL: dict[str, Any] = {
    "deal_id": "D-1",
    "created_at": "2026-01-20T08:00:00Z",
    "stage_id": "proposal",
    "amount": 12000,
    "currency": "EUR",
    "expected_close_date": "2026-03-31",
    "stage_changes": [
        {
            "changed_at": "2026-01-25T09:00:00Z",
            "from_stage_id": "needs-analysis",
            "to_stage_id": "proposal",
        }
    ],
}


def _score(client: TestClient, *records: dict[str, Any], **body: Any) -> list[dict[str, Any]]:
    side = "deal" if "deal_id" in records[0] else "lead"
    answer = client.post(f"/v1/{side}s/score", json={"records": list(records), **body})
    assert answer.status_code == 200, answer.text
    answer_type = schemas.DealScores if side == "deal" else schemas.LeadScores
    answer_type.model_validate(answer.json(), strict=True)
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def test_a_deal_score_holds_together(client: TestClient) -> None:
    (score,) = _score(client, DEAL)
    assert score["deal_id"] == "D-1"
    assert score["as_of"] == "2026-02-16T03:00:00Z"
    won, lost = score["probability_won"], score["probability_lost"]
    assert 0 < won < 1
    assert score["score"] == min(max(round(100 * won), 1), 99)
    last = {"date": score["curve"][-1]["date"], "won": round(won, 6), "lost": round(lost, 6)}
    assert score["curve"][-1] == last
    assert [p["date"] for p in score["curve"]] == sorted(p["date"] for p in score["curve"])
    assert score["close_date"]["p10"] <= score["close_date"]["p50"] <= score["close_date"]["p90"]
    assert score["amount"]["p10"] <= score["amount"]["p90"]
    assert score["expected_revenue"] == round(score["expected_revenue"], 2)
    assert score["model"]["name"] == "dealcast-deal"
    assert score["model"]["version"] == "2"
    told = score["base"] + sum(r["contribution"] for r in score["reasons"])
    assert told == pytest.approx(math.log(won / (1 - won)), abs=1e-9)


def test_a_lead_score_holds_together(client: TestClient) -> None:
    (score,) = _score(client, {"lead_id": 7, "created_at": "2026-02-10T08:00:00Z"})
    assert score["lead_id"] == "7"
    assert 0 < score["probability_won"] < score["probability"] < 1
    assert score["grade"] in "ABCD"
    assert 0 <= score["percentile"] <= 100
    assert score["model"]["name"] == "dealcast-lead"
    assert score["evidence"]["horizon_days"] == 30


def test_reasons_are_left_out_when_not_asked_for(client: TestClient) -> None:
    (with_reasons,), (without,) = _score(client, DEAL), _score(client, DEAL, explain=False)
    assert with_reasons["reasons"]
    assert without["reasons"] == []
    assert without["probability_won"] == with_reasons["probability_won"]


def test_results_come_in_the_order_of_the_records(client: TestClient) -> None:
    records = [{**DEAL, "deal_id": str(i)} for i in range(6)]
    records[2] = {"deal_id": "bad", "amount": "much"}
    records[4] = {"name": "no id"}
    results = _score(client, *records)
    assert [r["deal_id"] for r in results] == ["0", "1", "bad", "3", None, "5"]
    assert ["problem" in r for r in results] == [False, False, True, False, True, False]
    assert results[4]["problem"]["field"] == "deal_id"
    answer = client.post("/v1/deals/score", json={"records": records}).json()
    assert answer["failed"] == 2


def test_two_versions_of_one_deal_in_one_call(client: TestClient) -> None:
    small, large = _score(client, DEAL, {**DEAL, "amount": 900_000})
    assert small["deal_id"] == large["deal_id"] == "D-1"
    assert large["expected_revenue"] > 10 * small["expected_revenue"]


def test_no_records_no_results(client: TestClient) -> None:
    answer = client.post("/v1/deals/score", json={"records": []}).json()
    assert (answer["results"], answer["failed"]) == ([], 0)


# --- as of when


def test_a_bare_date_is_midnight_in_the_time_zone(house: House) -> None:
    settings = type(house.settings)(**{**vars(house.settings), "time_zone": "America/New_York"})
    with Issuer(house.store) as issuer:
        desk = Desk(house.store, house.live, settings, house.clock, issuer)
        found = desk.score_records("deal", [DEAL], as_of="2026-02-15", hindsight=True)
    assert str(found.as_of) == "2026-02-15T05:00:00.000000"


def test_a_past_moment_is_answered_by_a_model_of_that_time(client: TestClient) -> None:
    record = {**DEAL, "created_at": "2025-08-01T00:00:00Z", "stage_changes": []}
    (score,) = _score(client, record, as_of="2025-10-01T00:00:00Z")
    assert score["model"]["version"] == "1"
    assert score["model"]["trained_through"] <= score["as_of"] == "2025-10-01T00:00:00Z"
    assert "hindsight" not in score


def test_an_as_of_of_a_minute_ago_is_now(client: TestClient) -> None:
    (score,) = _score(client, DEAL, as_of="2026-02-16T02:59:10Z")
    assert score["model"]["version"] == "2"


def test_no_model_of_that_date(client: TestClient) -> None:
    body = {"records": [DEAL], "as_of": "2025-03-01T00:00:00Z"}
    answer = client.post("/v1/deals/score", json=body)
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("no-model-of-that-date")
    assert "hindsight" in answer.json()["detail"]


def test_hindsight_answers_and_is_marked(client: TestClient) -> None:
    old = {**DEAL, "created_at": "2025-01-01T00:00:00Z", "stage_changes": []}
    body = {"records": [old], "as_of": "2025-03-01T00:00:00Z", "hindsight": True}
    answer = client.post("/v1/deals/score", json=body).json()
    assert answer["hindsight"] is True
    assert answer["results"][0]["hindsight"] is True
    assert answer["results"][0]["model"]["version"] == "2"


def test_the_future_is_refused(client: TestClient) -> None:
    body = {"records": [DEAL], "as_of": "2026-02-17T00:00:00Z"}
    answer = client.post("/v1/deals/score", json=body)
    assert answer.status_code == 422
    assert answer.json()["field"] == "as_of"


def test_what_happened_after_as_of_changes_nothing(house: House, client: TestClient) -> None:
    tables = house.store.read()
    moves = tables["stage_change"]
    moved = moves["entity_id"][(moves["entity"] == "deal") & (moves["changed_at"] > np.datetime64(
        "2025-10-05"))]  # fmt: skip
    created = dict(zip(tables["deal"]["deal_id"], tables["deal"]["created_at"], strict=True))
    old = [d for d in dict.fromkeys(moved) if created[d] < np.datetime64("2025-09-20")][:5]
    assert old
    for record_id in old:
        record = request_record(tables, "deal", record_id)
        cut = "2025-10-01T00:00:00"
        earlier = record | {
            name: [row for row in record[name] if row[when] <= cut]
            for name, when in (
                ("stage_changes", "changed_at"),
                ("activities", "occurred_at"),
            )
        }
        if not earlier["stage_changes"]:
            continue
        assert earlier["stage_changes"] != record["stage_changes"]
        full, known = _score(client, record, earlier, as_of=cut + "Z")
        assert full == known


def test_a_clock_that_is_a_little_ahead_is_forgiven(client: TestClient) -> None:
    soon, later = "2026-02-16T03:02:00Z", "2026-02-16T03:10:00Z"
    fresh = {"lead_id": "a", "created_at": soon}
    good, bad = _score(client, fresh, {**fresh, "created_at": later})
    assert good["as_of"] == soon
    assert bad["problem"]["field"] == "created_at"
    (strict,) = _score(client, fresh, as_of="2026-02-16T03:00:00Z")
    assert strict["problem"]["field"] == "created_at"


# --- which records


def test_closed_records_score_0_or_100_without_reasons(client: TestClient) -> None:
    closed = {**DEAL, "closed_at": "2026-02-10T00:00:00Z"}
    won, lost = _score(client, {**closed, "outcome": "won"}, {**closed, "outcome": "lost"})
    assert (won["score"], lost["score"]) == (100, 0)
    assert (won["probability_won"], lost["probability_lost"]) == (1.0, 1.0)
    for score in (won, lost):
        assert score["reasons"] == score["curve"] == []
        assert score["evidence"]["method"] == "closed"
    qualified, disqualified = _score(
        client,
        {"lead_id": "a", "outcome": "qualified", "qualified_at": "2026-02-10T00:00:00Z"},
        {"lead_id": "b", "outcome": "disqualified", "disqualified_at": "2026-02-10T00:00:00Z"},
    )
    # Created now, as far as the record says: it closes as it comes in.
    assert (qualified["score"], disqualified["score"]) == (100, 0)


def test_a_closed_record_without_a_date_is_closed_now(client: TestClient) -> None:
    won, lost = _score(client, {**DEAL, "outcome": "won"}, {**DEAL, "outcome": "lost"})
    assert (won["score"], lost["score"]) == (100, 0)
    client.post("/v1/deals", json={"records": [{**_bare(DEAL), "outcome": "won"}]})
    assert client.get("/v1/deals/D-1/score").json()["score"] == 100


def _bare(deal: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in deal.items() if k != "stage_changes"}


def test_a_deal_closed_later_was_open_then(client: TestClient) -> None:
    closed = {**DEAL, "created_at": "2025-09-05T00:00:00Z", "stage_changes": [],
              "outcome": "won", "closed_at": "2025-11-01T00:00:00Z"}  # fmt: skip
    before, after = (
        _score(client, closed, as_of=f"2025-{month}-15T00:00:00Z")[0] for month in (10, 11)
    )
    assert 0 < before["score"] < 100
    assert after["score"] == 100


def test_a_reopened_deal_is_open_again(client: TestClient) -> None:
    def flip(day: int, old: str, new: str) -> dict[str, str]:
        return {"field": "outcome", "changed_at": f"2026-02-{day:02}T00:00:00Z",
                "old_value": old, "new_value": new}  # fmt: skip

    lost = {**DEAL, "outcome": "lost", "closed_at": "2026-02-05T00:00:00Z"}
    reopened = {**DEAL, "outcome": "open",
                "field_changes": [flip(5, "open", "lost"), flip(9, "lost", "open")]}  # fmt: skip
    assert _score(client, lost)[0]["score"] == 0
    (score,) = _score(client, reopened)
    assert 0 < score["score"] < 100
    assert score["reasons"]


def test_a_deal_that_left_has_no_score(house: House, client: TestClient) -> None:
    gone = {**DEAL, "deleted_at": "2026-02-10T00:00:00Z"}
    deleted, merged = _score(client, gone, {**DEAL, "merged_into_id": "D-2"})
    assert deleted["problem"]["status"] == merged["problem"]["status"] == 410
    client.post("/v1/deals", json={"records": [_bare(gone)]})
    assert client.get("/v1/deals/D-1/score").status_code == 410


def test_a_stage_nobody_has_seen_is_told(client: TestClient) -> None:
    (score,) = _score(client, {**DEAL, "stage_id": "astrology", "stage_changes": []})
    assert any("'astrology' was not seen" in w for w in score["warnings"])
    assert 0 < score["score"] < 100


def test_what_is_left_unsaid_is_told(client: TestClient) -> None:
    (full,) = _score(client, DEAL)
    assert full["warnings"] == []
    bare, unmoved = _score(client, {"deal_id": "x", "stage_id": "proposal"}, _bare(DEAL))
    told = " / ".join(bare["warnings"])
    assert "no created_at" in told
    assert "no amount" in told
    assert unmoved["warnings"] == ["no stage_changes: the time in the stage is counted from as_of"]


def test_an_empty_list_of_moves_says_that_it_never_moved(client: TestClient) -> None:
    never = {**DEAL, "stage_changes": []}
    entered = {**DEAL, "stage_changes": [{"changed_at": DEAL["created_at"],
                                          "to_stage_id": "proposal"}]}  # fmt: skip
    unknown = _bare(DEAL)
    a, b, c = _score(client, never, entered, unknown)
    assert a == b
    assert a["probability_won"] != c["probability_won"]


def test_a_nested_value_is_named_by_its_path(client: TestClient) -> None:
    cases: dict[str, dict[str, Any]] = {
        "activities.1.occurred_at": {"activities": [{}, {"occurred_at": "soon"}]},
        "stage_changes.0.to_stage_id": {"stage_changes": [{"changed_at": "2026-01-25"}]},
        "stage_changes": {"stage_changes": "proposal"},
        "activities.0": {"activities": ["call"]},
        "entity_id": {"field_changes": [{"entity_id": "other"}]},
        "qualification.0.budget_amount": {
            "qualification": {"changed_at": "2026-02-01", "budget_amount": "big"}
        },
        "context": {"context": [1]},
        "context.account_wins": {"context": {"account_wins": "three"}},
    }
    results = _score(client, *({**DEAL, **case} for case in cases.values()))
    fields = [r["problem"]["field"].removeprefix("field_changes.0.") for r in results]
    assert fields == list(cases)


def test_leads_have_no_contact_roles(client: TestClient) -> None:
    (result,) = _score(client, {"lead_id": "a", "contact_roles": [{"contact_id": "c"}]})
    assert result["problem"]["field"] == "contact_roles"


def test_two_events_that_contradict_each_other(client: TestClient) -> None:
    moves = [{**DEAL["stage_changes"][0]}, {**DEAL["stage_changes"][0], "from_stage_id": "x"}]
    (result,) = _score(client, {**DEAL, "stage_changes": moves})
    assert result["problem"]["field"] == "stage_changes.1"


# --- money


def test_an_amount_needs_a_rate_and_its_neighbours_do_not_care(
    house: House, client: TestClient
) -> None:
    dollars = {**DEAL, "currency": "USD"}
    euro, no_rate = _score(client, DEAL, dollars)
    assert no_rate["problem"]["status"] == 422
    assert "D-1" in no_rate["problem"]["detail"]
    assert "USD" in no_rate["problem"]["detail"]
    assert euro == _score(client, DEAL)[0]
    rate = {"date": "2026-02-01", "from_currency": "USD", "to_currency": "EUR", "rate": 0.5}
    client.post("/v1/exchange-rates", json={"records": [rate]})
    twice, half = _score(client, dollars, {**DEAL, "amount": 6000})
    assert twice["expected_revenue"] == half["expected_revenue"]


def test_an_amount_without_a_currency(house: House, client: TestClient) -> None:
    bare = {k: v for k, v in DEAL.items() if k != "currency"}
    assert "problem" not in _score(client, bare)[0]  # the imported source declares EUR
    with house.store._transaction("write") as connection:
        connection.exec_driver_sql("DELETE FROM source")
    house.clock.wait(1, "s")
    with house.client("admin") as fresh:
        (result,) = _score(fresh, bare)
        assert result["problem"]["field"] == "currency"
        pushed = fresh.post("/v1/deals", json={"records": [_bare(bare)]})
        assert pushed.status_code == 422
        assert "problem" not in _score(fresh, {k: v for k, v in bare.items() if k != "amount"})[0]


# --- context


def test_context_is_used_where_given_and_missing_elsewhere(client: TestClient) -> None:
    with_account = {**DEAL, "account_id": "A000046", "owner_id": "rep-01"}
    alone, owned, given = _score(
        client, DEAL, with_account, {**DEAL, "context": {"owner_win_rate_90d": 0.95}}
    )
    # Naming an account is not knowing it: nothing else of the store is looked up.
    assert owned["probability_won"] == alone["probability_won"]
    (all_given,) = _score(client, DEAL, context={"owner_win_rate_90d": 0.95})
    assert all_given == given
    (own_first,) = _score(
        client,
        {**DEAL, "context": {"owner_win_rate_90d": 0.95}},
        context={"owner_win_rate_90d": 0.05},
    )
    assert own_first == given
    (unused,) = _score(client, DEAL, context={"weather": 3})
    assert any("'weather' is not used" in w for w in unused["warnings"])


def test_a_stored_deal_is_scored_with_its_context(house: House, client: TestClient) -> None:
    new = {**_bare(DEAL), "owner_id": "rep-01", "account_id": "A000046"}
    client.get("/v1/deals/D000001/score")  # the service remembers the store from before
    client.post("/v1/deals", json={"records": [new]})
    score = client.get("/v1/deals/D-1/score").json()
    assert any("is new" in w for w in score["warnings"])
    client.get("/v1/deals")  # reads the store again
    score = client.get("/v1/deals/D-1/score").json()
    assert not any("is new" in w for w in score["warnings"])


# --- stored records


def test_scores_are_kept_as_issued(house: House, client: TestClient) -> None:
    first = client.get("/v1/deals/D000001/score").json()
    house.clock.wait(1, "D")
    (asked,) = _score(client, {**DEAL, "deal_id": "D000001"})
    second = client.get("/v1/deals/D000001/score").json()
    history = client.get("/v1/deals/D000001/scores").json()
    schemas.DealScoresIssued.model_validate(history, strict=True)
    kept = [{k: v for k, v in s.items() if k != "issued_at"} for s in history["scores"]]
    assert kept == [first, asked, second]
    assert history["scores"][0]["issued_at"] == "2026-02-16T03:00:00Z"
    newest = client.get("/v1/deals/D000001/scores", params={"limit": 1}).json()
    assert newest["scores"] == history["scores"][-1:]


def test_a_stored_record_that_was_never_scored(client: TestClient) -> None:
    assert client.get("/v1/deals/D000001/scores").json()["scores"] == []


def test_a_new_fact_changes_the_next_score(client: TestClient) -> None:
    client.post("/v1/deals", json={"records": [{**_bare(DEAL), "deal_id": "N"}]})
    before = client.get("/v1/deals/N/score").json()
    lost = {"deal_id": "N", "outcome": "lost", "closed_at": "2026-02-16T02:00:00Z"}
    client.post("/v1/deals", json={"records": [lost]})
    after = client.get("/v1/deals/N/score").json()
    assert 0 < before["score"] < 100
    assert after["score"] == 0


@pytest.mark.parametrize("side", ["lead", "deal"])
def test_the_list_is_ranked_filtered_and_paged(house: House, client: TestClient, side: str) -> None:
    whole = client.get(f"/v1/{side}s", params={"limit": 1000}).json()
    answer_type = schemas.DealListing if side == "deal" else schemas.LeadListing
    answer_type.model_validate(whole, strict=True)
    chance = "probability_won" if side == "deal" else "probability"
    assert [i[f"{side}_id"] for i in whole["items"]] and whole["total"] == len(whole["items"])
    assert {i[f"{side}_id"] for i in whole["items"]} == set(house.store.open_ids(side))
    assert [i[chance] for i in whole["items"]] == sorted(
        (i[chance] for i in whole["items"]), reverse=True
    )
    pages = [
        client.get(f"/v1/{side}s", params={"limit": 7, "offset": o}).json()["items"]
        for o in range(0, whole["total"], 7)
    ]
    assert [i for page in pages for i in page] == whole["items"]
    owner, grade = whole["items"][0]["owner_id"], whole["items"][-1]["grade"]
    for params, wanted in (
        ({"owner_id": owner}, [i for i in whole["items"] if i["owner_id"] == owner]),
        ({"grade": grade}, [i for i in whole["items"] if i["grade"] == grade]),
        ({"owner_id": "nobody"}, []),
    ):
        found = client.get(f"/v1/{side}s", params={**params, "limit": 1000}).json()
        assert found["items"] == wanted
        assert found["total"] == len(wanted)


def test_a_listed_score_is_kept_once(house: House, client: TestClient) -> None:
    for _ in range(3):
        listed = client.get("/v1/deals", params={"limit": 3}).json()["items"]
    for item in listed:
        kept = client.get(f"/v1/deals/{item['deal_id']}/scores").json()["scores"]
        assert len(kept) == 1


def test_a_list_shows_what_was_pushed_before(client: TestClient) -> None:
    before = client.get("/v1/deals").json()["total"]
    client.post("/v1/deals", json={"records": [_bare(DEAL)]})
    after = client.get("/v1/deals", params={"limit": 1000}).json()
    assert after["total"] == before + 1
    assert "D-1" in {i["deal_id"] for i in after["items"]}


def test_the_list_of_an_empty_store(house: House, client: TestClient) -> None:
    with house.store._transaction("write") as connection:
        connection.exec_driver_sql("UPDATE lead SET deleted_at = created_at")
    with house.client("admin") as fresh:
        assert fresh.get("/v1/leads").json()["items"] == []


def test_now_is_the_clock(house: House, client: TestClient) -> None:
    assert house.clock.now == NOW
    house.clock.wait(90, "m")
    (score,) = _score(client, DEAL)
    assert score["as_of"] == "2026-02-16T04:30:00Z"
