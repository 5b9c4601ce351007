"""`dealcast demo`: a sample CRM, learnt from and served, with nothing to set up."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.synthetic import make_history
from dealcast import show
from dealcast.doors import Doors, now
from dealcast.tasks import forecast_rows
from serving.app import run as run_service
from serving.auth import SCOPES, make_key
from serving.settings import Settings
from training.walk import train

__all__ = ["DEALS", "run_demo"]

DEALS = 3000


def run_demo(folder: Path, *, serve: bool, deals: int = DEALS) -> None:
    """Make what is not there yet under `folder`, then show and serve it."""
    settings = Settings(
        store=f"sqlite:///{folder / 'dealcast.db'}",
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}"),
        artifacts=folder / "mlflow",
    )
    doors = Doors(settings)
    doors.store.upgrade()
    if not doors.store.sources():
        today = now().astype("datetime64[D]").astype("datetime64[us]")
        show.note(f"making a sample CRM: two years of leads and deals up to {today}")
        crm = make_history(deals, seed=7, end=today)
        doors.store.write(crm.tables.values(), at=doors.clock, facts=crm.facts)
    if doors.registry.champion("deal") is None or doors.registry.champion("lead") is None:
        known = np.datetime64(min(doors.history.observed_until, int(doors.clock.astype(int))), "us")
        done = train(
            doors.history,
            doors.registry,
            ["lead", "deal"],
            known,
            doors.recipe(),
            folder / "reports",
            trained_at=str(doors.clock.astype("datetime64[s]")) + "Z",
            say=show.note,
        )
        for trained in done:
            show.note(f"report: {trained.report}")
            if not trained.promoted:
                # On some days the sample's last months are such that a baseline wins.
                doors.registry.promote(trained.run.kind, trained.version.version)
                show.note(
                    "The gate stayed closed: in your company this model would not answer. It is "
                    "promoted here by hand, so that you can try the service. That is what "
                    f"`dealcast models promote {trained.run.kind} {trained.version.version}` does"
                )
    _show_forecast(doors)
    token, key = make_key("demo", SCOPES, doors.clock)
    doors.store.create_key(key)
    port = _free_port(settings.host, settings.port)
    deal = str(doors.history.as_of("deal", doors.clock).ids[0])
    _show_calls(f"http://{settings.host}:{port}", token, deal)
    doors.store.close()
    if serve:
        show.note(f"serving on http://{settings.host}:{port} until Ctrl-C")
        run_service(replace(settings, port=port))


def _show_forecast(doors: Doors) -> None:
    answer = forecast_rows(
        doors,
        doors.clock,
        period="month",
        by=None,
        horizon=3,
        days=None,
        levels=(0.5, 0.8, 0.95),
        hindsight=False,
        retrain=False,
        say=show.note,
    )
    show.table(
        f"Won revenue, {answer['currency']}",
        ["month", "low 10 %", "expected", "high 90 %", "won", "open deals", "new business"],
        [
            [
                c["period"],
                show.money(c["quantiles"]["0.1"]),
                show.money(c["mean"]),
                show.money(c["quantiles"]["0.9"]),
                *(show.money(c["components"][k]) for k in ("won", "open", "new")),
            ]
            for c in answer["periods"]
        ],
    )


def _show_calls(address: str, token: str, deal: str) -> None:
    show.lines(
        [
            "Ask it (the key is shown once):",
            f"  export DEALCAST_KEY={token}",
            f'  curl -s -H "Authorization: Bearer $DEALCAST_KEY" {address}/v1/deals/{deal}/score',
            '  curl -s -H "Authorization: Bearer $DEALCAST_KEY" '
            f"'{address}/v1/forecast?period=month&by=team'",
            '  curl -s -H "Authorization: Bearer $DEALCAST_KEY" '
            f"-H 'Content-Type: application/json' {address}/v1/leads/score \\",
            '    -d \'{"records": [{"lead_id": "new-1", "lead_source": "referral", '
            '"industry": "software", "employee_count": 120, "has_phone": true}]}\'',
        ]
    )


def _free_port(host: str, first: int) -> int:
    """The first port from `first` on that nobody listens on."""
    for port in range(first, first + 50):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port from {first} to {first + 49} on {host}")
