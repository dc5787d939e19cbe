"""What is there to carry a load: NAT ports, room for flows, backends, balancers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from xdplb import wire
from xdplb.capacity.limits import DEFAULT_BACKENDS, MOST_NAT_ADDRESSES
from xdplb.capacity.measured import INDEX_BUCKET, INDEX_HEADER, SAFE_FILL, SEARCHED_WHOLE
from xdplb.capacity.speed import Speed
from xdplb.errors import InvalidValueError
from xdplb.model import DEFAULT_MAX_FLOWS, IPV4, MAX_FLOWS_LIMIT
from xdplb.plan import FLOWS_PER_COUNTER, MIN_CLIENT_COUNTERS
from xdplb.ports import assign_groups, cut_groups
from xdplb.selection import MAGLEV_SIZE

if TYPE_CHECKING:
    from xdplb.ports import NatPool

_COUNTER_ROWS: Final = 2
_ARRAY_STEP: Final = 8


@dataclass(frozen=True, slots=True)
class Stock:
    """What is there; None for what the load is to decide.

    Attributes:
        pool: The NAT ports; ``is_own_pool`` where they are not those that ``up`` takes by itself.
        balancers: That share the load, those that may fail included.
        spare: Of these so many may fail.
        max_flows: Room for flows of the IP version.
        headroom: The part of ports and processors that is to stay free, 0 to below 1.
        packets: A second, both directions together, at all balancers; 0 where nobody said.
    """

    pool: NatPool
    version: int = IPV4
    backends: int | None = None
    nat_addresses: int | None = None
    balancers: int | None = None
    spare: int = 0
    max_flows: int | None = None
    headroom: float = 0.2
    packets: float = 0.0
    speed: Speed = field(default_factory=Speed)
    is_own_pool: bool = False

    def __post_init__(self) -> None:
        """Refuse what no balancer can be.

        Raises:
            InvalidValueError: With the option and its range.
        """
        if self.balancers is not None and self.balancers <= self.spare:
            raise InvalidValueError(
                f"of {self.balancers} balancers {self.spare} cannot fail: none would be left",
                "give more --balancers, or a smaller --spare",
            )
        if (self.backends or 1) * (self.nat_addresses or 1) > MAGLEV_SIZE:
            raise InvalidValueError(
                f"{self.backends} backends from {self.nat_addresses} NAT addresses are too many",
                f"a service has a table of {MAGLEV_SIZE} places for both together",
            )

    @property
    def most_places(self) -> int:
        """How many places the table of a service, and the flow table, can have."""
        return max(min(MAGLEV_SIZE, MAX_FLOWS_LIMIT // self.pool.size), 1)

    @property
    def buyable_places(self) -> int:
        """How many of these there can be with what is named."""
        addresses = self.nat_addresses or MOST_NAT_ADDRESSES
        if self.backends is None:
            return self.most_places
        return min(self.backends * addresses, self.most_places)

    def divide(self, places: int) -> tuple[int, int]:
        """So many places as backends, and NAT addresses for each; fewer where it cannot be."""
        backends, addresses = self.backends, self.nat_addresses
        if backends is None:
            fewest = 1 if addresses else DEFAULT_BACKENDS
            backends = max(fewest, -(-places // (addresses or MOST_NAT_ADDRESSES)))
        return backends, addresses or min(-(-places // backends), MOST_NAT_ADDRESSES)

    def room(self, places: int) -> int:
        """Flows to make room for, so that each place has all ports of the pool if it can be."""
        most = min(places * self.pool.size, MAX_FLOWS_LIMIT)
        return self.max_flows or max(DEFAULT_MAX_FLOWS, most)

    def groups(self, places: int) -> list[tuple[int, int]]:
        """How many ports ``up`` gives away together, and how many places share them."""
        room = self.room(places)
        if places * self.pool.size <= room:
            return [(self.pool.size, 1)] * places
        assigned = assign_groups(range(places), cut_groups(room, self.pool.size), {})
        return [(group.count, users) for group, users in Counter(assigned.values()).items()]

    def ports(self, places: int) -> float:
        """NAT ports of the place that has the fewest; those that are shared are divided."""
        return min(count / users for count, users in self.groups(places))


def safe(ports: float) -> float:
    """Up to how many of a place's ports are in use a search for a free one does not fail."""
    return ports if ports <= SEARCHED_WHOLE else ports * SAFE_FILL


def memory(flows: int, version: int) -> int:
    """Bytes that the kernel takes for flows, all of them when the balancer starts."""
    sizes = wire.SIZES[version]
    entry = INDEX_HEADER + _up(sizes["client_key"]) + _up(sizes["client_value"])
    counters = max(MIN_CLIENT_COUNTERS, _power(flows // FLOWS_PER_COUNTER))
    return (
        flows * (sizes["flow"] + entry)
        + INDEX_BUCKET * _power(flows)
        + _COUNTER_ROWS * counters * _ARRAY_STEP
    )


def _up(size: int) -> int:
    """As the kernel aligns what lies in a map."""
    return -(-size // _ARRAY_STEP) * _ARRAY_STEP


def _power(number: int) -> int:
    """The next power of two."""
    return 1 << max(number - 1, 0).bit_length()
