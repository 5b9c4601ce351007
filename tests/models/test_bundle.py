"""Bundles: the same bits come back, an altered file is named, half a bundle is never seen."""

import json
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest

from models.bundle import BundleError, load, save


@pytest.fixture(scope="module")
def booster() -> lgb.Booster:
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=600), rng.integers(0, 6, 600)])
    x[::9, 0] = np.nan
    y = (rng.random(600) < 1 / (1 + np.exp(-np.nan_to_num(x[:, 0]) - x[:, 1] / 3))).astype(float)
    data = lgb.Dataset(x, y, categorical_feature=[1])
    params = {"objective": "binary", "num_leaves": 7, "verbosity": -1, "num_threads": 1}
    return lgb.train(params, data, num_boost_round=20)


def state(booster: lgb.Booster) -> dict[str, Any]:
    return {
        "name": "lead é",
        "none": None,
        "flags": [True, False, 3],
        "floats": [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0],
        "edges": {"nan": float("nan"), "inf": float("inf"), "low": float("-inf")},
        "scalar": np.float64(0.1) + np.float64(0.2),
        "nested": [{"array": np.random.default_rng(1).normal(size=(3, 4))}],
        "ints": np.arange(4, dtype=np.int32),
        "mask": np.array([True, False]),
        "levels": np.array(["web", "größer", ""]),
        "times": np.array(["2026-03-31T12:00", "NaT"], dtype="datetime64[us]"),
        "days": np.array(["2026-03-31"], dtype="datetime64[D]"),
        "empty": np.empty((0, 2)),
        "model": booster,
    }


def test_every_value_comes_back_to_the_bit(tmp_path: Path, booster: lgb.Booster) -> None:
    saved = state(booster)
    save(tmp_path / "b", saved)
    back = load(tmp_path / "b")
    assert list(back) == list(saved)
    for key in ("name", "none", "flags", "scalar"):
        assert back[key] == saved[key]
    assert np.array(back["floats"]).tobytes() == np.array(saved["floats"]).tobytes()
    assert np.isnan(back["edges"]["nan"]) and back["edges"]["inf"] == float("inf")
    assert back["edges"]["low"] == float("-inf")
    for key in ("ints", "mask", "levels", "times", "days", "empty"):
        assert back[key].dtype == saved[key].dtype
        assert back[key].shape == saved[key].shape
        assert back[key].tobytes() == saved[key].tobytes()
    assert back["nested"][0]["array"].tobytes() == saved["nested"][0]["array"].tobytes()


def test_a_reloaded_booster_predicts_the_same_bits(tmp_path: Path, booster: lgb.Booster) -> None:
    save(tmp_path / "b", {"model": booster})
    again = load(tmp_path / "b")["model"]
    x = np.column_stack([np.random.default_rng(2).normal(size=300), np.arange(300) % 8])
    x[::5, 0] = np.nan
    for kind in ({"raw_score": True}, {"pred_contrib": True}, {}):
        before, after = booster.predict(x, **kind), again.predict(x, **kind)
        assert np.asarray(before).tobytes() == np.asarray(after).tobytes()


def test_saving_again_writes_the_same_bytes(tmp_path: Path, booster: lgb.Booster) -> None:
    save(tmp_path / "one", state(booster))
    save(tmp_path / "two", load(tmp_path / "one"))
    names = sorted(p.name for p in (tmp_path / "one").iterdir())
    assert names == ["arrays.npz", "booster0.txt", "manifest.json"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("name", ["arrays.npz", "booster0.txt"])
def test_an_altered_file_is_named_with_both_sums(
    tmp_path: Path, booster: lgb.Booster, name: str
) -> None:
    save(tmp_path / "b", state(booster))
    path = tmp_path / "b" / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(BundleError, match=f"{name}: expected sha256 .*; seen sha256 ") as caught:
        load(tmp_path / "b")
    assert caught.value.file == name and caught.value.expected != caught.value.seen
    path.unlink()
    with pytest.raises(BundleError, match="no such file"):
        load(tmp_path / "b")


def test_an_altered_manifest_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "b", {"base_rate": 0.1})
    path = tmp_path / "b" / "manifest.json"
    good = json.loads(path.read_text())

    def refused(says: str, **change: Any) -> None:
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(BundleError, match=says):
            load(tmp_path / "b")

    refused(r"manifest.json \(state\): expected sha256", state={"base_rate": 0.9})
    refused("expected format 2; seen format 1", format=1)
    refused("plain file names", files={"../secret": "0"})
    path.write_text("{")
    with pytest.raises(BundleError, match="expected JSON"):
        load(tmp_path / "b")
    path.write_text('{"format": 2}')
    with pytest.raises(BundleError, match="the key 'files'"):
        load(tmp_path / "b")
    with pytest.raises(BundleError, match="the manifest of a bundle"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"a": {"levels": np.array(["x", None], dtype=object)}}, r"state\.a\.levels: .*object"),
        ({"a": [1, {2, 3}]}, r"state\.a\[1\]: .*seen a set"),
        ({"$a": 1}, "do not start with"),
        ({1: 2}, "keys that are text"),
        ({"z": np.ones(1, dtype=complex)}, "complex128"),
    ],
)
def test_what_does_not_belong_is_refused_and_nothing_is_left_behind(
    tmp_path: Path, bad: dict[Any, Any], says: str
) -> None:
    with pytest.raises(BundleError, match=says):
        save(tmp_path / "b", bad)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    save(tmp_path / "b", {"version": 1})
    with pytest.raises(BundleError, match="a new or empty folder"):
        save(tmp_path / "b", {"version": 2})
    assert load(tmp_path / "b") == {"version": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_failed_write_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("models.bundle.os.fsync", full)
    with pytest.raises(OSError, match="no space left"):
        save(tmp_path / "b", {"x": np.ones(3)})
    assert list(tmp_path.iterdir()) == []
