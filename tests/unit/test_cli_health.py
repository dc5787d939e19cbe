"""``xdplb health`` over a machine in memory: what it prints, and how it ends."""

from __future__ import annotations

import json
import time

import pytest
from agent_machine import LiveMachine
from click.testing import CliRunner, Result
from fake_machine import service

from xdplb.balancer import Balancer
from xdplb.cli import commands
from xdplb.errors import PrivilegeError
from xdplb.model import Protocol
from xdplb.request import Request

DNS = service("192.0.2.1", "192.0.2.10", name="dns")
TCP = service("192.0.2.1", "192.0.2.11", protocol=Protocol.TCP)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> LiveMachine:
    made = LiveMachine()
    monkeypatch.setattr("xdplb.kernel.machine.Machine", lambda *_: made)
    return made


def up(machine: LiveMachine) -> None:
    Balancer(machine).up(Request(("eth0",), (DNS, TCP)))


def run(*words: str) -> Result:
    return CliRunner().invoke(commands, ["health", *words])


def test_nothing_up_is_unhealthy(machine: LiveMachine) -> None:
    assert not machine.balancers
    done = run()
    assert (done.exit_code, done.stdout) == (3, "unhealthy  no balancer is up\n")
    assert done.stderr == ""


def test_a_healthy_balancer_ends_with_0(machine: LiveMachine) -> None:
    up(machine)
    done = run()
    assert (done.exit_code, done.stdout) == (0, "healthy  eth0: 2 of 2 services\n")


def test_a_service_without_a_server_is_named(machine: LiveMachine) -> None:
    up(machine)
    CliRunner().invoke(commands, ["backend", "drain", "192.0.2.11"])
    reason = "192.0.2.1 port 53 tcp: no backend takes new flows"
    done = run()
    assert (done.exit_code, done.stdout) == (0, f"healthy  eth0: 1 of 2 services; {reason}\n")
    CliRunner().invoke(commands, ["backend", "drain", "192.0.2.10"])
    assert run().exit_code == 3


def test_the_options_choose(machine: LiveMachine) -> None:
    up(machine)
    assert run("--iface", "eth0", "--service", "dns").stdout == "healthy  eth0: 1 of 1 service\n"
    assert run("--iface", "eth1").stdout == "unhealthy  no balancer is up on eth1\n"
    done = run("--service", "mail")
    assert done.stdout == "unhealthy  eth0: 0 of 0 services; there is no service mail\n"
    assert done.exit_code == 3


def test_for_programs_there_is_all_of_it(machine: LiveMachine) -> None:
    up(machine)
    CliRunner().invoke(commands, ["backend", "drain", "192.0.2.11"])
    before = time.time()
    done = run("--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 0
    assert before <= found.pop("time") <= time.time()
    reason = "no backend takes new flows"
    dns = {"name": "dns", "address": "192.0.2.1", "protocol": "udp", "ports": "53"}
    assert found == {
        "version": 1,
        "healthy": True,
        "draining": False,
        "reasons": [f"192.0.2.1 port 53 tcp: {reason}"],
        "interfaces": ["eth0"],
        "services": [
            {**dns, "healthy": True, "reason": None},
            {**dns, "name": None, "protocol": "tcp", "healthy": False, "reason": reason},
        ],
    }
    assert run("--iface", "eth1", "--json").exit_code == 3


@pytest.mark.parametrize("words", [(), ("--watch",)])
def test_who_may_not_look_is_told_so(machine: LiveMachine, words: tuple[str, ...]) -> None:
    machine.fail["require_privileges"] = [PrivilegeError("use BPF")]
    done = run(*words)
    assert (done.exit_code, done.stdout) == (3, "")
    assert done.stderr.startswith("xdplb: no privilege to use BPF\n")


@pytest.mark.parametrize("value", ["0", "-1", "nan", "3601", "x"])
def test_an_interval_that_is_none_is_refused(value: str) -> None:
    assert run("--watch", "--interval", value).exit_code == 2
