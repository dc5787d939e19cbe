"""What is written is what is read."""

from __future__ import annotations

import tempfile
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from config_texts import LEAST, write
from hypothesis import given
from hypothesis import strategies as st
from request_strategies import requests

from xdplb.config import dump, load
from xdplb.config.files import EXAMPLE
from xdplb.config.payload import format_payload, parse_payload
from xdplb.model import Backend, PortRange, Protocol
from xdplb.request import Request, Service, simple_request

if TYPE_CHECKING:
    from xdplb.model import Address

FOUR, SIX = ip_address("192.0.2.1"), ip_address("2001:db8::1")
BACKENDS = (Backend(ip_address("192.0.2.10")), Backend(ip_address("2001:db8::10")))
PORTS = (PortRange(53, 53), PortRange(8000, 8010))


def _again(request: Request) -> Request:
    with tempfile.TemporaryDirectory() as directory:
        return load(write(Path(directory), dump(request)))


@given(requests())
def test_a_request_is_read_as_it_is_written(request: Request) -> None:
    assert _again(request) == request


@given(requests())
def test_what_is_written_is_always_the_same(request: Request) -> None:
    assert dump(_again(request)) == dump(request)


@given(st.binary() | st.text().map(str.encode))
def test_bytes_are_read_as_they_are_written(data: bytes) -> None:
    assert parse_payload(format_payload(data)) == data


def test_the_example_is_read_as_it_is_written() -> None:
    assert _again(load(EXAMPLE)) == load(EXAMPLE)


def test_defaults_are_left_out(tmp_path: Path) -> None:
    text = dump(load(write(tmp_path, LEAST)))
    assert text.startswith("# ")
    assert text.partition("\n\n")[2] == (
        '[balancer]\ninterfaces = ["eth0"]\n\n'
        '[[service]]\nbackend = [\n    { address = "192.0.2.10" },\n]\n'
    )


def test_one_table_says_what_differs_in_address_and_protocol_only() -> None:
    def simple(*addresses: Address) -> Request:
        return simple_request(
            ("eth0",),
            BACKENDS if addresses else BACKENDS[:1],
            addresses,
            protocols=(Protocol.TCP, Protocol.UDP),
            ports=PORTS,
        )

    text = dump(simple(FOUR, SIX))
    assert text.count("[[service]]") == 1
    assert 'address = ["192.0.2.1", "2001:db8::1"]\nprotocol = ["tcp", "udp"]\n' in text
    assert 'ports = [53, "8000-8010"]\n' in text
    assert dump(simple()).count("[[service]]") == 1


def test_one_address_twice_is_two_tables() -> None:
    one = Service(BACKENDS[:1], FOUR, ports=PORTS[:1])
    two = Service(BACKENDS[:1], FOUR, ports=PORTS[1:])
    assert dump(Request(("eth0",), (one, two))).count("[[service]]") == 2


def test_many_services_are_written_at_once() -> None:
    services = tuple(
        Service(BACKENDS[:1], ip_address("198.51.100.0") + number) for number in range(200)
    )
    request = Request(("eth0",), services)
    assert dump(request).count("[[service]]") == 1
    assert _again(request) == request


def test_a_long_list_stands_on_many_lines() -> None:
    ports = tuple(PortRange(port, port) for port in range(1000, 2000, 10))
    text = dump(Request(("eth0",), (Service(BACKENDS[:1]),), nat_ports=ports))
    assert "nat-ports = [\n    1000,\n    1010,\n" in text
