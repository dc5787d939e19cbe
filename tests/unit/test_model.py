"""Addresses of both IP versions in a request: which belong together, and which are no host's."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from fake_machine import request

from xdplb.errors import InvalidValueError
from xdplb.model import IPV4, IPV6, Backend, Endpoint, Reservation, bracketed

SERVICE4, SERVICE6 = ip_address("192.0.2.1"), ip_address("2001:db8::1")
NO_HOSTS = [
    ("fe80::10", "link-local"),
    ("febf::10", "link-local"),
    ("fe80::10%eth0", "an address of one link"),
    ("2001:db8::10%eth0", "an address of one link"),
    ("ff02::1", "a multicast address"),
    ("ff0e::10", "a multicast address"),
    ("::1", "a loopback address"),
    ("::", "no host's address"),
    ("::192.0.2.10", "no host's address"),
    ("::ffff:192.0.2.10", "no host's address"),
]


def _reserved(client: str) -> tuple[Reservation, ...]:
    return (Reservation(Endpoint(ip_address(client), 5555), 6666),)


@pytest.mark.parametrize(
    ("backends", "options", "message"),
    [
        (
            ["192.0.2.10"],
            {"services": (SERVICE4, ip_address("192.0.2.2"))},
            "IP version of --service 4 is given twice",
        ),
        (
            ["2001:db8::10"],
            {"services": (SERVICE6, ip_address("2001:db8::2"))},
            "IP version of --service 6 is given twice",
        ),
        (
            ["192.0.2.10", "2001:db8::10"],
            {},
            "backends of both IPv4 and IPv6 belong to two services",
        ),
        (
            ["192.0.2.10", "2001:db8::10"],
            {"services": (SERVICE4,)},
            "backend 2001:db8::10 is IPv6, the service 192.0.2.1 is not",
        ),
        (
            ["192.0.2.10"],
            {"services": (SERVICE6,)},
            "backend 192.0.2.10 is IPv4, the service 2001:db8::1 is not",
        ),
        (
            ["192.0.2.10"],
            {"services": (SERVICE4, SERVICE6)},
            "service 2001:db8::1 has no IPv6 backend",
        ),
        (
            ["2001:db8::10"],
            {"services": (SERVICE4, SERVICE6)},
            "service 192.0.2.1 has no IPv4 backend",
        ),
        (
            ["192.0.2.10"],
            {"reservations": _reserved("2001:db8::7")},
            "--client [2001:db8::7]:5555=6666 is IPv6, no service is",
        ),
        (
            ["2001:db8::10"],
            {"reservations": _reserved("198.51.100.7")},
            "--client 198.51.100.7:5555=6666 is IPv4, no service is",
        ),
    ],
)
def test_what_cannot_be_translated_is_refused(
    backends: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidValueError) as caught:
        request(*backends, **options)
    assert message in f"{caught.value}"
    assert caught.value.hint


def test_a_service_of_each_version_with_backends_of_its_own_is_taken() -> None:
    both = request(
        "2001:db8::10",
        "192.0.2.10",
        services=(SERVICE6, SERVICE4),
        reservations=(*_reserved("2001:db8::7"),),
    )
    assert both.versions == (IPV4, IPV6)


@pytest.mark.parametrize(
    ("backend", "version"), [("192.0.2.10", IPV4), ("2001:db8::10", IPV6)], ids=str
)
def test_backends_of_one_version_say_what_is_balanced(backend: str, version: int) -> None:
    assert request(backend).versions == (version,)


def test_the_service_itself_is_no_backend_of_ipv6_either() -> None:
    with pytest.raises(InvalidValueError, match="2001:db8::1 is the service itself"):
        request("2001:db8::10", "2001:db8::1", services=(SERVICE6,))


def test_one_backend_in_two_spellings_is_given_twice() -> None:
    with pytest.raises(InvalidValueError, match="backend 2001:db8::10 is given twice"):
        request("2001:db8::10", "2001:0DB8:0:0::0010")


@pytest.mark.parametrize(("address", "kind"), NO_HOSTS)
@pytest.mark.parametrize("what", ["backend", "service", "reserved client"])
def test_an_address_that_is_no_hosts_is_refused(what: str, address: str, kind: str) -> None:
    backends = ["2001:db8::10", *([address] if what == "backend" else [])]
    options: dict[str, Any] = {}
    if what == "service":
        options["services"] = (ip_address(address),)
    if what == "reserved client":
        options["reservations"] = _reserved(address)
    with pytest.raises(InvalidValueError, match=kind) as caught:
        request(*backends, **options)
    assert f"{caught.value}".startswith(f"{what} ")
    assert caught.value.hint


@pytest.mark.parametrize("address", ["2001:db8::10", "fd00::10", "fec0::10", "64:ff9b::192.0.2.10"])
def test_an_address_that_routers_pass_on_is_taken(address: str) -> None:
    assert request(address).backends[0].address == ip_address(address)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Backend(SERVICE6), "2001:db8::1"),
        (Backend(SERVICE6, 53), "[2001:db8::1]:53"),
        (Backend(SERVICE4), "192.0.2.1"),
        (Backend(SERVICE4, 53), "192.0.2.1:53"),
        (Endpoint(SERVICE6, 5555), "[2001:db8::1]:5555"),
        (Endpoint(SERVICE4, 5555), "192.0.2.1:5555"),
        (Reservation(Endpoint(SERVICE6, 5555), 6666), "[2001:db8::1]:5555=6666"),
    ],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_an_ipv6_address_stands_in_brackets_before_a_port_only(value: object, text: str) -> None:
    assert f"{value}" == text


def test_only_ipv6_is_bracketed() -> None:
    assert [bracketed(item) for item in (SERVICE4, SERVICE6)] == ["192.0.2.1", "[2001:db8::1]"]
