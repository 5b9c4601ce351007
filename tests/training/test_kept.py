"""Origins kept on disk: taken again only where all that they follow from is the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.history import History
from data.pipeline import FiscalCalendar
from tests.small_crm import deal, history, moment
from training import backtest as module
from training.backtest import Issued, backtest
from training.fitting import Recipe, fit_deals
from training.kept import Kept, fingerprint

RECIPE = Recipe(FiscalCalendar(), landmarks=600)
ORIGINS = [moment(d) for d in ("2024-02-01", "2024-02-05", "2024-02-12", "2024-02-19")]


def crm(last: str = "2024-02-22T08:00Z", **more: Any) -> History:
    return history(
        deal=[
            *(deal(f"d{i}", f"2024-01-{i + 1:02d}T08:00Z", f"2024-02-{i + 1:02d}T08:00Z")
              for i in range(20)),
            deal("last", "2024-01-25T08:00Z", last, **more),
        ],
        until="2024-06-01T00:00Z",
    )  # fmt: skip


class Fits:
    """Counts fits, and stops the program at one of them as a person would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at: list[str] = []
        self.stop = ""
        monkeypatch.setattr(module, "fit_deals", self)

    def __call__(self, crm: History, until: int, recipe: Recipe, like: Any = None) -> Any:
        day = str(np.datetime64(until, "us"))[:10]
        if day == self.stop:
            raise KeyboardInterrupt
        self.at.append(day)
        return fit_deals(crm, until, recipe, like=like)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Fits:
    return Fits(monkeypatch)


def run(folder: Path, company: History, recipe: Recipe = RECIPE, *, fresh: bool = False,
        **options: Any) -> list[Issued]:  # fmt: skip
    kept = Kept(folder, fingerprint(company, recipe), fresh)
    asked: dict[str, Any] = {"origins": ORIGINS, "horizons": [7], "draws": 30} | options
    return backtest(company, recipe=recipe, kept=kept, **asked)


def same(one: list[Issued], two: list[Issued]) -> bool:
    return [i.to_state() for i in one] == [i.to_state() for i in two]


def test_a_second_run_fits_nothing_and_says_the_same(tmp_path: Path, fits: Fits) -> None:
    first = run(tmp_path, crm())
    assert len(fits.at) == 4 and len(list(tmp_path.glob("*.json"))) == 4
    again = run(tmp_path, crm())
    assert len(fits.at) == 4 and same(again, first)
    assert same(first, run(tmp_path / "other", crm()))


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path, fits: Fits) -> None:
    whole = run(tmp_path / "whole", crm())
    fits.at, fits.stop = [], "2024-02-12"
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", crm())
    assert fits.at == ["2024-02-01", "2024-02-05"]
    fits.at, fits.stop = [], ""
    assert same(run(tmp_path / "part", crm()), whole)
    assert fits.at == ["2024-02-12", "2024-02-19"]


def test_an_origin_lost_from_the_middle_of_a_fit_comes_back_alike(
    tmp_path: Path, fits: Fits
) -> None:
    whole = run(tmp_path, crm(), refit_days=30)
    assert fits.at == [str(o)[:10] for o in ORIGINS]
    newest = max(tmp_path.glob("*.json"), key=lambda f: f.read_text("utf-8").count("2024-02-05"))
    newest.unlink()
    fits.at = []
    assert same(run(tmp_path, crm(), refit_days=30), whole)
    assert fits.at == ["2024-02-01", "2024-02-05"]  # its hazards are those of the first


@pytest.mark.parametrize(
    "change",
    [
        {"company": crm("2024-02-23T08:00Z")},
        {"company": crm(owner_id="ann")},
        {"recipe": replace(RECIPE, seed=1)},
        {"recipe": replace(RECIPE, landmarks=601)},
        {"draws": 31},
        {"horizons": [8]},
        {"by": "owner"},
        {"horizons": [], "period": "week"},
        {"until": int(moment("2024-05-01").astype(np.int64))},
        {"fresh": True},
    ],
    ids=lambda change: "-".join(change),
)
def test_whatever_a_figure_follows_from_is_looked_at(
    tmp_path: Path, fits: Fits, change: dict[str, Any]
) -> None:
    run(tmp_path, crm())
    run(tmp_path, **{"company": crm(), **change})
    assert len(fits.at) == 8


def test_other_origins_beside_it_do_not_matter(tmp_path: Path, fits: Fits) -> None:
    run(tmp_path, crm(), origins=ORIGINS[:2], refit_days=1)
    run(tmp_path, crm(), refit_days=1)
    assert len(fits.at) == 4


def test_another_version_of_the_code_recomputes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(crm(), RECIPE)
    assert before == fingerprint(crm(), RECIPE)
    monkeypatch.setattr("training.kept._code", lambda: ("another",))
    assert fingerprint(crm(), RECIPE) != before


def test_what_cannot_be_read_is_computed_again(tmp_path: Path, fits: Fits) -> None:
    first = run(tmp_path, crm(), refit_days=1)
    damaged = sorted(tmp_path.glob("*.json"))
    damaged[0].write_text("[{", "utf-8")
    damaged[1].write_text('[{"origin": "2024-02-01"}]', "utf-8")
    damaged[2].write_text("[{}]", "utf-8")
    assert same(run(tmp_path, crm(), refit_days=1), first) and len(fits.at) == 7
    assert not list(tmp_path.glob("*.part"))


def test_hazards_from_elsewhere_are_never_kept(tmp_path: Path) -> None:
    company = crm()
    bundle = fit_deals(company, int(ORIGINS[0].astype(np.int64)), RECIPE)
    run(tmp_path, company, bundles=lambda at: bundle)
    assert not list(tmp_path.iterdir())
