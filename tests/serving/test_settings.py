"""Settings: from the environment, from a file, and what is told when they are wrong."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from serving.settings import Settings, SettingsError, load_settings

GUIDE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_without_anything_the_defaults_hold() -> None:
    found = load_settings({})
    assert found == Settings()
    assert found.store == "sqlite:///var/dealcast.db"
    assert found.tracking_uri == "sqlite:///var/mlflow.db"
    assert found.artifacts == Path("var/mlflow")
    assert found.calendar.zone == "UTC"


def test_the_environment_counts_before_the_file(tmp_path: Path) -> None:
    config = tmp_path / "dealcast.toml"
    config.write_text(
        'store = "sqlite:///file.db"\nport = 9000\ncurrency = "eur"\n'
        'artifacts = "files"\nrefresh_seconds = 2\n'
    )
    environ = {
        "DEALCAST_CONFIG": str(config),
        "DEALCAST_PORT": "9100",
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        "DEALCAST_TIME_ZONE": "Europe/Berlin",
        "DEALCAST_FISCAL_FIRST_MONTH": "4",
        "DEALCAST_HOST": "",
        "PATH": "/bin",
    }
    found = load_settings(environ)
    assert found.store == "sqlite:///file.db"
    assert found.port == 9100
    assert found.currency == "EUR"
    assert found.tracking_uri == "http://mlflow:5000"
    assert found.artifacts == Path("files")
    assert found.host == "127.0.0.1"
    assert (found.calendar.zone, found.calendar.first_month) == ("Europe/Berlin", 4)
    assert found.refresh_seconds == 2


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"DEALCAST_PORT": "high"}, "DEALCAST_PORT is 'high'; allowed: a whole number"),
        ({"DEALCAST_PORT": "0"}, "port is 0; allowed: 1 to 65,535"),
        ({"DEALCAST_MAX_RECORDS": "0"}, "max_records is 0"),
        ({"DEALCAST_REFRESH_SECONDS": "soon"}, "allowed: a number"),
        ({"DEALCAST_REFRESH_SECONDS": "nan"}, "refresh_seconds is nan"),
        ({"DEALCAST_TIME_ZONE": "Mars/Base"}, "time zone is 'Mars/Base'"),
        ({"DEALCAST_FISCAL_FIRST_MONTH": "13"}, "first_month is 13; allowed: 1 to 12"),
        ({"DEALCAST_CURRENCY": "euro"}, "currency is 'EURO'; allowed: a code of three letters"),
        ({"DEALCAST_CONFIG": "nowhere.toml"}, "'nowhere.toml', which cannot be read"),
    ],
)
def test_a_wrong_value_is_named(environ: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prot = 8000", "sets 'prot'; allowed: store, tracking_uri"),
        ('port = "8000"', "allowed: a whole number"),
        ("port = true", "allowed: a whole number"),
        ("store = 5", "allowed: a text"),
        ("port = ", "is not TOML"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, told: str) -> None:
    config = tmp_path / "dealcast.toml"
    config.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings({"DEALCAST_CONFIG": str(config)})
    assert told in str(caught.value)
    assert "dealcast.toml" in str(caught.value)


def test_the_guide_names_every_setting_with_its_default() -> None:
    guide = GUIDE.read_text("utf-8")
    for declared in fields(Settings):
        rows = [r for r in guide.splitlines() if r.startswith(f"| `{declared.name}` |")]
        assert len(rows) == 1, declared.name
        default = declared.default
        shown = "none" if default is None else f"`{default}`"
        assert rows[0].split("|")[3].strip() == shown, declared.name
