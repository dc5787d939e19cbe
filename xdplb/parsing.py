"""Addresses, ports and reservations from text, as they are written everywhere."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xdplb.errors import InvalidValueError
from xdplb.model import Backend, Endpoint, PortRange, Reservation

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network
    from typing import NoReturn

    from xdplb.model import Address

_BRACKETED: Final = re.compile(r"\[([^\]]*)\](?::(.*))?")
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE)
_NUMBER: Final = re.compile(r"[0-9]{1,9}")


def _refuse(text: str, what: str, hint: str) -> NoReturn:
    raise InvalidValueError(f"{text!r} is not {what}", hint)


def parse_address(text: str) -> Address:
    """``ADDR`` of either IP version.

    Raises:
        InvalidValueError: It is none.
    """
    try:
        return ip_address(text)
    except ValueError:
        _refuse(text, "an IP address", "write it like 192.0.2.10 or 2001:db8::10")


def parse_port(text: str) -> int:
    """One port.

    Raises:
        InvalidValueError: It is none.
    """
    if not _NUMBER.fullmatch(text):
        _refuse(text, "a port", "a port is a number from 1 to 65535")
    return PortRange(int(text), int(text)).first


def parse_endpoint(text: str) -> tuple[Address, int | None]:
    """``ADDR`` or ``ADDR:PORT``; an IPv6 address before a port stands in brackets (RFC 3986).

    Raises:
        InvalidValueError: It is neither.
    """
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
    return parse_address(address), None if port is None else parse_port(port)


def parse_clients(text: str) -> tuple[IPv4Network | IPv6Network, int | None]:
    """A network, an address, or an address and a port.

    Raises:
        InvalidValueError: It is none of them.
    """
    if "/" in text:
        try:
            return ip_network(text, strict=False), None
        except ValueError:
            raise InvalidValueError(
                f"{text!r} is no network", "write it like 192.0.2.0/24 or 2001:db8::/32"
            ) from None
    address, port = parse_endpoint(text)
    return ip_network(address), port


def parse_backend(text: str) -> Backend:
    """``ADDR`` or ``ADDR:PORT`` of a server.

    Raises:
        InvalidValueError: It is neither.
    """
    return Backend(*parse_endpoint(text))


def parse_ports(text: str) -> PortRange:
    """``N`` or ``N-M``.

    Raises:
        InvalidValueError: It is neither.
    """
    first, dash, last = text.partition("-")
    return PortRange(parse_port(first), parse_port(last) if dash else parse_port(first))


def parse_reservation(text: str) -> Reservation:
    """``ADDR:PORT=NATPORT``.

    Raises:
        InvalidValueError: It is something else.
    """
    client, equals, nat_port = text.partition("=")
    address, port = parse_endpoint(client) if equals else (None, None)
    if address is None or port is None:
        _refuse(
            text, "a reservation", "write it like 192.0.2.7:5555=6666 or [2001:db8::7]:5555=6666"
        )
    return Reservation(Endpoint(address, port), parse_port(nat_port))


def parse_path(text: str) -> Path:
    """A path that means the same file wherever a command is called.

    Raises:
        InvalidValueError: It does not, or a terminal would not show it as it is.
    """
    if not text.startswith("/") or not text.isprintable():
        _refuse(text, "an absolute path", "write it like /etc/xdplb/secret")
    return Path(text)


def parse_mac(text: str) -> str:
    """The MAC address of one host, as it is written everywhere.

    Raises:
        InvalidValueError: It is none.
    """
    mac = text.lower()
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or not int(mac.replace(":", ""), 16):
        _refuse(text, "the MAC address of a host", "write it like 00:00:5e:00:01:35")
    return mac
