"""``xdplb run``: what it refuses before it begins, and where it listens."""

from __future__ import annotations

import importlib
import logging
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from config_texts import LEAST, write
from health_peers import bound

from xdplb.cli import commands

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

AGENT = LEAST + "[agent]\n"
MODULE = importlib.import_module("xdplb.cli.run")  # in the package, its command has that name


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """What ``run`` does to it is undone."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture
def began(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Where it listens when it begins; it ends at once."""
    found: list[Any] = []

    async def main(read: object, iface: str | None, sock: socket.socket | None) -> None:
        del read, iface
        found.append(None if sock is None else sock.getsockname())

    monkeypatch.setattr(MODULE, "_main", main)
    return found


def _run(*words: str) -> Result:
    return CliRunner().invoke(commands, ["run", *words])


def test_it_listens_nowhere_unless_that_is_said(began: list[Any], tmp_path: Path) -> None:
    assert _run().exit_code == 0
    assert _run("--config", f"{write(tmp_path, AGENT)}").exit_code == 0
    assert began == [None, None]


def test_it_listens_where_the_option_or_else_the_file_says(
    began: list[Any], tmp_path: Path
) -> None:
    path = tmp_path / "agent.sock"
    listen = f'listen = "{path}"'
    config = f"{write(tmp_path, AGENT + listen)}"
    assert _run("--config", config).exit_code == 0
    with bound(socket.SOCK_STREAM) as (_, port):
        pass
    assert _run("--config", config, "--listen", f"127.0.0.1:{port}").exit_code == 0
    assert began == [f"{path}", ("127.0.0.1", port)]
    assert not path.exists()


def test_others_may_come_if_that_is_said(began: list[Any]) -> None:
    with bound(socket.SOCK_STREAM) as (_, port):
        pass
    assert _run("--listen", f"0.0.0.0:{port}", "--allow-remote").exit_code == 0
    assert began == [("0.0.0.0", port)]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (("--listen", "9170"), "is not an IP address", "127.0.0.1:9170"),
        (("--listen", "0.0.0.0:9170"), "nobody is asked for a password", "--allow-remote"),
        (("--allow-remote",), "is said, and not where", "--listen"),
    ],
)
def test_where_strangers_could_come_is_refused(
    began: list[Any], words: tuple[str, ...], message: str, hint: str
) -> None:
    result = _run(*words)
    assert (result.exit_code, began) == (2, [])
    assert message in result.stderr
    assert hint in result.stderr.partition("hint: ")[2]


def test_a_file_that_would_let_strangers_in_is_refused(began: list[Any], tmp_path: Path) -> None:
    config = write(tmp_path, AGENT + 'listen = "[::]:9170"')
    result = _run("--config", f"{config}")
    assert (result.exit_code, began) == (2, [])
    assert "allow-remote = true" in result.stderr


def test_a_port_in_use_is_told_before_anything_is_touched(began: list[Any]) -> None:
    with bound(socket.SOCK_STREAM) as (taken, port):
        taken.listen()
        result = _run("--listen", f"127.0.0.1:{port}")
    assert (result.exit_code, began) == (3, [])
    assert f"another process listens on 127.0.0.1:{port}" in result.stderr


@pytest.mark.parametrize("name", ["aiohttp", "prometheus_client"])
def test_a_library_that_is_missing_is_named(
    began: list[Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    result = _run("--listen", "127.0.0.1:9170")
    assert (result.exit_code, began) == (3, [])
    assert name in result.stderr
    assert "pip install 'xdplb[agent]'" in result.stderr


@pytest.mark.parametrize(("journal", "start"), [(False, "xdplb: no"), (True, "<3>no")])
def test_a_fault_of_ours_is_logged_with_where_it_came_from(
    monkeypatch: pytest.MonkeyPatch, *, journal: bool, start: str
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    if journal:
        monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    error = KeyError("here")
    fault = (KeyError, error, None)
    record = logging.LogRecord("xdplb", logging.ERROR, "", 1, "no", (), fault)
    text = MODULE._Formatter().format(record)  # noqa: SLF001 - what a line looks like
    assert text == f"{start}\nKeyError: 'here'"
