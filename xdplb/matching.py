"""Which service of one request is which of another: what keeps its number, and what is new."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdplb.request import Service


def match_services(old: Sequence[Service], new: Sequence[Service]) -> dict[int, int]:
    """The index in ``old`` for each index in ``new`` whose service was there before.

    A service is the same if it has the address, the protocol and at least one port that it had.
    Where that is true of several, those with the most ports in common are the same, then those
    with one name, then the first ones.

    Args:
        old: What runs. Where one side has addresses for the interface's own, so must the other.
        new: What is to run.
    """
    places: dict[object, list[int]] = defaultdict(list)
    for index, service in enumerate(old):
        places[_place(service)].append(index)
    candidates = sorted(
        (-common, old[before].name != service.name, after, before)
        for after, service in enumerate(new)
        for before in places[_place(service)]
        if (common := common_ports(old[before], service))
    )
    matched: dict[int, int] = {}
    taken: set[int] = set()
    for _, _, after, before in candidates:
        if after not in matched and before not in taken:
            matched[after] = before
            taken.add(before)
    return matched


def common_ports(one: Service, other: Service) -> int:
    """How many ports both services have."""
    return sum(
        max(0, min(left.last, right.last) - max(left.first, right.first) + 1)
        for left in one.ports
        for right in other.ports
    )


def _place(service: Service) -> tuple[object, ...]:
    return service.version, service.address, service.protocol
