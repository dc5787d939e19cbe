"""Plans over time: numbers, generations, groups and chains when backends come and go."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

import pytest
from fake_machine import OWN
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import facts_for, plan_of

from xdplb import wire
from xdplb.errors import InvalidValueError
from xdplb.facts import Neighbour
from xdplb.model import IPV4, IPV6, Backend, Endpoint, Hash, Mode, PortRange, Protocol, Reservation
from xdplb.plan import Hop, Place, Plan, Port, make_plan, with_macs
from xdplb.request import simple_request
from xdplb.selection import MAGLEV_SIZE, address_hash, select_slot
from xdplb.wire import BackendCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdplb.model import Address

ROUTER = IPv4Address("192.0.2.254")
NETWORK4, NETWORK6 = IPv4Address("192.0.2.0"), IPv6Address("2001:db8::")
SERVICE4, SERVICE6 = OWN[IPV4], OWN[IPV6]


def _plan(
    last: Plan | None,
    numbers: Sequence[int],
    hop: IPv4Address | None = None,
    protocols: tuple[Protocol, ...] = (Protocol.UDP,),
) -> Plan:
    """The plan for backends 192.0.2.0 + NUMBER that replaces ``last``."""
    backends = tuple(Backend(NETWORK4 + number) for number in numbers)
    ports = (PortRange(53, 53),)
    asked = simple_request(("eth0",), backends, max_flows=400, protocols=protocols, ports=ports)
    return plan_of(asked, last, hop=hop)


def _plan6(last: Plan | None, numbers: Sequence[int], **options: Any) -> Plan:
    """The plan for backends 2001:db8::NUMBER that replaces ``last``."""
    backends = tuple(Backend(NETWORK6 + number) for number in numbers)
    return plan_of(simple_request(("eth0",), backends, max_flows=400, **options), last)


def _numbers(plan: Plan) -> dict[str, int]:
    return {f"{target.backend}": number for target, number in plan.numbers.items()}


def _chain(plan: Plan, hop: Address) -> list[int]:
    number, visited = plan.next_hops[hop], []
    while number != wire.NO_INDEX:
        visited.append(number)
        number = plan.records[number].next_neighbour
    return visited


def test_a_number_that_changes_hands_gets_another_generation() -> None:
    first = _plan(None, [10, 11])
    second = _plan(first, [10, 12])
    assert _numbers(second) == {"192.0.2.10": 0, "192.0.2.12": 1}
    assert [record.generation for record in second.records] == [0, 1]


def test_a_generation_wraps_at_a_byte() -> None:
    plan = _plan(None, [10])
    for turn in range(256):
        plan = _plan(plan, [11 + turn % 2])
    assert plan.records[0].generation == 0


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sets(st.integers(10, 20), min_size=1), min_size=2, max_size=6))
def test_a_backend_that_stays_keeps_number_generation_and_group(steps: list[set[int]]) -> None:
    before = _plan(None, sorted(steps[0]))
    for step in steps[1:]:
        after = _plan(before, sorted(step))
        for backend in set(before.numbers) & set(after.numbers):
            number = before.numbers[backend]
            old, new = before.records[number], after.records[after.numbers[backend]]
            assert after.numbers[backend] == number
            assert (new.generation, new.slot_first) == (old.generation, old.slot_first)
        before = after


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sets(st.integers(10, 40), min_size=1), min_size=1, max_size=4))
def test_a_chain_visits_exactly_the_backends_behind_its_next_hop(steps: list[set[int]]) -> None:
    plan = None
    for step in steps:
        plan = _plan(plan, sorted(step), ROUTER)
    assert plan is not None
    visited = _chain(plan, ROUTER)
    assert sorted(visited) == sorted(plan.numbers.values())
    assert len(visited) == len(set(visited))


def test_a_backend_that_left_does_not_make_the_others_share_ports() -> None:
    """There are four groups and, after the second up, two addresses."""
    first = _plan(None, [10, 11, 12, 13])
    second = _plan(first, [10, 20])
    slots = [
        second.slots[Place(Protocol.UDP, target.backend.address, target.own)]
        for target in second.numbers
    ]
    assert len(set(slots)) == 2


def test_a_backend_that_left_is_unused_and_out_of_the_table() -> None:
    second = _plan(_plan(None, [10, 11]), [10])
    assert second.records[1].state is BackendCode.UNUSED
    assert set(second.tables[0]) == {0}


def test_each_protocol_has_numbers_ports_and_a_table_of_its_own() -> None:
    plan = _plan(None, [10, 11], protocols=(Protocol.UDP, Protocol.TCP))
    assert [record.protocol for record in plan.records] == [
        *(Protocol.UDP, Protocol.UDP),
        *(Protocol.TCP, Protocol.TCP),
    ]
    assert len(set(plan.slots.values())) == 4
    assert set(plan.tables[0]) == {0, 1}
    assert set(plan.tables[1]) == {2, 3}
    again = _plan(plan, [11, 10], protocols=(Protocol.TCP,))
    assert {number: again.records[number].address for number in set(again.tables[1])} == {
        2: IPv4Address("192.0.2.10"),
        3: IPv4Address("192.0.2.11"),
    }
    assert [record.state for record in again.records[:2]] == [BackendCode.UNUSED] * 2


def test_more_backends_behind_a_router_than_the_program_follows_are_refused() -> None:
    assert len(_chain(_plan(None, range(2, 1026), ROUTER), ROUTER)) == 1024
    with pytest.raises(InvalidValueError, match="1025 backends behind the next hop"):
        _plan(None, range(2, 1027), ROUTER)


def test_addresses_that_share_a_hash_find_places_in_the_next_buckets() -> None:
    numbers = range(2, 200)
    plan = _plan(None, numbers)
    buckets = plan.buckets()
    assert len(buckets) == plan.room
    assert sum(len(bucket.entries) for bucket in buckets) == len(numbers)
    crowd = [number for number in range(2, 300_000) if _bucket(number) == 7][:33]
    plan = _plan(None, crowd[:32])
    assert [len(bucket.entries) for bucket in plan.buckets()[7:15]] == [4] * 8
    assert [bucket.continues for bucket in plan.buckets()[6:15]] == [False, *[True] * 7, False]
    with pytest.raises(InvalidValueError, match="no place in a table of 256 buckets"):
        _plan(None, crowd).buckets()


def _bucket(number: int) -> int:
    return address_hash(IPv4Address("192.0.2.0") + number) % 256


@pytest.mark.parametrize(
    ("servers", "ports", "message"),
    [
        (1, 32769, "32769 backends behind the next hop 192.0.2.10 are too many"),
        (33, 1000, "33000 backends are too many"),
    ],
)
def test_too_many_backends_are_refused(servers: int, ports: int, message: str) -> None:
    backends = tuple(
        Backend(NETWORK4 + 10 + number, port)
        for number in range(servers)
        for port in range(1, ports + 1)
    )
    with pytest.raises(InvalidValueError, match=message) as refused:
        plan_of(simple_request(("eth0",), backends))
    assert refused.value.hint


def test_an_ipv6_plan_is_one_throughout() -> None:
    plan = _plan6(None, [0x10, 0x11])
    assert plan.version == IPV6
    assert _numbers(plan) == {"2001:db8::10": 0, "2001:db8::11": 1}
    assert plan.next_hops == {NETWORK6 + 0x10: 0, NETWORK6 + 0x11: 1}
    assert set(plan.tables[0]) == {0, 1}
    buckets = plan.buckets()
    assert {bucket.version for bucket in buckets} == {IPV6}
    assert {len(bucket.pack()) for bucket in buckets} == {wire.SIZES[IPV6]["address_bucket"]}
    assert {
        (entry.address, number) for number, bucket in enumerate(buckets) for entry in bucket.entries
    } == {(address, address_hash(address) % plan.room) for address in plan.next_hops}


def test_ipv6_backends_come_and_go_as_those_of_ipv4_do() -> None:
    first = _plan6(None, [0x10, 0x11])
    second = _plan6(first, [0x11, 0x12])
    assert _numbers(second) == {"2001:db8::11": 1, "2001:db8::12": 0}
    assert [record.generation for record in second.records] == [1, 0]
    assert _plan6(second, [0x12]).records[1].state is BackendCode.UNUSED


def test_ipv6_backends_of_one_network_all_find_places() -> None:
    plan = _plan6(None, range(0x10, 0x10 + 1000))
    assert sum(len(bucket.entries) for bucket in plan.buckets()) == 1000


def test_ipv6_backends_behind_a_router_are_one_chain() -> None:
    router = IPv6Address("fe80::1")
    addresses = [NETWORK6 + number for number in range(0x10, 0x20)]
    facts = replace(
        facts_for(IPV6, addresses), hops={address: Hop(router, 0, 2) for address in addresses}
    )
    asked = simple_request(("eth0",), tuple(map(Backend, addresses)))
    plan = make_plan(asked.with_addresses(OWN), facts)
    assert _chain(plan, router) == list(range(15, -1, -1))
    mac = bytes.fromhex("020000000009")
    assert {record.mac for record in with_macs(plan, {(2, router): Neighbour(mac)}).records} == {
        mac
    }
    elsewhere = with_macs(plan, {(3, router): Neighbour(mac)})
    assert {record.mac for record in elsewhere.records} == {None}


def test_each_ip_version_gets_its_own_part_of_a_request() -> None:
    addresses: list[Address] = [SERVICE4 + 9, SERVICE6 + 9, SERVICE4 + 10, SERVICE6 + 10]
    clients: list[Address] = [IPv4Address("198.51.100.7"), IPv6Address("2001:db8:7::7")]
    both = simple_request(
        ("eth0",),
        tuple(Backend(address) for address in addresses),
        services=(SERVICE4, SERVICE6),
        protocols=(Protocol.UDP, Protocol.TCP),
        ports=(PortRange(53, 53),),
        reservations=tuple(
            Reservation(Endpoint(client, 5555), port)
            for client, port in zip(clients, (2000, 2001), strict=True)
        ),
        max_flows=400,
    )
    services: list[Address] = [SERVICE4, SERVICE6]
    for service in services:
        plan = plan_of(both, version=service.version)
        own = [address for address in addresses if address.version == service.version]
        assert plan.version == service.version
        assert [record.address for record in plan.records] == [*own, *own]
        assert {target.backend.address for target in plan.numbers} == set(own)
        assert {place.address for place in plan.slots} == set(own) == set(plan.next_hops)
        assert {place.own for place in plan.slots} == {service}
        assert [item.key.protocol for item in plan.reserved] == [Protocol.UDP, Protocol.TCP]
        for item in plan.reserved:
            assert item.key.client.version == item.flow.client.version == service.version
            assert item.key.service == service
            assert item.flow.service == item.key.number
            assert item.value.nat_port == {IPV4: 2000, IPV6: 2001}[service.version]


def test_an_ipv6_reservation_leads_where_the_program_would() -> None:
    client = (IPv6Address("2001:db8:7::7"), 5555)
    item = Reservation(Endpoint(*client), 2042)
    plan = _plan6(None, range(0x10, 0x20), reservations=(item,), hash=Hash.FIVE_TUPLE)
    (flow,) = plan.reserved
    slot = select_slot(Hash.FIVE_TUPLE, (1, 2), client, (SERVICE6, 0), Protocol.UDP)
    assert 0 <= slot < MAGLEV_SIZE
    assert flow.value.backend == plan.tables[0][slot]
    assert flow.index == plan.records[flow.value.backend].slot_first + 42
    assert len(flow.key.pack()) == wire.SIZES[IPV6]["client_key"]
    assert len(flow.flow.pack()) == wire.SIZES[IPV6]["flow"]


@pytest.mark.parametrize(("ports", "mtu"), [({}, 1500), ({"mtu": 9000}, 9000)])
def test_an_interface_is_told_how_much_it_can_send(ports: dict[str, int], mtu: int) -> None:
    port = Port("eth0", 2, bytes(6), Mode.NATIVE, redirect=True, **ports)
    plan = _plan6(None, [0x10])
    plan = replace(plan, facts=replace(plan.facts, ports=(port,)))
    assert plan.interface_records() == [wire.InterfaceRecord(None, 2, True, mtu).pack()]  # noqa: FBT003 - a field
