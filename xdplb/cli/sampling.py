"""Looks at the balancers, one after the other, in a thread: a million flows take their time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xdplb.errors import KernelError
from xdplb.kernel.closing import Closing
from xdplb.rates import Look

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from xdplb.balancer import Balancer
    from xdplb.model import Clients

CLIENTS_EVERY_S: Final = 3.0
"""How often clients are counted, at most."""

_REST: Final = 2.0
"""How many times as long as a look takes nothing is done; for clients, which matter less, more."""

_CLIENTS_REST: Final = 20.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What one look has found.

    Attributes:
        look: The balancers; None where they could not be read just then.
        clients: Those of each balancer; None where they were not counted this time.
        trouble: Why something is missing; empty if nothing is.
    """

    look: Look | None
    clients: list[Clients] | None = None
    trouble: str = ""


def look(balancer: Balancer) -> Look:
    """The balancers as they are now.

    Raises:
        XdplbError: They cannot be read.
    """
    return Look(time.monotonic(), tuple(balancer.status()))


def take(balancer: Balancer, clients: int = 0) -> Sample:
    """Look once.

    Args:
        balancer: At these.
        clients: How many clients of each to name; 0 for none.
    """
    try:
        found = look(balancer)
        return Sample(found, balancer.clients(clients) if clients else None)
    except KernelError as error:  # replaced just now, or of another version
        return Sample(None, trouble=f"{error} ({error.hint})" if error.hint else f"{error}")


class Sampler(Closing):
    """Looks every few seconds."""

    def __init__(
        self, balancer: Balancer, every_s: float, ready: Callable[[], None], clients: int = 0
    ) -> None:
        """Begin.

        Args:
            balancer: At these.
            every_s: How often; less often where it takes long.
            ready: Called, in a thread, when there is something to ``collect``.
            clients: How many clients of each balancer to name, now and then; 0 for never.
        """
        self._balancer = balancer
        self._every_s = every_s
        self._ready = ready
        self._clients = clients
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - 0.02 s

        self._pool = ThreadPoolExecutor(1)
        self._due = self._clients_due = float("-inf")
        self._began = 0.0
        self._with_clients = False
        self._future: Future[Sample] | None = None

    def close(self) -> None:
        """Wait for a look that is on its way, and end."""
        self._pool.shutdown()

    def collect(self) -> Sample | None:
        """What was found since the last call; begins another look when it is time for one.

        Raises:
            XdplbError: The balancers cannot be read at all.
        """
        found = None
        if self._future is not None and self._future.done():
            future, self._future = self._future, None
            self._rest()
            found = future.result()
        if self._future is None and time.monotonic() >= self._due:
            self._began = time.monotonic()
            self._with_clients = bool(self._clients) and self._began >= self._clients_due
            self._future = self._pool.submit(
                take, self._balancer, self._clients if self._with_clients else 0
            )
            self._future.add_done_callback(lambda _: self._ready())
        return found

    def _rest(self) -> None:
        """Say when to look again."""
        now = time.monotonic()
        took = now - self._began
        self._due = max(self._began + self._every_s, now + _REST * took)
        if self._with_clients:
            self._due = max(self._began + self._every_s, now)
            self._clients_due = now + max(CLIENTS_EVERY_S, _CLIENTS_REST * took)

    @property
    def left_s(self) -> float:
        """Seconds until there is something to do."""
        return self._due - time.monotonic() if self._future is None else self._every_s
