"""Services as plain values, each as a table of its own: how a balancer remembers them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdplb.config.problems import Problems, item
from xdplb.config.reading import read_services
from xdplb.config.writing import write_service
from xdplb.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdplb.request import Service


def services_to(services: Sequence[Service]) -> list[dict[str, Any]]:
    """What ``services_from`` reads, and JSON can hold."""
    return [write_service(service) for service in services]


def services_from(values: Sequence[Any]) -> tuple[Service, ...]:
    """The services again.

    Raises:
        InvalidValueError: ``values`` are something else, or from another version.
    """
    problems = Problems()
    try:
        found = [
            service
            for number, value in enumerate(values)
            for service in read_services(value, item("service", number), problems)
        ]
    except (TypeError, ValueError, KeyError) as error:
        raise InvalidValueError(f"these are no services: {error}") from error
    if problems.found:
        raise InvalidValueError(f"these are no services: {problems.found[0]}")
    return tuple(found)
