"""The mapping files of the public data sets, held against what their READMEs state."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.mapping import Imported, load_mapping, read_source
from tests.data.test_mapping import EXAMPLES, NOW, table


@pytest.fixture(scope="module")
def datasets() -> Path:
    folder = os.environ.get("DEALCAST_DATASETS")
    if not folder:
        pytest.skip("set DEALCAST_DATASETS to the folder of the public data sets")
    return Path(folder)


def example(datasets: Path, name: str) -> Imported:
    return read_source(load_mapping(EXAMPLES / f"{name}.toml"), datasets / name, at=NOW)


def test_bpic2012_agrees_with_the_published_outcomes(datasets: Path) -> None:
    imported = example(datasets, "bpic2012")
    (count,) = imported.counts
    assert count.read == 262_200 and count.rejected == 0
    assert count.stored["outcome"] == 12_688
    deal = table(imported, "deal")
    cases = pd.read_csv(datasets / "bpic2012" / "cases.csv.gz", dtype=str).set_index("case_id")
    cases = cases.loc[deal["deal_id"]]
    oracle = cases["outcome"].to_numpy(dtype=object)
    ours = np.where(deal["outcome"] == "lost", deal["loss_reason"], deal["outcome"])
    assert list(ours) == list(oracle)
    assert dict(pd.Series(ours).value_counts()) == {
        "declined": 7635,
        "cancelled": 2807,
        "won": 2246,
        "open": 399,
    }
    when = pd.to_datetime(cases["outcome_time"], utc=True, format="ISO8601").dt.tz_localize(None)
    np.testing.assert_array_equal(deal["closed_at"], when.to_numpy("datetime64[us]"))
    entered = pd.to_datetime(cases["reg_date"], utc=True, format="ISO8601").dt.tz_localize(None)
    off = np.abs(deal["created_at"] - entered.to_numpy("datetime64[us]"))
    assert off.max() < np.timedelta64(1, "s")  # the two are the same to the second
    np.testing.assert_array_equal(deal["amount"], cases["amount_requested"].astype(float))
    for entity, id_, at in (
        ("activity", "deal_id", "occurred_at"),
        ("stage_change", "entity_id", "changed_at"),
        ("field_change", "entity_id", "changed_at"),
    ):
        events = table(imported, entity)
        closed = pd.Series(deal["closed_at"], index=deal["deal_id"]).loc[events[id_]].to_numpy()
        assert not (events[at] > closed).any(), entity
    moves = table(imported, "stage_change")
    entered_stage = pd.DataFrame({"c": moves["entity_id"], "s": moves["to_stage_id"]})
    reached = entered_stage.drop_duplicates()["s"].value_counts()
    assert reached["Submitted"] == 13_087 and reached["Sent back"] == 3_254
    assert reached["Preaccepted"] == 7_367


def test_maven_crm_joins_its_files_and_keeps_undated_deals(datasets: Path) -> None:
    imported = example(datasets, "maven_crm")
    assert not len(imported.rejects)
    deal = table(imported, "deal")
    counts = pd.Series(deal["outcome"]).value_counts()
    assert dict(counts) == {"won": 4238, "lost": 2473, "open": 2089}
    undated = np.isnat(deal["created_at"])
    assert undated.sum() == 500 and set(deal["stage_id"][undated]) == {"Prospecting"}
    assert not np.isnan(deal["amount"]).any()
    assert set(deal["amount"][deal["product_family"] == "GTX Pro"]) == {4821.0}
    won = deal["outcome"] == "won"
    assert (deal["closed_amount"][won] > 0).all() and np.isnan(deal["closed_amount"][~won]).all()
    month = deal["closed_at"][won].astype("datetime64[M]") == np.datetime64("2017-03")
    assert deal["closed_amount"][won][month].sum() == 1_134_672
    assert len(table(imported, "stage_change")) == 8_300
    account = table(imported, "account")
    assert len(account) == 85 and "technolgy" not in set(account["industry"])
    assert account["annual_revenue"].max() == pytest.approx(11_698.03e6)
    assert len(table(imported, "owner")) == 35 and len(set(deal["team_id"])) == 6
    facts = imported.facts
    assert facts.excluded["deal"] == ("account_id",) and "amount" in facts.static["deal"]
    assert facts.observed_from == np.datetime64("2017-03-01")
    assert facts.observed_until == np.datetime64("2018-01-01")


def test_bank_marketing_keeps_the_order_and_drops_the_leaks(datasets: Path) -> None:
    imported = example(datasets, "bank_marketing")
    lead = table(imported, "lead")
    assert imported.counts[0].stored == {"lead": 41_188}
    assert (lead["outcome"] == "qualified").sum() == 4_640
    assert (np.diff(lead["created_at"]) > np.timedelta64(0)).all()
    assert lead["created_at"][-1].astype("datetime64[M]") == np.datetime64("2010-11")
    assert np.isnat(lead["qualified_at"]).all() and imported.facts.pseudo_times == ("lead",)
    assert not {"duration", "campaign"} & set(lead.attributes)
    assert (lead["campaign"] == None).all()  # noqa: E711
    assert set(imported.facts.static["lead"]) == set(lead.attributes)
    never = np.array([v is None for v in lead.attributes["pdays"]])
    assert never.mean() == pytest.approx(0.963, abs=0.001)
    assert all(v is None or isinstance(v, bool) for v in lead.attributes["housing"])


def test_xeducation_orders_by_number_and_excludes_what_is_written_afterwards(
    datasets: Path,
) -> None:
    imported = example(datasets, "xeducation_leads")
    lead = table(imported, "lead")
    assert len(lead) == 9_240 and (lead["outcome"] == "qualified").sum() == 3_561
    numbers = lead["lead_id"].astype(int)
    assert (np.argsort(numbers) == np.argsort(lead["created_at"])).all()
    assert "Select" not in set(lead.attributes["specialization"])
    known = {"lead_source", "country", "tags", *lead.attributes}
    static, excluded = (set(x["lead"]) for x in (imported.facts.static, imported.facts.excluded))
    assert not static & excluded and static | excluded == known
    assert "magazine" not in lead.attributes
