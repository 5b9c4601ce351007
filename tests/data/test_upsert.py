from __future__ import annotations

import threading

import numpy as np
import pytest

import data.store.statements
import data.store.upsert
from data.records import ENTITIES, SourceFacts, Table
from data.store import ConflictError, Store, Written
from tests.data.stored_rows import T1, T2, T3, changes, deal, move, plain, score, table

FACTS = SourceFacts("export")


# --- writing again -------------------------------------------------------------------------------


@pytest.mark.parametrize("few_keys", [0, 2_000])
@pytest.mark.parametrize("chunk", [2, 50_000])
def test_writing_the_same_again_changes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, few_keys: int, chunk: int
) -> None:
    # Both ways to look up what is known, with chunks that cut through equal keys.
    monkeypatch.setattr(data.store.statements, "_FEW_KEYS", few_keys)
    monkeypatch.setattr(data.store.statements, "_KEYS_AT_ONCE", 2)
    monkeypatch.setattr(data.store.upsert, "_CHUNK", chunk)
    deals = table("deal", *({"deal_id": f"D{i}", "amount": i, "extra": i} for i in range(5)))
    moves = [move(f"S{i}") for i in range(5)]
    progress: list[int] = []
    written = store.write([deals, *moves], at=T1, facts=FACTS, progress=progress.append)
    assert written == {"deal": Written(inserted=5), "stage_change": Written(inserted=5)}
    assert sum(progress) == 10
    before = store.read()
    written = store.write([*moves, deals], at=T2, facts=FACTS)
    assert written == {"deal": Written(unchanged=5), "stage_change": Written(unchanged=5)}
    after = store.read()
    for name in before:
        assert plain(before[name]) == plain(after[name])
        assert (before[name]["ingested_at"] == after[name]["ingested_at"]).all()


def test_many_rows_beside_few_known_ones(store: Store) -> None:
    ids = [f"D{i}" for i in range(3_000)]
    some = Table.from_columns(ENTITIES["deal"], {"deal_id": ids[:10], "amount": np.ones(10)})
    most = Table.from_columns(ENTITIES["deal"], {"deal_id": ids, "amount": np.ones(3_000)})
    store.write([some], at=T1)
    assert store.write([most], at=T2)["deal"] == Written(2_990, 0, 10)
    halves = most.with_columns(amount=np.r_[np.ones(1_500), np.full(1_500, 2.0)])
    assert store.write([halves], at=T3)["deal"] == Written(0, 1_500, 1_500)
    assert store.read()["deal"]["amount"].sum() == 4_500
    assert len(changes(store)) == 1_500


def test_a_changed_deal_tells_what_changed_and_from_what(store: Store) -> None:
    first = deal(
        name="x", amount=1200, probability=0.1, stage_id="A", outcome="open", owner_id="u1",
        created_at="2025-01-01T00:00:00Z", expected_close_date="2026-03-31", currency="EUR",
        vip=False, tags=["a"], region="n", level=1.0,
    )  # fmt: skip
    second = deal(
        name="x", amount=1200.5, probability=0.25, stage_id="B", outcome="won", owner_id="u1",
        created_at="2025-01-02T00:00:00Z", expected_close_date="2026-04-30", currency="EUR",
        closed_at="2026-02-09T12:00:00.5+01:00", vip=True, tags=["a", "b"], region="n", level=2,
    )  # fmt: skip
    store.write([first], at=T1)
    assert store.write([second], at=T2) == {"deal": Written(updated=1)}
    kept = store.read()
    assert changes(store) == [
        ("deal", "D1", "amount", "1200", "1200.5"),
        ("deal", "D1", "closed_at", None, "2026-02-09T11:00:00.500000Z"),
        ("deal", "D1", "expected_close_date", "2026-03-31", "2026-04-30"),
        ("deal", "D1", "level", "1", "2"),
        ("deal", "D1", "outcome", "open", "won"),
        ("deal", "D1", "probability", "0.1", "0.25"),
        ("deal", "D1", "stage_id", "A", "B"),
        ("deal", "D1", "tags", "a", "a;b"),
        ("deal", "D1", "vip", "false", "true"),
    ]
    assert changes(store, "stage_change") == [("deal", "D1", "A", "B")]
    for name in ("field_change", "stage_change"):
        rows = kept[name]
        assert set(rows["provenance"]) == {"snapshot_diff"}
        assert (rows["changed_at"] == T2).all() and (rows["recorded_at"] == T2).all()
        assert (rows["recorded_assumed"] == 0).all()
    row = kept["deal"]
    assert row["seen_at"][0] == T2 and row["ingested_at"][0] == T2
    assert row["recorded_at"][0] == T1  # of the first write
    assert row["amount"][0] == 1200.5 and row.attributes["vip"][0] is True
    assert store.write([second], at=T3) == {"deal": Written(unchanged=1)}


def test_a_changed_lead_has_field_changes_too(store: Store) -> None:
    store.write([table("lead", {"lead_id": "L1", "has_phone": False, "status": "New"})], at=T1)
    store.write([table("lead", {"lead_id": "L1", "has_phone": True, "status": "Hot"})], at=T2)
    assert changes(store) == [
        ("lead", "L1", "has_phone", "false", "true"),
        ("lead", "L1", "status", "New", "Hot"),
    ]
    assert changes(store, "stage_change") == []


def test_other_records_are_replaced_without_events(store: Store) -> None:
    store.write([table("owner", {"owner_id": "u1", "team_id": "t1"})], at=T1)
    written = store.write([table("owner", {"owner_id": "u1", "team_id": "t2"})], at=T2)
    assert written == {"owner": Written(updated=1)}
    assert store.read()["owner"]["team_id"][0] == "t2"
    assert changes(store) == []


def test_missing_values_keep_the_stored_ones(store: Store) -> None:
    store.write(
        [deal(amount=5, stage_id="A", closed_at="2026-01-01T00:00:00Z", a="1", b="2")], at=T1
    )
    partial = deal(stage_id="B", b="3", c="4")
    assert store.write([partial], at=T2) == {"deal": Written(updated=1)}
    found = store.read()["deal"]
    assert found["amount"][0] == 5 and found["stage_id"][0] == "B"
    assert found["closed_at"][0] == np.datetime64("2026-01-01")
    assert {k: v[0] for k, v in found.attributes.items()} == {"a": "1", "b": "3", "c": "4"}
    # The same part once more says nothing new, though it is not the stored row.
    assert store.write([partial], at=T3) == {"deal": Written(unchanged=1)}
    assert store.read()["deal"]["seen_at"][0] == T2
    assert [c[2:] for c in changes(store)] == [
        ("b", "2", "3"), ("c", None, "4"), ("stage_id", "A", "B")
    ]  # fmt: skip


def test_another_source_with_the_same_state_is_no_new_state(store: Store) -> None:
    store.write([deal(amount=5)], at=T1, facts=FACTS)
    written = store.write([deal(amount=5)], at=T2, facts=SourceFacts("second"))
    assert written == {"deal": Written(updated=1)}
    found = store.read()["deal"]
    assert found["source"][0] == "second"
    assert found["seen_at"][0] == T1
    assert changes(store) == []


def test_no_stage_change_is_noted_where_the_batch_brings_it(store: Store) -> None:
    store.write([deal(stage_id="A")], at=T1)
    store.write([deal(stage_id="B"), move("B", "2026-02-01T00:00:00Z", from_stage_id="A")], at=T2)
    moves = store.read()["stage_change"]
    assert list(moves["provenance"]) == ["native"]
    store.write([deal(stage_id="C"), move("B", "2026-02-02T00:00:00Z")], at=T3)
    assert ("deal", "D1", "B", "C") in changes(store, "stage_change")


def test_of_two_rows_of_one_moment_the_last_wins(store: Store) -> None:
    rows = [deal(amount=1, stage_id="A"), deal(amount=2), deal(amount=2)]
    assert store.write(rows, at=T1) == {"deal": Written(inserted=1, updated=1, unchanged=1)}
    found = store.read()["deal"]
    assert found["amount"][0] == 2 and found["stage_id"][0] == "A"
    assert changes(store) == []  # it was never seen as anything else
    written = store.write([deal(amount=3), deal(amount=4)], at=T2)
    assert written == {"deal": Written(updated=2)}
    assert changes(store) == [("deal", "D1", "amount", "2", "4")]


def test_a_second_correction_of_one_moment_leads_the_change_on(store: Store) -> None:
    seen = "2026-02-01T00:00:00Z"
    store.write([deal(amount=1)], at=T1)
    store.write([deal(amount=2, seen_at=seen)], at=T2)
    store.write([deal(amount=3, seen_at=seen)], at=T3)
    assert changes(store) == [("deal", "D1", "amount", "1", "3")]


def test_states_of_several_moments_are_taken_in_the_order_seen(store: Store) -> None:
    states = [
        deal(amount=3, seen_at="2026-01-03T00:00:00Z"),
        deal(amount=1, seen_at="2026-01-01T00:00:00Z"),
        deal(amount=2, seen_at="2026-01-02T00:00:00Z"),
    ]
    written = store.write([Table.concat(states)], at=T1)
    assert written == {"deal": Written(inserted=1, updated=2)}
    found = store.read()["field_change"]
    order = np.argsort(found["changed_at"])
    assert list(found["old_value"][order]) == ["1", "2"]
    assert list(found["new_value"][order]) == ["2", "3"]
    assert store.read()["deal"]["amount"][0] == 3


def test_an_older_state_does_not_overwrite_a_newer_one(store: Store) -> None:
    store.write([deal(amount=2)], at=T2)
    old = "2026-01-01T00:00:00Z"
    written = store.write([deal(amount=1, seen_at=old), deal(amount=2, seen_at=old)], at=T3)
    assert written == {"deal": Written(stale=1, unchanged=1)}
    assert store.read()["deal"]["amount"][0] == 2
    assert changes(store) == []


# --- events ---------------------------------------------------------------------------------------


def test_an_event_that_says_something_else_is_a_conflict_and_nothing_is_written(
    store: Store,
) -> None:
    store.write([move("B", from_stage_id="A")], at=T1)
    batch = [deal(amount=1), move("C"), move("B", from_stage_id="X")]
    with pytest.raises(ConflictError) as error:
        store.write(batch, at=T2, facts=FACTS)
    said = str(error.value)
    for part in ("entity_id='D1'", "2026-01-05T00:00:00Z", "from_stage_id is 'A', given 'X'"):
        assert part in said
    found = store.read()
    assert len(found["deal"]) == 0 and len(found["stage_change"]) == 1
    assert store.sources() == []


def test_two_rows_of_one_batch_may_conflict_too(store: Store) -> None:
    with pytest.raises(ConflictError, match="attributes is"):
        store.write([move("B", note="x"), move("B", note="y")], at=T1)
    assert len(store.read()["stage_change"]) == 0


def test_the_same_event_from_another_source_is_the_same_event(store: Store) -> None:
    store.write([move("B")], at=T1, facts=FACTS)
    again = move("B", recorded_at="2026-01-06T00:00:00Z", sequence=4)
    written = store.write([again, again], at=T2, facts=SourceFacts("second"))
    assert written == {"stage_change": Written(unchanged=2)}
    assert store.read()["stage_change"]["source"][0] == "export"


def test_a_change_noticed_here_yields_to_what_the_source_says(store: Store) -> None:
    store.write([deal(stage_id="A")], at=T1)
    store.write([deal(stage_id="B")], at=T3)
    native = move("B", "2026-03-10T09:00:00Z", from_stage_id="A", changed_by_id="u1")
    assert store.write([native], at=T3) == {"stage_change": Written(updated=1)}
    moves = store.read()["stage_change"]
    assert list(moves["provenance"]) == ["native"] and list(moves["changed_by_id"]) == ["u1"]
    assert store.write([native], at=T3) == {"stage_change": Written(unchanged=1)}


# --- all or nothing, side by side -----------------------------------------------------------------


def test_an_exception_in_the_middle_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write([deal(amount=1)], at=T1)
    before = store.read()

    class StopError(Exception):
        pass

    def stop(_: int) -> None:
        # By now rows of the first chunks were sent to the database.
        calls.append(1)
        if len(calls) == 3:
            raise StopError

    monkeypatch.setattr(data.store.upsert, "_CHUNK", 2)
    calls: list[int] = []
    more = table("deal", *({"deal_id": f"D{i}", "amount": 9} for i in range(1, 9)))
    with pytest.raises(StopError):
        store.write([move("A"), more], at=T2, facts=FACTS, progress=stop)
    after = store.read()
    assert {k: plain(v) for k, v in after.items()} == {k: plain(v) for k, v in before.items()}
    assert store.write([more], at=T2) == {"deal": Written(inserted=7, updated=1)}


def test_two_stores_write_at_the_same_time(store: Store, store_url: str) -> None:
    failures: list[BaseException] = []
    start = threading.Barrier(2)

    def work(worker: int) -> None:
        try:
            with Store(store_url) as mine:
                for i in range(15):
                    start.wait(timeout=30)
                    rows = [
                        {"deal_id": f"shared{i}", f"by{worker}": "x"},
                        {"deal_id": f"{worker}-{i}"},
                    ]
                    mine.write([table("deal", *rows)], at=T1 + np.timedelta64(i, "s"))
                    mine.issue([score(f"{worker}-{i}"), score("both")])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(w,)) for w in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert failures == []
    deals = store.read()["deal"]
    assert len(deals) == 45
    shared = deals.take(np.char.startswith(deals["deal_id"].astype(str), "shared"))
    assert all(v == "x" for by in ("by1", "by2") for v in shared.attributes[by])
    assert len(store.scores_issued("deal")) == 31


def test_a_reader_does_not_wait_for_a_writer_and_sees_nothing_half_done(
    store: Store, store_url: str
) -> None:
    store.write([deal(amount=1)], at=T1)
    seen: list[float] = []

    def look(_: int) -> None:
        with Store(store_url) as other:
            seen.extend(other.read(["deal"])["deal"]["amount"])

    store.write([deal(amount=2)], at=T2, progress=look)
    assert seen == [1.0]
    assert store.read()["deal"]["amount"][0] == 2.0
