"""The command line: declares the commands; each calls one function of one room."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import typer

from data.history import HistoryError
from data.mapping import MappingError, load_mapping, read_source
from data.pipeline import CalendarError, PeriodKind
from data.quality import examine
from data.records import RecordError
from data.store import StoreError
from dealcast import __version__, past, show
from dealcast.demo import DEALS, run_demo
from dealcast.doors import Kind, UsageError, open_doors
from dealcast.pipeline_tables import show_changes, show_metrics
from dealcast.replay import (
    Plan,
    answer_of,
    origins_between,
    read_origins,
    replay,
    show_result,
    write_page,
)
from dealcast.result_tables import show_scores, show_trained, training_answer
from dealcast.tasks import (
    changes_rows,
    forecast_rows,
    metrics_rows,
    score_open,
    score_points,
    write_rows,
)
from models.bundle import BundleError
from models.registry import RegistryError, Version
from scoring.changes import ChangesError
from scoring.forecast import ForecastError
from scoring.grouping import GROUPINGS, GroupingError
from scoring.points import PointsError
from serving.app import run as run_service
from serving.auth import SCOPES, ScopeError, make_key
from serving.settings import SettingsError
from training.backtest import BacktestError
from training.evaluation import plain
from training.fitting import TrainingError
from training.walk import kinds_in
from training.walk import train as train_models
from training.windows import WindowError

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

# What a user can cure; everything else is a fault of ours and shows where it happened.
_BY = f"one of {', '.join(GROUPINGS)}"
_TOLD = (
    BacktestError,
    BundleError,
    CalendarError,
    ChangesError,
    ForecastError,
    GroupingError,
    HistoryError,
    MappingError,
    PointsError,
    RecordError,
    RegistryError,
    ScopeError,
    SettingsError,
    StoreError,
    TrainingError,
    UsageError,
    WindowError,
)


def _told(command: Callable[..., None]) -> Callable[..., None]:
    """Turn errors that a user can cure into one line and exit code 2."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except _TOLD as error:
            show.error(str(error))
            raise typer.Exit(2) from error

    return wrapped


@app.command("import")
@_told
def import_(
    source: Annotated[Path, typer.Argument(help="A folder of files, or one file.")],
    mapping: Annotated[Path, typer.Option(help="Mapping file (TOML); see docs/mapping.md.")],
    rejects: Annotated[Path | None, typer.Option(help="Where to write the refused rows.")] = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Read a CRM's files into the store. Importing the same file twice changes nothing."""
    doors = open_doors(store)
    show.note(f"reading {source}")
    imported = read_source(load_mapping(mapping), source, at=doors.clock, environ=os.environ)
    show.note("storing")
    written = doors.store.write(imported.tables, at=doors.clock, facts=imported.facts)
    refused = rejects or Path("var") / f"rejects-{imported.facts.name}.csv"
    if len(imported.rejects):
        refused.parent.mkdir(parents=True, exist_ok=True)
        imported.rejects.write_csv(refused)
    answer = {
        "source": imported.facts.name,
        "files": plain(list(imported.counts)),
        "store": plain(written),
        "rejected": len(imported.rejects),
        "rejects_file": str(refused) if len(imported.rejects) else None,
        "decisions": list(imported.decisions),
    }
    if as_json:
        show.to_json(answer)
        return
    for decision in imported.decisions:
        show.note(f"  {decision}")
    show.table(
        "Rows read",
        ["file", "use", "read", "stored", "ignored", "duplicates", "after outcome", "rejected"],
        [
            [
                c.file,
                c.use,
                c.read,
                sum(c.stored.values()),
                sum(c.ignored.values()),
                c.duplicates,
                c.after_outcome,
                c.rejected,
            ]
            for c in imported.counts
        ],
    )
    show.table(
        "Store",
        ["entity", "new", "changed", "unchanged"],
        [[name, w.inserted, w.updated, w.unchanged] for name, w in written.items()],
    )
    if len(imported.rejects):
        show.note(f"{len(imported.rejects)} rows were refused; why: {refused}")


@app.command()
@_told
def check(store: StoreUrl = None, as_json: AsJson = False) -> None:
    """Say what can be learnt from the data, what cannot, and what to fix."""
    doors = open_doors(store)
    report = examine(doors.history, doors.calendar)
    if as_json:
        show.to_json(report.to_dict())
    else:
        show.lines(report.lines())


@app.command()
@_told
def train(
    what: Annotated[str, typer.Argument(help="lead, deal or all")] = "all",
    as_of: AsOf = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    trust: Annotated[
        list[str] | None,
        typer.Option(help="Use this field though it looks as if it knew the outcome; repeatable."),
    ] = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Train, judge on later data beside the baselines, register, and promote if the gate opens."""
    doors = open_doors(store)
    kinds = kinds_in(doors.history) if what == "all" else [_kind(what)]
    done = train_models(
        doors.history,
        doors.registry,
        kinds,
        doors.moment(as_of),
        doors.recipe(seed, trust or ()),
        doors.reports,
        trained_at=str(doors.clock.astype("datetime64[s]")) + "Z",
        say=show.note,
    )
    if as_json:
        show.to_json([training_answer(t) for t in done])
        return
    for trained in done:
        show_trained(trained)


@app.command()
@_told
def backtest(
    first: Annotated[
        str | None, typer.Option("--from", help="First origin. Default: 12 weeks before the last.")
    ] = None,
    last: Annotated[
        str | None,
        typer.Option("--to", help="Last origin. Default: the last whose outcome is known."),
    ] = None,
    every: Annotated[int, typer.Option(help="Days between origins.")] = 7,
    origins: Annotated[
        Path | None, typer.Option(help="File of origins, one a line, instead of --from and --to.")
    ] = None,
    horizons: Annotated[str, typer.Option(help="Days ahead, separated by commas.")] = "7,28,91",
    period: Annotated[
        PeriodKind | None,
        typer.Option(help="Calendar periods instead of --horizons."),
    ] = None,
    ahead: Annotated[
        int, typer.Option(help="With --period: how many, the one in progress included.")
    ] = 2,
    by: Annotated[str | None, typer.Option(help=f"{_BY}: each group besides the whole.")] = None,
    refit_days: Annotated[float, typer.Option(help="Refit when the model is this old.")] = 7.0,
    jobs: Annotated[int, typer.Option(help="Processes side by side.")] = 2,
    html: Annotated[Path | None, typer.Option(help="Write the page here.")] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of finished origins. Default: backtest, beside the models."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute every origin again.")] = False,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Would the forecast have been right? Replay it at past dates beside plain methods.

    At each origin (a past date; weekly, unless told otherwise) the models are
    trained on what was known then, the coming days or calendar periods are
    forecast, and what was really won is looked up. Beside the forecast stand
    the stage-weighted pipeline, the CRM's own probabilities, conversion and
    growth at the same point of the period, the past mean, seasonal naive,
    exponential smoothing, and people's commits: each where the records have
    what it needs.

    A short table is printed and a page with the fan charts written; --json
    gives every figure and forecast. CRPS is the error of a whole distribution:
    smaller is better. A range of 80 % should hold 80 % of what happened.
    Origins that overlap know less than their number says: intervals come from
    blocks of origins as long as the horizon.

    Finished origins are kept: a second run takes them from there, and an
    interrupted one goes on. After an import, or with other settings or another
    version of the program, they are computed again.

    For example:

      dealcast backtest --horizons 28,91 --by team

      dealcast backtest --period quarter --from 2025-01-06 --to 2025-09-29

      dealcast backtest --origins mondays.txt --horizons 7 --json
    """
    doors = open_doors(store)
    plan = Plan([], _numbers(horizons, "horizons"), period, ahead, by, refit_days, jobs)
    if origins is not None:
        plan = replace(plan, origins=read_origins(doors, origins))
    else:
        plan = replace(plan, origins=origins_between(doors, first, last, every, plan))
    issued = replay(
        doors,
        plan,
        cache or doors.kept_origins,
        fresh=fresh,
        progress=lambda steps, total: show.bar(steps, total, "fits and their origins"),
    )
    page = html or doors.reports / "backtest.html"
    write_page(issued, plan, page, doors.history.currency)
    if as_json:
        show.to_json(answer_of(issued, doors.history.currency))
    else:
        show_result(issued, plan, page)


@app.command()
@_told
def score(
    what: Annotated[str, typer.Argument(help="leads or deals")],
    as_of: AsOf = None,
    points: Annotated[
        Path | None,
        typer.Option(help="File with id, as_of, horizon (days): one probability for each line."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write here: .csv, .json or .parquet.")
    ] = None,
    form: Annotated[str | None, typer.Option("--format", help="csv, json or parquet.")] = None,
    explain: Annotated[bool, typer.Option(help="With reasons.")] = False,
    retrain: Retrain = False,
    refit_days: Annotated[
        float, typer.Option(help="With --retrain: one model for points this many days apart.")
    ] = 7.0,
    hindsight: Hindsight = False,
    history: Annotated[
        bool,
        typer.Option("--history", help="Hold all scores given out so far against what happened."),
    ] = False,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Score all open leads or deals, or many points in time at once.

    Scores are kept as they are given out; --points, which replays many past moments, is not.
    """
    doors = open_doors(store)
    kind = _kind(what.removesuffix("s"))
    if history:
        past.show_scores(past.score_history(doors, kind), as_json)
        return
    if points is not None:
        rows = score_points(
            doors,
            kind,
            points,
            hindsight=hindsight,
            retrain=retrain,
            refit_days=refit_days,
            say=show.note,
        )
    else:
        rows = score_open(
            doors,
            kind,
            doors.moment(as_of),
            explain=explain,
            hindsight=hindsight,
            retrain=retrain,
            say=show.note,
        )
    if output is not None:
        write_rows(rows, output, form)
        show.note(f"{len(rows)} rows in {output}")
    if as_json:
        show.to_json(rows)
    elif output is None:
        show_scores(rows, kind, points=points is not None)


@app.command()
@_told
def forecast(
    period: Annotated[
        str | None, typer.Option(help="week, month (if nothing is said) or quarter")
    ] = None,
    by: Annotated[str | None, typer.Option(help=_BY)] = None,
    horizon: Annotated[
        int | None, typer.Option(help="How many periods, the one in progress included.")
    ] = None,
    days: Annotated[
        float | None, typer.Option(help="Instead of periods: one window of so many days.")
    ] = None,
    levels: Annotated[str, typer.Option(help="Levels of the ranges.")] = ".5,.8,.95",
    measure: Annotated[
        str | None,
        typer.Option(help="amount (if nothing is said), recurring (a year) or count (deals won)."),
    ] = None,
    as_of: AsOf = None,
    retrain: Retrain = False,
    hindsight: Hindsight = False,
    renewals: Annotated[
        bool,
        typer.Option("--renewals", help="What the renewal pipelines keep of what is up."),
    ] = False,
    history: Annotated[
        bool,
        typer.Option("--history", help="Show forecasts given out before, and what happened."),
    ] = False,
    group: Annotated[
        str | None, typer.Option(help="With --history: one group, like all or an owner's id.")
    ] = None,
    first: Annotated[
        str | None, typer.Option("--from", help="With --history: periods that begin from here on.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", help="With --history: periods that begin before this.")
    ] = None,
    limit: Annotated[int, typer.Option(help="With --history: how many, the newest first.")] = 50,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Forecast won revenue: won to date, from open deals, from deals still to come.

    Every forecast is kept as it is given out. With --history those are shown, each beside what
    happened where its period is over, and beside the commits that people made.
    """
    doors = open_doors(store)
    if history:
        asked = past.asked_for(doors, period, measure, by, group, first, last, limit)
        past.show_forecasts(past.history_of_forecasts(doors, asked), as_json)
        return
    answer = forecast_rows(
        doors,
        doors.moment(as_of),
        period=period or "month",
        by=by,
        horizon=horizon,
        days=days,
        levels=_numbers(levels, "levels"),
        hindsight=hindsight,
        retrain=retrain,
        say=show.note,
        measure=measure or "amount",
        as_renewals=renewals,
    )
    if as_json:
        show.to_json(answer)
        return
    if renewals:
        past.show_renewals(answer)
        return
    counted = {"recurring": "Won revenue a year", "count": "Deals won"}
    unit = "" if answer["measure"] == "count" else f", {answer['currency']}"
    show.table(
        f"{counted.get(answer['measure'], 'Won revenue')}{unit}, as of {answer['as_of']}"
        + (" (with hindsight)" if answer["hindsight"] else ""),
        [
            "period",
            "group",
            "low 10 %",
            "expected",
            "high 90 %",
            "won",
            "open deals",
            "new business",
            "target",
            "reaches it",
        ],
        [
            [
                c["period"],
                c["group"],
                show.money(c["quantiles"].get("0.1")),
                show.money(c["mean"]),
                show.money(c["quantiles"].get("0.9")),
                *(show.money(c["components"][k]) for k in ("won", "open", "new")),
                show.money(c["target"]),
                show.share(c["probability_of_target"]),
            ]
            for c in answer["periods"]
        ],
    )
    for cell in answer["periods"][:1]:
        for c in cell["coverage"]:
            if c["measured"] is not None:
                show.note(
                    f"ranges of {show.share(c['level'])} held {show.share(c['measured'])} in "
                    f"{c['n']} back-tests"
                )
    for warning in answer["warnings"]:
        show.note(f"note: {warning}")


@app.command()
@_told
def changes(
    start: Annotated[
        str | None,
        typer.Option("--from", help="A date or a time. Default: seven days before --to."),
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="A date or a time. Default: now.")] = None,
    by: Annotated[str | None, typer.Option(help=_BY)] = None,
    period: Annotated[
        str | None,
        typer.Option(
            help="Only what is expected to close in it: a name like 2026-Q1, 2026-03 or 2026-W09, "
            "or week, month or quarter for the one that holds --to."
        ),
    ] = None,
    deals: Annotated[int, typer.Option(min=0, help="How many deals to list.")] = 15,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Say what moved in the open pipeline since a past date: it adds up to the cent.

    Created, reopened, won, lost, deleted; amounts up and down; close dates pulled in and pushed
    out; deals that changed hands; exchange rates. Each as it was known at the time.
    """
    doors = open_doors(store)
    answer = changes_rows(doors, start, end, by=by, period=period, most=deals)
    if as_json:
        show.to_json(answer)
    else:
        show_changes(answer, doors.calendar.zone)


@app.command()
@_told
def metrics(
    as_of: AsOf = None,
    period: Annotated[
        str,
        typer.Option(help="week, month or quarter, or a name like 2026-Q1, 2026-03 or 2026-W09."),
    ] = "quarter",
    deals: Annotated[
        int, typer.Option(min=0, help="How many slipped, stalled or risky deals to list.")
    ] = 15,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show the sales KPIs, the pace of the period, the stages, and deals that want a look.

    docs/kpis.md defines each. What the records cannot tell says why. The win probabilities of the
    stages, and the chance behind "at risk", need a model that may answer for the moment.
    """
    doors = open_doors(store)
    answer = metrics_rows(doors, doors.moment(as_of), period=period, most=deals, say=show.note)
    if as_json:
        show.to_json(answer)
    else:
        show_metrics(answer, doors.calendar.zone)


@app.command()
@_told
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    store: StoreUrl = None,
) -> None:
    """Serve the API."""
    doors = open_doors(store)
    doors.store.close()
    run_service(doors.serving(host, port))


@app.command()
@_told
def demo(
    no_serve: Annotated[bool, typer.Option("--no-serve", help="Stop before serving.")] = False,
    folder: Annotated[Path, typer.Option(help="Where the demo lives.")] = Path("var/demo"),
    deals: Annotated[int, typer.Option(help="About how many deals the sample has.")] = DEALS,
) -> None:
    """Make a sample CRM, train, back-test, forecast, and serve it until Ctrl-C."""
    run_demo(folder, serve=not no_serve, deals=deals)


@app.command()
def version() -> None:
    """Print the program's version."""
    typer.echo(__version__)


@models_app.command("list")
@_told
def models_list(as_json: AsJson = False) -> None:
    """All versions, newest first."""
    doors = open_doors()
    found = [v for kind in get_args(Kind) for v in doors.registry.versions(kind)]
    if as_json:
        show.to_json([plain(v) for v in found])
        return
    show.table(
        "Models",
        ["model", "version", "aliases", "trained through", "log loss", "baseline"],
        [
            [
                v.name,
                v.version,
                ", ".join(v.aliases),
                v.trained_through,
                _figure(v, "served_log_loss"),
                _figure(v, "stage_rate_log_loss") or _figure(v, "base_rate_log_loss"),
            ]
            for v in found
        ],
    )


@models_app.command("show")
@_told
def models_show(kind: str, which: str = "champion", as_json: AsJson = False) -> None:
    """One version: champion, challenger, previous or a number."""
    found = open_doors().registry.find(_kind(kind), which)
    if as_json:
        show.to_json(plain(found))
        return
    show.table(
        f"{found.name} version {found.version} ({', '.join(found.aliases) or 'no alias'}), "
        f"trained through {found.trained_through}",
        ["metric", "value"],
        [[name, f"{value:.4f}"] for name, value in sorted(found.metrics.items())],
    )


@models_app.command("promote")
@_told
def models_promote(kind: str, version: str) -> None:
    """Make a version the champion; the old champion becomes previous."""
    found = open_doors().registry.promote(_kind(kind), version)
    show.note(f"{found.name} version {found.version} is the champion now")


@models_app.command("rollback")
@_told
def models_rollback(kind: str) -> None:
    """Make the previous champion the champion again."""
    found = open_doors().registry.rollback(_kind(kind))
    show.note(f"{found.name} version {found.version} is the champion again")


@keys_app.command("create")
@_told
def keys_create(
    name: str,
    scopes: Annotated[str, typer.Option(help=f"Separated by commas: {', '.join(SCOPES)}.")],
    store: StoreUrl = None,
) -> None:
    """Make a key. The token is printed once and kept nowhere."""
    doors = open_doors(store)
    token, key = make_key(name, [s.strip() for s in scopes.split(",")], doors.clock)
    doors.store.create_key(key)
    typer.echo(token)


@keys_app.command("list")
@_told
def keys_list(store: StoreUrl = None, as_json: AsJson = False) -> None:
    """All keys, without their secrets."""
    found = open_doors(store).store.list_keys()
    rows = [
        {
            "key_id": k.key_id,
            "name": k.name,
            "scopes": list(k.scopes),
            **{
                t: _time_or_none(getattr(k, t))
                for t in ("created_at", "expires_at", "last_used_at", "revoked_at")
            },
        }
        for k in found
    ]
    if as_json:
        show.to_json(rows)
        return
    show.table(
        "Keys",
        ["key id", "name", "scopes", "created at", "last used at", "revoked at"],
        [
            [k.key_id, k.name, ", ".join(k.scopes)]
            + [_time_or_none(t) for t in (k.created_at, k.last_used_at, k.revoked_at)]
            for k in found
        ],
    )


@keys_app.command("revoke")
@_told
def keys_revoke(key_id: str, store: StoreUrl = None) -> None:
    """Take a key out of use."""
    doors = open_doors(store)
    if not doors.store.revoke_key(key_id, doors.clock):
        raise UsageError(f"there is no key {key_id!r}; see `dealcast keys list`")
    show.note(f"key {key_id} is revoked")


@db_app.command("upgrade")
@_told
def db_upgrade(store: StoreUrl = None) -> None:
    """Bring the store to the newest schema."""
    doors = open_doors(store)
    doors.store.ping()
    show.note(f"{doors.store.url} is at the newest schema")


def _kind(text: str) -> Kind:
    if text == "lead":
        return "lead"
    if text == "deal":
        return "deal"
    raise UsageError(f"{text!r} is not a kind of record; allowed: lead, deal")


def _numbers(text: str, name: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UsageError(f"{name} is {text!r}; allowed: numbers separated by commas") from None


def _figure(version: Version, name: str) -> str:
    value = version.metrics.get(name)
    return "" if value is None else f"{value:.4f}"


def _time_or_none(moment: np.datetime64) -> str | None:
    return None if np.isnat(moment) else str(moment.astype("datetime64[s]")) + "Z"


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    app()
