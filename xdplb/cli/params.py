"""What the options take, from text to values of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from xdplb.model import ALL_PORTS, PortRange
from xdplb.parsing import parse_address, parse_backend, parse_ports, parse_reservation

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


def _ports(text: str) -> PortRange:
    return ALL_PORTS[0] if text == "all" else parse_ports(text)


ADDRESS: Final = _Value("ADDR", parse_address)
BACKEND: Final = _Value("ADDR[:PORT]", parse_backend)
PORTS: Final = _Value("N|N-M", _ports)
RESERVATION: Final = _Value("ADDR:PORT=NATPORT", parse_reservation)
