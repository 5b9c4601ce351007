"""Bundles: through a folder and back, to the bit; ranks among reference records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from models import bundle as files
from scoring.bundles import DealBundle, LeadBundle, Reference, bundle_of
from scoring.forecast import forecast
from scoring.scores import score_deals, score_leads
from tests import worlds


def through_disk(bundle: DealBundle | LeadBundle, folder: Path) -> DealBundle | LeadBundle:
    files.save(folder, bundle.to_state())
    return bundle_of(files.load(folder))


def test_a_deal_bundle_from_disk_answers_with_the_same_bits(tmp_path: Path) -> None:
    again = through_disk(worlds.deals(), tmp_path / "deal")
    assert isinstance(again, DealBundle)
    assert again.manifest == worlds.deals().manifest
    assert (again.features, again.calendar, again.stage_rates) == (
        worlds.deals().features, worlds.deals().calendar, worlds.deals().stage_rates,
    )  # fmt: skip
    crm, at = worlds.company(), worlds.cut_time()
    snapshot = crm.as_of("deal", at)
    assert score_deals(snapshot, again) == score_deals(snapshot, worlds.deals())
    periods = worlds.CALENDAR.periods("month", at, 2)
    one, two = (forecast(crm, b, at, periods, "owner", draws=200) for b in (again, worlds.deals()))
    assert one == two


def test_a_lead_bundle_from_disk_answers_with_the_same_bits(tmp_path: Path) -> None:
    again = through_disk(worlds.leads(), tmp_path / "lead")
    assert isinstance(again, LeadBundle)
    snapshot = worlds.company().as_of("lead", worlds.cut_time())
    assert score_leads(snapshot, again) == score_leads(snapshot, worlds.leads())


def test_names_that_no_key_may_have_survive(tmp_path: Path) -> None:
    bundle = worlds.deals()
    rates = {"$$$": {"rate": 0.5, "n": 3.0}, "": {"rate": 0.1, "n": 0.0}}
    arrivals = replace(bundle.arrivals, shares={"owner": {"$ue": 0.4, "all": 0.1}})
    odd = replace(bundle, stage_rates=rates, arrivals=arrivals)
    again = through_disk(odd, tmp_path / "odd")
    assert isinstance(again, DealBundle)
    assert again.stage_rates == rates and again.arrivals.shares == arrivals.shares


def test_a_version_is_stamped_without_touching_the_rest() -> None:
    stamped = worlds.deals().versioned("7")
    assert stamped.manifest.version == "7" and stamped.manifest.name == "dealcast-deal"
    assert stamped.model is worlds.deals().model
    assert worlds.leads().versioned("3").manifest.name == "dealcast-lead"


def test_percentiles_are_ranks_among_the_reference() -> None:
    reference = Reference({}, (), np.array([0.1, 0.2, 0.2, 0.4]))
    ranks = reference.percentile(np.array([0.05, 0.1, 0.2, 0.3, 0.9]))
    np.testing.assert_allclose(ranks, [0, 12.5, 50, 75, 100])
    nobody = Reference({}, (), np.zeros(0))
    assert np.isnan(nobody.percentile(np.array([0.3]))).all()
