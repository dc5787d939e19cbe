"""What the agent knows and the kernel does not: for metrics, and for the page."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xdplb.agent import watching

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from xdplb.agent.watching import Key
    from xdplb.health.monitor import Monitor
    from xdplb.health.timing import Timings
    from xdplb.model import Backend
    from xdplb.request import Request, Service


@dataclass(frozen=True, slots=True)
class Reload:
    """The last time that the file was read.

    Attributes:
        success: It was taken; else all stayed as it was.
        at: When, in seconds since 1970.
    """

    success: bool
    at: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class Watched:
    """A backend whose health the agent looks after.

    Attributes:
        reason: Of the last bad answer; empty if there was none.
        since: When it became what it is, in seconds since 1970; None where the traffic says that.
        timings: Of its checks; None if it has none.
    """

    service: Service
    backend: Backend
    healthy: bool
    reason: str = ""
    since: float | None = None
    timings: Timings | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """How things are.

    Attributes:
        alive: Its loop goes round.
        interfaces: Those that it looks after.
        runs: They carry a balancer.
        summary: All of it in one line.
        reload: None where there is no file.
    """

    alive: bool
    interfaces: tuple[str, ...]
    runs: bool
    summary: str
    reload: Reload | None = None
    watched: tuple[Watched, ...] = ()


def watched(
    request: Request, monitor: Monitor[Key], unhealthy: AbstractSet[Key], now: float
) -> tuple[Watched, ...]:
    """What is known of the backends that are looked after.

    Args:
        request: What runs.
        monitor: Who asks them.
        unhealthy: Those that are not healthy.
        now: The time, by the monitor's clock.
    """
    began = time.time() - now
    found = []
    for service, backend, key in watching.members(request):
        if service.health is None:
            continue
        timings = monitor.timings(key)
        tally = None if timings is None else monitor.tally(key)
        found.append(
            Watched(
                service,
                backend,
                healthy=key not in unhealthy,
                reason="" if tally is None else tally.reason,
                since=None if tally is None else began + tally.since,
                timings=timings,
            )
        )
    return tuple(found)
