"""Flows picked out of all that there are."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from xdplb.listing import Flow, Wanted, pick
from xdplb.model import IPV4, IPV6, Endpoint, Protocol
from xdplb.saved import FLOW, Lane, Part, Saved

LANES = (
    Lane(
        ip_address("192.0.2.1"),
        Protocol.UDP,
        ip_address("192.0.2.10"),
        None,
        ip_address("192.0.2.1"),
    ),
    Lane(
        ip_address("192.0.2.1"),
        Protocol.TCP,
        ip_address("192.0.2.11"),
        8080,
        ip_address("192.0.2.9"),
    ),
)
LANES6 = (
    Lane(
        ip_address("2001:db8::1"),
        Protocol.UDP,
        ip_address("2001:db8::10"),
        5353,
        ip_address("2001:db8::1"),
    ),
)


def packed(
    version: int, client: str, port: int, dialled: int, nat: int, lane: int, idle: int, state: int
) -> bytes:
    ports = [number.to_bytes(2, "big") for number in (port, dialled, nat)]
    return FLOW[version].pack(
        ip_address(client).packed, *ports, lane, idle, state, 0, bytes(6), bytes(8)
    )


SAVED = Saved(
    at=0.0,
    interfaces=("eth0", ""),
    states=("unreplied", "answered"),
    parts=(
        Part(
            IPV4,
            LANES,
            memoryview(
                packed(IPV4, "198.51.100.7", 5555, 53, 2000, 0, 3000, 1)
                + packed(IPV4, "198.51.100.8", 5555, 53, 2001, 0, 1000, 0)
                + packed(IPV4, "198.51.100.7", 5556, 80, 2000, 1, 2000, 1)
            ),
        ),
        Part(IPV6, LANES6, memoryview(packed(IPV6, "2001:db8:1::7", 5555, 53, 2000, 0, 500, 1))),
    ),
)
FIRST = Flow(
    client=Endpoint(ip_address("198.51.100.7"), 5555),
    service=Endpoint(ip_address("192.0.2.1"), 53),
    protocol=Protocol.UDP,
    backend=Endpoint(ip_address("192.0.2.10"), 53),
    nat=Endpoint(ip_address("192.0.2.1"), 2000),
    state="answered",
    idle_s=3.0,
    interface="eth0",
)


def nat_ports(**fields: Any) -> list[tuple[str, int]]:
    """Whom a question finds: client and NAT port."""
    return [(f"{flow.client}", flow.nat.port) for flow in pick(SAVED, Wanted(**fields)).flows]


ALL = [
    ("[2001:db8:1::7]:5555", 2000),
    ("198.51.100.8:5555", 2001),
    ("198.51.100.7:5556", 2000),
    ("198.51.100.7:5555", 2000),
]


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({}, [0, 1, 2, 3]),
        ({"clients": ip_network("198.51.100.7/32")}, [2, 3]),
        ({"clients": ip_network("198.51.100.0/24")}, [1, 2, 3]),
        ({"clients": ip_network("198.51.100.7/32"), "client_port": 5556}, [2]),
        ({"clients": ip_network("2001:db8::/32")}, [0]),
        ({"clients": ip_network("203.0.113.0/24")}, []),
        ({"backend": ip_address("192.0.2.10")}, [1, 3]),
        ({"backend": ip_address("192.0.2.11"), "backend_port": 8080}, [2]),
        ({"backend": ip_address("192.0.2.11"), "backend_port": 80}, []),
        ({"backend": ip_address("192.0.2.10"), "backend_port": 53}, [1, 3]),
        ({"state": "unreplied"}, [1]),
        ({"nat_port": 2000}, [0, 2, 3]),
        ({"nat_port": 2000, "nat_address": ip_address("192.0.2.9")}, [2]),
        ({"services": lambda address, protocol, port: (f"{address}", protocol, port) == ("192.0.2.1", Protocol.TCP, 80)}, [2]),  # noqa: E501 - a row
    ],
)  # fmt: skip
def test_only_the_flows_that_are_meant_are_picked(fields: dict[str, Any], found: list[int]) -> None:
    assert nat_ports(**fields) == [ALL[number] for number in found]


def test_a_flow_is_told_with_all_that_is_known() -> None:
    listing = pick(SAVED, Wanted(client_port=5555, backend=ip_address("192.0.2.10")))
    assert listing.flows[-1] == FIRST


def test_a_limit_keeps_those_that_were_seen_last() -> None:
    listing = pick(SAVED, Wanted(), 2)
    assert [flow.idle_s for flow in listing.flows] == [0.5, 1.0]
    assert listing.total == 4


def test_a_client_that_sends_from_port_0_to_port_0_is_listed_like_others() -> None:
    flows = memoryview(packed(IPV4, "198.51.100.9", 0, 0, 2002, 0, 0, 0))
    listing = pick(replace(SAVED, parts=(Part(IPV4, LANES, flows),)), Wanted())
    (flow,) = listing.flows
    assert [f"{it}" for it in (flow.client, flow.service, flow.backend)] == [
        *("198.51.100.9:0", "192.0.2.1:0", "192.0.2.10:0")
    ]
