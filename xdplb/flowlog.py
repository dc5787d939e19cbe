"""The log of new flows: what ``trace --reason new --json`` has written, asked later."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from xdplb.errors import InvalidValueError
from xdplb.model import Endpoint, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xdplb.model import Address

_LATEST: Final = 1e11
"""Seconds since 1970: later than any log, and a date that can still be printed."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A flow that was opened.

    Attributes:
        at: When, in seconds since 1970.
        service: What the client dialled.
        nat: The address and port that the backend saw.
    """

    at: float
    client: Endpoint
    service: Endpoint
    backend: Endpoint
    nat: Endpoint
    protocol: Protocol


def find(
    lines: Iterable[str],
    nat: Endpoint,
    backend: Address | None = None,
    before: float | None = None,
) -> list[Opened]:
    """The flows that left from an address and port, in the order of the log.

    Args:
        lines: The log.
        nat: What the backend saw.
        backend: The backend; None for any.
        before: The last one at each backend that was opened until then, in seconds since 1970;
            None for all of them.

    Raises:
        InvalidValueError: A line is not of such a log.
    """
    found = [
        item
        for item in _opened(lines, f'"source_port": {nat.port},')
        if item.nat == nat and backend in {None, item.backend.address}
    ]
    if before is None:
        return found
    last = {item.backend: item for item in found if item.at <= before}
    return list(last.values())


def _opened(lines: Iterable[str], hint: str) -> Iterator[Opened]:
    """The flows of the lines in which ``hint`` stands: most lines are about other ports."""
    for number, line in enumerate(lines, 1):
        if hint not in line:
            continue
        try:
            item = _read(json.loads(line))
        except (LookupError, RecursionError, TypeError, ValueError) as error:
            raise InvalidValueError(
                f"line {number} is not one of a log of flows",
                "'xdplb trace --reason new --json > FILE' writes such a log",
            ) from error
        if item is not None:
            yield item


def _read(event: dict[str, Any]) -> Opened | None:
    came, left = event["in"], event["out"]
    if not event["new"] or left is None:
        return None
    at = float(event["time"])
    if not 0 <= at <= _LATEST:
        raise ValueError
    return Opened(
        at=at,
        client=_endpoint(came, "source"),
        service=_endpoint(came, "destination"),
        backend=_endpoint(left, "destination"),
        nat=_endpoint(left, "source"),
        protocol=Protocol(came["protocol"]),
    )


def _endpoint(frame: dict[str, Any], end: str) -> Endpoint:
    return Endpoint(ip_address(frame[end]), int(frame[f"{end}_port"]))
