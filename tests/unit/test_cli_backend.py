"""``backend`` over a machine in memory: which services a command is about."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from fake_machine import FakeMachine, service

from xdplb.balancer import Balancer
from xdplb.cli import commands
from xdplb.model import IPV4, Backend, BackendState
from xdplb.request import Request

if TYPE_CHECKING:
    from click.testing import Result

    from xdplb.facts import Running, Usage

TEN, ELEVEN = (Backend(ip_address(f"192.0.2.{number}")) for number in (10, 11))
DNS = service("192.0.2.1", f"{TEN}", f"{ELEVEN}", name="dns")
WEB = service("192.0.2.2", f"{TEN}", f"{ELEVEN}", "192.0.2.12", name="web", ports=(443,))


class Machine(FakeMachine):
    """Stands in for ``xdplb.kernel.machine.Machine``; its flows go one by one, as they are told."""

    def __init__(self) -> None:
        """Without flows."""
        super().__init__()
        self.flows: list[dict[int, int]] = []

    def usage(self, running: Running, version: int) -> Usage:
        now = self.flows.pop(0) if self.flows else {}
        return replace(super().usage(running, version), flows=now)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    Balancer(made).up(Request(("eth0",), (DNS, WEB)))
    made.run_on()
    monkeypatch.setattr("xdplb.kernel.machine.Machine", lambda: made)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return made


def _run(*words: str) -> Result:
    return CliRunner().invoke(commands, ["backend", *words])


def _backends(machine: Machine) -> list[tuple[Backend, ...]]:
    """Those of each service, after the one change that was made."""
    ((_, _, state),) = machine.changed
    return [item.backends for item in state.services]


@pytest.mark.parametrize("named", ["dns", "192.0.2.1"])
@pytest.mark.parametrize(
    ("words", "said", "backends"),
    [
        (
            ("add", "192.0.2.20", "--weight", "2"),
            "added: 192.0.2.20  (nobody has answered for it yet)",
            (TEN, ELEVEN, Backend(ip_address("192.0.2.20"), weight=2)),
        ),
        (("remove", f"{TEN}"), "removed: 192.0.2.10", (ELEVEN,)),
        (
            ("drain", f"{TEN}"),
            "drains: 192.0.2.10",
            (replace(TEN, state=BackendState.DRAIN), ELEVEN),
        ),
        (("weight", f"{TEN}", "7"), "weight 7: 192.0.2.10", (replace(TEN, weight=7), ELEVEN)),
    ],
    ids=["add", "remove", "drain", "weight"],
)
def test_only_the_service_that_is_named_is_changed(
    machine: Machine, words: tuple[str, ...], said: str, backends: tuple[Backend, ...], named: str
) -> None:
    result = _run(*words, "--service", named)
    assert (result.exit_code, result.stdout) == (0, f"{said}\n")
    assert _backends(machine) == [backends, WEB.backends]


def test_undrain_is_for_the_service_that_is_named(machine: Machine) -> None:
    _run("drain", f"{TEN}")
    _, plan, state = machine.changed.pop()
    machine.balancers = [replace(machine.balancers[0], state=state, records={IPV4: plan.records})]
    result = _run("undrain", f"{TEN}", "--service", "web")
    assert result.stdout == "takes new flows: 192.0.2.10\n"
    assert [item[0].state for item in _backends(machine)] == [BackendState.DRAIN, BackendState.UP]


def test_without_a_name_every_service_that_has_the_backend_is_changed(machine: Machine) -> None:
    assert _run("remove", f"{ELEVEN}").exit_code == 0
    assert _backends(machine) == [(TEN,), (TEN, WEB.backends[2])]


def test_a_new_backend_where_services_differ_needs_a_name(machine: Machine) -> None:
    result = _run("add", "192.0.2.20")
    assert result.exit_code == 2
    assert result.stderr == (
        "xdplb: the balancer has several services\n  hint: say which one with --service NAME\n"
    )
    assert machine.changed == []


@pytest.mark.parametrize("command", ["add", "remove", "drain"])
def test_a_service_that_is_not_there_ends_with_2(machine: Machine, command: str) -> None:
    result = _run(command, f"{TEN}", "--service", "mail")
    assert result.exit_code == 2
    assert "there is no" in result.stderr
    assert machine.changed == []


def test_waiting_for_a_backend_counts_its_flows_in_all_services(machine: Machine) -> None:
    machine.flows = [{0: 1, 2: 2}, {2: 1}, {1: 9, 3: 9}]
    result = _run("drain", f"{TEN}", "--wait")
    assert result.stdout.endswith("drained: 192.0.2.10\n")
    assert machine.flows == []


@pytest.mark.parametrize("named", ["dns", "192.0.2.1"])
def test_waiting_for_a_backend_of_one_service_counts_the_flows_of_that_one(
    machine: Machine, named: str
) -> None:
    """In the other service the backend still gets flows: that wait could last forever."""
    machine.flows = [{0: 1, 2: 2}, {2: 5}, {2: 7}]
    result = _run("drain", f"{TEN}", "--wait", "--service", named)
    assert result.stdout.endswith("drained: 192.0.2.10\n")
    assert machine.flows == [{2: 7}]
