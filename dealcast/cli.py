"""The command line: declares the commands; each calls one function of one room."""

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from data.mapping import load_mapping, read_source
from data.quality import examine
from dealcast import __version__, show
from dealcast.demo import run_demo
from dealcast.doors import Doors, Kind, UsageError, open_doors
from dealcast.tasks import backtest_rows, forecast_answer, score_open, score_points
from models.registry import Version
from serving.auth import SCOPES, make_key
from serving.run import serve as run_service
from training.backtest import BacktestError, summary
from training.evaluation import plain
from training.report import backtest_report
from training.walk import Trained, kinds_in
from training.walk import train as train_models

__all__ = ["app", "main"]

app = typer.Typer(
    name="dealcast",
    help="Lead scoring, win probability and revenue forecasting that learns from your own CRM.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="List, show, promote and roll back models.", no_args_is_help=True)
keys_app = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)
db_app = typer.Typer(help="Look after the store.", no_args_is_help=True)
app.add_typer(models_app, name="models")
app.add_typer(keys_app, name="keys")
app.add_typer(db_app, name="db")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
StoreUrl = Annotated[
    str | None,
    typer.Option("--store", help="SQLite file or database URL; default: DEALCAST_STORE."),
]
AsOf = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        help="A date (00:00 in the organisation's zone) or a time like 2026-03-31T14:00:00Z. "
        "Nothing later is used. Default: now.",
    ),
]
Retrain = Annotated[bool, typer.Option("--retrain", help="Train a model as of that moment.")]
Hindsight = Annotated[
    bool, typer.Option("--hindsight", help="Let the champion answer although it knows later times.")
]
