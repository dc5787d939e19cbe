"""What changes from one request to another, line by line, before anything is touched."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from xdplb.checks import HttpCheck
from xdplb.matching import match_services

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from _typeshed import DataclassInstance

    from xdplb.checks import Check
    from xdplb.model import Backend
    from xdplb.request import Request, Service


class Kind(StrEnum):
    """What happens to what a line speaks of."""

    ADD = "add"
    REMOVE = "remove"
    CHANGE = "change"

    @property
    def sign(self) -> str:
        """As it stands at the beginning of a line."""
        return {Kind.ADD: "+", Kind.REMOVE: "-", Kind.CHANGE: "~"}[self]


@dataclass(frozen=True, slots=True)
class Line:
    """One change.

    Attributes:
        text: What changes, without the sign of its kind.
        service: The service concerned, as it was if it is removed, otherwise as it will be; None
            for what all services have in common.
        backend: The backend concerned, likewise; None for the service itself.
    """

    kind: Kind
    text: str
    service: Service | None = None
    backend: Backend | None = None

    def __str__(self) -> str:
        """The line as it is printed."""
        return f"{self.kind.sign} {self.text}"


_APART: Final = {"interfaces", "services", "backends", "reservations", "address", "protocol"}
"""Fields of requests and services that have lines of their own, or say what is the same."""
_ABSENT: Final = {"health": "off", "secret": "own"}
"""What no value of a field means; of all others, it is the default."""
_KEYS: Final = {"below": "below-min"}
"""Fields that a file calls otherwise."""


def difference(old: Request, new: Request) -> list[Line]:
    """What ``new`` changes: first for all services, then service by service.

    The order of services, of backends and of reserved clients is none of it.

    Args:
        old: What runs. Where one side has addresses for the interface's own, so must the other.
        new: What is to run.
    """
    matched = match_services(old.services, new.services)
    kept = set(matched.values())
    removed = [one for index, one in enumerate(old.services) if index not in kept]
    label = _Labels((*new.services, *removed))
    lines = [
        *_members(("interface ", ""), old.interfaces, new.interfaces),
        *_settings("balancer", old, new),
    ]
    for index, service in enumerate(new.services):
        if index in matched:
            lines += _changes(old.services[matched[index]], service, label.short(service))
        else:
            lines.append(Line(Kind.ADD, f"service {label.full(service)}", service))
    lines += [Line(Kind.REMOVE, f"service {label.full(one)}", one) for one in removed]
    return lines


class _Labels:
    """What services are called, so that each is told from all others."""

    def __init__(self, services: Iterable[Service]) -> None:
        self._places: dict[str, set[object]] = {}
        for service in services:
            places = self._places.setdefault(f"{service}", set())
            places.add((service.version, service.address, service.ports))

    def short(self, service: Service) -> str:
        """Its name and protocol; what is dialled, too, where they mean several."""
        several = len(self._places[f"{service}"]) > 1
        return self.full(service) if several or not service.name else f"{service}"

    @staticmethod
    def full(service: Service) -> str:
        """Its name and what is dialled."""
        dialled = f"{replace(service, name='')}"
        if service.address is None:
            own = f"own IPv{service.version} address "
            dialled = own + dialled.removeprefix("service ")
        return f"{service.name} {dialled}".strip()


def _changes(old: Service, new: Service, label: str) -> Iterator[Line]:
    """The lines of a service that stays."""
    yield from _settings(f"service {label}", old, new, new)
    yield from _members(
        ("client ", f" of {label}"),
        [f"{one}" for one in old.reservations],
        [f"{one}" for one in new.reservations],
        old,
        new,
    )
    before, after = _by_place(old.backends), _by_place(new.backends)
    for place, backend in after.items():
        what = f"backend {backend} of {label}"
        if place not in before:
            yield Line(Kind.ADD, what, new, backend)
        elif changed := list(_changed(_told(before[place]), _told(backend))):
            yield Line(Kind.CHANGE, f"{what}: {', '.join(changed)}", new, backend)
    for place, backend in before.items():
        if place not in after:
            yield Line(Kind.REMOVE, f"backend {backend} of {label}", old, backend)


def _by_place(backends: Sequence[Backend]) -> dict[object, Backend]:
    return {backend.place: backend for backend in backends}


def _members(
    around: tuple[str, str],
    old: Sequence[str],
    new: Sequence[str],
    before: Service | None = None,
    after: Service | None = None,
) -> Iterator[Line]:
    """A line for each of ``new`` that was not there, and for each of ``old`` that goes."""
    known, wanted = set(old), set(new)
    yield from (Line(Kind.ADD, one.join(around), after) for one in new if one not in known)
    yield from (Line(Kind.REMOVE, one.join(around), before) for one in old if one not in wanted)


def _settings(
    what: str, old: DataclassInstance, new: DataclassInstance, service: Service | None = None
) -> Iterator[Line]:
    """A line for each field that changes."""
    for change in _changed(_told(old), _told(new)):
        yield Line(Kind.CHANGE, f"{what}: {change}", service)


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """What is told of both, and is not the same."""
    for key, before in old.items():
        if (after := new.get(key, before)) != before:
            yield f"{key} {before} -> {after}"


def _told(value: DataclassInstance, prefix: str = "") -> dict[str, str]:
    """The fields of a value in words, those of values in it after the name of that."""
    told: dict[str, str] = {}
    for field in fields(value):
        if field.name in _APART:
            continue
        inner = getattr(value, field.name)
        key = prefix + _KEYS.get(field.name, field.name.replace("_", "-"))
        if field.name == "check":
            told[key] = _check(inner)
        elif is_dataclass(inner) and not isinstance(inner, type):
            told |= {key: "on"} | _told(inner, f"{key} ")
        else:
            told[key] = _ABSENT.get(field.name, "default") if inner is None else _text(inner)
    return told


def _check(check: Check | None) -> str:
    """A check with what is special about it."""
    if check is None:
        return "none"
    kind = type(check).__name__.removesuffix("Check").lower()
    if isinstance(check, HttpCheck) and check.tls:
        kind = "https"
    special = (
        f"{field.name.replace('_', '-')}={getattr(check, field.name)!r}"
        for field in fields(check)
        if field.name != "tls" and getattr(check, field.name) != field.default
    )
    return " ".join((kind, *special))


def _text(value: object) -> str:
    """A value as a person says it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(f"{one}" for one in value) or "default"
    return f"{value}" or "none"
