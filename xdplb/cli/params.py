"""What the options take, from text to values of the model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import click

from xdplb.cli import completion
from xdplb.errors import InvalidValueError
from xdplb.listen import parse_place
from xdplb.model import ALL_PORTS, Endpoint, PortRange
from xdplb.parsing import (
    parse_address,
    parse_backend,
    parse_endpoint,
    parse_mac,
    parse_ports,
    parse_reservation,
)

if TYPE_CHECKING:
    from collections.abc import Callable


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


class Number(click.FloatRange):
    """A number in a range; what is no number at all is in none, and is refused like one outside."""

    what = "number"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - text, or a number already
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Read the number."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is no {self.what}.", param, ctx)
        return number


class Seconds(Number):
    """A time."""

    what = "time"


def _ports(text: str) -> PortRange:
    return ALL_PORTS[0] if text == "all" else parse_ports(text)


def _endpoint(text: str) -> Endpoint:
    address, port = parse_endpoint(text)
    if port is None:
        raise InvalidValueError(
            f"{text!r} has no port", "write it like 192.0.2.1:6666 or [2001:db8::1]:6666"
        )
    return Endpoint(address, port)


ADDRESS: Final = _Value("ADDR", parse_address)
BACKEND: Final = _Value("ADDR[:PORT]", parse_backend)
ENDPOINT: Final = _Value("ADDR:PORT", _endpoint)
MAC: Final = _Value("MAC", parse_mac)
PLACE: Final = _Value("ADDR:PORT|PATH", parse_place)
PORTS: Final = _Value("N|N-M", _ports)
RESERVATION: Final = _Value("ADDR:PORT=NATPORT", parse_reservation)

iface_option: Final = click.option(
    "--iface", metavar="NAME", shell_complete=completion.balanced,
    help="The balancer on this interface.  [default: the only one]",
)  # fmt: skip
json_option: Final = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON for programs."
)
