"""What clients bring: flows that begin, how long each holds its NAT port, and how many that is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from xdplb.capacity.chance import largest_part, poisson_mean, poisson_most
from xdplb.errors import InvalidValueError
from xdplb.model import DEFAULT_TIMEOUTS, MAX_PORT, Protocol, Timeouts
from xdplb.selection import MAGLEV_SIZE

MOMENT_RISK: Final = 1e-6
"""The chance that at a moment there are more flows than is reckoned with."""

PLACING_RISK: Final = 1e-3
"""The chance that the hash gives a place more of the client addresses than is reckoned with."""


@dataclass(frozen=True, slots=True)
class Load:
    """Flows of one protocol to one service.

    Attributes:
        clients: Endpoints that speak at the same time; None for what ``rate`` makes of them.
        rate: New flows a second.
        duration: Seconds from the first packet of a flow to its last.
        odd: The part of flows, 0 to 1, that UDP backends never answer, or TCP clients never close.
        addresses: Of so many client addresses are the flows; None for one of each.
    """

    protocol: Protocol = Protocol.UDP
    clients: int | None = None
    rate: float = 0.0
    duration: float = 0.0
    timeouts: Timeouts = DEFAULT_TIMEOUTS
    odd: float = 0.0
    addresses: int | None = None

    def __post_init__(self) -> None:
        """Refuse what says nothing, or the same thing twice.

        Raises:
            InvalidValueError: With the options that would say it.
        """
        if self.clients is None and not self.rate:
            raise InvalidValueError(
                "there is no load", "say how many --clients speak, or the --rate of new flows"
            )
        if self.duration and (self.clients is not None or not self.rate):
            raise InvalidValueError(
                "--duration needs --rate, and no --clients",
                "flows that speak are the rate times the duration, or what --clients says",
            )

    @property
    def speaking(self) -> float:
        """Flows between their first packet and their last, in the mean (Little, 1961)."""
        return self.rate * self.duration if self.clients is None else float(self.clients)

    @property
    def idle_s(self) -> float:
        """Seconds that a port is held after the last packet of its flow, in the mean."""
        times = self.timeouts
        usual, odd = times.answered, times.unreplied
        if self.protocol is Protocol.TCP:
            usual, odd = times.transitory, times.established
        return (1 - self.odd) * usual + self.odd * odd

    @property
    def bound(self) -> float:
        """Flows that there can be: an address has 65,535 ports toward one port of a service."""
        return math.inf if self.addresses is None else float(self.addresses * MAX_PORT)

    @property
    def alive(self) -> float:
        """Flows that hold a NAT port at a moment, in the mean."""
        return min(self.speaking + self.rate * self.idle_s, self.bound)

    def part(self, places: int) -> float:
        """The part of the flows that falls to the place with the most of them."""
        even = -(-MAGLEV_SIZE // places) / MAGLEV_SIZE
        if self.addresses is None:
            return even
        return largest_part(self.addresses, even, PLACING_RISK / places)

    def most(self, places: int) -> float:
        """Flows at the fullest of ``places`` at a busy moment.

        A place is a backend address together with the NAT address that it is spoken to from.
        """
        mean = self.alive * self.part(places)
        if self.rate or (self.addresses is None and places > 1):
            mean = poisson_most(mean, MOMENT_RISK / places)
        return min(mean, self.bound if self.rate else self.alive)

    def flows_at(self, most: float, places: int) -> float:
        """Flows that there are, filling up from none, when the fullest place may have ``most``."""
        if places > 1:
            most = poisson_mean(most, MOMENT_RISK / places)
        return most / self.part(places)

    def among(self, balancers: int) -> Load:
        """What each of ``balancers`` gets of it."""
        return replace(
            self,
            clients=None if self.clients is None else -(-self.clients // balancers),
            rate=self.rate / balancers,
            addresses=None if self.addresses is None else -(-self.addresses // balancers),
        )

    @property
    def main_timeout(self) -> str:
        """The field of ``Timeouts`` that most flows are held for after their last packet."""
        if self.protocol is Protocol.TCP:
            return "established" if self.odd == 1 else "transitory"
        return "unreplied" if self.odd == 1 else "answered"

    def with_timeout(self, seconds: int) -> Load:
        """The same load with another main timeout."""
        return replace(self, timeouts=replace(self.timeouts, **{self.main_timeout: seconds}))
