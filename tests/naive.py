"""Public data sets as somebody maps them who knows nothing of their traps: every column counts."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import pytest

from data.history import History
from data.mapping import load_mapping, read_source
from data.records import SourceFacts, Table

Declared = Literal["static", "nothing"]

XEDUCATION = """
[source]
name = "xeducation_leads"
[files.leads]
path = "leads.csv"
[[table]]
entity = "lead"
file = "leads"
attributes = "rest"
drop = ["Prospect ID"]
[table.fields]
lead_id = "Lead Number"
outcome = { column = "Converted", map = { 1 = "qualified", 0 = "disqualified" } }
created_at = { order = "Lead Number", start = "2016-01-01T00:00:00Z", step = "1h" }
lead_source = "Lead Source"
country = "Country"
tags = "Tags"
"""

BANK = """
[source]
name = "bank_marketing"
[files.calls]
path = "bank-additional-full.csv"
[[table]]
entity = "lead"
file = "calls"
attributes = "rest"
[table.fields]
lead_id = { template = "call-{row}" }
outcome = { column = "y", map = { yes = "qualified", no = "disqualified" } }
created_at = { order = "row", start = "2008-05-01T00:00:00Z", step = "32m" }
campaign = "campaign"
"""

MAVEN = """
[source]
name = "maven_crm"
currency = "USD"
exported_at = 2018-01-01T00:00:00Z
[files.pipeline]
path = "sales_pipeline.csv"
[files.products]
path = "products.csv"
[maps.product_spelling]
GTXPro = "GTX Pro"
"*" = "*"
[[table]]
entity = "deal"
file = "pipeline"
[table.fields]
deal_id = "opportunity_id"
outcome = { column = "deal_stage", map = { Won = "won", Lost = "lost", "*" = "open" } }
stage_id = "deal_stage"
created_at = "engage_date"
closed_at = "close_date"
account_id = "account"
owner_id = "sales_agent"
[table.fields.amount]
lookup = "products"
key = "product"
map = "product_spelling"
match = "product"
value = "sales_price"
[table.attributes]
account = "account"
sales_agent = "sales_agent"
product = "product"
engage_date = { column = "engage_date", as = "date" }
close_date = { column = "close_date", as = "date" }
close_value = { column = "close_value", as = "number" }
"""


@cache
def _read(name: str, text: str) -> tuple[dict[str, Table], SourceFacts]:
    folder = os.environ.get("DEALCAST_DATASETS")
    if not folder:
        pytest.skip("DEALCAST_DATASETS is not set: it names the folder of the public data sets")
    with TemporaryDirectory() as place:
        file = Path(place, "naive.toml")
        file.write_text(text, encoding="utf-8")
        source = read_source(
            load_mapping(file), Path(folder) / name, at=np.datetime64("2026-01-01", "us")
        )
    return {t.entity.name: t for t in source.tables}, source.facts


_TEXTS = {"xeducation_leads": XEDUCATION, "bank_marketing": BANK, "maven_crm": MAVEN}


def naive_history(name: str, declared: Declared, missing: tuple[str, ...] = ()) -> History:
    """A public data set with all columns mapped, and all, or none, said never to change.

    `missing` are words that the user knows to stand for a missing value.
    """
    text = _TEXTS[name]
    if missing:
        words = ", ".join(f'"{word}"' for word in missing)
        text = text.replace("\n[[table]]", f"\nmissing = [{words}]\n[[table]]", 1)
    tables, facts = _read(name, text)
    if declared == "static":
        every: dict[str, tuple[str, ...]] = {
            side: (*(f.name for f in tables[side].entity.fields), *tables[side].attributes)
            for side in ("lead", "deal")
            if side in tables
        }
        facts = replace(facts, static=every)
    return History(tables, [facts])
