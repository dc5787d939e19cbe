"""Changes of backends where the balancer has several services."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from fake_machine import FakeMachine, service

from xdplb import live
from xdplb.balancer import Balancer
from xdplb.errors import InvalidValueError
from xdplb.model import IPV4, IPV6, Backend, BackendState, Protocol
from xdplb.request import Request
from xdplb.wire import BackendCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdplb.plan import Plan
    from xdplb.request import Service
    from xdplb.state import State

A, B = "192.0.2.1", "192.0.2.2"
TEN, ELEVEN, TWELVE = (Backend(ip_address(f"192.0.2.{number}")) for number in (10, 11, 12))
TEN6, ELEVEN6 = (Backend(ip_address(f"2001:db8::{number}")) for number in (10, 11))
N1, N2 = (ip_address(f"192.0.2.{number}") for number in (101, 102))

DNS = service(A, f"{TEN}", f"{ELEVEN}", name="dns")
DNS_TCP = service(A, f"{TEN}", f"{ELEVEN}", name="dns", protocol=Protocol.TCP)
WEB = service(B, f"{TEN}", f"{TWELVE}", name="web", ports=(443,))
DNS6 = service("2001:db8::1", f"{TEN6}", f"{ELEVEN6}", name="dns")


def _up(*services: Service) -> FakeMachine:
    machine = FakeMachine()
    Balancer(machine).up(Request(("eth0",), services))
    machine.run_on()
    machine.managed.clear()
    everywhere = dict.fromkeys(range(16), 1)
    machine.usages[IPV4] = replace(machine.usages[IPV4], shares=everywhere)
    return machine


def _changed(machine: FakeMachine) -> tuple[Plan, State]:
    """The one change that was made."""
    ((_, plan, state),) = machine.changed
    return plan, state


def _backends(state: State) -> list[list[str]]:
    return [[f"{item}" for item in one.backends] for one in state.services]


def _go_on(machine: FakeMachine) -> None:
    """Let what was changed be what runs from now on."""
    plan, state = _changed(machine)
    running = machine.balancers[0]
    records = {**running.records, plan.version: plan.records}
    machine.balancers = [replace(running, state=state, records=records)]
    machine.changed.clear()


@pytest.mark.parametrize("named", ["web", B])
def test_a_backend_is_added_to_the_service_that_is_named(named: str) -> None:
    machine = _up(DNS, WEB)
    change = Balancer(machine).add_backend(ELEVEN, service=named)
    plan, state = _changed(machine)
    assert state.services == change.services
    assert change.services == (DNS, replace(WEB, backends=(*WEB.backends, ELEVEN)))
    assert [(record.service, f"{record.address}") for record in plan.records] == [
        (0, f"{TEN}"),
        (0, f"{ELEVEN}"),
        (2, f"{TEN}"),
        (2, f"{TWELVE}"),
        (2, f"{ELEVEN}"),
    ]
    assert (set(plan.tables[0]), set(plan.tables[2])) == ({0, 1}, {2, 3, 4})
    assert plan.records[:4] == machine.balancers[0].records[IPV4]


def test_a_name_stands_for_all_services_that_have_it() -> None:
    machine = _up(DNS, DNS_TCP, WEB, DNS6)
    Balancer(machine).add_backend(TWELVE, service="dns")
    _, state = _changed(machine)
    new = [f"{TEN}", f"{ELEVEN}", f"{TWELVE}"]
    assert _backends(state) == [
        new,
        new,
        [f"{TEN}", f"{TWELVE}"],
        [f"{TEN6}", f"{ELEVEN6}"],
    ]


def _half(machine: FakeMachine, *gone: int, shares: dict[int, int]) -> None:
    """Let some records be unused, and a table have these shares."""
    running = machine.balancers[0]
    records = tuple(
        item._replace(state=BackendCode.UNUSED) if number in gone else item
        for number, item in enumerate(running.records[IPV4])
    )
    machine.balancers = [replace(running, records={**running.records, IPV4: records})]
    machine.usages[IPV4] = replace(machine.usages[IPV4], shares=shares)


@pytest.mark.parametrize(
    ("gone", "shares"),
    [((), {0: 1, 1: 1, 2: 1}), ((3,), {0: 1, 1: 1, 2: 1}), ((1, 3), {0: 1, 2: 1})],
    ids=["no share in one", "no record in one", "no record at all"],
)
def test_adding_completes_what_is_missing_in_any_service(
    gone: tuple[int, ...], shares: dict[int, int]
) -> None:
    machine = _up(DNS, DNS_TCP)
    _half(machine, *gone, shares=shares)
    Balancer(machine).add_backend(ELEVEN)
    plan, state = _changed(machine)
    assert _backends(state) == [[f"{TEN}", f"{ELEVEN}"]] * 2
    assert (set(plan.tables[0]), set(plan.tables[1])) == ({0, 1}, {2, 3})
    assert [record.state for record in plan.records] == [BackendCode.UP] * 4


def test_a_backend_that_is_finished_everywhere_is_not_added() -> None:
    machine = _up(DNS, DNS_TCP)
    with pytest.raises(InvalidValueError, match="is there already"):
        Balancer(machine).add_backend(ELEVEN)


def test_a_backend_whose_adding_was_interrupted_can_be_removed() -> None:
    machine = _up(DNS, WEB)
    before = machine.balancers[0].state
    Balancer(machine).add_backend(ELEVEN, service="web")
    _go_on(machine)
    machine.balancers = [replace(machine.balancers[0], state=before)]  # which comes last
    Balancer(machine).remove_backend(ELEVEN, service="web")
    plan, state = _changed(machine)
    assert state.services == (DNS, WEB)
    assert set(plan.tables[2]) == {2, 3}
    assert plan.records[4].state is BackendCode.UNUSED


def test_where_all_services_have_the_same_backends_none_needs_to_be_named() -> None:
    turned = replace(DNS_TCP, backends=DNS_TCP.backends[::-1])
    machine = _up(DNS, turned, DNS6)
    Balancer(machine).add_backend(TWELVE)
    _, state = _changed(machine)
    assert [TWELVE in item.backends for item in state.services] == [True, True, False]


def test_states_and_weights_do_not_make_backends_other_ones() -> None:
    machine = _up(DNS, DNS_TCP)
    Balancer(machine).edit_backend(TEN, lambda it: replace(it, weight=3))
    _go_on(machine)
    Balancer(machine).edit_backend(TEN, live.drain, service="dns")
    _go_on(machine)
    Balancer(machine).add_backend(TWELVE)
    _, state = _changed(machine)
    drained = replace(TEN, weight=3, state=BackendState.DRAIN)
    assert [item.backends for item in state.services] == [(drained, ELEVEN, TWELVE)] * 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda it: it.add_backend(Backend(TEN.address, 53)), "has several services"),
        (lambda it: it.add_backend(ELEVEN, service="web6"), "there is no IPv4 service web6"),
        (lambda it: it.add_backend(ELEVEN6, service="web"), "there is no IPv6 service web"),
        (lambda it: it.add_backend(TEN, service="web"), "is there already"),
        (lambda it: it.add_backend(Backend(ip_address(A)), service="web"), "service itself"),
        (lambda it: it.remove_backend(ELEVEN, service="web"), "there is no backend"),
        (lambda it: it.remove_backend(TEN, service="mail"), "there is no backend"),
        (lambda it: it.edit_backend(TWELVE, live.drain, service=A), "there is no backend"),
    ],
)
def test_what_fits_no_service_is_refused(change: Callable[[Balancer], object], reason: str) -> None:
    machine = _up(DNS, WEB, DNS6)
    with pytest.raises(InvalidValueError, match=reason) as caught:
        change(Balancer(machine))
    assert caught.value.hint
    assert machine.changed == []
    assert machine.managed == []


def test_a_backend_that_one_of_the_services_has_already_is_added_to_none() -> None:
    machine = _up(DNS, replace(WEB, name="dns"))
    with pytest.raises(InvalidValueError, match="is there already"):
        Balancer(machine).add_backend(ELEVEN, service="dns")
    assert machine.changed == []


def test_a_backend_is_removed_from_all_services_that_have_it() -> None:
    machine = _up(DNS, WEB, DNS6)
    Balancer(machine).remove_backend(TEN)
    plan, state = _changed(machine)
    assert _backends(state) == [[f"{ELEVEN}"], [f"{TWELVE}"], [f"{TEN6}", f"{ELEVEN6}"]]
    assert [record.state.name for record in plan.records] == ["UNUSED", "UP", "UNUSED", "UP"]


def test_a_service_without_the_backend_is_not_touched_by_its_removal() -> None:
    machine = _up(DNS, WEB)
    Balancer(machine).remove_backend(TWELVE)
    plan, state = _changed(machine)
    assert state.services == (DNS, replace(WEB, backends=(TEN,)))
    assert plan.tables[0] == machine.loaded[0][0][0].tables[0]


@pytest.mark.parametrize("named", ["web", B])
def test_a_backend_is_removed_from_the_service_that_is_named_alone(named: str) -> None:
    machine = _up(DNS, WEB)
    Balancer(machine).remove_backend(TEN, service=named)
    _, state = _changed(machine)
    assert state.services == (DNS, replace(WEB, backends=(TWELVE,)))


def test_the_last_backend_of_any_service_stays() -> None:
    machine = _up(DNS, replace(WEB, backends=(TEN,)))
    with pytest.raises(InvalidValueError, match="the only one of its service"):
        Balancer(machine).remove_backend(TEN)
    assert machine.changed == []
    Balancer(machine).remove_backend(TEN, service="dns")
    assert _backends(_changed(machine)[1]) == [[f"{ELEVEN}"], [f"{TEN}"]]


def test_a_backend_is_drained_in_all_services_that_have_it() -> None:
    machine = _up(DNS, WEB, DNS_TCP)
    change = Balancer(machine).edit_backend(ELEVEN, live.drain)
    drained = replace(ELEVEN, state=BackendState.DRAIN)
    assert change.services == tuple(
        replace(item, backends=(TEN, drained)) if item is not WEB else WEB
        for item in (DNS, WEB, DNS_TCP)
    )


@pytest.mark.parametrize("named", ["web", B])
def test_a_backend_is_drained_in_the_service_that_is_named_alone(named: str) -> None:
    machine = _up(DNS, WEB)
    Balancer(machine).edit_backend(TEN, live.drain, service=named)
    plan, state = _changed(machine)
    assert [item.backends[0].state for item in state.services] == [
        BackendState.UP,
        BackendState.DRAIN,
    ]
    assert [record.state.name for record in plan.records] == ["UP", "UP", "DRAIN", "UP"]
    assert (set(plan.tables[0]), set(plan.tables[2])) == ({0, 1}, {3})


def test_a_backend_spoken_to_from_two_addresses_is_changed_under_both() -> None:
    machine = _up(replace(DNS, nat_addresses=(N1, N2)))
    Balancer(machine).edit_backend(TEN, live.drain)
    plan, _ = _changed(machine)
    assert [record.state.name for record in plan.records] == ["DRAIN", "DRAIN", "UP", "UP"]
    _go_on(machine)
    Balancer(machine).remove_backend(TEN)
    plan, _ = _changed(machine)
    assert [record.state.name for record in plan.records] == ["UNUSED", "UNUSED", "UP", "UP"]
    _go_on(machine)
    Balancer(machine).add_backend(TWELVE)
    plan, _ = _changed(machine)
    assert [(f"{item.address}", item.local) for item in plan.records[:2]] == [
        (f"{TWELVE}", 1),
        (f"{TWELVE}", 2),
    ]
    assert [record.generation for record in plan.records] == [1, 1, 0, 0]


def test_a_change_of_ipv4_leaves_ipv6_as_it_is() -> None:
    machine = _up(DNS, DNS6)
    before = machine.balancers[0].state
    Balancer(machine).add_backend(TWELVE)
    plan, state = _changed(machine)
    assert plan.version == IPV4
    assert state.side(IPV6) == before.side(IPV6)
    assert state.side(IPV4) == plan.side != before.side(IPV4)


def test_a_change_of_ipv6_leaves_ipv4_as_it_is() -> None:
    machine = _up(DNS, DNS6)
    before = machine.balancers[0].state
    Balancer(machine).remove_backend(TEN6)
    plan, state = _changed(machine)
    assert plan.version == IPV6
    assert [record.state for record in plan.records] == [BackendCode.UNUSED, BackendCode.UP]
    assert state.side(IPV4) == before.side(IPV4)
    assert state.side(IPV6) == plan.side
    assert replace(state, sides=before.sides, restore=before.restore) == before


def test_numbers_and_addresses_of_services_outlive_a_change() -> None:
    machine = _up(WEB, DNS, DNS_TCP)
    Balancer(machine).up(Request(("eth0",), (DNS_TCP, DNS)))
    machine.run_on()
    Balancer(machine).add_backend(TWELVE)
    _, state = _changed(machine)
    (side,) = state.sides
    assert [(item.number, item.service.protocol) for item in side.services] == [
        (1, Protocol.TCP),
        (2, Protocol.UDP),
    ]
    assert side.addresses == machine.loaded[-1][0][0].addresses
