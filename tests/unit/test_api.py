"""``from xdplb import Balancer``, over a machine in memory."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from fake_machine import FakeMachine

import xdplb
from xdplb import Balancer, XdplbError
from xdplb.listing import Listing
from xdplb.model import (
    Backend,
    BackendState,
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
    from collections.abc import Callable

    from xdplb.listing import Wanted
    from xdplb.saved import Saved

TEN, ELEVEN = "192.0.2.10", "192.0.2.11"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    made = FakeMachine()
    monkeypatch.setattr("xdplb.api.Machine", lambda: made)
    return made


@pytest.fixture
def running(machine: FakeMachine) -> FakeMachine:
    Balancer("eth0").up([TEN, ELEVEN])
    machine.run_on()
    return machine


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    code = "import sys, xdplb; sys.exit(bool({'xdplb.api', 'click', 'msgspec'} & {*sys.modules}))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Balance'"):
        xdplb.Balance  # type: ignore[attr-defined]  # noqa: B018


def test_everything_that_up_takes_reaches_the_balancer(machine: FakeMachine) -> None:
    timeouts = Timeouts(unreplied=5)
    report = Balancer("eth0", "eth1").up(
        [f"{TEN}:5353", ELEVEN],
        services=["192.0.2.2"],
        ports=[53, "8000-8010"],
        protocols=["udp", "tcp"],
        hash="5-tuple",
        mode="generic",
        max_flows=10_000,
        max_client_flows=10,
        nat_ports=["5000-9000"],
        timeouts=timeouts,
        on_down="drop",
        vlan=False,
        virtual_mac=["00:00:5E:00:01:35"],
    )
    assert [item.name for item in report.interfaces] == ["eth0", "eth1"]
    ((_, state),) = machine.loaded
    request = state.request
    assert (request.interfaces, request.mode) == (("eth0", "eth1"), Mode.GENERIC)
    assert (state.capacity, request.max_client_flows, request.vlan) == (10_000, 10, False)
    assert request.nat_ports == (PortRange(5000, 9000),)
    assert request.virtual_mac == ("00:00:5e:00:01:35",)
    assert [item.protocol for item in request.services] == [Protocol.UDP, Protocol.TCP]
    service = request.services[0]
    assert service.address == ip_address("192.0.2.2")
    assert service.backends == (Backend(ip_address(TEN), 5353), Backend(ip_address(ELEVEN)))
    assert service.ports == (PortRange(53, 53), PortRange(8000, 8010))
    assert (service.hash, service.timeouts) == (Hash.FIVE_TUPLE, timeouts)
    assert service.on_down is OnDown.DROP


def test_a_client_gets_the_port_that_is_reserved(machine: FakeMachine) -> None:
    Balancer("eth0").up([TEN], clients=["192.0.2.7:5555=6666"])
    ((_, state),) = machine.loaded
    (service,) = state.request.services
    assert service.reservations == (Reservation(Endpoint(ip_address("192.0.2.7"), 5555), 6666),)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Balancer("eth0").up(["nonsense"]), "is not an IP address"),
        (lambda: Balancer("eth0").up([TEN], ports=["x"]), "is not a port"),
        (lambda: Balancer("eth0").up([TEN], hash="random"), "'random' is none of src-dst, 5-tuple"),
        (lambda: Balancer("eth0").up([TEN], protocols=["tcp"]), "tcp needs ports"),
        (lambda: Balancer("eth0").flows(client="x/8"), "is no network"),
        (lambda: Balancer("eth0", netns="no-such").status(), "no network namespace 'no-such'"),
    ],
)
def test_what_is_wrong_is_said_as_on_the_command_line(
    machine: FakeMachine, call: Callable[[], object], message: str
) -> None:
    with pytest.raises(XdplbError, match=message) as refused:
        call()
    assert refused.value.exit_code == 2
    assert refused.value.hint
    assert machine.loaded == []


def test_where_nothing_is_up_there_is_nothing_to_see(machine: FakeMachine) -> None:
    assert machine.balancers == []
    assert Balancer("eth0").status() is None
    assert Balancer("eth0").backends() == []
    assert not Balancer("eth0").down()


def test_a_balancer_is_seen_by_its_interface(running: FakeMachine) -> None:
    status = Balancer("eth0").status()
    assert status is not None
    assert [item.backend.address for item in Balancer("eth0").backends()] == [
        ip_address(TEN),
        ip_address(ELEVEN),
    ]
    assert Balancer("eth1").status() is None
    assert Balancer("eth0").down()
    assert running.programs == {}


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (
            lambda it: it.add_backend("192.0.2.12:53", weight=2),
            (Backend(ip_address(TEN)), Backend(ip_address(ELEVEN)),
             Backend(ip_address("192.0.2.12"), 53, 2)),
        ),
        (lambda it: it.remove_backend(TEN), (Backend(ip_address(ELEVEN)),)),
        (
            lambda it: it.drain(TEN, service="192.0.2.1"),
            (Backend(ip_address(TEN), state=BackendState.DRAIN), Backend(ip_address(ELEVEN))),
        ),
        (
            lambda it: it.set_weight(ELEVEN, 3),
            (Backend(ip_address(TEN)), Backend(ip_address(ELEVEN), weight=3)),
        ),
    ],
)  # fmt: skip
def test_backends_are_changed_while_it_runs(
    running: FakeMachine, change: Callable[[Balancer], None], after: tuple[Backend, ...]
) -> None:
    change(Balancer("eth0"))
    ((_, _, state),) = running.changed
    assert state.services[0].backends == after


def test_a_drained_backend_comes_back(running: FakeMachine) -> None:
    balancer = Balancer("eth0")
    balancer.drain(TEN)
    ((_, plan, state),) = running.changed
    running.loaded = [([plan], state)]
    running.run_on()
    balancer.undrain(TEN)
    assert {item.state for item in running.changed[-1][2].services[0].backends} == {BackendState.UP}


def test_flows_are_those_that_were_asked_for(
    running: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Saved, Wanted, int | None]] = []

    def pick(saved: Saved, wanted: Wanted, limit: int | None) -> Listing:
        asked.append((saved, wanted, limit))
        return Listing((), 0)

    monkeypatch.setattr("xdplb.api.pick", pick)
    found = Balancer("eth0").flows(client="198.51.100.0/24", backend=f"{TEN}:53", limit=5)
    assert found == ()
    ((saved, wanted, limit),) = asked
    assert saved.interfaces == ("eth0", "")
    assert (f"{wanted.clients}", f"{wanted.backend}") == ("198.51.100.0/24", TEN)
    assert (wanted.backend_port, limit) == (53, 5)
    assert running.balancers
