"""The NAT ports: which there are, and which part of ``reverse_lookup`` is whose.

``reverse_lookup`` is one array of as many records as there may be flows. It is cut
into groups of one record for each port of the pool; a backend address has one group,
alone as long as there are no more addresses than groups. A record's index is the
group's first one plus the offset of the port in the pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heapreplace
from typing import TYPE_CHECKING, Final, TypeVar

from xdplb.errors import InvalidValueError
from xdplb.model import MAX_BACKENDS, MAX_PORT, PortRange

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

_Place = TypeVar("_Place", bound="Hashable")

FIRST_UNPRIVILEGED: Final = 1024


@dataclass(frozen=True, slots=True)
class NatPool:
    """The ports that flows may get, in ascending ranges."""

    ranges: tuple[PortRange, ...]

    @property
    def size(self) -> int:
        """How many ports there are."""
        return sum(item.count for item in self.ranges)

    def offset(self, port: int) -> int | None:
        """The place of ``port`` in the pool, None if it is not in it."""
        start = 0
        for item in self.ranges:
            if port in item:
                return start + port - item.first
            start += item.count
        return None

    def __str__(self) -> str:
        """The ranges as they are written on the command line."""
        return ", ".join(f"{item}" for item in self.ranges)


def make_pool(wanted: Sequence[PortRange], ephemeral: PortRange) -> NatPool:
    """The pool that was asked for, or all ports that the host does not use by itself.

    Args:
        wanted: Ranges from the command line; empty for the default.
        ephemeral: What the host takes for its own connections (``ip_local_port_range``).

    Raises:
        InvalidValueError: The host's range leaves no port.
    """
    if wanted:
        return NatPool(tuple(sorted(wanted)))
    ranges = []
    if ephemeral.first > FIRST_UNPRIVILEGED:
        ranges.append(PortRange(FIRST_UNPRIVILEGED, ephemeral.first - 1))
    if ephemeral.last < MAX_PORT:
        ranges.append(PortRange(max(ephemeral.last + 1, FIRST_UNPRIVILEGED), MAX_PORT))
    if not ranges:
        raise InvalidValueError(
            f"the host's own port range {ephemeral} leaves no NAT ports",
            "name some with --nat-ports, or narrow net.ipv4.ip_local_port_range",
        )
    return NatPool(tuple(ranges))


@dataclass(frozen=True, slots=True, order=True)
class SlotRange:
    """A part of ``reverse_lookup``: its first index and how many records it has."""

    first: int
    count: int


def cut_groups(capacity: int, ports: int) -> list[SlotRange]:
    """Cut ``capacity`` records into groups of ``ports``; the last one may be smaller.

    There are no more groups than there can be backends.
    """
    firsts = range(0, capacity, ports)[:MAX_BACKENDS]
    return [SlotRange(first, min(ports, capacity - first)) for first in firsts]


def assign_groups(
    places: Iterable[_Place], groups: Sequence[SlotRange], kept: Mapping[_Place, SlotRange]
) -> dict[_Place, SlotRange]:
    """Give each backend address a group, the one with the most records for each of its users.

    Args:
        places: Addresses of backends, with their protocols; repeats count once.
        groups: What there is to give.
        kept: Those that have flows in a group already, and stay there.
    """
    users = dict.fromkeys(groups, 0)
    assigned: dict[_Place, SlotRange] = {}
    unique = dict.fromkeys(places)
    for place in unique:
        if kept.get(place) in users:
            assigned[place] = kept[place]
            users[kept[place]] += 1
    # The group that leaves most to one more user comes first; of several, the first of them.
    queue = [(-group.count / (users[group] + 1), at) for at, group in enumerate(groups)]
    heapify(queue)
    for place in unique:
        if place not in assigned:
            _, at = queue[0]
            best = groups[at]
            assigned[place] = best
            users[best] += 1
            heapreplace(queue, (-best.count / (users[best] + 1), at))
    return assigned
