"""How busy a processor is with packets: figures of the benchmark, or of one's own machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from xdplb.capacity.measured import FORWARD_NS, LIMIT_MPPS, NEW_FLOW_NS, RETURN_NS

if TYPE_CHECKING:
    from collections.abc import Mapping


def at_flows(table: Mapping[int, int], flows: float) -> float:
    """A measured figure where ``flows`` are between what was measured, by their logarithm."""
    points = sorted(table.items())
    if flows <= points[0][0]:
        return float(points[0][1])
    for (low, before), (high, after) in pairwise(points):
        if flows <= high:
            part = math.log(flows / low) / math.log(high / low)
            return before + part * (after - before)
    return float(points[-1][1])


@dataclass(frozen=True, slots=True)
class Speed:
    """What one balancer can do.

    Attributes:
        processors: Those that packets are spread over by the queues of the interface.
        limit_mpps: Millions of packets a second of one processor that only sends them back.
        packet_ns: What the program takes for a packet of a live flow; None for the benchmark's.
    """

    processors: int = 1
    limit_mpps: float = LIMIT_MPPS
    packet_ns: float | None = None

    def program_ns(self, flows: float) -> float:
        """Nanoseconds that the program takes for a packet, of either direction."""
        if self.packet_ns is not None:
            return self.packet_ns
        return (at_flows(FORWARD_NS, flows) + at_flows(RETURN_NS, flows)) / 2

    def whole_ns(self, flows: float) -> float:
        """The same with what the packet takes before the program and behind it."""
        return 1e3 / self.limit_mpps + self.program_ns(flows)

    def busy(self, packets: float, rate: float, flows: float) -> float:
        """The part of the processors' time that it takes; above 1, packets are lost.

        Args:
            packets: A second, both directions together.
            rate: New flows a second, whose first packets are among them.
            flows: That are there.
        """
        opening = max(at_flows(NEW_FLOW_NS, flows) - self.program_ns(flows), 0.0)
        needed = max(packets, rate) * self.whole_ns(flows) + rate * opening
        return needed / (self.processors * 1e9)

    def most_packets(self, flows: float) -> float:
        """Packets a second of live flows that all processors together can take."""
        return self.processors * 1e9 / self.whole_ns(flows)
