"""What happens in a second: two looks at the same balancer, one a while after the other."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from xdplb.model import (
        Address,
        BackendStatus,
        BalancerStatus,
        PortRange,
        Protocol,
        ServiceStatus,
    )

HALF_FULL: Final = 0.5
"""From which part on it matters when the rest will be used up."""

_HORIZON_S: Final = 3600.0
"""How far a forecast looks ahead; flows come and go, so that more would mean nothing."""

_TREND_S: Final = 30.0
"""Over how long what a forecast follows from is measured, where there is a history."""

_BITS: Final = 8


class Place(NamedTuple):
    """A backend of a service, whatever else of the two changes."""

    service: Address
    protocol: Protocol
    ports: tuple[PortRange, ...]
    backend: tuple[Address, int | None]


def place_of(service: ServiceStatus, backend: BackendStatus) -> Place:
    """What a backend is known by from one look to the next."""
    return Place(service.address, service.protocol, service.ports, backend.backend.place)


class Traffic(NamedTuple):
    """Packets and bits in a second, toward backends and from them."""

    packets_in: float = 0.0
    bits_in: float = 0.0
    packets_out: float = 0.0
    bits_out: float = 0.0

    @property
    def packets(self) -> float:
        """Those of both directions."""
        return self.packets_in + self.packets_out


NO_TRAFFIC: Final = Traffic()


def total(items: Iterator[Traffic]) -> Traffic:
    """The sum of some traffic."""
    return Traffic(*map(sum, zip(NO_TRAFFIC, *items, strict=True)))


@dataclass(frozen=True, slots=True)
class Rates:
    """What happens on a balancer in a second.

    Attributes:
        over_s: Over how many seconds it was measured.
        traffic: Of each backend that was there all the time.
        verdicts: Packets by verdict.
        flows_full_s: When the flow table will be full at this rate; None if that is not in sight.
        nat_ports_full_s: The same for the NAT ports toward some backend.
    """

    over_s: float
    traffic: Mapping[Place, Traffic] = field(default_factory=dict)
    verdicts: Mapping[str, float] = field(default_factory=dict)
    flows_full_s: float | None = None
    nat_ports_full_s: float | None = None

    def of_service(self, service: ServiceStatus) -> Traffic:
        """The traffic of all backends of a service."""
        return total(self.of_backend(service, item) for item in service.backends)

    def of_backend(self, service: ServiceStatus, backend: BackendStatus) -> Traffic:
        """The traffic of a backend; nothing for one that has come just now."""
        return self.traffic.get(place_of(service, backend), NO_TRAFFIC)


class Look(NamedTuple):
    """The balancers at one moment, in seconds of a clock that only goes forward."""

    at: float
    balancers: tuple[BalancerStatus, ...]


Measured = dict[int, Rates]
"""The rates of each balancer, by the index of its first interface."""


def key_of(balancer: BalancerStatus) -> int:
    """What a balancer is known by from one look to the next, also when its program is replaced."""
    return balancer.interfaces[0].index


def measure(before: Look, after: Look) -> Measured:
    """The rates of the balancers that were there at both looks."""
    seconds = after.at - before.at
    known = {key_of(item): item for item in before.balancers}
    if seconds <= 0:
        return {}
    return {
        key_of(item): _measure(known[key_of(item)], item, seconds)
        for item in after.balancers
        if key_of(item) in known
    }


def _measure(before: BalancerStatus, after: BalancerStatus, seconds: float) -> Rates:
    old, new = _places(before), _places(after)
    both = [(place, old[place], new[place]) for place in new if place in old]
    ends = [
        _full_s(one.nat_ports_used, two.nat_ports_used, two.nat_ports_total, seconds)
        for _, one, two in both
    ]
    return Rates(
        over_s=seconds,
        traffic={place: _traffic(one, two, seconds) for place, one, two in both},
        verdicts={
            name: _since(before.verdicts.get(name, 0), count) / seconds
            for name, count in after.verdicts.items()
        },
        flows_full_s=_full_s(before.flows, after.flows, after.capacity, seconds),
        nat_ports_full_s=min((item for item in ends if item is not None), default=None),
    )


def _places(balancer: BalancerStatus) -> dict[Place, BackendStatus]:
    return {
        place_of(service, backend): backend
        for service in balancer.services
        for backend in service.backends
    }


def _traffic(before: BackendStatus, after: BackendStatus, seconds: float) -> Traffic:
    return Traffic(
        _since(before.packets_in, after.packets_in) / seconds,
        _since(before.bytes_in, after.bytes_in) * _BITS / seconds,
        _since(before.packets_out, after.packets_out) / seconds,
        _since(before.bytes_out, after.bytes_out) * _BITS / seconds,
    )


def _since(before: int, after: int) -> int:
    """How far a counter has come; one that is smaller than before has begun anew."""
    return after - before if after >= before else after


def _full_s(before: int, after: int, room: int, seconds: float) -> float | None:
    """When a room will be full, if it is half full and goes on to fill like this."""
    if not room or after < room * HALF_FULL or after >= room or after <= before:
        return None
    left_s = (room - after) * seconds / (after - before)
    return left_s if left_s <= _HORIZON_S else None


def is_worth_measuring(balancers: Sequence[BalancerStatus]) -> bool:
    """Whether it matters when flows or NAT ports will be used up."""
    return any(
        max(item.flows_fill, *(one.nat_ports_fill for one in item.backends), 0.0) >= HALF_FULL
        for item in balancers
    )


class History:
    """The last looks at the balancers, and what was measured between them."""

    def __init__(self, keep: int) -> None:
        """Remember so many steps."""
        self._looks: deque[Look] = deque(maxlen=keep + 1)
        self._steps: deque[Measured] = deque(maxlen=keep)

    def add(self, look: Look) -> Measured:
        """Take in another look; what was measured since the last one, with the longer trend."""
        if not self._looks:
            self._looks.append(look)
            return {}
        measured = measure(self._looks[-1], look)
        self._looks.append(look)
        self._steps.append(measured)
        first = next(item for item in self._looks if look.at - item.at <= _TREND_S or item is look)
        trend = measure(first, look)
        return {
            key: replace(
                rates,
                flows_full_s=trend[key].flows_full_s,
                nat_ports_full_s=trend[key].nat_ports_full_s,
            )
            if key in trend
            else rates
            for key, rates in measured.items()
        }

    def copy(self) -> History:
        """The same, to be kept as it is."""
        other = History(0)
        other._looks, other._steps = self._looks.copy(), self._steps.copy()
        return other

    def packets(self, key: int, places: Sequence[Place], last: int | None = None) -> list[float]:
        """Packets in a second of some backends together, step by step, the oldest first.

        Args:
            key: Of the balancer.
            places: The backends.
            last: How many steps, the newest ones; None for all.
        """
        steps = [step[key].traffic for step in self._steps if key in step]
        return [
            sum(traffic.get(place, NO_TRAFFIC).packets for place in places)
            for traffic in (steps if last is None else steps[-last:])
        ]

    def all_packets(self) -> list[float]:
        """Packets in a second of all balancers together, step by step, the oldest first."""
        return [
            sum(traffic.packets for rates in step.values() for traffic in rates.traffic.values())
            for step in self._steps
        ]


def sparkline(values: Sequence[float], width: int, bars: str) -> str:
    """The last values as bars, the highest of them as a whole one; only nothing has the lowest.

    Args:
        values: The oldest first.
        width: Characters; where there are fewer values, they stand on the right.
        bars: From the lowest to the highest.
    """
    shown = values[-width:]
    top = max(shown, default=0.0) or 1.0
    last = len(bars) - 1
    return "".join(bars[math.ceil(value / top * last)] for value in shown).rjust(width)
