"""What ``apply`` would change, line by line, for a person to read first."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from xdplb.matching import match_services
from xdplb.model import ALL_PORTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdplb.model import Address, Backend
    from xdplb.request import Request, Service


class Kind(StrEnum):
    """What becomes of something, as the first character of its line."""

    ADDED = "+"
    REMOVED = "-"
    CHANGED = "~"


@dataclass(frozen=True, slots=True)
class Line:
    """One difference.

    Attributes:
        text: What is different, without the first character.
        service: The service that it is about, as it was or will be; None for the balancer.
        backend: The backend that it is about, if it is about one.
    """

    kind: Kind
    text: str
    service: Service | None = None
    backend: Backend | None = None

    def __str__(self) -> str:
        """The line."""
        return f"{self.kind} {self.text}"


_OF_BALANCER: Final = ("interfaces", "mode", "max_flows", "nat_ports", "vlan", "max_client_flows")
_OF_SERVICE: Final = (
    *("name", "address", "ports", "hash", "timeouts", "nat_addresses", "reservations"),
    *("on_down", "one_way", "health"),
)
_OF_BACKEND: Final = ("weight", "state")


def difference(old: Request, new: Request) -> list[Line]:
    """Compare what runs with what is wanted; equal ones have no difference.

    Args:
        old: What runs.
        new: What is wanted, with an address for each service.
    """
    lines = [Line(Kind.CHANGED, f"balancer: {text}") for text in _changes(old, new, _OF_BALANCER)]
    kept = match_services(old.services, new.services)
    for place, service in enumerate(old.services):
        if place not in kept.values():
            lines.append(Line(Kind.REMOVED, f"service {_titled(service)}", service))
    for place, service in enumerate(new.services):
        if place in kept:
            lines += _of_service(old.services[kept[place]], service)
        else:
            lines.append(Line(Kind.ADDED, f"service {_titled(service)}", service))
            lines += [
                Line(Kind.ADDED, f"backend {backend} of {service}", service, backend)
                for backend in service.backends
            ]
    return lines


def _titled(service: Service) -> str:
    """A service by all that a person knows it by."""
    ports = "" if service.ports == ALL_PORTS else f" port {_shown(service.ports)}"
    name = f"{service.name} " if service.name else ""
    return f"{name}{service.address} {service.protocol}{ports}"


def _of_service(old: Service, new: Service) -> list[Line]:
    lines = [
        Line(Kind.CHANGED, f"service {old}: {text}", new)
        for text in _changes(old, new, _OF_SERVICE)
    ]
    before = {_key(item): item for item in old.backends}
    after = {_key(item): item for item in new.backends}
    lines += [
        Line(Kind.REMOVED, f"backend {item} of {new}", old, item)
        for key, item in before.items()
        if key not in after
    ]
    for key, item in after.items():
        if key not in before:
            lines.append(Line(Kind.ADDED, f"backend {item} of {new}", new, item))
            continue
        lines += [
            Line(Kind.CHANGED, f"backend {item} of {new}: {text}", new, item)
            for text in _changes(before[key], item, _OF_BACKEND)
        ]
    return lines


def _key(backend: Backend) -> tuple[Address, int | None]:
    return backend.address, backend.port


def _changes(old: object, new: object, names: Sequence[str]) -> list[str]:
    """The attributes that differ, each with both values."""
    return [
        f"{name.replace('_', '-')} {_shown(before)} -> {_shown(after)}"
        for name in names
        if (before := getattr(old, name)) != (after := getattr(new, name))
    ]


def _shown(value: object) -> str:
    if value == ALL_PORTS:
        return "all"
    if isinstance(value, tuple):
        return ",".join(f"{item}" for item in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None or value == "" else f"{value}"
