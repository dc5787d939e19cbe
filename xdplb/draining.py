"""Taking a balancer down without loss: when its clients are elsewhere.

It says of itself that it is draining, so that ``xdplb health`` sends clients away, and forwards as
before. It is over when no request has come for a while.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from xdplb.facts import Running
    from xdplb.machine import Machine

LOOK_EVERY_S: Final = 0.25
"""How often packets are counted, of which no event tells."""

_REQUEST: Final = "forward"
"""The verdict on a request that is served. ARP, ping and answers to the host have others."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait.

    Attributes:
        idle_s: Seconds without a request after which clients are elsewhere.
        timeout_s: Seconds after which they need not be.
    """

    idle_s: float
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Drained:
    """What came of waiting.

    Attributes:
        waited_s: How long that took, in seconds.
        requests: How many came in the end, within the time that should have been idle.
    """

    waited_s: float
    requests: int


class Drain:
    """A balancer that is draining, and the requests that still come."""

    def __init__(self, names: tuple[str, ...], running: Running, began: float) -> None:
        """Begin to wait for a balancer, at a time of the monotonic clock."""
        self.names = names
        self.indexes = running.indexes
        self.program_id = running.program_id
        self._began = began
        self._last = began
        self._counted: deque[tuple[float, int]] = deque()

    def find(self, every: list[Running]) -> Running | None:
        """The balancer among those that run, whatever its program is now."""
        return next((item for item in every if item.indexes & self.indexes), None)

    def count(self, verdicts: dict[str, int], now: float) -> None:
        """Take in what has become of packets so far."""
        total = verdicts.get(_REQUEST, 0)
        if self._counted and self._counted[-1][1] != total:
            self._last = now
        self._counted.append((now, total))

    def ended(self, patience: Patience, now: float) -> Drained | None:
        """What came of it, if it is over."""
        while len(self._counted) > 1 and self._counted[1][0] <= now - patience.idle_s:
            self._counted.popleft()
        is_idle = now - self._last >= patience.idle_s
        if not is_idle and now - self._began < patience.timeout_s:
            return None
        came = self._counted[-1][1] - self._counted[0][1] if self._counted else 0
        return Drained(now - self._began, 0 if is_idle else max(came, 0))


def mark(machine: Machine, running: Running, *, draining: bool) -> None:
    """Let a balancer say of itself whether it is draining; for a caller that has the lock."""
    machine.change(running, (), replace(running.state, draining=draining))


def unmark(machine: Machine, indexes: AbstractSet[int]) -> None:
    """Let balancers on these interfaces that are still there, and drain, take clients again.

    Raises:
        XdplbError: They cannot be found.
    """
    with machine.lock():
        for running in machine.running():
            if running.state.draining and running.indexes & indexes:
                mark(machine, running, draining=False)
