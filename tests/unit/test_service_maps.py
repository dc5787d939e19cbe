"""The maps of a plan that say which service a packet is for, and when they are needed."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from itertools import chain
from typing import TYPE_CHECKING

import pytest
from fake_machine import service
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import plan_for

from xdplb import wire
from xdplb.model import ALL_PORTS, Hash, OnDown, PortRange, Protocol, Timeouts
from xdplb.wire import BucketEntry, ServiceRecord

if TYPE_CHECKING:
    from xdplb.plan import Plan
    from xdplb.request import Service

A, B, C = (f"192.0.2.{number}" for number in (1, 2, 3))
N1, N2 = (ip_address(f"192.0.2.{number}") for number in (101, 102))
TEN, ELEVEN = "192.0.2.10", "192.0.2.11"
TCP = Protocol.TCP
PORTS = 1 << 16


def _without(plan: Plan, gone: Service) -> Plan:
    return plan_for(
        *(item.service for item in plan.services if item.service is not gone), last=plan
    )


# Whether services are looked up


@pytest.mark.parametrize(
    "services",
    [
        [service(A, TEN)],
        [service(A, TEN, protocol=TCP)],
        [service(A, TEN), service(A, TEN, protocol=TCP)],
        [service(A, TEN), service(A, ELEVEN, protocol=TCP, name="tcp", on_down=OnDown.DROP)],
        [service(A, TEN, nat_addresses=(ip_address(A),))],
        [service("2001:db8::1", "2001:db8::10")],
    ],
    ids=["udp", "tcp", "both", "other backends", "its own address for nat", "ipv6"],
)
def test_what_one_address_and_set_of_ports_says_is_constant(services: list[Service]) -> None:
    assert not plan_for(*services).has_many


@pytest.mark.parametrize(
    "services",
    [
        [service(A, TEN), service(A, TEN, protocol=TCP, ports=(54,))],
        [service(A, TEN), service(A, TEN, protocol=TCP, hash=Hash.SRC)],
        [service(A, TEN), service(A, TEN, protocol=TCP, timeouts=Timeouts(established=60))],
        [service(A, TEN), service(A, TEN, ports=(54,))],
        [service(A, TEN), service(B, TEN)],
        [service(A, TEN), service(B, TEN, protocol=TCP)],
        [service(A, TEN, nat_addresses=(N1,))],
        [service(A, TEN, nat_addresses=(ip_address(A), N1))],
    ],
    ids=["ports", "hash", "timeouts", "two", "addresses", "and protocols", "nat", "more for nat"],
)
def test_whatever_differs_from_service_to_service_is_looked_up(services: list[Service]) -> None:
    assert plan_for(*services).has_many


def test_a_service_that_kept_a_high_number_is_looked_up() -> None:
    gone = service(A, TEN)
    plan = _without(plan_for(gone, service(B, TEN)), gone)
    assert [item.number for item in plan.services] == [2]
    assert plan.has_many


# The services


def test_a_service_record_says_what_its_service_is() -> None:
    plan = plan_for(
        service(A, TEN, nat_addresses=(N1,)),
        service(B, TEN, protocol=TCP, hash=Hash.SRC, timeouts=Timeouts(1, 2, 3, 4)),
        service(B, TEN, hash=Hash.FIVE_TUPLE, timeouts=Timeouts(established=86400)),
    )
    assert plan.service_records() == {
        0: ServiceRecord(table=0, local=0, hash=0, timeouts=(447, 1788, 3576, 110865)),
        1: ServiceRecord(table=2, local=2, hash=2, timeouts=(15, 30, 45, 60)),
        2: ServiceRecord(table=4, local=2, hash=1, timeouts=(447, 1788, 3576, 1287460)),
    }
    assert plan.tables.keys() == plan.service_records().keys()


def test_a_service_that_kept_its_number_keeps_its_tables() -> None:
    gone = service(A, TEN)
    plan = _without(plan_for(gone, service(B, TEN)), gone)
    assert {number: item.table for number, item in plan.service_records().items()} == {2: 4}
    assert plan.service_records()[2].local == 0


# The ports


def _at(blocks: list[bytes], address: int, protocol: Protocol, port: int) -> int:
    """Look a port up as the program does."""
    number = (2 * address + (protocol is TCP)) * 256 + port // 256
    return blocks[number][port % 256]


def test_every_address_has_a_block_for_every_256_ports_of_udp_and_of_tcp() -> None:
    for services, addresses in (
        ([service(A, TEN)], 1),
        ([service(A, TEN, nat_addresses=(N1,)), service(B, TEN, protocol=TCP)], 3),
    ):
        blocks = plan_for(*services).port_blocks()
        assert len(blocks) == addresses * 2 * 256
        assert {len(block) for block in blocks} == {wire.PORT_BLOCK} == {256}


def test_a_port_leads_to_its_service_and_every_other_to_none() -> None:
    wide = replace(service(B, TEN), ports=(PortRange(250, 520), PortRange(65535, 65535)))
    plan = plan_for(
        service(A, TEN, ports=(53, 1), nat_addresses=(N1,)),
        service(A, TEN, ports=(53, 443), protocol=TCP),
        wide,
        service(B, TEN, ports=(521,)),
    )
    blocks = plan.port_blocks()
    ports = {
        (place, protocol): {
            port: number
            for port in range(PORTS)
            if (number := _at(blocks, place, protocol, port)) != wire.NO_SERVICE
        }
        for place in range(3)
        for protocol in Protocol
    }
    assert ports == {
        (0, Protocol.UDP): {1: 0, 53: 0},
        (0, TCP): {53: 1, 443: 1},
        (1, Protocol.UDP): {},
        (1, TCP): {},
        (2, Protocol.UDP): {**dict.fromkeys(range(250, 521), 2), 65535: 2, 521: 4},
        (2, TCP): {},
    }


def test_a_service_of_all_ports_has_all_but_port_0() -> None:
    blocks = plan_for(replace(service(A, TEN), ports=ALL_PORTS)).port_blocks()
    assert b"".join(blocks[:256]) == bytes([wire.NO_SERVICE]) + bytes(PORTS - 1)
    assert set(b"".join(blocks[256:])) == {wire.NO_SERVICE}


_LINES = st.dictionaries(
    st.tuples(st.sampled_from([A, B, C]), st.sampled_from(Protocol)),
    st.lists(st.integers(1, 65534), min_size=2, max_size=10, unique=True).map(sorted),
    min_size=1,
    max_size=6,
)


@settings(max_examples=30, deadline=None)
@given(_LINES)
def test_the_blocks_are_a_dictionary_of_ports(
    lines: dict[tuple[str, Protocol], list[int]],
) -> None:
    """Each line has the ends of ranges; every second range is of the line's other service."""
    services: list[Service] = []
    for (address, protocol), ends in lines.items():
        ranges = [PortRange(*pair) for pair in zip(ends[::2], ends[1::2], strict=False)]
        services.extend(
            replace(service(address, TEN, protocol=protocol), ports=tuple(ports))
            for ports in (ranges[::2], ranges[1::2])
            if ports
        )
    plan = plan_for(*services)
    places = {address: number for number, address in enumerate(plan.addresses)}
    wanted = {
        (2 * places[item.service.dialled] + (item.service.protocol is TCP)) * PORTS + port: (
            item.number
        )
        for item in plan.services
        for part in item.service.ports
        for port in range(part.first, part.last + 1)
    }
    found = enumerate(b"".join(plan.port_blocks()))
    assert {place: number for place, number in found if number != wire.NO_SERVICE} == wanted


# Where the program looks backends up


def _entries(plan: Plan) -> list[BucketEntry]:
    return list(chain.from_iterable(bucket.entries for bucket in plan.buckets()))


def test_a_backend_has_a_place_for_each_address_that_it_is_spoken_to_from() -> None:
    plan = plan_for(
        service(A, TEN, nat_addresses=(N1, N2)),
        service(A, TEN, protocol=TCP),
        service(B, ELEVEN, TEN),
        service(A, ELEVEN, ports=(54,), nat_addresses=(N1, N2)),
    )
    assert [f"{item}" for item in plan.addresses] == [A, f"{N1}", f"{N2}", B]
    assert sorted(
        (f"{item.address}", item.protocol.number, item.local) for item in _entries(plan)
    ) == [
        (TEN, 6, 0),
        (TEN, 17, 1),
        (TEN, 17, 2),
        (TEN, 17, 3),
        (ELEVEN, 17, 1),
        (ELEVEN, 17, 2),
        (ELEVEN, 17, 3),
    ]


def test_a_place_says_which_records_are_the_backends_under_that_address() -> None:
    plan = plan_for(
        service(A, TEN, ELEVEN, nat_addresses=(N1, N2)),
        service(B, TEN, protocol=TCP),
    )
    slots = {
        (item.address, item.protocol, item.local): (item.first, item.records)
        for item in _entries(plan)
    }
    assert slots == {
        (record.address, record.protocol, record.local): (record.slot_first, record.slot_count)
        for record in plan.records
    }


def test_an_address_that_the_balancer_has_no_longer_has_no_place() -> None:
    gone = service(A, TEN)
    before = plan_for(gone, service(B, TEN))
    assert [item.local for item in _entries(before)] == [0, 1]
    after = _without(before, gone)
    assert [(item.local, item.first) for item in _entries(after)] == [
        (0, before.records[1].slot_first)
    ]
