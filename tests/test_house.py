"""The house rules that a machine can check: rooms, names, packages, clock, chance and pins."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("dealcast", "data", "models", "scoring", "training", "serving")
DOORS = ("dealcast", "serving")  # where clock, chance and environment may be read
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LINTER = PROJECT["tool"]["importlinter"]

FORBIDDEN_NAMES = {"utils", "helpers", "common", "manager", "base", "core"}
FILE_LINES = 800
FUNCTION_LINES = 70  # without its docstring: what fits a screen


def _files() -> list[Path]:
    """Every file that belongs to the repository: nothing hidden but .ci, nothing generated."""
    generated = {"__pycache__", "build", "dist", "var"}
    found = []
    for folder, names, files in os.walk(ROOT):
        inside = Path(folder).relative_to(ROOT)
        names[:] = [
            n
            for n in names
            if n not in (generated if inside == Path() else {"__pycache__"})
            and not n.endswith(".egg-info")
            and (n == ".ci" or not n.startswith("."))
        ]
        found += [Path(folder, f) for f in files if f == ".gitignore" or not f.startswith(".")]
    return sorted(found)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


FILES = _files()
SOURCES = [p for p in FILES if p.suffix == ".py"]
ROOM_SOURCES = [p for p in SOURCES if _name(p).split("/")[0] in ROOMS]
# Migrations keep to Alembic's names and are run by it, never imported by us.
MODULES = [p for p in ROOM_SOURCES if "migrations" not in p.parts]
TREES = {path: ast.parse(path.read_text("utf-8"), str(path)) for path in SOURCES}


def _texts() -> Iterator[tuple[str, str]]:
    for path in FILES:
        content = path.read_bytes()
        if b"\0" not in content and path.name != "LICENSE":
            yield _name(path), content.decode("utf-8", errors="replace")


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


# --- who may import whom -------------------------------------------------------------------------


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = "from importlinter.cli import lint_imports_command as run; run()"
    return subprocess.run(
        [sys.executable, "-c", command, "--no-cache", "--no-logo"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def _small_house(folder: Path) -> Path:
    """Build a house that keeps every contract, for a test to break one."""
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text("utf-8"), "utf-8")
    for room in ROOMS:
        (folder / room).mkdir()
        (folder / room / "__init__.py").touch()
    (folder / "models/registry.py").write_text("import mlflow\n")
    (folder / "serving/app.py").write_text("import fastapi\nimport scoring\n")
    (folder / "training/run.py").write_text("import models.registry\nimport scoring\n")
    (folder / "dealcast/cli.py").write_text("import serving.app\nimport training.run\n")
    return folder


def test_the_import_contracts_hold() -> None:
    done = _lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_house_in_order_passes_the_contracts(tmp_path: Path) -> None:
    done = _lint(_small_house(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("contract", "files"),
    [
        ("Doors above", {"data/x.py": "import models"}),
        ("Doors above", {"models/x.py": "import data"}),
        ("Doors above", {"scoring/x.py": "from training import run"}),
        ("Doors above", {"serving/x.py": "from training import run"}),
        ("Doors above", {"data/x.py": "import dealcast"}),
        ("Scoring touches", {"scoring/x.py": "import sqlalchemy.orm"}),
        ("Scoring touches", {"scoring/x.py": "import data.x", "data/x.py": "import pandas"}),
        ("Scoring opens", {"scoring/x.py": "from pathlib import Path"}),
        ("HTTP only", {"data/x.py": "import httpx2"}),
        ("HTTP only", {"dealcast/x.py": "from uvicorn import run"}),
        ("MLflow only", {"training/x.py": "from mlflow.tracking import MlflowClient"}),
        ("MLflow only", {"dealcast/x.py": "import mlflow"}),
        ("No circles", {"data/x.py": "import data.y", "data/y.py": "import data.x"}),
    ],
)
def test_a_contract_breaks_when_it_should(
    tmp_path: Path, contract: str, files: dict[str, str]
) -> None:
    house = _small_house(tmp_path)
    for name, line in files.items():
        (house / name).write_text(line + "\n")
    done = _lint(house)
    broken = [line for line in done.stdout.splitlines() if line.endswith("BROKEN")]
    assert done.returncode != 0
    assert any(line.startswith(contract) for line in broken), done.stdout + done.stderr


def test_within_models_only_the_registry_knows_mlflow() -> None:
    # The linter's contract holds for the other rooms; here one module out of many is free.
    users = {_module(p) for p in ROOM_SOURCES if "mlflow" in _imported(TREES[p])}
    assert users <= {"models.registry"}


def test_no_contract_has_exceptions() -> None:
    assert tuple(LINTER["root_packages"]) == ROOMS
    excused = [c["name"] for c in LINTER["contracts"] if "ignore_imports" in c]
    assert not excused


def test_every_import_comes_from_a_declared_dependency() -> None:
    # An undeclared import works only as long as something else happens to need the same library.
    providers = importlib.metadata.packages_distributions()
    declared = PROJECT["project"]["dependencies"]
    run_time = {canonicalize_name(Requirement(d).name) for d in declared}
    tools = {canonicalize_name(r.name) for r in _requirements()}
    # starlette and packaging are what fastapi and pytest are made of; they cannot go missing.
    known = set(sys.stdlib_module_names) | set(ROOMS) | {"tests", "starlette", "packaging"}
    known |= {p.stem for p in SOURCES if p.parent.name == "benchmarks"}
    # What benchmarks compare with has an environment of its own, where nothing of ours runs.
    rivals = (ROOT / "benchmarks" / "requirements.txt").read_text("utf-8").splitlines()
    apart = {Requirement(line).name for line in rivals if line and not line.startswith("#")}
    strays = []
    for path, tree in TREES.items():
        allowed = run_time if path in ROOM_SOURCES else tools
        elsewhere = apart if path.name == "_survivalboost.py" else set()
        for top in _imported(tree) - known - elsewhere:
            dists = {canonicalize_name(d) for d in providers.get(top, [])}
            if not dists & allowed:
                strays.append(f"{_name(path)} imports {top}")
    assert not strays


def _imported(tree: ast.Module) -> set[str]:
    tops = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            tops |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            tops.add(node.module.split(".")[0])
    return tops


# --- names ---------------------------------------------------------------------------------------


def _bound(tree: ast.Module) -> set[str]:
    """Names that a module's top level binds, those under TYPE_CHECKING and the like excluded."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            parts = [part for target in node.targets for part in ast.walk(target)]
            names |= {part.id for part in parts if isinstance(part, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(a.asname or a.name).split(".")[0] for a in node.names}
    return names


def _defined(tree: ast.Module) -> set[str]:
    """Public classes and functions, without those that a decorator hands to a router or an app.

    `@router.get(...)` and `@app.command()` give a function its public name elsewhere: a path, a
    command. What counts is that the decorator is a call on an object of the same module.
    """
    own = _bound(tree)
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not any(_registers(d, own) for d in node.decorator_list)
    }


def _registers(decorator: ast.expr, own: set[str]) -> bool:
    return (
        isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Attribute)
        and isinstance(decorator.func.value, ast.Name)
        and decorator.func.value.id in own
        and decorator.func.value.id.islower()
    )


def _exported(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets
        ):
            return list(ast.literal_eval(node.value))
    return []


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_all_equals_the_public_names(path: Path) -> None:
    tree = TREES[path]
    exported, defined = _exported(tree), _defined(tree)
    if path.name == "__init__.py":  # a table of contents: what it imports, it exports
        imports = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.level == 0]
        bound = {a.asname or a.name for n in imports if n.module != "__future__" for a in n.names}
        defined |= {name for name in bound if not name.startswith("_")}
        assert set(exported) == defined
    assert len(exported) == len(set(exported)), "a name is listed twice"
    assert defined - set(exported) == set(), "public, but not in __all__"
    assert set(exported) - _bound(tree) == set(), "in __all__, but not defined"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_opens_and_offers_what_it_says(room: str) -> None:
    module = importlib.import_module(room)
    assert module.__doc__
    assert [n for n in getattr(module, "__all__", []) if not hasattr(module, n)] == []


def test_the_check_of_public_names_sees_what_is_missing() -> None:
    tree = ast.parse(
        "__all__ = ['A', 'gone']\nclass A: ...\ndef b(): ...\ndef _c(): ...\n"
        "@router.get('/x')\ndef x(): ...\nrouter = 1\n@cache.wrap()\ndef y(): ...\n"
    )
    assert _defined(tree) - set(_exported(tree)) == {"b", "y"}
    assert set(_exported(tree)) - _bound(tree) == {"gone"}


def test_no_module_is_named_after_nothing() -> None:
    vague = [_name(p) for p in SOURCES if FORBIDDEN_NAMES & set(_name(p)[:-3].split("/"))]
    assert not vague


# --- packages ------------------------------------------------------------------------------------


def test_every_package_is_listed() -> None:
    there = {_name(p.parent).replace("/", ".") for p in ROOM_SOURCES}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == there


def test_every_folder_of_sources_is_a_package() -> None:
    inside = [p for p in SOURCES if _name(p).split("/")[0] in (*ROOMS, "tests")]
    missing = {_name(p.parent) for p in inside if not (p.parent / "__init__.py").exists()}
    assert not missing


def test_every_file_that_is_not_python_is_declared_package_data() -> None:
    declared = {
        path
        for package, globs in PROJECT["tool"]["setuptools"]["package-data"].items()
        for glob in globs
        for path in (ROOT / package.replace(".", "/")).glob(glob)
    }
    others = [p for p in FILES if _name(p).split("/")[0] in ROOMS and p.suffix != ".py"]
    assert [_name(p) for p in others if p not in declared] == []


# --- pins ----------------------------------------------------------------------------------------


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return dict(line.partition(" ;")[0].split("==") for line in lines)


def _requirements() -> list[Requirement]:
    project = PROJECT["project"]
    return [
        Requirement(d) for d in (*project["dependencies"], *project["optional-dependencies"]["dev"])
    ]


def test_constraints_hold_names_and_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    line = re.compile(
        r"[a-z0-9]+(-[a-z0-9]+)*==[0-9][0-9a-z.]*( ; python_version [<>=]+ '3\.\d+')?"
    )
    assert [text for text in lines if not line.fullmatch(text)] == []
    assert lines == sorted(set(lines))


def test_the_pins_lie_within_the_declared_bounds() -> None:
    pins = _pins()
    for requirement in _requirements():
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} is not pinned"
        assert requirement.specifier.contains(Version(pin)), f"{requirement} against {pin}"


def test_everything_that_gets_installed_is_pinned() -> None:
    pins, seen = _pins(), set()
    open_ends = [(r.name, extra) for r in _requirements() for extra in ("", *r.extras)]
    while open_ends:
        name, extra = open_ends.pop()
        if (canonicalize_name(name), extra) in seen:
            continue
        seen.add((canonicalize_name(name), extra))
        for line in importlib.metadata.requires(name) or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                open_ends += [(needed.name, e) for e in ("", *needed.extras)]
    assert {name for name, _ in seen} - pins.keys() == set()


# --- size, leftovers, machines -------------------------------------------------------------------


def test_files_are_of_a_size_to_read() -> None:
    lines = {_name(p): len(p.read_text("utf-8").splitlines()) for p in SOURCES}
    assert {n: count for n, count in lines.items() if count > FILE_LINES} == {}


def test_functions_fit_a_screen() -> None:
    long = {}
    for path in MODULES:  # a migration is a frozen list of statements, of whatever length
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                # From the end of signature and docstring, which are read, not followed.
                first = node.body[1:] if ast.get_docstring(node) else node.body
                size = (node.end_lineno or 0) - first[0].lineno + 1 if first else 0
                if size > FUNCTION_LINES:
                    long[f"{_name(path)}:{node.name}"] = size
    assert long == {}


@pytest.mark.parametrize(
    ("what", "pattern", "example"),
    [
        ("leftovers", r"\b(?:TO[D]O|FIX[M]E|XX[X])\b", "# TO" + "DO: later"),
        ("paths of one machine", r"(?<![\w.\-/])/(?:root|home|Users|work)/", "cd /ho" + "me/me"),
        ("package indexes", r"(?:index|find)[-_](?:url|links)|/simpl[e]/", "--index" + "-url=x"),
        ("merge marks", r"(?m)^(?:<{7}|>{7})(?: |$)", "<" * 7 + " HEAD"),
    ],
)
def test_nothing_private_or_unfinished_is_left(what: str, pattern: str, example: str) -> None:
    assert re.search(pattern, example), what
    found = [f"{n}: {m.group()}" for n, text in _texts() for m in re.finditer(pattern, text)]
    assert not found, what


# --- clock, chance, environment ------------------------------------------------------------------

CLOCKS = (
    *("datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
    *("Timestamp.now", "Timestamp.utcnow", "Timestamp.today", "time.time", "time.time_ns"),
)


def _ambient(tree: ast.Module) -> list[str]:
    """Reads of clock, chance or environment that a caller cannot control."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = "." + ast.unparse(node.func)
            arguments = [a.value for a in node.args if isinstance(a, ast.Constant)]
            now = called.endswith(".datetime64") and arguments[:1] in (["now"], ["today"])
            unseeded = called.endswith("default_rng") and not node.args and not node.keywords
            legacy = re.fullmatch(r"\.((np|numpy)\.)?random\.[a-z]\w*", called) and not (
                called.endswith(".default_rng")
            )
            if called.endswith(tuple(f".{c}" for c in CLOCKS)) or now or unseeded or legacy:
                found.append(f"{called[1:]}() in line {node.lineno}")
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv"):
            found.append(f"{ast.unparse(node)} in line {node.lineno}")
    return found


def test_clock_chance_and_environment_are_read_only_at_the_doors() -> None:
    inner = [p for p in ROOM_SOURCES if _name(p).split("/")[0] not in DOORS]
    found = {_name(p): ambient for p in inner if (ambient := _ambient(TREES[p]))}
    assert found == {}


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("dt.datetime.now(dt.UTC)", True),
        ("np.datetime64('now')", True),
        ("time.time()", True),
        ("time.perf_counter()", False),
        ("np.datetime64('2024-01-01')", False),
        ("np.random.default_rng()", True),
        ("np.random.default_rng(seed)", False),
        ("np.random.default_rng(seed).normal()", False),
        ("np.random.normal()", True),
        ("random.choice(names)", True),
        ("np.random.SeedSequence(3)", False),
        ("rng.normal()", False),
        ("os.environ['HOME']", True),
    ],
)
def test_the_check_of_the_clock_sees_what_counts(line: str, counts: bool) -> None:
    assert bool(_ambient(ast.parse(line))) is counts
