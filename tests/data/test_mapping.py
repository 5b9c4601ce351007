from __future__ import annotations

import csv
import datetime as dt
import gzip
import re
import sqlite3
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.mapping import Imported, MappingError, load_mapping, read_source, sections
from data.mapping.imported import FileCount
from data.records import ENTITIES, Table

NOW = np.datetime64("2026-01-01T00:00:00", "us")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

DEALS = """
    [source]
    name = "crm"
    currency = "EUR"
    [files.deals]
    path = "deals.csv"
    [[table]]
    entity = "deal"
    [table.fields]
    deal_id = "Id"
    amount = "Amount"
    created_at = "Created"
"""
OUTCOME = """
    closed_at = "Closed"
    outcome = { column = "Stage", map = { Won = "won", Lost = "lost", "*" = "open" } }
"""


def run(folder: Path, toml: str, source: Path | None = None, **files: str | bytes) -> Imported:
    """Write the mapping and its CSV files, and import them."""
    for name, content in files.items():
        data = content if isinstance(content, bytes) else textwrap.dedent(content).lstrip().encode()
        (folder / f"{name}.csv").write_bytes(data)
    mapping = folder / "mapping.toml"
    mapping.write_text(textwrap.dedent(toml), encoding="utf-8")
    return read_source(load_mapping(mapping), source or folder, at=NOW)


def table(imported: Imported, entity: str) -> Table:
    found = imported.table(entity)
    assert found is not None, f"no {entity} was made"
    return found


def reasons(imported: Imported) -> dict[int, str]:
    return {r.line: r.reason for r in imported.rejects}


# -- the mapping file --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("amount =", "ammount =", 'table 1, fields.ammount: .*did you mean "amount"'),
        ('entity = "deal"', 'entity = "deals"', 'table 1, entity: .*did you mean "deal"'),
        ('name = "crm"', 'nam = "crm"', 'source, name: is missing|source, nam: .*"name"'),
        ('path = "deals.csv"', 'path = "deals.csv"\nsep = ";"', "files.deals, sep: .*no such key"),
        ('currency = "EUR"', 'currency = "euro"', "source, currency: .*ISO 4217"),
        ('currency = "EUR"', 'time_zone = "Paris"', "source, time_zone: .*Europe/Paris"),
        ('amount = "Amount"', "amount = 5", "table 1, fields.amount: .*const"),
        ('amount = "Amount"', 'amount = {colum = "A"}', "table 1, fields.amount: .*column, const"),
        ('amount = "Amount"', 'amount = {column = "A", map = "m"}', "fields.amount, map: .*none"),
        ('amount = "Amount"', 'amount = {lookup = "x", key = "A"}', "lookup: .*Allowed: deals"),
        ('deal_id = "Id"', "", "table 1, fields.deal_id: deal needs this field"),
        ('amount = "Amount"', 'amount = {order = "row", start = "2020-01-01", step = "x"}', "10m"),
    ],
)
def test_a_wrong_mapping_names_the_place_and_the_cure(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    path = tmp_path / "m.toml"
    path.write_text(DEALS.replace(old, new, 1))
    with pytest.raises(MappingError, match=told):
        load_mapping(path)


def test_broken_toml_and_a_missing_file_are_mapping_errors(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text("[source")
    with pytest.raises(MappingError, match="not valid TOML"):
        load_mapping(tmp_path / "m.toml")
    with pytest.raises(MappingError, match="cannot be read"):
        load_mapping(tmp_path / "none.toml")
    with pytest.raises(MappingError, match=r'files\.deals, path.*did you mean "deal\.csv"'):
        run(tmp_path, DEALS, deal="Id,Amount,Created\n")


def test_a_column_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match=r'fields\.amount: .*did you mean "amount"'):
        run(tmp_path, DEALS, deals="Id,amount,Created\n1,5,2020-01-01\n")


@pytest.mark.parametrize("key", ["static", "exclude", "trusted"])
def test_lists_of_the_source_must_name_what_is_there(tmp_path: Path, key: str) -> None:
    rows = "Id,Amount,Created\n1,5,2020-01-01\n"
    toml = DEALS.replace('name = "crm"', f'name = "crm"\n    {key} = {{deal = ["amout"]}}')
    with pytest.raises(MappingError, match=rf'source, {key}\.deal: .*did you mean "amount"'):
        run(tmp_path, toml, deals=rows)
    facts = run(tmp_path, toml.replace("amout", "amount"), deals=rows).facts
    told = {"static": facts.static, "exclude": facts.excluded, "trusted": facts.trusted}
    assert told.pop(key) == {"deal": ("amount",)}
    assert not any(told.values())


# -- rows: stored or refused, and counted --------------------------------------------------------


def test_every_row_is_stored_or_refused_with_its_line_and_reason(tmp_path: Path) -> None:
    imported = run(
        tmp_path,
        DEALS + OUTCOME,
        deals="""
            Id,Amount,Created,Closed,Stage
            1,100,2020-01-01,2020-02-01,Won
            ,100,2020-01-01,,New
            3,lots,2020-01-01,,New
            4,100,yesterday,,New
            5,100,2020-01-01
            6,100,2020-03-01,2020-02-01,Lost
            7,100,2020-01-01,2020-02-01,New
            8,100,2020-01-01,2031-02-01,Won

            1,100,2020-01-01,2020-02-01,Won
            9,,,,New
            10,1,2020-01-01,,New
            10,2,2020-01-01,,New
            """,
    )
    assert list(table(imported, "deal")["deal_id"]) == ["1", "9"]
    found = reasons(imported)
    assert sorted(found) == [3, 4, 5, 6, 7, 8, 9, 13, 14]
    assert found[3] == "deal_id: is missing, and it is required"
    assert found[4] == 'amount: "lots" is not a number'
    assert found[5] == 'created_at: "yesterday" is not a time'
    assert "3 cells where the header has 5" in found[6]
    assert "lies before created_at" in found[7]
    assert "outcome is open" in found[8]
    assert "lies after now" in found[9]
    assert "line 13" in found[13] and "amount" in found[13] and "line 14" in found[14]
    (count,) = imported.counts
    assert (count.read, count.stored, count.duplicates, count.rejected) == (12, {"deal": 2}, 1, 9)


@pytest.mark.parametrize(("rule", "kept"), [("first", 1.0), ("last", 2.0)])
def test_a_declared_rule_settles_double_keys(tmp_path: Path, rule: str, kept: float) -> None:
    toml = DEALS.replace('entity = "deal"', f'entity = "deal"\n    duplicates = "{rule}"')
    imported = run(tmp_path, toml, deals="Id,Amount,Created\n1,1,2020-01-01\n1,2,2020-01-01\n")
    assert list(table(imported, "deal")["amount"]) == [kept]
    assert imported.counts[0].duplicates == 1 and not len(imported.rejects)


def test_counts_that_do_not_add_up_are_an_error() -> None:
    with pytest.raises(ArithmeticError, match="5 rows were read but 4"):
        FileCount("a.csv", "table 1", read=5, stored={"deal": 3}, rejected=1)


def test_rejects_can_be_written_and_read_back(tmp_path: Path) -> None:
    imported = run(tmp_path, DEALS, deals='Id,Amount,Created\n1,"a,b",2020-01-01\n')
    imported.rejects.write_csv(tmp_path / "rejects.csv")
    with (tmp_path / "rejects.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["file"] == "deals.csv" and row["line"] == "2"
    assert '"Amount": "a,b"' in row["row"]


def test_an_unlisted_value_is_refused_and_a_default_is_not(tmp_path: Path) -> None:
    toml = DEALS + 'outcome = { column = "Stage", map = { Won = "won", New = "open" } }\n'
    deals = "Id,Amount,Created,Stage\n1,1,2020-01-01,Won\n2,1,2020-01-01,won\n3,1,2020-01-01,\n"
    imported = run(tmp_path, toml, deals=deals)
    assert 'did you mean "Won"' in reasons(imported)[3]
    assert list(table(imported, "deal")["outcome"]) == ["won", None]
    toml = toml.replace('New = "open"', '"" = "lost", "*" = "open"')
    imported = run(tmp_path, toml, deals=deals)
    assert list(table(imported, "deal")["outcome"]) == ["won", "open", "lost"]


def test_rows_left_out_by_where_and_unless_are_counted_as_ignored(tmp_path: Path) -> None:
    toml = DEALS.replace(
        'entity = "deal"',
        'entity = "deal"\n    where = {Kind = ["a", ""]}\n    unless = {Test = ["yes"]}',
    )
    deals = "Id,Amount,Created,Kind,Test\n1,1,,a,\n2,1,,,yes\n3,oops,,b,\n4,1,,,no\n"
    imported = run(tmp_path, toml, deals=deals)
    assert list(table(imported, "deal")["deal_id"]) == ["1", "4"]
    assert imported.counts[0].ignored == {"where": 2} and not len(imported.rejects)


def test_a_date_of_closing_on_the_day_of_creation_is_taken_as_at_once(tmp_path: Path) -> None:
    imported = run(
        tmp_path,
        DEALS + OUTCOME,
        deals="Id,Amount,Created,Closed,Stage\n1,1,2020-01-01T10:00:00Z,2020-01-01,Won\n",
    )
    assert table(imported, "deal")["closed_at"][0] == np.datetime64("2020-01-01T10:00:00")
    assert any("closed, by date, on the day" in d for d in imported.decisions)


def test_nothing_happens_after_the_export(tmp_path: Path) -> None:
    toml = DEALS.replace('name = "crm"', 'name = "crm"\n    exported_at = 2020-06-01T00:00:00Z')
    deals = "Id,Amount,Created\n1,1,2020-05-31\n2,1,2020-06-02\n"
    imported = run(tmp_path, toml, deals=deals)
    assert "lies after exported_at" in reasons(imported)[3]
    assert imported.facts.observed_until == np.datetime64("2020-06-01")
    assert table(imported, "deal")["seen_at"][0] == np.datetime64("2020-06-01")


def test_the_same_file_gives_the_same_tables(tmp_path: Path) -> None:
    toml = DEALS + '    [table.attributes]\n    "*" = "rest"\n'
    deals = "Id,Amount,Created,City\n1,1,2020-01-01,Rome\n2,2,2020-05-01,\n"
    one, two = (run(tmp_path, toml, deals=deals) for _ in range(2))
    assert repr(one.facts) == repr(two.facts) and one.counts == two.counts  # NaT is not NaT
    for a, b in zip(one.tables, two.tables, strict=True):
        for name, column in a.columns.items():
            np.testing.assert_array_equal(column, b[name])
        for name, column in a.attributes.items():
            np.testing.assert_array_equal(column, b.attributes[name])
    deal = table(one, "deal")
    assert deal["seen_at"][0] == np.datetime64("2020-05-01")  # the latest time, not the clock
    assert deal["raw"][1] == {"Id": "2", "Amount": "2", "Created": "2020-05-01"}
    assert deal["source"][0] == "crm" and list(deal["currency"]) == ["EUR", "EUR"]


# -- expressions --------------------------------------------------------------------------------


def test_expressions(tmp_path: Path) -> None:
    toml = """
        [source]
        name = "crm"
        time_zone = "Europe/Paris"
        [files.deals]
        path = "deals.csv"
        missing = { "*" = ["n/a"], Score = ["999"] }
        [files.products]
        path = "products.csv"
        [maps.spelling]
        ProX = "Pro X"
        "*" = "*"
        [[stages]]
        open = ["New", { name = "Offer", id = "offer", default_probability = 0.5 }]
        lost = ["Lost"]
        [[table]]
        entity = "deal"
        file = "deals"
        [table.fields]
        deal_id = { template = "{Org}-{Id}" }
        deal_type = { const = "new" }
        created_at = "Created"
        lead_source = { first = ["Source", "Channel", { const = "other" }] }
        closed_amount = { if = { column = "Stage", in = ["Won"] }, then = "Value" }
        [table.fields.recurring_amount]
        if = { column = "Stage", not_in = ["Won"] }
        then = { const = 7 }
        else = "Value"
        [table.fields.amount]
        lookup = "products"
        key = "Product"
        map = "spelling"
        match = "Name"
        value = { column = "Price", scale = 1000 }
        [table.attributes]
        score = { column = "Score", as = "number" }
        labels = { column = "Labels", as = "list", separator = "|" }
        signed = { column = "Signed", as = "date" }
        vip = { column = "Vip", map = { x = true, "" = false }, as = "boolean" }
        [[table.stage_changes]]
        to = "New"
        at = "Created"
        [[table.stage_changes]]
        to = "offer"
        at = "Offered"
        """
    deals = """
        Id,Org,Created,Source,Channel,Product,Stage,Value,Score,Labels,Signed,Vip,Offered
        1,a,2020-07-01,web,,ProX,Won,5,12,red| blue,2020-01-31,x,2020-07-03
        2,b,2020-01-01 12:00,n/a,fair,Basic,Lost,0,999,,,,
        3,b,2020-01-01T12:00:00Z,,,n/a,Won,n/a,1,,,,
        """
    products = "Name,Price\nPro X,1.5\nBasic,2\n"
    imported = run(tmp_path, toml, deals=deals, products=products)
    assert not len(imported.rejects), list(imported.rejects)
    deal = table(imported, "deal")
    assert list(deal["deal_id"]) == ["a-1", "b-2", "b-3"]
    assert list(deal["lead_source"]) == ["web", "fair", "other"]
    assert list(deal["pipeline_id"]) == ["default"] * 3
    np.testing.assert_array_equal(deal["amount"], [1500, 2000, np.nan])
    np.testing.assert_array_equal(deal["closed_amount"], [5, np.nan, np.nan])
    np.testing.assert_array_equal(deal["recurring_amount"], [5, 7, np.nan])
    np.testing.assert_array_equal(  # Paris: two hours ahead in July, one in January
        deal["created_at"],
        np.array(["2020-06-30T22", "2020-01-01T11", "2020-01-01T12"], "datetime64[us]"),
    )
    assert list(deal.attributes["score"]) == [12.0, None, 1.0]
    assert list(deal.attributes["labels"]) == [["red", "blue"], None, None]
    assert list(deal.attributes["signed"]) == ["2020-01-31", None, None]
    assert list(deal.attributes["vip"]) == [True, False, False]
    moves = table(imported, "stage_change")
    assert list(moves["to_stage_id"]) == ["New", "offer", "New", "New"]
    assert list(moves["from_stage_id"]) == [None, "New", None, None]
    stages = table(imported, "stage")
    assert list(stages["stage_id"]) == ["New", "offer", "Lost"]
    assert list(stages["kind"]) == ["open", "open", "lost"]
    assert {c.use: c.stored for c in imported.counts}["lookup"] == {"lookup": 2}


def test_a_lookup_that_finds_nothing_is_refused_unless_a_default_is_given(tmp_path: Path) -> None:
    toml = DEALS.replace("[[table]]", '[files.p]\n    path = "p.csv"\n    [[table]]')
    toml = toml.replace('entity = "deal"', 'entity = "deal"\n    file = "deals"').replace(
        '"Amount"', '{ lookup = "p", key = "Amount", match = "k", value = "v" }'
    )
    files: dict[str, Any] = {"deals": "Id,Amount,Created\n1,a,\n2,z,\n", "p": "k,v\na,5\nb,6\n"}
    imported = run(tmp_path, toml, **files)
    assert reasons(imported)[3] == 'amount: "z" is not in "k" of p.csv'
    imported = run(tmp_path, toml.replace('value = "v"', 'value = "v", default = 0'), **files)
    assert list(table(imported, "deal")["amount"]) == [5, 0]
    with pytest.raises(MappingError, match="twice"):
        run(tmp_path, toml, deals=files["deals"], p="k,v\na,5\na,6\n")


def test_times_made_from_the_order_mark_the_entity(tmp_path: Path) -> None:
    toml = DEALS.replace('"Created"', '{ order = "Id", start = 2020-01-01T00:00:00Z, step = "1d" }')
    imported = run(tmp_path, toml, deals="Id,Amount\n30,1\n4,1\n100,1\n")
    days = table(imported, "deal")["created_at"].astype("datetime64[D]").astype(str)
    assert list(days) == ["2020-01-02", "2020-01-01", "2020-01-03"]
    assert imported.facts.pseudo_times == ("deal",)


def test_rest_takes_every_other_column_with_the_kind_its_values_show(tmp_path: Path) -> None:
    toml = DEALS.replace(
        'entity = "deal"', 'entity = "deal"\n    attributes = "rest"\n    drop = ["Junk"]'
    )
    numbers = "\n".join(f"{i},1,,{i},,yes,007,2020-01-{i:02d},{i}" for i in range(2, 29))
    header = "Id,Amount,Created,Total Visits,Junk,Opt-In,ZIP,Day,Mixed"
    imported = run(tmp_path, toml, deals=f"{header}\n1,1,,1.5,,no,010,,n/a\n{numbers}\n")
    attributes = table(imported, "deal").attributes
    assert {k: v[1] for k, v in attributes.items()} == {
        "total_visits": 2.0,
        "opt_in": True,
        "zip": "007",
        "day": "2020-01-02",
        "mixed": "2",
    }
    assert any('"Mixed"' in d and '"n/a"' in d for d in imported.decisions)


def test_an_attribute_may_not_take_the_name_of_a_field(tmp_path: Path) -> None:
    toml = DEALS.replace('entity = "deal"', 'entity = "deal"\n    attributes = "rest"')
    with pytest.raises(MappingError, match="would be called competitor, which is a field of deal"):
        run(tmp_path, toml, deals="Id,Amount,Created,Competitor\n1,1,,x\n")


def test_other_entities_take_the_same_road(tmp_path: Path) -> None:
    toml = """
        [source]
        name = "crm"
        [files.history]
        path = "history.csv"
        [[table]]
        entity = "stage_change"
        unless = { Stage = ["-"] }
        [table.fields]
        entity = { const = "deal" }
        entity_id = "Deal"
        changed_at = "At"
        to_stage_id = "Stage"
        """
    history = "Deal,At,Stage\n1,2020-01-01,A\n1,2020-01-02,B\n1,2020-01-02,-\n"
    moves = table(run(tmp_path, toml, history=history), "stage_change")
    assert list(moves["provenance"]) == ["import", "import"]
    assert list(moves["sequence"]) == [0, 1]
    (tmp_path / "mapping.toml").write_text(
        textwrap.dedent(toml).replace("stage_change", "activity").split("entity = {")[0]
    )
    with pytest.raises(MappingError, match=r"fields\.activity_id: activity needs this field"):
        load_mapping(tmp_path / "mapping.toml")


# -- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_encoding_and_delimiter_are_found_and_told(
    tmp_path: Path, encoding: str, delimiter: str
) -> None:
    rows = [["Id", "Amount", "Created", "Città"], ["1", "1", "", "Perù"], ["2", "3", "", "Forlì"]]
    content = "\r\n".join(delimiter.join(r) for r in rows).encode(encoding)
    toml = DEALS + '    [table.attributes]\n    city = "Città"\n'
    imported = run(tmp_path, toml, deals=content)
    assert list(table(imported, "deal").attributes["city"]) == ["Perù", "Forlì"]
    assert f"delimiter {delimiter!r}" in imported.decisions[0]
    assert encoding.removesuffix("-sig") in imported.decisions[0]


def test_quoted_line_breaks_keep_the_line_numbers(tmp_path: Path) -> None:
    deals = 'Id,Amount,Created\n1,"1\n0",\n2,x,\n"3,\n'
    with pytest.raises(MappingError, match="begins on line 5 never ends"):
        run(tmp_path, DEALS, deals=deals)
    imported = run(tmp_path, DEALS, deals=deals.replace('"3,\n', "4,5,\n"))
    assert sorted(reasons(imported)) == [2, 4]


def test_a_gzipped_file_a_preamble_and_a_file_without_headers(tmp_path: Path) -> None:
    content = gzip.compress(b"made by crm\nsecond line\n1;5;2020-01-01\n2;6;2020-01-02\n")
    (tmp_path / "deals.csv.gz").write_bytes(content)
    options = 'path = "deals.csv"\nskip_lines = 2\ncolumns = ["Id", "Amount", "Created"]'
    imported = run(tmp_path, DEALS.replace('path = "deals.csv"', options))
    assert list(table(imported, "deal")["amount"]) == [5, 6]


def test_a_single_file_may_be_the_source(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("Id,Amount,Created\n1,5,2020-01-01\n")
    imported = run(tmp_path, DEALS, source=tmp_path / "other.csv")
    assert len(table(imported, "deal")) == 1 and imported.counts[0].file == "other.csv"


def test_typed_files_and_queries_give_what_the_csv_gives(tmp_path: Path) -> None:
    typed: list[dict[str, Any]] = [
        {"Id": 1, "Amount": 1.234, "Created": dt.datetime(2020, 1, 2, 3, 4), "Vip": True},
        {"Id": 2, "Amount": None, "Created": None, "Vip": False},
    ]
    toml = DEALS + '    [table.attributes]\n    "*" = "rest"\n'
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(list(typed[0]))
    for row in typed:
        sheet.append(list(row.values()))
    book.save(tmp_path / "deals.xlsx")
    pq.write_table(pa.Table.from_pylist(typed), tmp_path / "deals.parquet")
    database = sqlite3.connect(tmp_path / "crm.db")
    pd.DataFrame(typed).astype({"Created": str}).replace("NaT", None).to_sql("deals", database)
    database.close()
    query = 'url = "$CRM"\nquery = "select Id, Amount, Created, Vip from deals"'
    expected = run(
        tmp_path,
        toml.replace('"deals.csv"', '"deals.csv"\n    decimal = "."'),
        deals="Id,Amount,Created,Vip\n1,1.234,2020-01-02 03:04,true\n2,,,false\n",
    )
    for written in ('path = "deals.xlsx"', 'path = "deals.parquet"', query):
        path = tmp_path / "m.toml"
        path.write_text(textwrap.dedent(toml.replace('path = "deals.csv"', written)))
        environ = {"CRM": "sqlite:///crm.db"}
        imported = read_source(load_mapping(path), tmp_path, at=NOW, environ=environ)
        one, two = table(imported, "deal"), table(expected, "deal")
        for name in ("deal_id", "amount", "created_at"):
            np.testing.assert_array_equal(one[name], two[name], err_msg=written)
        vip = [bool(v) for v in one.attributes["vip"]]
        assert vip == [True, False], written
    with pytest.raises(MappingError, match="environment variable CRM is not set"):
        read_source(load_mapping(path), tmp_path, at=NOW)


def test_progress_tells_the_rows_read(tmp_path: Path) -> None:
    (tmp_path / "deals.csv").write_text("Id,Amount,Created\n1,1,\n2,1,\n")
    (tmp_path / "m.toml").write_text(textwrap.dedent(DEALS))
    heard: list[tuple[str, int]] = []
    read_source(
        load_mapping(tmp_path / "m.toml"),
        tmp_path,
        at=NOW,
        progress=lambda name, rows: heard.append((name, rows)),
    )
    assert heard[-1] == ("deals", 2)


# -- event logs ----------------------------------------------------------------------------------

LOG = """
    [source]
    name = "log"
    [files.events]
    path = "events.csv"
    [[log]]
    case = "Case"
    activity = "What"
    time = "When"
    order = "No"
    lifecycle = "Phase"
    owner = "Who"
    automatic = ["bot"]
    ignore = ["Signed"]
    [log.deal]
    amount = "Value"
    closed_amount = "Value"
    [[log.stages]]
    name = "Open"
    activities = ["Enter", "Check"]
    [[log.stages]]
    id = "o"
    name = "Offer"
    activities = ["Offer"]
    [log.activities]
    Call = "call"
    [log.lifecycles]
    end = "done"
    plan = "planned"
    begin = "ignore"
    [log.outcome]
    won = { first_of = ["Yes", "Sure"] }
    lost = [{ first_of = ["No"], reason = "declined" }]
"""
EVENTS = """
    Case,No,What,Phase,When,Who,Value
    a,0,Enter,end,2020-01-01T08:00:00Z,bot,100
    a,1,Check,end,2020-01-01T08:00:00Z,bot,100
    a,2,Call,plan,2020-01-02T08:00:00Z,ann,100
    a,3,Call,begin,2020-01-03T08:00:00Z,bob,100
    a,4,Offer,end,2020-01-03T08:00:00Z,bob,100
    a,5,Enter,end,2020-01-04T08:00:00Z,,100
    a,6,Signed,end,2020-01-05T08:00:00Z,cal,100
    a,7,Yes,end,2020-01-05T08:00:00Z,cal,100
    a,8,Sure,end,2020-01-05T08:00:00Z,cal,100
    a,9,Call,end,2020-01-06T08:00:00Z,cal,100
    b,0,Enter,end,2020-01-01T08:00:00Z,ann,50
    b,1,No,end,2020-01-02T08:00:00Z,ann,50
    c,1,Call,end,2020-01-02T08:00:00Z,ann,60
    c,0,Enter,end,2020-01-01T08:00:00Z,ann,70
    d,0,Enter,end,2020-01-01T08:00:00Z,ann,much
    d,1,Call,end,2020-01-02T08:00:00Z,ann,5
    e,0,Enter,end,soon,ann,5
    e,1,Shout,end,2020-01-02T08:00:00Z,ann,5
    c,1,Call,end,2020-01-02T08:00:00Z,ann,60
"""


def test_an_event_log_gives_every_event_one_fate(tmp_path: Path) -> None:
    imported = run(tmp_path, LOG, events=EVENTS)
    (count,) = imported.counts
    assert count.read == 19
    assert count.stored == {"stage_change": 5, "activity": 2, "outcome": 2}
    assert count.ignored == {"already in the stage": 1, "listed in ignore": 1, "lifecycle": 1}
    assert (count.after_outcome, count.duplicates, count.rejected) == (2, 1, 4)
    assert count.made == {"deal": 3, "field_change": 4}
    found = reasons(imported)
    assert 'case d has amount: "much" is not a number' in found[16] and found[16] == found[17]
    assert "time" in found[18] and '"Shout" is not listed' in found[19]

    deal = table(imported, "deal")
    assert list(deal["deal_id"]) == ["a", "b", "c"]
    assert list(deal["outcome"]) == ["won", "lost", "open"]
    assert list(deal["loss_reason"]) == [None, "declined", None]
    assert list(deal["stage_id"]) == ["Open", "Open", "Open"]
    assert list(deal["owner_id"]) == ["bob", "ann", "ann"]
    np.testing.assert_array_equal(deal["amount"], [100, 50, 70])  # c's first event in time
    np.testing.assert_array_equal(deal["closed_amount"], [100, np.nan, np.nan])
    assert deal["closed_at"][0] == np.datetime64("2020-01-05T08:00:00")
    assert np.isnat(deal["closed_at"][2])
    assert any("amount changes within 1 cases" in d for d in imported.decisions)


def test_the_events_of_a_log_carry_their_order(tmp_path: Path) -> None:
    imported = run(tmp_path, LOG, events=EVENTS)
    moves = table(imported, "stage_change")
    assert list(moves["from_stage_id"][:3]) == [None, "Open", "o"]
    assert list(moves["to_stage_id"][:3]) == ["Open", "o", "Open"]
    assert list(moves["sequence"][:3]) == [0, 4, 5]
    acts = table(imported, "activity")
    assert list(acts["activity_id"]) == ["a-2", "c-1"]
    assert list(acts["type"]) == ["call planned", "call"] and list(acts["is_done"]) == [0, 1]
    changes = table(imported, "field_change")
    assert list(changes["new_value"]) == ["ann", "bob", "ann", "ann"]
    assert list(changes["old_value"]) == [None, "ann", None, None]


def test_without_a_cut_what_follows_the_outcome_is_stored(tmp_path: Path) -> None:
    toml = LOG.replace('ignore = ["Signed"]', 'ignore = ["Signed"]\n    cut = "none"')
    (count,) = run(tmp_path, toml, events=EVENTS).counts
    assert count.after_outcome == 0 and count.stored["activity"] == 3
    assert count.ignored["outcome again"] == 1


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('ignore = ["Signed"]', 'ignore = ["Yes"]', '"Yes" is listed twice'),
        ("[log.deal]", "[log.account]", r"needs either \[log.deal\] or \[log.lead\]"),
        ('amount = "Value"', 'outcome = "Value"', "log 1, deal.outcome: is no field"),
        ('plan = "planned"', 'plan = "plan"', 'lifecycles, plan: .*did you mean "planned"'),
        ('time = "When"', "", "log 1, time: is missing"),
        ("won = {", "victory = {", "outcome, victory: there is no such key"),
    ],
)
def test_a_wrong_log_names_the_place(tmp_path: Path, old: str, new: str, told: str) -> None:
    (tmp_path / "m.toml").write_text(textwrap.dedent(LOG.replace(old, new, 1)))
    with pytest.raises(MappingError, match=told):
        load_mapping(tmp_path / "m.toml")


def test_a_log_of_leads(tmp_path: Path) -> None:
    toml = (
        LOG.replace("[log.deal]", "[log.lead]")
        .replace('closed_amount = "Value"', "")
        .replace('amount = "Value"', 'industry = "Value"')
        .replace("won =", "qualified =")
        .replace("lost =", "disqualified =")
    )
    imported = run(tmp_path, toml, events=EVENTS)
    lead = table(imported, "lead")
    assert list(lead["outcome"]) == ["qualified", "disqualified", "open", "open"]
    assert np.isnat(lead["qualified_at"][1]) and not np.isnat(lead["disqualified_at"][1])
    assert list(table(imported, "activity")["lead_id"]) == ["a", "c", "d"]


# -- the reference ---------------------------------------------------------------------------------

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "mapping.md"
BLOCKS = re.findall(r"^```(csv|toml) (\S+)\n(.*?)^```$", REFERENCE.read_text("utf-8"), re.M | re.S)


@pytest.mark.parametrize("name", [n for kind, n, _ in BLOCKS if kind == "toml"])
def test_the_examples_of_the_reference_import_as_written(tmp_path: Path, name: str) -> None:
    for kind, file, content in BLOCKS:
        if kind == "csv" and file.startswith(f"{name}/"):
            (tmp_path / Path(file).name).write_text(content, encoding="utf-8")
        elif kind == "toml" and file == name:
            (tmp_path / "mapping.toml").write_text(content, encoding="utf-8")
    imported = read_source(load_mapping(tmp_path / "mapping.toml"), tmp_path, at=NOW)
    assert not len(imported.rejects), list(imported.rejects)
    made = {t.entity.name: len(t) for t in imported.tables}
    assert (
        made
        == {
            "first": {"deal": 3, "stage_change": 5, "stage": 2},
            "dates": {"deal": 3, "stage_change": 7, "stage": 5},
            "weekly": {"deal": 2, "stage_change": 3, "field_change": 3},
            "leads": {"lead": 3},
            "log": {"deal": 2, "stage_change": 3, "activity": 2, "field_change": 1, "stage": 2},
        }[name]
    )


def test_the_reference_names_every_field_and_every_key() -> None:
    text = REFERENCE.read_text("utf-8")
    for entity in ENTITIES.values():
        section = text.split(f"### {entity.name}\n")[1].split("\n#")[0]
        for declared in entity.fields:
            assert f"`{declared.name}`" in section, f"{entity.name}.{declared.name}"
            assert declared.meaning in section
    sources = (*Path(sections.__file__).parent.glob("*.py"),)
    asked = r'\.(?:text|texts|choice|number|flag|lists|time|take|required_text|array)\("(\w+)"'
    keys = {
        key
        for path in sources
        if path.stem in ("mapfile", "logspec", "expression_reader")
        for key in re.findall(asked, path.read_text("utf-8"))
    }
    assert len(keys) > 50
    forms = ("`{}`", "{} =", "[{}]", "[{}.", ".{}]")
    assert not {k for k in keys if not any(form.format(k) in text for form in forms)}


def test_snapshots_become_changes(tmp_path: Path) -> None:
    for kind, file, content in BLOCKS:
        if file.startswith("weekly"):
            name = "mapping.toml" if kind == "toml" else "weekly.csv"
            (tmp_path / name).write_text(content, encoding="utf-8")
    imported = read_source(load_mapping(tmp_path / "mapping.toml"), tmp_path, at=NOW)
    assert list(table(imported, "deal")["amount"]) == [120, 80]
    changes = table(imported, "field_change")
    assert list(changes["new_value"]) == ["100", "120", "80"]
    assert list(changes["old_value"]) == [None, "100", None]
    moves = table(imported, "stage_change")
    told = zip(moves["entity_id"], moves["from_stage_id"], moves["to_stage_id"], strict=True)
    assert list(told) == [("1", None, "Demo"), ("2", None, "Demo"), ("1", "Demo", "Offer")]
    assert imported.counts[1].ignored == {"no change": 2}


def test_times_can_be_shifted_and_texts_cut(tmp_path: Path) -> None:
    toml = (
        DEALS
        + """
    closed_at = { shift = "Created", by = "Days", unit = "d" }
    competitor = { column = "Mail", extract = "@(.+)$" }
    """
    )
    deals = "Id,Amount,Created,Days,Mail\n1,1,2020-01-01,1.5,a@b.c\n2,1,2020-01-01,,x\n3,1,,4,\n"
    imported = run(tmp_path, toml, deals=deals)
    deal = table(imported, "deal")
    assert deal["closed_at"][0] == np.datetime64("2020-01-02T12:00")
    assert np.isnat(deal["closed_at"][1:]).all()
    assert list(deal["competitor"]) == ["b.c", None, None]
    with pytest.raises(MappingError, match="round brackets"):
        run(tmp_path, toml.replace("(.+)", ".+"), deals=deals)
