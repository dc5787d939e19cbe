"""Plans of several services: numbers, addresses, and backends spoken to from several addresses."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import ip_address
from itertools import chain

import pytest
from fake_machine import service
from hypothesis import given
from hypothesis import strategies as st
from plans import plan_for

from xdplb import wire
from xdplb.errors import InvalidValueError
from xdplb.model import BackendState, OnDown, PortRange, Protocol
from xdplb.plan import Plan, backend_code, backend_state, in_places, number_services
from xdplb.selection import MAGLEV_SIZE
from xdplb.state import Installed
from xdplb.wire import BackendCode

A, B, C = (f"192.0.2.{number}" for number in (1, 2, 3))
N1, N2, N3 = (ip_address(f"192.0.2.{number}") for number in (101, 102, 103))
TEN, ELEVEN = "192.0.2.10", "192.0.2.11"
TCP = Protocol.TCP
PORTS = [(port,) for port in range(1, 200)]


def _numbers(items: tuple[Installed, ...]) -> list[int]:
    return [item.number for item in items]


def _targets(plan: Plan) -> list[tuple[int, int, str, str]]:
    """Number, service, backend and own address of each record that is in use."""
    return sorted(
        (number, target.service, f"{target.backend}", f"{target.own}")
        for target, number in plan.numbers.items()
    )


# Numbers of services


def test_services_of_udp_have_even_numbers_and_those_of_tcp_odd_ones() -> None:
    services = [
        service(A, TEN),
        service(A, TEN, protocol=TCP),
        service(B, TEN, protocol=TCP),
        service(B, TEN),
        service(C, TEN),
    ]
    assert _numbers(number_services(services, ())) == [0, 1, 3, 2, 4]
    assert [item.service for item in number_services(services, ())] == services


def test_a_service_that_runs_keeps_its_number_and_a_new_one_gets_the_lowest_free() -> None:
    old = tuple(Installed(number, service(A, TEN, ports=PORTS[number])) for number in (2, 4, 8))
    new = [service(A, TEN, ports=PORTS[number]) for number in (20, 8, 21, 4, 22)]
    assert _numbers(number_services(new, old)) == [0, 8, 2, 4, 6]


def test_a_number_that_a_service_left_behind_is_free_at_once() -> None:
    first = number_services([service(A, TEN), service(B, TEN)], ())
    second = number_services([service(C, TEN), service(B, TEN)], first)
    assert _numbers(second) == [0, 2]


def test_a_kept_number_counts_before_the_new_services_that_stand_in_front() -> None:
    first = number_services([service(A, TEN)], ())
    assert _numbers(number_services([service(B, TEN), service(A, TEN)], first)) == [2, 0]


@pytest.mark.parametrize(("protocol", "most"), [(Protocol.UDP, 128), (TCP, 127)])
def test_there_are_no_more_services_than_numbers(protocol: Protocol, most: int) -> None:
    services = [service(A, TEN, ports=PORTS[port], protocol=protocol) for port in range(most)]
    numbers = _numbers(number_services(services, ()))
    assert len(set(numbers)) == most
    assert max(numbers) < wire.NO_SERVICE
    one_more = service(A, TEN, ports=PORTS[most], protocol=protocol)
    with pytest.raises(InvalidValueError, match=f"{most + 1} services are too many") as caught:
        number_services([*services, one_more], ())
    assert caught.value.hint


@given(st.lists(st.sets(st.integers(0, 30), min_size=1), min_size=2, max_size=5))
def test_services_come_and_go_and_those_that_stay_keep_their_numbers(
    steps: list[set[int]],
) -> None:
    before: dict[tuple[PortRange, ...], int] = {}
    installed: tuple[Installed, ...] = ()
    for step in steps:
        wanted = [
            service(A, TEN, ports=PORTS[port], protocol=TCP if port % 3 else Protocol.UDP)
            for port in sorted(step)
        ]
        installed = number_services(wanted, installed)
        after = {item.service.ports: item.number for item in installed}
        assert len(set(after.values())) == len(wanted)
        assert all(wire.protocol_of(item.number) is item.service.protocol for item in installed)
        assert all(after[ports] == number for ports, number in before.items() if ports in after)
        before = after


# Addresses


def test_the_addresses_are_those_dialled_and_those_for_nat_in_the_order_of_the_services() -> None:
    plan = plan_for(
        service(A, TEN, nat_addresses=(N2, N1)),
        service(B, TEN),
        service(A, TEN, protocol=TCP, nat_addresses=(N1, N3)),
    )
    assert [f"{item}" for item in plan.addresses] == [A, f"{N2}", f"{N1}", B, f"{N3}"]
    assert plan.side.addresses == plan.addresses


@pytest.mark.parametrize(
    ("old", "wanted", "placed"),
    [
        ((A, B), (B, A), (A, B)),
        ((A,), (B, A), (A, B)),
        ((A, B), (C, B), (C, B)),
        ((A, B), (B, C), (C, B)),
        ((A, B), (B,), (B,)),
        ((), (B, A), (B, A)),
    ],
)
def test_what_is_there_already_keeps_its_place(
    old: tuple[str, ...], wanted: tuple[str, ...], placed: tuple[str, ...]
) -> None:
    assert in_places(wanted, old) == placed


def test_an_address_keeps_its_number_when_another_one_comes_before_it() -> None:
    before = plan_for(service(A, TEN))
    after = plan_for(service(B, TEN), service(A, TEN), last=before)
    assert [f"{address}" for address in after.addresses] == [A, B]


@pytest.mark.parametrize("nat", [0, 40])
def test_sixty_five_addresses_are_refused(nat: int) -> None:
    own = tuple(ip_address(f"198.51.100.{number}") for number in range(1, nat + 1))
    services = [service(f"203.0.113.{number}", TEN) for number in range(1, 65 - nat)]
    services[0] = replace(services[0], nat_addresses=own)
    assert len(plan_for(*services).addresses) == 64
    with pytest.raises(InvalidValueError, match="65 addresses") as caught:
        plan_for(*services, service("203.0.113.200", TEN))
    assert caught.value.hint


# Backends of several services, and spoken to from several addresses


def test_a_backend_of_two_services_has_a_record_in_each() -> None:
    plan = plan_for(service(A, TEN, ELEVEN), service(A, ELEVEN, ports=(54,)))
    assert _targets(plan) == [(0, 0, TEN, A), (1, 0, ELEVEN, A), (2, 2, ELEVEN, A)]
    assert [record.service for record in plan.records] == [0, 0, 2]
    assert set(plan.tables) == {0, 2}
    assert (set(plan.tables[0]), set(plan.tables[2])) == ({0, 1}, {2})


def test_services_with_one_address_toward_a_backend_share_its_ports() -> None:
    plan = plan_for(service(A, TEN), service(A, TEN, ports=(54,)), service(B, TEN))
    first, second, other = ((item.slot_first, item.slot_count) for item in plan.records)
    assert first == second != other


def test_a_backend_spoken_to_from_two_addresses_has_two_records_with_ports_of_their_own() -> None:
    plan = plan_for(service(A, TEN, ELEVEN, nat_addresses=(N1, N2)))
    assert _targets(plan) == [
        (0, 0, TEN, f"{N1}"),
        (1, 0, TEN, f"{N2}"),
        (2, 0, ELEVEN, f"{N1}"),
        (3, 0, ELEVEN, f"{N2}"),
    ]
    assert [plan.addresses[record.local] for record in plan.records] == [N1, N2, N1, N2]
    assert [record.local for record in plan.records] == [1, 2, 1, 2]
    assert len({record.slot_first for record in plan.records}) == 4


def test_records_share_ports_only_where_there_is_no_room() -> None:
    few = plan_for(service(A, TEN, nat_addresses=(N1, N2)), max_flows=100)
    assert len({record.slot_first for record in few.records}) == 1
    more = plan_for(service(A, TEN, nat_addresses=(N1, N2)), max_flows=200)
    assert len({record.slot_first for record in more.records}) == 2


def test_both_addresses_have_equal_shares_of_the_table() -> None:
    plan = plan_for(service(A, TEN, ELEVEN, nat_addresses=(N1, N2)))
    shares = Counter(plan.tables[0])
    assert set(shares) == {0, 1, 2, 3}
    assert max(shares.values()) - min(shares.values()) <= 1
    assert sum(shares.values()) == MAGLEV_SIZE


def test_a_client_gets_the_same_address_whatever_number_the_record_has() -> None:
    """The table is of backends and addresses; numbers come from what ran before."""
    wanted = service(A, TEN, ELEVEN, nat_addresses=(N1, N2))
    fresh = plan_for(wanted)
    first = plan_for(service(A, "192.0.2.12", ELEVEN, nat_addresses=(N2,)))
    later = plan_for(wanted, last=first)
    assert _targets(later) != _targets(fresh)
    lanes = [
        [(plan.records[number].address, plan.addresses[plan.records[number].local]) for number in t]
        for plan, t in ((fresh, fresh.tables[0]), (later, later.tables[0]))
    ]
    assert lanes[0] == lanes[1]


def test_another_nat_address_leaves_most_clients_where_they_are() -> None:
    before = plan_for(service(A, TEN, ELEVEN, nat_addresses=(N1, N2)))
    after = plan_for(service(A, TEN, ELEVEN, nat_addresses=(N1, N2, N3)), last=before)
    moved = sum(a != b for a, b in zip(before.tables[0], after.tables[0], strict=True))
    assert 1 / 3 <= moved / MAGLEV_SIZE + 0.001 < 0.5


def test_a_draining_backend_is_in_no_table_under_any_address() -> None:
    item = service(A, TEN, ELEVEN, nat_addresses=(N1, N2))
    drained = replace(item.backends[0], state=BackendState.DRAIN)
    plan = plan_for(replace(item, backends=(drained, item.backends[1])))
    assert [record.state.name for record in plan.records] == ["DRAIN", "DRAIN", "UP", "UP"]
    assert set(plan.tables[0]) == {2, 3}


# States


@pytest.mark.parametrize(
    ("state", "on_down", "code"),
    [
        (BackendState.UP, OnDown.REHASH, BackendCode.UP),
        (BackendState.UP, OnDown.DROP, BackendCode.UP),
        (BackendState.DRAIN, OnDown.REHASH, BackendCode.DRAIN),
        (BackendState.DRAIN, OnDown.DROP, BackendCode.DRAIN),
        (BackendState.DOWN, OnDown.REHASH, BackendCode.DOWN),
        (BackendState.DOWN, OnDown.DROP, BackendCode.HELD),
    ],
)
def test_what_becomes_of_flows_is_in_the_state_of_a_backend_that_is_down(
    state: BackendState, on_down: OnDown, code: BackendCode
) -> None:
    assert backend_code(state, on_down) is code
    assert backend_state(code) is state


def test_each_service_says_what_becomes_of_flows_of_its_own() -> None:
    item = service(A, TEN, ELEVEN)
    down = replace(item.backends[0], state=BackendState.DOWN)
    item = replace(item, backends=(down, item.backends[1]))
    plan = plan_for(item, replace(item, protocol=TCP, on_down=OnDown.DROP))
    assert [record.state.name for record in plan.records] == ["DOWN", "UP", "HELD", "UP"]
    assert (set(plan.tables[0]), set(plan.tables[1])) == ({1}, {3})


# One plan after the other


def test_services_that_stay_keep_the_records_of_their_backends() -> None:
    services = [
        service(A, TEN, ELEVEN),
        service(B, TEN, nat_addresses=(N1, N2)),
        service(A, TEN, protocol=TCP),
    ]
    first = plan_for(*services)
    again = plan_for(*services, last=first)
    assert again.records == first.records
    turned = plan_for(*services[::-1], last=first)
    assert _targets(turned) == _targets(first)
    assert [record._replace(local=0) for record in turned.records] == [
        record._replace(local=0) for record in first.records
    ]
    for record, before in zip(turned.records, first.records, strict=True):
        assert turned.addresses[record.local] == first.addresses[before.local]


def test_a_removed_backend_keeps_its_address_while_the_balancer_has_it() -> None:
    first = plan_for(service(A, TEN), service(B, TEN, ELEVEN))
    assert [record.local for record in first.records] == [0, 1, 1]
    second = plan_for(service(C, TEN), service(B, TEN), last=first)
    assert [f"{item}" for item in second.addresses] == [C, B]
    gone = second.records[2]
    assert (gone.state, gone.address) == (BackendCode.UNUSED, ip_address(ELEVEN))
    assert second.addresses[gone.local] == ip_address(B)
    third = plan_for(service(B, TEN), last=second)
    assert third.records[2].local == 0
    fourth = plan_for(service(C, TEN), last=third)
    assert fourth.records[2].local == wire.NO_ADDRESS
    fifth = plan_for(service(C, TEN), service(B, TEN), last=fourth)
    assert fifth.records[2].local == wire.NO_ADDRESS


@pytest.mark.parametrize("protocol", Protocol)
def test_a_backend_keeps_its_ports_under_each_address(protocol: Protocol) -> None:
    first = plan_for(service(A, TEN, ELEVEN, protocol=protocol, nat_addresses=(N1, N2)))
    second = plan_for(service(A, ELEVEN, protocol=protocol, nat_addresses=(N2, N1)), last=first)
    assert [target[2:] for target in _targets(second)] == [
        (ELEVEN, f"{N1}"),
        (ELEVEN, f"{N2}"),
    ]
    assert [record.slot_first for record in second.records] == [0, 100, 200, 300]


def test_a_removed_backends_ports_are_still_its_own_under_the_address_it_had() -> None:
    first = plan_for(service(A, TEN, ELEVEN), service(B, TEN))
    second = plan_for(service(B, TEN), service(A, TEN), last=first)
    entries = list(chain.from_iterable(bucket.entries for bucket in second.buckets()))
    eleven = [item for item in entries if item.address == ip_address(ELEVEN)]
    (before,) = (item for item in first.records if item.address == ip_address(ELEVEN))
    assert [(item.local, item.first, item.records) for item in eleven] == [
        (0, before.slot_first, before.slot_count)
    ]


def test_a_number_that_goes_to_another_service_gets_another_generation() -> None:
    first = plan_for(service(A, TEN), service(B, TEN))
    second = plan_for(service(B, TEN), service(B, TEN, ports=(54,)), last=first)
    assert _targets(second) == [(0, 0, TEN, B), (1, 2, TEN, B)]
    assert [record.generation for record in second.records] == [1, 0]


@pytest.mark.parametrize("before", [(), (N2,)])
def test_another_nat_address_makes_another_record(before: tuple[object, ...]) -> None:
    first = plan_for(service(A, TEN, nat_addresses=before))
    second = plan_for(service(A, TEN, nat_addresses=(N1,)), last=first)
    assert _targets(second) == [(0, 0, TEN, f"{N1}")]
    assert second.records[0].generation == 1
    assert second.records[0].mac is None


def test_a_nat_address_that_is_added_makes_records_and_changes_none() -> None:
    first = plan_for(service(A, TEN, nat_addresses=(N1,)))
    second = plan_for(service(A, TEN, nat_addresses=(N2, N1)), last=first)
    assert _targets(second) == [(0, 0, TEN, f"{N1}"), (1, 0, TEN, f"{N2}")]
    assert second.addresses[second.records[0].local] == N1
    assert (second.records[0].generation, second.records[0].slot_first) == (
        0,
        first.records[0].slot_first,
    )


def test_a_balancer_that_was_not_there_has_removed_nothing() -> None:
    assert plan_for(service(A, TEN)).removed == ()


def test_services_that_are_no_longer_wanted_are_removed() -> None:
    first = plan_for(service(A, TEN), service(A, TEN, protocol=TCP), service(B, TEN))
    assert plan_for(*(item.service for item in first.services), last=first).removed == ()
    assert plan_for(service(B, ELEVEN), last=first).removed == first.services[:2]


def test_a_service_whose_number_goes_to_another_address_is_removed() -> None:
    first = plan_for(service(A, TEN))
    second = plan_for(service(B, TEN), last=first)
    assert _numbers(second.services) == [0]
    assert second.removed == first.services


def test_a_service_that_only_changes_is_not_removed() -> None:
    first = plan_for(service(A, TEN, ports=(53, 54)))
    changed = service(A, ELEVEN, ports=(54, 55), name="new", nat_addresses=(N1,))
    assert plan_for(changed, last=first).removed == ()
