"""The bundles in use: swapped when the champion changes, kept when the new one is no good."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from models import bundle as bundles
from models.bundle import BundleError
from models.registry import NoSuchVersion, RegistryError
from scoring.bundles import DealBundle, bundle_of
from serving.live import Folders, Live, NoModelError, UnfitError, kind_of
from tests.serving.conftest import House, Organisation, Shelf


@pytest.fixture
def shelf(organisation: Organisation, tmp_path: Path) -> Shelf:
    """Versions that a test may damage."""
    folders = {}
    for key, folder in organisation.folders.items():
        folders[key] = tmp_path / "-".join(key)
        shutil.copytree(folder, folders[key])
    return Shelf(folders)


def _damage(folder: Path) -> None:
    with (folder / "arrays.npz").open("ab") as file:
        file.write(b"!")


def test_the_champions_are_served(shelf: Shelf) -> None:
    live = Live(shelf)
    assert live.deal().manifest.version == "2"
    assert live.lead().manifest.version == "1"


def test_a_new_champion_is_swapped_in(shelf: Shelf) -> None:
    live = Live(shelf)
    before = live.deal()
    live.refresh()
    assert live.deal() is before
    shelf.promote("deal", "1")
    assert live.deal() is before  # until it looks
    live.refresh()
    assert live.deal().manifest.version == "1"


def test_a_damaged_champion_leaves_the_old_one_in_use(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    live = Live(shelf)
    before = live.deal()
    _damage(shelf.folders["deal", "1"])
    shelf.promote("deal", "1")
    live.refresh()
    live.refresh()
    assert live.deal() is before
    state = live.in_use()["deal"]
    assert state.version == "2"
    assert state.problem is not None and "arrays.npz" in state.problem
    assert caplog.text.count("cannot be loaded") == 1  # not at every look
    shelf.rollback("deal")
    live.refresh()
    assert live.in_use()["deal"].problem is None


def test_a_tracker_that_is_away_leaves_the_old_one_in_use(shelf: Shelf) -> None:
    live = Live(shelf)
    before = live.deal()
    shelf.failing = True
    live.refresh()
    assert live.deal() is before
    assert "tracker is away" in str(live.in_use()["deal"].problem)


def test_a_champion_that_is_no_more_leaves_the_old_one_in_use(shelf: Shelf) -> None:
    live = Live(shelf)
    before = live.lead()
    del shelf.champions["lead"]
    live.refresh()
    assert live.lead() is before
    assert live.in_use()["lead"].problem == "no version is champion"


def test_without_a_champion_there_is_no_model(shelf: Shelf) -> None:
    shelf.champions.clear()
    with pytest.raises(NoModelError, match="dealcast train deal"):
        Live(shelf).deal()


def test_a_bundle_of_the_other_kind_is_refused(shelf: Shelf) -> None:
    shelf.folders["deal", "3"] = shelf.folders["lead", "1"]
    with pytest.raises(UnfitError, match="is a lead model; expected: deal"):
        Live(shelf).load("deal", shelf.find("deal", "3"))


def test_a_bundle_in_another_currency_is_refused(shelf: Shelf) -> None:
    with pytest.raises(UnfitError, match="trained in EUR, and the base currency is USD"):
        Live(shelf, "USD").load("deal", shelf.find("deal", "2"))
    assert Live(shelf, "EUR").deal().manifest.currency == "EUR"


def test_a_bundle_that_cannot_score_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    good = bundle_of(bundles.load(shelf.folders["deal", "2"]))
    assert isinstance(good, DealBundle)
    ill = dataclasses.replace(
        good, model=dataclasses.replace(good.model, correction=good.model.correction * np.nan)
    )
    shelf.folders["deal", "3"] = tmp_path / "ill"
    bundles.save(tmp_path / "ill", ill.to_state())
    shelf.champions["deal"] = "3"
    live = Live(shelf)
    with pytest.raises(NoModelError):
        live.deal()
    assert live.in_use()["deal"].problem


def test_promotion_tries_the_version_first(shelf: Shelf) -> None:
    live = Live(shelf)
    _damage(shelf.folders["deal", "1"])
    with pytest.raises(BundleError):
        live.promote("deal", "1")
    assert shelf.champions["deal"] == "2"
    with pytest.raises(NoSuchVersion):
        live.promote("deal", "9")


def test_rollback_tries_the_version_first(shelf: Shelf) -> None:
    live = Live(shelf)
    with pytest.raises(NoSuchVersion):
        live.rollback("deal")
    live.promote("deal", "1")
    assert live.deal().manifest.version == "1"
    _damage(shelf.folders["deal", "2"])
    with pytest.raises(BundleError):
        live.rollback("deal")
    assert shelf.champions["deal"] == "1"


def test_bundles_of_the_past_are_loaded_once(shelf: Shelf) -> None:
    live = Live(shelf)
    at = np.datetime64("2025-10-01", "us")
    first = live.at("deal", at)
    assert first is not None and first.manifest.version == "1"
    assert live.at("deal", at + np.timedelta64(1, "D")) is first
    assert live.at("deal", np.datetime64("2020-01-01", "us")) is None


def test_a_folder_is_served_without_a_registry(organisation: Organisation) -> None:
    live = Live(Folders({"deal": organisation.folders["deal", "2"]}))
    assert live.deal().manifest.version == "1"
    with pytest.raises(NoModelError):
        live.lead()
    for version in ("1", "2"):
        with pytest.raises(RegistryError):
            live.promote("deal", version)
    with pytest.raises(RegistryError):
        live.rollback("deal")
    assert live.at("deal", np.datetime64("2026-02-17", "us")) is not None
    assert live.at("deal", np.datetime64("2026-01-17", "us")) is None


def test_names_of_models() -> None:
    assert (kind_of("dealcast-deal"), kind_of("dealcast-lead")) == ("deal", "lead")
    with pytest.raises(NoSuchVersion, match="expected dealcast-lead or dealcast-deal"):
        kind_of("deal")


def test_models_through_the_api(house: House) -> None:
    with house.client("models") as client:
        names = [m["name"] for m in client.get("/v1/models").json()["models"]]
        assert names == ["dealcast-lead", "dealcast-deal"]
        model = client.get("/v1/models/dealcast-deal").json()
        assert model["in_use"] == "2"
        assert [v["version"] for v in model["versions"]] == ["2", "1"]
        assert model["versions"][0]["metrics"] == {"log_loss": 0.4, "coverage": None}
        answer = client.post("/v1/models/dealcast-deal/promote", json={"version": "1"})
        assert answer.json()["champion"]["aliases"] == ["champion"]
        assert client.get("/v1/models/dealcast-deal").json()["in_use"] == "1"
        answer = client.post("/v1/models/dealcast-deal/rollback")
        assert answer.json()["champion"]["version"] == "2"
        assert client.get("/v1/models/dealcast-deal").json()["in_use"] == "2"
        for path in ("promote", "rollback"):
            answer = client.post(f"/v1/models/dealcast-x/{path}", json={"version": "1"})
            assert answer.status_code == 404
        answer = client.post("/v1/models/dealcast-deal/promote", json={"version": "7"})
        assert answer.status_code == 404
        assert client.post("/v1/models/dealcast-lead/rollback").status_code == 404


def test_a_promoted_model_answers_the_next_call(house: House) -> None:
    body = {"records": [{"deal_id": "x"}]}
    with house.client("admin") as client:
        before = client.post("/v1/deals/score", json=body).json()["results"][0]
        client.post("/v1/models/dealcast-deal/promote", json={"version": "1"})
        after = client.post("/v1/deals/score", json=body).json()["results"][0]
    assert (before["model"]["version"], after["model"]["version"]) == ("2", "1")


def test_a_version_that_cannot_be_served_is_not_promoted(house: House, shelf: Shelf) -> None:
    house.shelf.folders = shelf.folders
    _damage(shelf.folders["deal", "1"])
    with house.client("models") as client:
        answer = client.post("/v1/models/dealcast-deal/promote", json={"version": "1"})
        assert answer.status_code == 409
        assert answer.json()["type"].endswith("unfit-model")
    assert house.shelf.champions["deal"] == "2"
