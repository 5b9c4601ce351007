from __future__ import annotations

import traceback
from typing import Any

import numpy as np
import pytest

from data.records import ENTITIES, Field, RecordError, SourceFacts, Table
from data.store import Store, StoreError, Written
from data.store.connections import database_url, open_engine, transaction
from data.store.tables import METADATA
from tests.data.stored_rows import T1, T2, T3, deal, move, plain, table

FACTS = SourceFacts("export")


# --- what goes in comes out ------------------------------------------------------------------


_SAMPLES: dict[str, Any] = {
    "id": ["k1", "k 2; DROP TABLE deal", "Ünï-クライアント", "'\"\\%", "", None],
    "text": ["x", "line\nbreak\ttab", "Ünï 𝄞 \u202e", "\\N", "", None],
    "number": [1.0, 0.1 + 0.2, -1e300, 5e-324, 0.0, np.nan],
    "boolean": [1.0, 0.0, 1.0, 0.0, 1.0, np.nan],
    "time": np.array(
        ["1900-01-01", "1969-12-31T23:59:59.999999", "1970-01-01", "2199-12-31T23:59:59.999999",
         "2026-03-29T01:30:00.000001", "NaT"], dtype="datetime64[us]",
    ),
    "date": np.array(
        ["1900-01-01", "1969-12-31", "1970-01-01", "2199-12-31", "2024-02-29", "NaT"],
        dtype="datetime64[D]",
    ),
    "json": [{"a": [1, 2.5, None], "ü": {"b": True}}, {}, {"z": "", "a": "\x00"}, None, None, None],
}  # fmt: skip


def _column(field: Field, required: bool, position: int) -> Any:
    if field.kind == "choice":
        values = [*(list(field.choices) * 6)[:5], None]
    else:
        values = _SAMPLES[field.kind]
    if not required:
        return values
    usable = [v for v in values if v is not None and v != "" and v == v]
    return [usable[(i + position) % len(usable)] for i in range(6)]


@pytest.mark.parametrize("name", list(ENTITIES))
def test_every_entity_comes_back_exactly(store: Store, name: str) -> None:
    entity = ENTITIES[name]
    required = (*entity.key, *entity.required)
    columns = {f.name: _column(f, f.name in required, i) for i, f in enumerate(entity.columns)}
    for kept in ("recorded_at", "first_seen_at", "seen_at"):
        columns[kept] = np.full(6, T1)
    columns["source"] = [*"abcdef"]
    # Every key once: the last text column of the key tells the rows apart.
    apart = next(k for k in reversed(entity.key) if entity.by_name[k].kind in ("id", "text"))
    columns[apart] = [*_SAMPLES["id"][:4], "\u2028", "K6"]
    attributes = {
        "Größe (m²)": [1.5, None, -0.0, 3.0, 1e22, None],
        "tags": [["a", "b;c"], [], None, ["ü"], None, None],
        "vip": [True, False, None, True, None, None],
        "note": ["", "x", None, "y", "'", None],
    }
    extra = {}
    for key, values in attributes.items():
        extra[key] = np.empty(6, dtype=object)
        extra[key][:] = values
    given = Table.from_columns(entity, columns, extra)
    assert store.write([given], at=T2)[name] == Written(inserted=6)
    found = store.read([name])[name]
    assert {k: v.dtype for k, v in found.columns.items()} == {
        k: v.dtype for k, v in given.columns.items()
    }
    assert (found["ingested_at"] == T2).all()

    def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(rows, key=lambda row: row["source"])

    assert in_order(plain(found)) == in_order(plain(given))
    assert store.write([given], at=T3)[name] == Written(unchanged=6)


def test_read_gives_every_entity_and_refuses_unknown_ones(store: Store) -> None:
    found = store.read()
    assert list(found) == list(ENTITIES)
    assert all(len(t) == 0 for t in found.values())
    assert found["deal"]["created_at"].dtype == "datetime64[us]"
    with pytest.raises(RecordError, match="'deals'; allowed: lead"):
        store.read(["deals"])


def test_rows_come_in_the_same_order_from_both_databases(store: Store) -> None:
    # Records by key in binary order, whatever the collation; events as they arrived.
    store.write(
        [table("owner", *({"owner_id": i} for i in ("b", "é", "a", "B", "10", "9")))], at=T1
    )
    assert list(store.read(["owner"])["owner"]["owner_id"]) == ["10", "9", "B", "a", "b", "é"]
    store.write([move("Z"), move("A"), move("M")], at=T1)
    assert list(store.read()["stage_change"]["to_stage_id"]) == ["Z", "A", "M"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"deal_id": [None]}, "deal.deal_id of row 0 is None"),
        ({"deal_id": [""]}, "deal.deal_id of row 0 is None"),
        ({"deal_id": ["D1"], "name": ["nul\0"]}, "without NUL"),
        ({"deal_id": ["D1"], "name": ["half \ud83d"]}, "valid Unicode"),
        ({"deal_id": [17]}, "deal_id is 17"),
        ({"deal_id": ["D1"], "amount": [np.inf]}, "amount is inf; allowed: a finite number"),
        ({"deal_id": ["D1"], "raw": [{"x": {1j}}]}, "raw is"),
    ],
)
def test_values_no_database_should_hold_are_refused(
    store: Store, columns: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecordError, match=said):
        store.write([Table.from_columns(ENTITIES["deal"], columns)], at=T1)
    assert len(store.read()["deal"]) == 0


def test_a_boolean_is_true_or_false(store: Store) -> None:
    half = Table.from_columns(ENTITIES["owner"], {"owner_id": ["u1"], "is_active": [0.5]})
    with pytest.raises(RecordError, match=r"is_active is 0\.5"):
        store.write([half], at=T1)


# --- what is filled in ------------------------------------------------------------------------


def test_a_file_row_is_taken_to_be_written_when_it_happened(store: Store) -> None:
    rows = table(
        "deal",
        {"deal_id": "D1", "created_at": "2025-05-05T05:05:05Z"},
        {"deal_id": "D2"},
        {"deal_id": "D3", "recorded_at": "2025-06-06T06:06:06Z", "source": "other"},
    )
    store.write([rows], at=T1, facts=FACTS)
    found = store.read()["deal"]
    expected = np.array(["2025-05-05T05:05:05", T1, "2025-06-06T06:06:06"], "datetime64[us]")
    assert (found["recorded_at"] == expected).all()
    np.testing.assert_array_equal(found["recorded_assumed"], [1.0, 1.0, np.nan])
    assert (found["seen_at"] == T1).all()
    assert list(found["source"]) == ["export", "export", "other"]


def test_a_pushed_row_is_taken_to_be_written_on_receipt(store: Store) -> None:
    pushed = deal(created_at="2025-05-05T05:05:05Z", seen_at="2026-01-09T00:00:00Z")
    store.write([pushed], at=T1)
    found = store.read()["deal"]
    assert found["recorded_at"][0] == T1
    assert found["recorded_assumed"][0] == 0.0
    assert found["seen_at"][0] == np.datetime64("2026-01-09")
    assert found["source"][0] is None


def test_facts_of_a_source_are_kept_and_replaced(store: Store) -> None:
    facts = SourceFacts(
        "crm", "EUR", {"deal": ("amount", "Größe")}, {"lead": ("rating",)}, ("activity",),
        np.datetime64("1969-07-20T20:17:40.000001", "us"), trusted={"deal": ("grade",)},
    )  # fmt: skip
    store.write([], at=T1, facts=SourceFacts("crm", "USD"))
    store.write([deal()], at=T1, facts=facts)
    store.write([], at=T1, facts=SourceFacts("another", observed_until=T2))
    other, found = store.sources()
    assert (found.name, found.currency, found.static, found.excluded, found.pseudo_times) == (
        "crm", "EUR", facts.static, facts.excluded, ("activity",)
    )  # fmt: skip
    assert found.observed_from == facts.observed_from
    assert (found.trusted, other.trusted) == (facts.trusted, {})
    assert np.isnat(found.observed_until)
    assert other.observed_until == T2


# --- what concerns some records -------------------------------------------------------------------


def test_read_records_gives_what_concerns_them_and_no_more(store: Store) -> None:
    store.write(
        [
            table("deal", *({"deal_id": d, "account_id": f"a{d}"} for d in ("D1", "D2", "D3"))),
            table("lead", {"lead_id": "D1", "account_id": "aD9"}),
            table("account", *({"account_id": f"a{d}"} for d in ("D1", "D2", "D9"))),
            table("owner", {"owner_id": "u1"}),
            table("stage", {"pipeline_id": "p", "stage_id": "B"}),
            move("B"), move("B", entity_id="D2"), move("B", entity="lead"),
            table(
                "activity",
                {"activity_id": "1", "deal_id": "D1"}, {"activity_id": "2", "lead_id": "D1"},
                {"activity_id": "3", "deal_id": "D2"},
            ),
            table("contact_role", {"deal_id": "D1", "contact_id": "c"},
                  {"deal_id": "D2", "contact_id": "c"}),
            table("qualification", *(
                {"entity": e, "entity_id": "D1", "changed_at": "2026-01-01T00:00:00Z", "need": e}
                for e in ("lead", "deal")
            )),
        ],
        at=T1,
    )  # fmt: skip
    found = store.read_records("deal", ["D1", "D3", "unknown", "D1"])
    assert list(found) == list(ENTITIES)
    counts = {name: len(t) for name, t in found.items() if len(t)}
    assert counts == {
        "deal": 2, "stage": 1, "owner": 1, "account": 1, "stage_change": 1, "activity": 1,
        "contact_role": 1, "qualification": 1,
    }  # fmt: skip
    assert found["qualification"]["need"][0] == "deal"
    lead = store.read_records("lead", ["D1"])
    assert list(lead["activity"]["activity_id"]) == ["2"]
    assert list(lead["stage_change"]["entity"]) == ["lead"]
    assert list(lead["account"]["account_id"]) == ["aD9"]
    assert len(lead["deal"]) == 0
    assert sum(map(len, store.read_records("deal", []).values())) == 2  # owner and stage
    with pytest.raises(RecordError, match=r"'account'; allowed: lead \| deal"):
        store.read_records("account", ["a1"])


def test_many_ids_at_once(store: Store) -> None:
    ids = [f"D{i:04d}" for i in range(2_500)]
    store.write([Table.from_columns(ENTITIES["deal"], {"deal_id": ids})], at=T1)
    assert list(store.read_records("deal", ids)["deal"]["deal_id"]) == ids


def test_open_ids_leave_out_closed_deleted_and_merged(store: Store) -> None:
    rows = [
        {"deal_id": "open", "outcome": "open"},
        {"deal_id": "unsaid"},
        {"deal_id": "won", "outcome": "won"},
        {"deal_id": "deleted", "deleted_at": "2026-01-01T00:00:00Z"},
        {"deal_id": "merged", "outcome": "open", "merged_into_id": "open"},
    ]
    store.write([table("deal", *rows)], at=T1)
    assert store.open_ids("deal") == ["open", "unsaid"]
    store.write(
        [table("lead", {"lead_id": "L1", "outcome": "qualified"}, {"lead_id": "L2"})], at=T1
    )
    assert store.open_ids("lead") == ["L2"]


# --- what can be opened, and what is said ---------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@h/d", "sqlite://", "sqlite:///:memory:", "", "a://"]
)
def test_other_urls_are_refused_with_those_allowed(url: str) -> None:
    with pytest.raises(StoreError, match="postgresql://user:password@host/name") as error:
        Store(url)
    assert "secret" not in str(error.value)


def test_a_plain_path_is_an_sqlite_file_in_a_new_folder(tmp_path: Any) -> None:
    path = tmp_path / "a%20b" / "ü" / "crm.db"
    with Store(str(path)) as store:
        store.upgrade()
        store.put_setting("a", "b")
        again = store.url
    assert path.exists()
    with Store(again) as store:
        assert store.settings() == {"a": "b"}


def test_a_file_that_is_no_database_says_so(tmp_path: Any) -> None:
    (tmp_path / "deals.csv").write_text("deal_id,amount\n" * 100)
    with (
        Store(str(tmp_path / "deals.csv")) as store,
        pytest.raises(StoreError, match="not a database"),
    ):
        store.upgrade()


def test_an_unreachable_server_is_a_store_error_without_the_password(tmp_path: Any) -> None:
    url = f"postgresql://crm:secret@/crm?host={tmp_path}"
    with Store(url) as store, pytest.raises(StoreError, match="refused") as error:
        store.ping()
    assert "secret" not in str(error.value) and "secret" not in store.url


def test_an_error_of_the_database_names_no_value(store: Store, store_url: str) -> None:
    engine = open_engine(database_url(store_url))
    try:
        for _ in range(2):
            with transaction(engine, "append") as connection:
                connection.execute(
                    METADATA.tables["organisation"].insert(), {"key": "private", "value": "x"}
                )
    except StoreError as error:
        said = "".join(traceback.format_exception(error))
        assert "UNIQUE constraint" in said or "unique constraint" in said
        assert "private" not in said
    else:
        pytest.fail("a key was stored twice")
    finally:
        engine.dispose()
    assert store.settings() == {"private": "x"}
