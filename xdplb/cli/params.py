"""What the options take, from text to values of the model."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address
from typing import TYPE_CHECKING, Any, Final

import click

from xdplb.errors import InvalidValueError
from xdplb.model import ALL_PORTS, Backend, Endpoint, PortRange, Reservation

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

_NUMBER: Final = re.compile(r"[0-9]{1,9}")


class _Value(click.ParamType[Any]):
    """A parameter from text; what cannot be parsed ends with exit code 2."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        """Show ``name`` in the help, and read values with ``parse``."""
        self.name = name
        self._parse = parse

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """Parse text; leave a value that is parsed already."""
        del param, ctx
        return self._parse(value) if isinstance(value, str) else value


def _refuse(text: str, what: str, hint: str) -> NoReturn:
    raise InvalidValueError(f"{text!r} is not {what}", hint)


def _address(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except AddressValueError:
        _refuse(text, "an IPv4 address", "write it like 192.0.2.10")


def _port(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        _refuse(text, "a port", "a port is a number from 1 to 65535")
    return PortRange(int(text), int(text)).first


def _backend(text: str) -> Backend:
    address, colon, port = text.partition(":")
    return Backend(_address(address), _port(port) if colon else None)


def _ports(text: str) -> PortRange:
    if text == "all":
        return ALL_PORTS[0]
    first, dash, last = text.partition("-")
    return PortRange(_port(first), _port(last) if dash else _port(first))


def _reservation(text: str) -> Reservation:
    client, equals, nat_port = text.partition("=")
    address, colon, port = client.partition(":")
    if not (equals and colon):
        _refuse(text, "a reservation", "write it like 192.0.2.7:5555=6666")
    return Reservation(Endpoint(_address(address), _port(port)), _port(nat_port))


ADDRESS: Final = _Value("ADDR", _address)
BACKEND: Final = _Value("ADDR[:PORT]", _backend)
PORTS: Final = _Value("N|N-M", _ports)
RESERVATION: Final = _Value("ADDR:PORT=NATPORT", _reservation)
