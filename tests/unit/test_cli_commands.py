"""The commands over a machine in memory: options in, text and exit codes out."""

from __future__ import annotations

import json
import subprocess
import sys
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from fake_machine import FakeMachine

from xdplb.balancer import Balancer
from xdplb.cli import commands
from xdplb.errors import AttachError, InterfaceNotFoundError, InvalidValueError, XdplbError
from xdplb.model import (
    Backend,
    Endpoint,
    Hash,
    Mode,
    OnDown,
    PortRange,
    Protocol,
    Reservation,
    Timeouts,
)

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from xdplb.request import Request
    from xdplb.saved import Saved

GOOD = ("up", "--iface", "eth0", "--backend", "192.0.2.10")
BOTH = ("--service", "192.0.2.1", "--service", "2001:db8::1")


class NoCompiler:
    """Stands in for ``xdplb.kernel.compiler.Compiler``: starts no process."""

    def __init__(self, headers: Path) -> None:
        assert headers.is_dir()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    made = FakeMachine()
    monkeypatch.setattr("xdplb.kernel.compiler.Compiler", NoCompiler)
    monkeypatch.setattr("xdplb.kernel.machine.Machine", lambda *_: made)
    return made


def _run(*words: str) -> Result:
    return CliRunner().invoke(commands, words)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, machine: FakeMachine) -> list[Request]:
    """What ``up`` asks the balancer for."""
    found: list[Request] = []
    real = Balancer.up

    def up(self: Balancer, request: Request, saved: Saved | None = None) -> object:
        found.append(request)
        report = real(self, request, saved)
        assert len(machine.loaded) == 1
        return report

    monkeypatch.setattr(Balancer, "up", up)
    return found


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ((), "interfaces", ("eth0",)),
        (("--iface", "eth1"), "interfaces", ("eth0", "eth1")),
        (
            ("--backend", "192.0.2.11:5353"),
            "backends",
            (Backend(IPv4Address("192.0.2.10")), Backend(IPv4Address("192.0.2.11"), 5353)),
        ),
        (
            (*BOTH, "--backend", "2001:db8::10", "--backend", "[2001:db8::10]:53"),
            "backends",
            (
                Backend(IPv4Address("192.0.2.10")),
                Backend(IPv6Address("2001:db8::10")),
                Backend(IPv6Address("2001:db8::10"), 53),
            ),
        ),
        ((), "addresses", ()),
        (("--service", "192.0.2.2"), "addresses", (IPv4Address("192.0.2.2"),)),
        ((), "mode", Mode.AUTO),
        (("--mode", "generic"), "mode", Mode.GENERIC),
        ((), "max_flows", None),
        (("--max-flows", "1000"), "max_flows", 1000),
        ((), "max_client_flows", None),
        (("--max-client-flows", "0"), "max_client_flows", 0),
        (("--max-client-flows", "100"), "max_client_flows", 100),
        ((), "nat_ports", ()),
        (("--nat-ports", "2000-2999"), "nat_ports", (PortRange(2000, 2999),)),
        ((), "secret", None),
        ((), "virtual_mac", ()),
        (
            ("--virtual-mac", "00:00:5E:00:01:35", "--virtual-mac", "00:00:5e:00:02:35"),
            "virtual_mac",
            ("00:00:5e:00:01:35", "00:00:5e:00:02:35"),
        ),
        ((), "vlan", True),
        (("--no-vlan",), "vlan", False),
    ],
)
def test_an_option_of_up_reaches_the_request(
    asked: list[Request], words: tuple[str, ...], name: str, value: object
) -> None:
    assert _run(*GOOD, *words).exit_code == 0
    assert getattr(asked[0], name) == value


@pytest.mark.parametrize(
    ("words", "name", "values"),
    [
        ((), "address", [None]),
        (("--service", "192.0.2.2"), "address", [IPv4Address("192.0.2.2")]),
        (
            (*BOTH, "--backend", "[2001:db8::10]:53"),
            "address",
            [IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")],
        ),
        (
            (*BOTH, "--backend", "2001:db8::10", "--backend", "[2001:db8::10]:53"),
            "backends",
            [
                (Backend(IPv4Address("192.0.2.10")),),
                (Backend(IPv6Address("2001:db8::10")), Backend(IPv6Address("2001:db8::10"), 53)),
            ],
        ),
        (
            (*BOTH, "--backend", "2001:db8::10", "--client", "[2001:db8::7]:5555=6666"),
            "reservations",
            [(), (Reservation(Endpoint(IPv6Address("2001:db8::7"), 5555), 6666),)],
        ),
        (
            ("--client", "192.0.2.7:5555=6666"),
            "reservations",
            [(Reservation(Endpoint(IPv4Address("192.0.2.7"), 5555), 6666),)],
        ),
        ((), "ports", [(PortRange(1, 65535),)]),
        (("--port", "all"), "ports", [(PortRange(1, 65535),)]),
        (
            ("--port", "53", "--port", "100-200"),
            "ports",
            [(PortRange(53, 53), PortRange(100, 200))],
        ),
        ((), "hash", [Hash.SRC_DST]),
        (("--hash", "5-tuple"), "hash", [Hash.FIVE_TUPLE]),
        (("--hash", "src"), "hash", [Hash.SRC]),
        (("--timeout", "60"), "timeouts", [Timeouts(answered=60)]),
        (("--timeout-unreplied", "5"), "timeouts", [Timeouts(unreplied=5)]),
        (("--timeout-tcp", "600"), "timeouts", [Timeouts(established=600)]),
        (("--timeout-tcp-transitory", "9"), "timeouts", [Timeouts(transitory=9)]),
        ((), "protocol", [Protocol.UDP]),
        (("--protocol", "tcp", "--port", "443"), "protocol", [Protocol.TCP]),
        (
            ("--protocol", "udp", "--protocol", "tcp", "--port", "53"),
            "protocol",
            [Protocol.UDP, Protocol.TCP],
        ),
        ((), "on_down", [OnDown.REHASH]),
        (("--on-down", "drop"), "on_down", [OnDown.DROP]),
        (
            (*BOTH, "--backend", "2001:db8::10", "--on-down", "drop"),
            "on_down",
            [OnDown.DROP, OnDown.DROP],
        ),
    ],
)
def test_an_option_of_up_reaches_every_service(
    asked: list[Request], words: tuple[str, ...], name: str, values: list[object]
) -> None:
    assert _run(*GOOD, *words).exit_code == 0
    assert [getattr(item, name) for item in asked[0].services] == values


def test_up_says_what_runs_and_who_has_not_answered(machine: FakeMachine) -> None:
    result = _run(*GOOD)
    assert result.stdout == (
        "up: 192.0.2.1 udp on eth0 (native)\n  -> 192.0.2.10  (no answer to ARP yet)\n"
    )
    assert machine.programs


def test_up_says_what_runs_for_each_ip_version_alone(machine: FakeMachine) -> None:
    services = ("--service", "2001:db8::1", "--service", "192.0.2.1")
    result = _run(*GOOD, *services, "--backend", "[2001:db8::10]:53", "--backend", "192.0.2.11")
    assert result.stdout == (
        "up: 192.0.2.1 udp on eth0 (native)\n"
        "  -> 192.0.2.10  (no answer to ARP yet)\n"
        "  -> 192.0.2.11  (no answer to ARP yet)\n"
        "up: 2001:db8::1 udp on eth0 (native)\n"
        "  -> [2001:db8::10]:53  (no answer to neighbour discovery yet)\n"
    )
    assert machine.programs


def test_up_says_udp_and_tcp_at_one_address_once(machine: FakeMachine) -> None:
    words = ("--protocol", "udp", "--protocol", "tcp", "--port", "53")
    assert _run(*GOOD, *words).stdout == (
        "up: 192.0.2.1 udp and tcp on eth0 (native)\n  -> 192.0.2.10  (no answer to ARP yet)\n"
    )
    machine.run_on()
    assert _run(*GOOD, *words).stdout.startswith("changed: 192.0.2.1 udp and tcp on eth0 ")


def test_up_with_ipv6_backends_takes_the_interfaces_ipv6_address(machine: FakeMachine) -> None:
    result = _run("up", "--iface", "eth0", "--backend", "2001:db8::10")
    assert result.stdout.startswith("up: 2001:db8::1 udp on eth0 (native)\n")
    assert machine.programs


def test_notes_go_to_stderr(machine: FakeMachine) -> None:
    machine.fail["attach"] = [AttachError("no native XDP")]
    result = _run(*GOOD)
    assert result.stderr == "note: no native XDP; using generic mode\n"
    assert "eth0 (generic)" in result.stdout


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidValueError("wrong", "do right"), 2),
        (InterfaceNotFoundError("eth0"), 3),
        (AttachError("no", "do something"), 4),
    ],
)
def test_an_error_ends_with_its_code_a_message_and_a_hint(
    machine: FakeMachine, error: XdplbError, code: int
) -> None:
    machine.fail["link"] = [error]
    result = _run(*GOOD)
    assert result.exit_code == code
    assert result.stderr == f"xdplb: {error}\n  hint: {error.hint}\n"
    assert result.stdout == ""


def test_verbose_shows_the_cause(machine: FakeMachine) -> None:
    error = AttachError("no")
    error.__cause__ = OSError(16, "busy")
    machine.fail["link"] = [error]
    assert "cause: OSError(16, 'busy')" in _run("--verbose", *GOOD).stderr


def test_a_bug_is_not_hidden(machine: FakeMachine) -> None:
    machine.links = {}
    result = _run(*GOOD)
    assert result.exit_code == 1
    assert isinstance(result.exception, KeyError)


@pytest.mark.parametrize("missing", [("--iface", "eth0"), ("--backend", "192.0.2.10")])
def test_a_missing_option_is_named(missing: tuple[str, str]) -> None:
    words = [word for word in GOOD if word not in missing]
    result = _run(*words)
    assert result.exit_code == 2
    assert f"xdplb: {missing[0]} is missing" in result.stderr


def test_a_file_says_everything_alone() -> None:
    result = _run(*GOOD, "--config", "xdplb.toml")
    assert result.exit_code == 2
    assert "--config and --iface exclude each other" in result.stderr
    result = _run("down", "--iface", "eth0", "--config", "xdplb.toml")
    assert result.exit_code == 2
    assert "--config and --iface exclude each other" in result.stderr


@pytest.mark.usefixtures("machine")
def test_status_with_nothing_up_succeeds() -> None:
    result = _run("status")
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.usefixtures("machine")
def test_status_with_nothing_up_is_an_empty_list_in_json() -> None:
    assert json.loads(_run("status", "--json").stdout) == {"version": 1, "balancers": []}


@pytest.mark.usefixtures("machine")
def test_down_with_nothing_up_succeeds() -> None:
    assert _run("down").stdout == "nothing is up\n"


def test_down_names_what_it_ended(machine: FakeMachine) -> None:
    _run(*GOOD)
    machine.run_on()
    assert _run("down", "--iface", "eth0").stdout == "down: eth0 (program 100)\n"
    assert machine.programs == {}


def test_a_backend_with_and_one_without_a_port_can_share_an_address(machine: FakeMachine) -> None:
    result = _run(*GOOD, "--backend", "192.0.2.10:53")
    assert result.exit_code == 0, result.exception
    assert len(machine.loaded) == 1


@pytest.mark.parametrize("name", ["up", "status", "down"])
def test_the_help_of_a_command_needs_neither_bcc_nor_pyroute2(name: str) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from xdplb.cli import commands;"
        f"result = CliRunner().invoke(commands, ['{name}', '--help']);"
        "sys.exit(result.exit_code or any(name in sys.modules for name in ('bcc', 'pyroute2')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
