"""Text to values of the model: what the command line and the configuration file both take."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from xdplb.errors import InvalidValueError
from xdplb.model import ALL_PORTS, Backend, Endpoint, PortRange, Reservation

if TYPE_CHECKING:
    from typing import NoReturn

    from xdplb.model import Address

_BRACKETED: Final = re.compile(r"\[([^\]]*)\](?::(.*))?")
_NUMBER: Final = re.compile(r"[0-9]{1,9}")


def _refuse(text: str, what: str, hint: str) -> NoReturn:
    raise InvalidValueError(f"{text!r} is not {what}", hint)


def parse_address(text: str) -> Address:
    """An address of either version.

    Raises:
        InvalidValueError: It is none.
    """
    try:
        return ip_address(text)
    except ValueError:
        _refuse(text, "an IP address", "write it like 192.0.2.10 or 2001:db8::10")


def _port(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        _refuse(text, "a port", "a port is a number from 1 to 65535")
    return PortRange(int(text), int(text)).first


def _endpoint(text: str) -> tuple[Address, int | None]:
    """``ADDR`` or ``ADDR:PORT``; an IPv6 address before a port stands in brackets (RFC 3986)."""
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed:
        address, port = bracketed.groups()
        if ":" not in address:
            _refuse(text, "an address and a port", "brackets are for IPv6: [2001:db8::10]:53")
    elif text.count(":") > 1:
        address, port = text, None
    else:
        address, colon, port = text.partition(":")
        port = port if colon else None
    return parse_address(address), None if port is None else _port(port)


def parse_backend(text: str) -> Backend:
    """``ADDR`` or ``ADDR:PORT``.

    Raises:
        InvalidValueError: It is neither.
    """
    return Backend(*_endpoint(text))


def parse_ports(text: str) -> PortRange:
    """``N``, ``N-M`` or ``all``.

    Raises:
        InvalidValueError: It is none of them.
    """
    if text == "all":
        return ALL_PORTS[0]
    first, dash, last = text.partition("-")
    return PortRange(_port(first), _port(last) if dash else _port(first))


def parse_reservation(text: str) -> Reservation:
    """``ADDR:PORT=NATPORT``.

    Raises:
        InvalidValueError: It is not that.
    """
    client, equals, nat_port = text.partition("=")
    address, port = _endpoint(client) if equals else (None, None)
    if address is None or port is None:
        _refuse(
            text, "a reservation", "write it like 192.0.2.7:5555=6666 or [2001:db8::7]:5555=6666"
        )
    return Reservation(Endpoint(address, port), _port(nat_port))
