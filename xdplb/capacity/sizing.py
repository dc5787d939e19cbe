"""How a load and what is there come together: what is needed, what fits, and what gives way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from xdplb.capacity.limits import MOST_BALANCERS
from xdplb.capacity.stock import memory, safe
from xdplb.errors import InvalidValueError
from xdplb.model import MAX_PORT, PortRange
from xdplb.ports import FIRST_UNPRIVILEGED, NatPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdplb.capacity.load import Load
    from xdplb.capacity.stock import Stock

ALL_UNPRIVILEGED: Final = NatPool((PortRange(FIRST_UNPRIVILEGED, MAX_PORT),))
LONGEST_TIMEOUT_S: Final = 86_400
"""The longest that ``up`` takes."""


class Refusal(NamedTuple):
    """What happens where a load does not fit.

    Attributes:
        first_s: Seconds from a start without flows to the first new flow that may be refused.
        last_s: And to when one must have been; None where there are ports for all, unevenly used.
        part: Of new flows, or of clients, at least so many are refused from then on, 0 to 1.
    """

    first_s: float
    last_s: float | None
    part: float


@dataclass(frozen=True, slots=True)
class Sizing:
    """A load, and what carries it.

    Attributes:
        working: Balancers that are there when all that may fail have failed.
        backends: Of each balancer, each with the same part of new flows.
        nat_addresses: Of each balancer, toward each backend.
        wanted: Places that leave the headroom free; None where no balancer can have so many.
    """

    load: Load
    stock: Stock
    working: int
    backends: int
    nat_addresses: int
    wanted: int | None

    @property
    def balancers(self) -> int:
        """All of them."""
        return self.working + self.stock.spare

    @property
    def each(self) -> Load:
        """The load of one balancer when those that may fail have failed."""
        return self.load.among(self.working)

    @property
    def places(self) -> int:
        """Backends, each as often as there are NAT addresses: what has a range of ports."""
        return self.backends * self.nat_addresses

    @property
    def max_flows(self) -> int:
        """Flows that one balancer makes room for."""
        return self.stock.room(self.places)

    @property
    def wanted_max_flows(self) -> int:
        """Flows to make room for, so that each place has all ports of the pool."""
        return self.places * self.stock.pool.size

    @property
    def memory(self) -> int:
        """Bytes that the flow table of one balancer takes."""
        return memory(self.max_flows, self.stock.version)

    @property
    def ports(self) -> float:
        """NAT ports of the place with the fewest; shared ones are divided."""
        return self.stock.ports(self.places)

    @property
    def there(self) -> float:
        """Flows of one balancer that have found room."""
        return min(self.each.alive, self.max_flows)

    @property
    def most(self) -> float:
        """Flows of the fullest place at a busy moment."""
        return self.each.most(self.places)

    @property
    def fill(self) -> float:
        """The part of its ports that these are; above 1 where they cannot be."""
        return self.most / self.ports

    @property
    def fits(self) -> bool:
        """Whether no new flow is refused."""
        return self.most <= safe(self.ports)

    @property
    def carries(self) -> bool:
        """Whether the load fits, flows and packets."""
        return self.fits and self.busy <= 1

    @property
    def has_headroom(self) -> bool:
        """Whether the part that is to stay free does."""
        free = 1 - self.stock.headroom
        return self.most <= safe(self.ports) * free and self.busy <= free

    @property
    def per_client(self) -> float:
        """Flows of each client address, in the mean; 0 where it is not known how many there are."""
        return self.each.alive / self.each.addresses if self.each.addresses else 0.0

    @property
    def is_over_limit(self) -> bool:
        """Whether a client has more flows than ``up`` lets it have if nobody says otherwise."""
        return self.per_client > self.stock.pool.size // 2

    @property
    def busy(self) -> float:
        """The part of a balancer's processors that the packets take."""
        return _busy(self.stock, self.each, self.working)

    @property
    def rest_s(self) -> float | None:
        """Seconds that a port lies idle before another flow has it; None without new flows."""
        rate = self.each.rate * self.each.part(self.places)
        mean = self.each.alive * self.each.part(self.places)
        return max(self.ports - mean, 0.0) / rate if rate else None

    @property
    def refusal(self) -> Refusal | None:
        """When new flows are refused, and how many; None where the load fits."""
        if self.fits:
            return None
        each, places = self.each, self.places
        groups = self.stock.groups(places)
        mean = each.alive / places
        part = sum(max(users * mean - ports, 0.0) for ports, users in groups) / each.alive
        there = 0.0 if each.clients is None else each.speaking
        first = _reached(each.flows_at(safe(self.ports), places), there, each.rate)
        room = sum(ports for ports, _ in groups)
        last = _reached(room, there, each.rate) if room < each.alive else None
        return Refusal(first, last, part)

    @property
    def without_backend(self) -> float | None:
        """``fill`` with one backend fewer, whose flows the others have; None for the last one."""
        left = (self.backends - 1) * self.nat_addresses
        return self.each.most(left) / self.ports if left else None

    @property
    def without_balancer(self) -> float | None:
        """``fill`` with one balancer fewer than those that are wanted; None for the last one."""
        left = self.working - 1
        return self.load.among(left).most(self.places) / self.ports if left else None

    @property
    def rehashed(self) -> float | None:
        """``fill`` after one of all balancers failed and every flow moved to another one.

        The flows that have moved leave a record behind until it times out.
        """
        if self.balancers == 1:
            return None
        before, after = self.load.among(self.balancers), self.load.among(self.balancers - 1)
        return (before.most(self.places) + after.most(self.places)) / self.ports

    @property
    def enough_balancers(self) -> int | None:
        """How many would carry the load with the headroom; None where no number does."""
        stock = self.stock
        is_open = (stock.backends is None or stock.nat_addresses is None) and not stock.max_flows
        places = stock.buyable_places if is_open else self.places
        free = 1 - stock.headroom
        limit = safe(stock.ports(places)) * free

        def carry(count: int) -> bool:
            each = self.load.among(count)
            return each.most(places) <= limit and _busy(stock, each, count) <= free

        found = _least(carry, MOST_BALANCERS)
        return None if found is None else found + stock.spare

    @property
    def is_spread_by_port(self) -> bool:
        """Whether fewer places do where a hash of ports, too, spreads the flows of a client."""
        if self.load.addresses is None:
            return False
        needed = _wanted(replace(self.each, addresses=None), self.stock)
        return needed is not None and (self.wanted is None or needed < self.wanted)

    @property
    def fits_with_all_ports(self) -> bool:
        """Whether the load does not fit, and would with all ports that are nobody's by name."""
        wider = replace(self.stock, pool=ALL_UNPRIVILEGED)
        return not self.fits and replace(self, stock=wider).fits

    @property
    def longest_timeout(self) -> int | None:
        """Seconds of the main timeout that fit with the headroom; None where none does."""
        if not self.load.rate:
            return None
        return self._longest(self.places)

    @property
    def timeout_without_addresses(self) -> int | None:
        """The same where each backend is spoken to from one address alone."""
        return self._longest(self.backends) if self.load.rate else None

    def _longest(self, places: int) -> int | None:
        free = 1 - self.stock.headroom
        each, limit = self.each, safe(self.stock.ports(places)) * free

        def is_too_long(seconds: int) -> bool:
            return each.with_timeout(seconds).most(places) > limit

        if is_too_long(1):
            return None
        return _first(is_too_long, 1, LONGEST_TIMEOUT_S + 1) - 1


def size(load: Load, stock: Stock) -> Sizing:
    """Find the fewest balancers that take the packets, and NAT addresses that take the flows.

    What ``stock`` names is taken as it is, whether it suffices or not.

    Raises:
        InvalidValueError: No number of balancers takes so many packets.
    """
    working = _working(load, stock)
    wanted = _wanted(load.among(working), stock)
    backends, addresses = stock.divide(wanted or 1)
    return Sizing(load, stock, working, backends, addresses, wanted)


def _working(load: Load, stock: Stock) -> int:
    """Balancers that have to be there: as many as there are, or as the packets need."""
    if stock.balancers is not None:
        return stock.balancers - stock.spare

    def carry(count: int) -> bool:
        return _busy(stock, load.among(count), count) <= 1 - stock.headroom

    found = _least(carry, MOST_BALANCERS)
    if found is None:
        raise InvalidValueError(
            f"{MOST_BALANCERS} balancers are not quick enough for so many packets",
            "give each more --processors, or quicker ones with --mpps",
        )
    return found


def _wanted(each: Load, stock: Stock) -> int | None:
    """The fewest places that leave the headroom free, if one balancer can have them."""
    limit = safe(stock.pool.size) * (1 - stock.headroom)

    def suffice(places: int) -> bool:
        return each.most(places) <= limit

    return _least(suffice, stock.most_places)


def _busy(stock: Stock, each: Load, balancers: int) -> float:
    """The part of a balancer's processors that its packets take."""
    return stock.speed.busy(stock.packets / balancers, each.rate, each.alive)


def _reached(flows: float, there: float, rate: float) -> float:
    """Seconds until there are ``flows``, of which some are there from the start."""
    missing = max(flows - there, 0.0)
    return missing / rate if rate else 0.0


def _least(is_enough: Callable[[int], bool], most: int) -> int | None:
    """The least number from 1 to ``most`` for which it is enough, if there is one."""
    if is_enough(1):
        return 1
    return _first(is_enough, 1, most) if is_enough(most) else None


def _first(is_enough: Callable[[int], bool], low: int, high: int) -> int:
    """The least number above ``low`` for which it is enough; for ``high`` it is."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
