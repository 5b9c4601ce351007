"""The guide to the API: its calls work as they stand, and its tables are complete."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from data.records import ENTITIES
from serving.auth import SCOPES
from serving.errors import _KINDS
from tests.serving.conftest import House

GUIDE = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")


def _commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE, flags=re.DOTALL)
    return [shlex.split(c) for b in blocks for c in re.split(r"\n(?=curl )", b.strip())]


def test_every_call_of_the_guide_works(house: House) -> None:
    key = house.key("admin")
    commands = _commands()
    assert len(commands) >= 10
    with house.client() as client:
        for command in commands:
            assert command[:2] == ["curl", "-s"]
            path = command[2].removeprefix("$URL")
            options = dict(zip(command[3::2], command[4::2], strict=True))
            headers = dict(
                h.replace("$KEY", key).split(": ")
                for flag, h in zip(command[3::2], command[4::2], strict=True)
                if flag == "-H"
            )
            body = options.get("-d")
            method = "GET" if body is None else "POST"
            answer = client.request(method, path, headers=headers, content=body)
            assert answer.status_code == 200, f"{path}: {answer.text}"
            assert answer.json().get("failed", 0) == 0, answer.text


def test_the_guide_lists_every_error_scope_and_path() -> None:
    for kind in _KINDS.values():
        (row,) = (r for r in GUIDE.splitlines() if r.startswith(f"| {kind.status} |"))
        assert f"`{kind.slug}`" in row
    for scope in SCOPES:
        assert f"| `{scope}` |" in GUIDE
    for entity in ENTITIES.values():
        assert f"`{entity.path}`" in GUIDE
