"""All services of a file together: whether they leave each other alone."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

from xdplb.config.problems import item
from xdplb.errors import InvalidValueError
from xdplb.request import Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdplb.config.problems import Problems
    from xdplb.request import Service

_ANY = ("any",)


def join(
    balancer: Mapping[str, Any], services: Sequence[tuple[int, Service]], problems: Problems
) -> Request | None:
    """The request; None if it is refused, or there is no service that could be asked for.

    Args:
        balancer: The rest of Request.
        services: Each with the number of its table.
        problems: Where to note what is refused.
    """
    if not services:
        return None
    _refuse_names(services, problems)
    try:
        return Request(services=tuple(one for _, one in services), **balancer)
    except InvalidValueError as error:
        before = len(problems.found)
        _blame_balancer(balancer, services[0][1], problems)
        _blame_pairs(services, problems)
        if len(problems.found) == before:
            problems.add_error("service", error)
        return None


def _blame_balancer(balancer: Mapping[str, Any], service: Service, problems: Problems) -> None:
    try:
        Request(services=(service,), **balancer)
    except InvalidValueError as error:
        problems.add_error("balancer", error)


def _blame_pairs(services: Sequence[tuple[int, Service]], problems: Problems) -> None:
    """Find which services cannot be together, and blame the later one."""
    for (first, one), (number, other) in combinations(services, 2):
        try:
            Request(interfaces=_ANY, services=(one, other))
        except InvalidValueError as error:
            told = error
            if first != number:
                told = InvalidValueError(f"with {item('service', first)}: {error}", error.hint)
            problems.add_error(item("service", number), told)


def _refuse_names(services: Sequence[tuple[int, Service]], problems: Problems) -> None:
    """Let a name, an address and a protocol mean one service."""
    known: dict[object, int] = {}
    for number, one in services:
        place = (one.name, one.version, one.address, one.protocol)
        first = known.setdefault(place, number)
        if one.name and first != number:
            problems.add(
                item("service", number),
                f"{item('service', first)} has the same name, address and protocol",
                "give each a name of its own, or all ports to one",
            )
