"""What no load, and no set of balancers, is beyond."""

from __future__ import annotations

from typing import Final

from xdplb import wire

MOST: Final = 1e9
"""Flows, flows a second, packets a second: beyond any balancer, and below where sums fail."""

MOST_NAT_ADDRESSES: Final = wire.MAX_ADDRESSES - 1
"""One of those that a balancer can have is the one that clients dial."""

MOST_BALANCERS: Final = 1024

DEFAULT_BACKENDS: Final = 2
"""The fewest that are worth a balancer."""
