"""What changes between two requests, in words."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from request_strategies import requests

from xdplb.checks import BelowMinimum, DnsCheck, Health, HttpCheck, UdpCheck
from xdplb.difference import Kind, difference
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
from xdplb.request import Request, Service

TEN, ELEVEN = Backend(ip_address("192.0.2.10")), Backend(ip_address("192.0.2.11"), 53)
DNS = Service((TEN, ELEVEN), ip_address("192.0.2.1"), name="dns")
WATCHED = replace(DNS, health=Health(DnsCheck("example.org")))
CLIENT = Reservation(Endpoint(ip_address("198.51.100.7"), 5555), 6666)
OLD = Request(("eth0",), (DNS,))


def _lines(old: Service, new: Service) -> list[str]:
    found = difference(Request(("eth0",), (old,)), Request(("eth0",), (new,)))
    return [f"{line}" for line in found]


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"mode": Mode.NATIVE}, ["~ balancer: mode auto -> native"]),
        ({"max_flows": 1000}, ["~ balancer: max-flows default -> 1000"]),
        ({"max_client_flows": 0}, ["~ balancer: max-client-flows default -> 0"]),
        ({"secret": Path("/a")}, ["~ balancer: secret own -> /a"]),
        (
            {"virtual_mac": ("00:00:5e:00:01:35",)},
            ["~ balancer: virtual-mac default -> 00:00:5e:00:01:35"],
        ),
        ({"vlan": False}, ["~ balancer: vlan true -> false"]),
        (
            {"nat_ports": (PortRange(5, 5), PortRange(7, 9))},
            ["~ balancer: nat-ports default -> 5,7-9"],
        ),
        ({"interfaces": ("eth0", "eth1")}, ["+ interface eth1"]),
        ({"interfaces": ("eth1",)}, ["+ interface eth1", "- interface eth0"]),
    ],
)
def test_what_all_services_have_in_common_comes_first(
    changes: dict[str, Any], lines: list[str]
) -> None:
    found = difference(OLD, replace(OLD, **changes))
    assert [f"{line}" for line in found] == lines
    assert {(line.service, line.backend) for line in found} == {(None, None)}


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"hash": Hash.SRC}, ["~ service dns udp: hash src-dst -> src"]),
        ({"ports": (PortRange(53, 53),)}, ["~ service dns udp: ports 1-65535 -> 53"]),
        ({"on_down": OnDown.DROP}, ["~ service dns udp: on-down rehash -> drop"]),
        ({"one_way": True}, ["~ service dns udp: one-way false -> true"]),
        ({"timeouts": Timeouts(answered=60)}, ["~ service dns udp: timeouts answered 120 -> 60"]),
        (
            {"nat_addresses": (ip_address("192.0.2.2"),)},
            ["~ service dns udp: nat-addresses default -> 192.0.2.2"],
        ),
        ({"reservations": (CLIENT,)}, ["+ client 198.51.100.7:5555=6666 of dns udp"]),
        ({"health": Health()}, ["~ service dns udp: health off -> on"]),
        ({"backends": (TEN,)}, ["- backend 192.0.2.11:53 of dns udp"]),
        ({"backends": (ELEVEN, TEN)}, []),
        (
            {"backends": (replace(TEN, weight=3, state=BackendState.DRAIN), ELEVEN)},
            ["~ backend 192.0.2.10 of dns udp: weight 1 -> 3, state up -> drain"],
        ),
        (
            {"backends": (TEN, replace(ELEVEN, port=54))},
            ["+ backend 192.0.2.11:54 of dns udp", "- backend 192.0.2.11:53 of dns udp"],
        ),
        ({"name": ""}, ["~ service 192.0.2.1 udp: name dns -> none"]),
        (
            {"address": ip_address("192.0.2.2")},
            ["+ service dns 192.0.2.2 udp", "- service dns 192.0.2.1 udp"],
        ),
        (
            {"protocol": Protocol.TCP, "ports": (PortRange(53, 53),)},
            ["+ service dns 192.0.2.1 port 53 tcp", "- service dns 192.0.2.1 udp"],
        ),
        ({"address": None}, ["+ service dns own IPv4 address udp", "- service dns 192.0.2.1 udp"]),
    ],
)
def test_a_service_is_told_by_what_changes(changes: dict[str, Any], lines: list[str]) -> None:
    assert _lines(DNS, replace(DNS, **changes)) == lines


@pytest.mark.parametrize(
    ("health", "lines"),
    [
        (None, ["~ service dns udp: health on -> off"]),
        (Health(), ["~ service dns udp: health check dns name='example.org' -> none"]),
        (
            Health(UdpCheck(b"\x00")),
            ["~ service dns udp: health check dns name='example.org' -> udp send=b'\\x00'"],
        ),
        (
            Health(HttpCheck(tls=True, path="/a")),
            ["~ service dns udp: health check dns name='example.org' -> https path='/a'"],
        ),
        (
            Health(DnsCheck("example.org"), port=53, below=BelowMinimum.FAIL_CLOSED),
            [
                "~ service dns udp: health port default -> 53",
                "~ service dns udp: health below-min fail-open -> fail-closed",
            ],
        ),
    ],
)
def test_health_is_told_by_what_changes(health: Health | None, lines: list[str]) -> None:
    assert _lines(WATCHED, replace(WATCHED, health=health)) == lines


def test_services_of_one_name_and_protocol_are_told_apart() -> None:
    other = replace(DNS, address=ip_address("192.0.2.2"))
    old = Request(("eth0",), (DNS, other))
    new = replace(old, services=(DNS, replace(other, hash=Hash.SRC)))
    assert [f"{line}" for line in difference(old, new)] == [
        "~ service dns 192.0.2.2 udp: hash src-dst -> src"
    ]


def test_a_line_has_what_it_is_about() -> None:
    heavy = replace(TEN, weight=3)
    twelve = Backend(ip_address("192.0.2.12"))
    changed = replace(DNS, backends=(heavy, twelve), reservations=(CLIENT,))
    found = difference(OLD, replace(OLD, services=(changed,)))
    assert [(line.kind, line.service, line.backend) for line in found] == [
        (Kind.ADD, changed, None),
        (Kind.CHANGE, changed, heavy),
        (Kind.ADD, changed, twelve),
        (Kind.REMOVE, DNS, ELEVEN),
    ]
    assert difference(replace(OLD, services=(changed,)), OLD)[0].service is changed


def test_a_name_may_have_braces() -> None:
    """They once stood in a format."""
    old = replace(DNS, name="a{0}b}")
    assert _lines(old, replace(old, reservations=(CLIENT,))) == [
        "+ client 198.51.100.7:5555=6666 of a{0}b} udp"
    ]


@given(requests())
def test_nothing_changes_to_the_same(request: Request) -> None:
    assert difference(request, request) == []
    assert difference(request, replace(request, services=request.services[::-1])) == []


@given(requests(), requests())
def test_what_changes_one_way_changes_the_other(one: Request, other: Request) -> None:
    assert bool(difference(one, other)) == bool(difference(other, one))
