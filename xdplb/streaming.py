"""Flows from one balancer to another that stands by, as they change; see ``xdplb.stream``."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from xdplb.errors import BusyError, NotReadyError
from xdplb.machine import interface_names
from xdplb.saved import Saved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from xdplb.facts import Running
    from xdplb.machine import Machine
    from xdplb.saved import Restored

_ATTEMPTS: Final = 3


def follow(machine: Machine, running: Running, interval: float) -> Iterator[tuple[Saved, bool]]:
    """All flows of a balancer, and then what changes, in sets.

    Each comes with whether there is more at once; where not, the caller decides when it asks again.
    That it is asked again in vain means that the balancer has gone: it was taken down, or started
    anew, or balances another IP version now.

    Args:
        machine: Where.
        running: The balancer.
        interval: Seconds until the caller asks again.
    """
    tables, versions = _tables(machine, running), running.state.versions
    with machine.follow_flows(running) as follower:
        now: Running | None = running
        while now is not None and now.state.versions == versions:
            names = interface_names(machine, now.state)
            for found in follower.changes(now, names, interval):
                yield found, True
            yield _nothing(), False
            now = _again(machine, tables)


def _tables(machine: Machine, running: Running) -> frozenset[int]:
    """What a balancer keeps where its program is exchanged: its maps, by the kernel's numbers."""
    return frozenset(machine.map_ids(running.program_id))


def _again(machine: Machine, tables: frozenset[int]) -> Running | None:
    """The balancer that has these maps, if there still is one."""
    for _ in range(_ATTEMPTS):
        with suppress(BusyError):
            return next(
                (item for item in machine.running() if tables & _tables(machine, item)), None
            )
    return None


def _nothing() -> Saved:
    """A set that only says that this end is still there."""
    return Saved(time.time(), (), (), ())


class Standby:
    """A balancer that takes what another one tells it, which counts more than what it has."""

    def __init__(
        self, machine: Machine, changing: Callable[[], AbstractContextManager[Running]]
    ) -> None:
        """Begin.

        Args:
            machine: Where.
            changing: The balancer, while nobody else changes one.
        """
        self._machine = machine
        self._changing = changing
        self._tables: frozenset[int] | None = None

    def take(self, found: Saved) -> Restored:
        """Take one set of flows.

        Raises:
            NotReadyError: The balancer has gone, or was started anew: it lacks all sets before.
            InvalidValueError: All flows are of an IP version that it does not balance.
        """
        machine = self._machine
        with self._changing() as running:
            tables = _tables(machine, running)
            if self._tables is not None and not tables & self._tables:
                raise NotReadyError(
                    "the balancer was taken down and started anew meanwhile",
                    "start both ends again: a stream begins with all flows",
                )
            self._tables = tables
            found.refuse_others(running.state.versions)
            names = interface_names(machine, running.state)
            return machine.restore_flows(running, names, found, rules=True)
