"""Addresses, endpoints and reservations as they are written on the command line."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdplb.cli.params import ADDRESS, BACKEND, RESERVATION
from xdplb.errors import InvalidValueError
from xdplb.model import Backend, Endpoint, Reservation

if TYPE_CHECKING:
    import click

TEN = IPv6Address("2001:db8::10")
ADDRESSES = st.ip_addresses()
PORTS = st.integers(1, 65535)


def _read(kind: click.ParamType[Any], text: str) -> object:
    return kind.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("192.0.2.10", Backend(IPv4Address("192.0.2.10"))),
        ("192.0.2.10:53", Backend(IPv4Address("192.0.2.10"), 53)),
        ("2001:db8::10", Backend(TEN)),
        ("2001:DB8:0:0:0:0:0:10", Backend(TEN)),
        ("[2001:db8::10]", Backend(TEN)),
        ("[2001:db8::10]:53", Backend(TEN, 53)),
        ("2001:db8::10:53", Backend(IPv6Address("2001:db8::10:53"))),
        ("::1", Backend(IPv6Address("::1"))),
        ("[::]:65535", Backend(IPv6Address("::"), 65535)),
    ],
)
def test_a_backend_is_an_address_and_perhaps_a_port(text: str, value: Backend) -> None:
    assert _read(BACKEND, text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("192.0.2.7:5=6", Reservation(Endpoint(IPv4Address("192.0.2.7"), 5), 6)),
        ("[2001:db8::10]:5=6", Reservation(Endpoint(TEN, 5), 6)),
        ("[::1]:5=6", Reservation(Endpoint(IPv6Address("::1"), 5), 6)),
    ],
)
def test_a_reservation_is_an_endpoint_and_a_port(text: str, value: Reservation) -> None:
    assert _read(RESERVATION, text) == value


def test_an_address_alone_has_no_brackets() -> None:
    assert _read(ADDRESS, "2001:db8::10") == TEN
    with pytest.raises(InvalidValueError, match="is not an IP address"):
        _read(ADDRESS, "[2001:db8::10]")


@given(st.builds(Backend, ADDRESSES, st.none() | PORTS))
def test_a_backend_is_read_as_it_is_shown(backend: Backend) -> None:
    assert _read(BACKEND, f"{backend}") == backend


@given(st.builds(Reservation, st.builds(Endpoint, ADDRESSES, PORTS), PORTS))
def test_a_reservation_is_read_as_it_is_shown(reservation: Reservation) -> None:
    assert _read(RESERVATION, f"{reservation}") == reservation


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not an IP address"),
        ("2001:db8::10::1", "is not an IP address"),
        ("2001:db8", "is not an IP address"),
        ("2001:db8::1:2:3:4:5:6:53", "is not an IP address"),
        ("2001:db8::10%", "is not an IP address"),
        ("[2001:db8::10", "is not an IP address"),
        ("2001:db8::10]", "is not an IP address"),
        ("2001:db8::10]:53", "is not an IP address"),
        ("[2001:db8::10]53", "is not an IP address"),
        ("[[2001:db8::10]]:53", "is not an IP address"),
        ("[]:53", "is not an address and a port"),
        ("[2001:db8::10]:", "is not a port"),
        ("[2001:db8::10]:x", "is not a port"),
        ("[2001:db8::10]:-1", "is not a port"),
        ("[2001:db8::10]:53:54", "is not a port"),
        ("[2001:db8::10]:0", "out of range"),
        ("[2001:db8::10]:65536", "out of range"),
    ],
)
def test_what_is_no_backend_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message) as caught:
        _read(BACKEND, text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2001:db8::7", "is not a reservation"),
        ("2001:db8::7=6", "is not a reservation"),
        ("2001:db8::7:5=6", "is not a reservation"),
        ("[2001:db8::7]=6", "is not a reservation"),
        ("[2001:db8::7]:5", "is not a reservation"),
        ("[2001:db8::7]:5=", "is not a port"),
        ("[2001:db8::7]:5=x", "is not a port"),
        ("[2001:db8::7]:=6", "is not a port"),
        ("[2001:db8::7]:5=6=7", "is not a port"),
        ("[2001:db8::x]:5=6", "is not an IP address"),
        ("[2001:db8::7]:0=6", "out of range"),
        ("[2001:db8::7]:5=65536", "out of range"),
    ],
)
def test_what_is_no_reservation_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message) as caught:
        _read(RESERVATION, text)
    assert caught.value.hint
