"""What a shell offers, over a machine in memory. Real shells are in ``tests/e2e``."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import click
import pytest
from click.shell_completion import ShellComplete
from fake_machine import FakeMachine, service

from xdplb.balancer import Balancer
from xdplb.cli import commands
from xdplb.cli.completion import Bash
from xdplb.errors import NotReadyError, TableError
from xdplb.kernel import netns
from xdplb.request import Request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdplb.facts import Running

DNS = service("192.0.2.1", "192.0.2.10", "192.0.2.11", name="dns")
SIX = service("2001:db8::1", "2001:db8::10", ports=(5060,))
BREAKS = " \t\n\"'><=;|&(:"
"""What bash has in COMP_WORDBREAKS."""
LINES = 400


class Machine(FakeMachine):
    """Stands in for ``xdplb.kernel.machine.Machine``."""

    def running(self) -> list[Running]:
        self._step("running")
        return super().running()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    Balancer(made).up(Request(("eth0",), (DNS, SIX)))
    made.run_on()
    monkeypatch.setattr("xdplb.kernel.machine.Machine", lambda: made)
    monkeypatch.setattr(netns, "interface_names", lambda: ["lo", "eth0", "eth1"])
    monkeypatch.setattr(netns, "names", lambda: ["blue", "green"])
    return made


def items(line: str) -> list[click.shell_completion.CompletionItem[str]]:
    """What is offered behind a line whose last word is not complete yet."""
    *words, incomplete = line.split(" ")
    shell = ShellComplete(commands, {}, "xdplb", "_XDPLB_COMPLETE")
    return shell.get_completions(words, incomplete)


def offered(line: str) -> list[str]:
    return [item.value for item in items(line)]


def bash(monkeypatch: pytest.MonkeyPatch, line: str, breaks: str = BREAKS) -> list[str]:
    """What readline gets for a line."""
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_WORDBREAKS", breaks)
    return Bash(commands, {}, "xdplb", "_XDPLB_COMPLETE").complete().splitlines()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("up --iface ", ["eth0", "eth1"]),
        ("down --iface ", ["eth0"]),
        ("flows --iface e", ["eth0"]),
        ("backend list --iface x", []),
        ("backend remove ", ["192.0.2.10", "192.0.2.11", "2001:db8::10"]),
        ("backend drain 192.0.2.11", ["192.0.2.11"]),
        ("backend weight --service dns ", ["192.0.2.10", "192.0.2.11"]),
        ("backend undrain --service 2001:db8:0::1 ", ["2001:db8::10"]),
        ("backend remove --iface eth1 ", []),
        ("backend remove 192.0.2.10 --service ", ["dns", "2001:db8::1"]),
        ("backend add ", []),
        ("backend add nonsense --service ", ["dns", "2001:db8::1"]),
        ("up --backend ", []),
        ("flows --backend 2", ["2001:db8::10"]),
        ("flows kill --service d", ["dns"]),
        ("health --service ", ["dns", "2001:db8::1"]),
        ("health --iface ", ["eth0"]),
        ("whois 192.0.2.1:5 --backend ", ["192.0.2.10", "192.0.2.11", "2001:db8::10"]),
        ("--netns ", ["blue", "green"]),
        ("--netns b", ["blue"]),
    ],
)
def test_words_are_what_is_there(machine: Machine, line: str, words: list[str]) -> None:
    assert machine.balancers
    assert offered(line) == words


def test_backends_and_services_come_with_a_word_on_them(machine: Machine) -> None:
    assert machine.balancers
    assert {item.value: item.help for item in items("flows --backend ")}["192.0.2.10"] == "up"
    assert items("flows --service d")[0].help == "192.0.2.1 udp"


@pytest.mark.parametrize(
    "line", ["check ", "apply ", "up --config ", "up --restore ", "save ", "restore ",
             "run --config ", "--netns /run/"],
)  # fmt: skip
def test_the_shell_completes_files(line: str) -> None:
    (item,) = items(line)
    assert item.type == "file"


@pytest.mark.parametrize("name", ["--iface", "--netns", "--config"])
def test_an_option_is_completed_wherever_it_is(machine: Machine, name: str) -> None:
    assert machine.balancers
    found = [path for path, option in _options(commands, "") if name in option.opts]
    assert found
    assert [path for path in found if not items(f"{path} {name} ".strip(" ") + " ")] == []


def _options(command: click.Command, path: str) -> Iterator[tuple[str, click.Option]]:
    """Every option of a command and of those under it."""
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield path, parameter
    if isinstance(command, click.Group):
        for name, under in command.commands.items():
            yield from _options(under, f"{path} {name}".strip())


@pytest.mark.parametrize("error", [TableError("damaged"), NotReadyError("no privilege"), None])
def test_where_nothing_can_be_read_nothing_is_offered_or_said(
    machine: Machine, capfd: pytest.CaptureFixture[str], error: NotReadyError | None
) -> None:
    machine.fail["running"] = [error]
    machine.balancers = machine.balancers if error else []
    assert offered("backend remove ") == []
    assert capfd.readouterr() == ("", "")


def test_what_a_library_writes_is_not_seen(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def running() -> list[Running]:
        os.write(2, b"libbpf: something\n")
        return machine.balancers

    monkeypatch.setattr(machine, "running", running)
    assert offered("backend remove 2") == ["2001:db8::10"]
    assert capfd.readouterr() == ("", "")


def test_a_namespace_that_is_not_there_has_nothing(machine: Machine) -> None:
    assert machine.balancers
    assert offered("--netns no-such-namespace backend remove ") == []
    assert offered("--netns no-such-namespace up --iface ") == []


@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("xdplb stat", ["plain,status"]),
        ("xdplb backend remove 192", ["plain,192.0.2.10", "plain,192.0.2.11"]),
        ("xdplb backend remove 2001:d", ["plain,db8::10"]),
        ("xdplb backend remove 2001:db8:", ["plain,:10"]),
        ("xdplb flows --backend=2001:", ["plain,db8::10"]),
        ("xdplb flows --backend=192.0.2.11", ["plain,192.0.2.11"]),
        ("xdplb down --iface=", ["plain,eth0"]),
        ("xdplb flows --service '2001:", ["plain,db8::1"]),
        ("xdplb check x", ["file,x"]),
    ],
)
def test_bash_gets_what_stands_behind_the_last_break(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, line: str, replies: list[str]
) -> None:
    assert machine.balancers
    assert bash(monkeypatch, line) == replies


@pytest.mark.parametrize("breaks", ["", " \t\n"])
def test_bash_gets_whole_words_where_a_colon_breaks_none(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, breaks: str
) -> None:
    assert machine.balancers
    assert bash(monkeypatch, "xdplb backend remove 2001:d", breaks) == ["plain,2001:db8::10"]


def test_no_line_is_too_strange(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.balancers
    strange = ["", "-", "--", "=", "--=", "--iface=", "'", '"', "\\", ":", "é", "--no-such", "-x"]
    sensible = [*commands.commands, "add", "kill", "--iface", "eth0", "192.0.2.10", "[2001:db8::"]
    dice = random.Random(1)
    for _ in range(LINES):
        words = dice.choices(strange + sensible, k=dice.randrange(6))
        bash(monkeypatch, " ".join(["xdplb", *words]) + dice.choice(["", " "]))
