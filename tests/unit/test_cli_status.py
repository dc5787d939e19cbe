"""``status`` and ``top`` where nobody looks: what they print, and what they do not load."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from fake_machine import FakeMachine, request

from xdplb.balancer import Balancer
from xdplb.cli import commands, terminal
from xdplb.errors import BusyError
from xdplb.facts import Usage
from xdplb.model import IPV4

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    made = FakeMachine()
    Balancer(made).up(request())
    made.run_on()
    monkeypatch.setattr("xdplb.kernel.machine.Machine", lambda *_: made)
    return made


@pytest.fixture
def three_looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Time passes by itself, and somebody presses Ctrl-C after the third wait."""
    waits: list[float] = []
    clock = [100.0]

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock[0] += seconds
        if len(waits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    yield waits
    monkeypatch.undo()


def _run(*words: str) -> Result:
    return CliRunner().invoke(commands, words)


def test_status_in_a_pipe_is_the_plain_text(machine: FakeMachine) -> None:
    lines = _run("status").stdout.splitlines()
    assert lines[0] == "192.0.2.1 udp, all ports, by src-dst, on eth0 (native)"
    assert "  program 100, tag abcd, xdplb 0.1.0" in lines
    assert any(line.startswith("  warning: ") for line in lines)
    del machine


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("words", [("status",), ("status", "--json"), ("top", "--json")])
def test_in_a_pipe_rich_is_not_loaded(words: tuple[str, ...]) -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests');"
        "from click.testing import CliRunner; from xdplb.cli import commands;"
        "import xdplb.kernel.machine; from fake_machine import FakeMachine;"
        "machine = type('FakeMachine', (FakeMachine,), {"
        "'__enter__': lambda it: it, '__exit__': lambda *_: None});"
        "xdplb.kernel.machine.Machine = machine;"
        f"result = CliRunner().invoke(commands, {list(words)!r});"
        "sys.exit(result.exit_code or 'rich' in sys.modules or 'pyroute2' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_watching_prints_a_json_object_a_line(
    machine: FakeMachine, three_looks: list[float]
) -> None:
    done = _run("status", "--json", "--watch", "5")
    assert (done.exit_code, three_looks) == (0, [5.0, 5.0, 5.0])
    first, *others = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(others) == 2
    assert "rates" not in first["balancers"][0]
    assert {item["balancers"][0]["rates"]["over"] for item in others} == {5.0}
    del machine


def test_watching_prints_the_text_again_and_again(
    machine: FakeMachine, three_looks: list[float]
) -> None:
    done = _run("status", "--watch")
    assert (done.exit_code, three_looks) == (0, [2.0, 2.0, 2.0])
    texts = done.stdout.rstrip("\n").split("\n\n")
    assert [text.splitlines()[0] for text in texts] == [
        "192.0.2.1 udp, all ports, by src-dst, on eth0 (native)"
    ] * 3
    assert ["packets/s in" in text for text in texts] == [False, True, True]
    del machine


def test_watching_goes_on_when_nothing_is_up_any_more(
    machine: FakeMachine, three_looks: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = machine.running
    looks: list[int] = []

    def running() -> list[object]:
        looks.append(1)
        return [] if len(looks) == 2 else list(real())

    monkeypatch.setattr(machine, "running", running)
    done = _run("status", "--json", "--watch", "1")
    assert [len(json.loads(line)["balancers"]) for line in done.stdout.splitlines()] == [1, 0, 1]
    assert (done.exit_code, len(three_looks)) == (0, 3)


def test_watching_goes_on_when_a_look_fails(machine: FakeMachine, three_looks: list[float]) -> None:
    machine.fail["verdicts"] = [BusyError("it was replaced", "run this again")] * 4
    done = _run("status", "--json", "--watch", "1")
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == "xdplb: it was replaced (run this again)\n"
    assert (done.exit_code, len(three_looks)) == (0, 3)


def test_half_full_takes_no_longer_where_nobody_looks(
    machine: FakeMachine, three_looks: list[float]
) -> None:
    machine.usages[IPV4] = Usage({0: 30000, 1: 30000}, {}, {})
    done = _run("status")
    assert "NAT ports 60000 of 72560 (83 % used)" in done.stdout
    assert three_looks == []


def test_a_seldom_look_is_refused_where_it_is_no_number() -> None:
    assert _run("status", "--watch", "often").exit_code == 2
    assert _run("status", "--watch", "0").exit_code == 2
    assert _run("status", "--watch", "nan").exit_code == 2
    assert _run("top", "--once", "--interval", "nan").exit_code == 2
    assert _run("top", "--interval", "0").exit_code == 2


class TestTop:
    """Without a terminal."""

    def test_it_says_what_to_do_instead(self) -> None:
        done = _run("top")
        assert done.exit_code == 3
        assert done.stderr == (
            "xdplb: top needs a terminal, for its keys and to show things in place\n"
            "  hint: 'xdplb top --once' or '--json' measures once, 'xdplb status --watch' again "
            "and again\n"
        )

    def test_once_is_a_measurement_in_text(
        self, machine: FakeMachine, three_looks: list[float]
    ) -> None:
        done = _run("top", "--once", "--interval", "4")
        assert "packets/s in" in done.stdout
        assert "  clients 0, most flows: none yet" in done.stdout
        assert three_looks == [4.0]
        del machine

    def test_json_is_a_measurement_too(
        self, machine: FakeMachine, three_looks: list[float]
    ) -> None:
        document = json.loads(_run("top", "--json").stdout)
        (item,) = document["balancers"]
        assert (document["version"], item["rates"]["over"]) == (1, 1.0)
        assert item["clients"] == {"total": 0, "first": []}
        assert three_looks == [1.0]
        del machine


@pytest.mark.parametrize(
    ("term", "is_one"),
    [
        ("xterm-256color", True),
        ("linux", True),
        ("dumb", False),
        ("unknown", False),
        ("", False),
        (None, False),
    ],
)
def test_a_terminal_that_cannot_move_its_cursor_is_none(
    monkeypatch: pytest.MonkeyPatch, term: str | None, *, is_one: bool
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    if term is None:
        monkeypatch.delenv("TERM", raising=False)
    else:
        monkeypatch.setenv("TERM", term)
    assert terminal.is_terminal() == is_one


@pytest.mark.parametrize("name", ["status", "top"])
def test_the_help_has_an_example_and_needs_no_rich(name: str) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from xdplb.cli import commands;"
        f"result = CliRunner().invoke(commands, ['{name}', '--help']);"
        "assert 'Example:' in result.output, result.output;"
        "sys.exit(any(it in sys.modules for it in ('rich', 'concurrent.futures.thread', 'bcc')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
