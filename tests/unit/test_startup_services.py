"""up with several services: their addresses, and the flows of those that have vanished."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from fake_machine import NEW_ID, OWN, FakeMachine, service

from xdplb.balancer import Balancer
from xdplb.errors import BusyError, InvalidValueError, TableError
from xdplb.facts import Attached
from xdplb.model import IPV4, IPV6, Protocol
from xdplb.request import Request

if TYPE_CHECKING:
    from xdplb.facts import Link
    from xdplb.model import Address
    from xdplb.plan import Plan
    from xdplb.request import Service

OLD_ID = 50
HOP, HOP6 = ip_address("192.0.2.10"), ip_address("2001:db8::10")


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


def _settle(machine: FakeMachine) -> None:
    """Let what runs now be older than what the next ``up`` loads."""
    machine.run_on()
    machine.balancers = [replace(item, program_id=OLD_ID) for item in machine.balancers]
    machine.programs = {
        index: Attached(OLD_ID, item.mode) for index, item in machine.programs.items()
    }
    machine.managed.clear()


DNS, DNS_TCP = (service("", f"{HOP}", protocol=item) for item in Protocol)
DNS6 = service("", f"{HOP6}")
WEB = service("192.0.2.2", f"{HOP}", ports=(443,))


def _up(machine: FakeMachine, *services: Service) -> None:
    Balancer(machine).up(Request(("eth0",), services))


def test_a_service_without_an_address_gets_the_first_interfaces(machine: FakeMachine) -> None:
    machine.address = lambda link, version: OWN[version] + link.index  # type: ignore[method-assign]
    report = Balancer(machine).up(Request(("eth1", "eth0"), (DNS, WEB, DNS6, DNS_TCP)))
    addresses = [OWN[IPV4] + 3, WEB.address, OWN[IPV6] + 3, OWN[IPV4] + 3]
    assert [item.address for item in report.services] == addresses
    state = machine.loaded[0][1]
    assert [side.addresses for side in state.sides] == [
        (OWN[IPV4] + 3, WEB.address),
        (OWN[IPV6] + 3,),
    ]
    assert [[item.number for item in side.services] for side in state.sides] == [[0, 2, 1], [0]]


def test_an_interface_is_not_asked_where_every_service_has_an_address(machine: FakeMachine) -> None:
    asked: list[int] = []

    def address(link: Link, version: int) -> Address:
        assert link.name == "eth0"
        asked.append(version)
        return OWN[version]

    machine.address = address  # type: ignore[method-assign]
    _up(machine, WEB)
    assert asked == []
    _settle(machine)
    _up(machine, WEB, DNS6)
    assert asked == [IPV6]


def test_an_interfaces_address_that_makes_two_services_one_is_refused(machine: FakeMachine) -> None:
    with pytest.raises(InvalidValueError, match="have a port in common"):
        _up(machine, DNS, service(f"{OWN[IPV4]}", "192.0.2.11"))
    assert machine.managed == []
    assert machine.loaded == []


def test_the_program_has_the_constants_of_one_service_or_looks_up_many(
    machine: FakeMachine,
) -> None:
    _up(machine, DNS, WEB, DNS6)
    many = {version: "-DMANY_SERVICES=1" in items for version, items in machine.flags.items()}
    assert many == {IPV4: True, IPV6: False}


def test_nothing_ends_where_no_service_has_vanished(machine: FakeMachine) -> None:
    _up(machine, DNS, WEB)
    _settle(machine)
    _up(machine, WEB, DNS, DNS_TCP, DNS6)
    assert machine.ended == []


def test_the_flows_of_a_service_that_vanished_are_ended(machine: FakeMachine) -> None:
    _up(machine, DNS, WEB, DNS6)
    _settle(machine)
    _up(machine, DNS, DNS6)
    ((program_id, plan),) = machine.ended
    assert (program_id, plan.version) == (NEW_ID, IPV4)
    assert [item.service for item in plan.removed] == [WEB]


def test_each_ip_version_ends_the_flows_of_its_own_services(machine: FakeMachine) -> None:
    web6 = service("2001:db8::2", f"{HOP6}", ports=(443,))
    _up(machine, DNS, WEB, DNS6, web6)
    _settle(machine)
    _up(machine, DNS, DNS6)
    assert [
        (plan.version, [item.service for item in plan.removed]) for _, plan in machine.ended
    ] == [
        (IPV4, [WEB]),
        (IPV6, [web6]),
    ]


def test_flows_are_ended_only_when_the_new_program_has_replaced_the_old_one(
    machine: FakeMachine,
) -> None:
    _up(machine, DNS, WEB)
    _settle(machine)
    machine.fail["attach"] = [BusyError("someone was quicker")]
    with pytest.raises(BusyError):
        _up(machine, DNS)
    assert machine.ended == []
    seen: list[int] = []

    def end_services(program_id: int, plan: Plan) -> None:
        assert plan.removed
        seen.append(program_id)
        assert machine.programs[2].program_id == NEW_ID

    machine.end_services = end_services  # type: ignore[method-assign]
    _up(machine, DNS)
    assert seen == [NEW_ID]


def test_what_cannot_be_ended_leaves_the_new_program_and_what_it_needs(
    machine: FakeMachine,
) -> None:
    _up(machine, DNS, WEB)
    _settle(machine)
    machine.fail["end_services"] = [TableError("no")]
    with pytest.raises(TableError):
        Balancer(machine).up(Request(("eth0",), (service("", f"{HOP}", "192.0.2.11"),)))
    assert machine.programs[2].program_id == NEW_ID
    assert machine.restored == []


def test_a_backend_of_several_services_is_named_once_where_it_has_not_answered(
    machine: FakeMachine,
) -> None:
    report = Balancer(machine).up(Request(("eth0",), (DNS, DNS_TCP, WEB)))
    assert [f"{item}" for item in report.unresolved] == [f"{HOP}"]
    assert machine.managed == [HOP]
