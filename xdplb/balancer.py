"""What one does with a balancer: ``up``, ``status``, ``down``."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from xdplb import live, streaming, tracing
from xdplb.draining import LOOK_EVERY_S, Drain, mark, unmark
from xdplb.errors import BusyError, NotReadyError
from xdplb.explaining import dialled, explain
from xdplb.facts import Found, Running, only
from xdplb.machine import interface_names
from xdplb.startup import start
from xdplb.status import read

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from xdplb.draining import Drained, Patience
    from xdplb.explaining import Explanation
    from xdplb.listing import Flow
    from xdplb.machine import Machine
    from xdplb.model import Backend, BalancerStatus, Clients, Endpoint, Protocol
    from xdplb.request import Request
    from xdplb.saved import Restored, Saved
    from xdplb.startup import Report
    from xdplb.tracing import Tracer

_STATUS_ATTEMPTS = 3
_Known = TypeVar("_Known", Found, Running)


@dataclass(frozen=True, slots=True)
class Stopped:
    """A balancer that ``down`` ended.

    Attributes:
        drained: What came of waiting for its clients to be elsewhere, if that was asked for.
    """

    interfaces: tuple[str, ...]
    program_id: int
    drained: Drained | None = None


class Balancer:
    """The balancers of one network namespace."""

    def __init__(self, machine: Machine) -> None:
        """Work on ``machine``."""
        self._machine = machine

    def up(self, request: Request, saved: Saved | None = None) -> Report:
        """Start a balancer, or replace the one that runs and keep its flows.

        Args:
            request: What is to run.
            saved: Flows that it is to go on with.

        Raises:
            XdplbError: And then everything is as it was.
        """
        return start(self._machine, request, saved)

    def down(self, interfaces: Sequence[str] = ()) -> list[Stopped]:
        """End balancers, also of another version of xdplb, and put back what they changed.

        Args:
            interfaces: Only those that sit on one of these; empty for all.

        Raises:
            AttachError: A program stays where it is.
            NotReadyError: A named interface carries no balancer.
        """
        self._machine.require_privileges()
        with self._machine.lock():
            there = self._machine.found()
            return self._stop_all(there, self._chosen(there, interfaces))

    def drain(
        self, interfaces: Sequence[str], patience: Patience, tell: Callable[[Drain], None]
    ) -> Generator[Stopped, None, None]:
        """End balancers, each when its clients are elsewhere, or when that takes too long.

        Until then they forward as before; where this ends early, they do so afterwards.

        Args:
            interfaces: Only those that sit on one of these; empty for all.
            patience: How long to wait.
            tell: Called for each that begins to drain.

        Raises:
            NotReadyError: A named interface carries no balancer.
            BusyError: 'up' or 'apply' has taken one for its own meanwhile.
        """
        machine = self._machine
        machine.require_privileges()
        drains = []
        with ExitStack() as undo:
            with machine.lock():
                for running in self._chosen(machine.running(), interfaces):
                    names = interface_names(machine, running.state)
                    drains.append(Drain(names, running, time.monotonic()))
                    undo.callback(unmark, machine, running.indexes)
                    mark(machine, running, draining=True)
            for item in drains:
                tell(item)
            while drains:
                for item in drains.copy():
                    stopped = self._end_drained(item, patience)
                    if stopped is not None:
                        drains.remove(item)
                        yield stopped
                if drains:
                    time.sleep(LOOK_EVERY_S)
            undo.pop_all()

    def _end_drained(self, drain: Drain, patience: Patience) -> Stopped | None:
        """End a balancer if its clients are elsewhere; None where that is not so yet."""
        machine, now = self._machine, time.monotonic()
        running = self._draining(drain)
        if running is not None:
            try:
                drain.count(machine.verdicts(running), now)
            except BusyError:  # replaced just now
                return None
        drained = drain.ended(patience, now)
        if drained is None and running is not None:
            return None
        with machine.lock():
            self._draining(drain)  # somebody may have been at it in between
            there = machine.found()
            self._stop_all(there, [item for item in there if item.indexes & drain.indexes])
        return Stopped(drain.names, drain.program_id, drained)

    def _draining(self, drain: Drain) -> Running | None:
        """The balancer that drains; None where another command has taken it down.

        Raises:
            BusyError: It does not drain any more.
        """
        running = drain.find(self._machine.running())
        if running is not None and not running.state.draining:
            raise BusyError(
                f"{', '.join(drain.names)} is not draining any more: 'xdplb up' or 'xdplb apply' "
                "was run meanwhile",
                "it stays up; run 'xdplb down --drain' again to take it down",
            )
        return running

    def _stop_all(self, there: Sequence[Found], chosen: Sequence[Found]) -> list[Stopped]:
        stopped = [self._stop(item) for item in chosen]
        if len(stopped) == len(there):  # what is left now was left by a killed command
            self._machine.unmanage_all()
        return stopped

    def _chosen(self, there: list[_Known], interfaces: Sequence[str]) -> list[_Known]:
        if interfaces:
            indexes = {self._machine.link(name).index for name in interfaces}
            chosen = [item for item in there if indexes & item.indexes]
            if there and not chosen:
                raise NotReadyError(
                    f"no balancer on {', '.join(interfaces)}", "'xdplb status' shows where one is"
                )
            return chosen
        return there

    def _stop(self, found: Found) -> Stopped:
        machine = self._machine
        names = []
        maps = machine.map_ids(found.program_id)
        for index, mode in found.modes.items():
            name = machine.interface_name(index)
            if name is None:
                continue
            names.append(name)
            machine.detach(index, name, found.program_id, mode)
        # Neighbours last: they alone are known again if this process is killed now.
        for restore in sorted(found.restore, key=lambda item: item.what == "neighbour"):
            machine.restore(restore)
        machine.await_freed(maps)
        return Stopped(tuple(names), found.program_id)

    @contextmanager
    def changing(self, interface: str | None) -> Iterator[Running]:
        """The balancer to change, while nobody else changes one.

        Args:
            interface: One that it sits on; None where there is only one balancer.

        Raises:
            NotReadyError: There is none, or no telling which.
        """
        self._machine.require_privileges()
        with self._machine.lock():
            yield self._only(interface)

    def _only(self, interface: str | None) -> Running:
        """The one balancer that is meant.

        Raises:
            NotReadyError: There is none, or no telling which.
        """
        chosen = self._chosen(self._machine.running(), [interface] if interface else ())
        return only(chosen, NotReadyError("no balancer is up", "'xdplb up' starts one"))

    def request(self, interface: str | None = None) -> Request:
        """What would have to be asked for to get a balancer that runs.

        Args:
            interface: One that it sits on; None where there is only one balancer.

        Raises:
            NotReadyError: There is none, or no telling which.
        """
        self._machine.require_privileges()
        return self._only(interface).state.request

    def save(self, interface: str | None = None) -> Saved:
        """The flows of a balancer that runs, and goes on running.

        Args:
            interface: One that it sits on; None where there is only one balancer.

        Raises:
            NotReadyError: There is none, or no telling which.
        """
        self._machine.require_privileges()
        running = self._only(interface)
        return self._machine.save_flows(running, interface_names(self._machine, running.state))

    def flows(self, interface: str | None = None) -> Saved:
        """The flows of a balancer that runs, and reservations that have had a packet.

        Args:
            interface: One that it sits on; None where there is only one balancer.

        Raises:
            NotReadyError: There is none, or no telling which.
        """
        self._machine.require_privileges()
        running = self._only(interface)
        return self._machine.list_flows(running, interface_names(self._machine, running.state))

    def kill(
        self, interface: str | None, choose: Callable[[Request, Saved], Iterable[Flow]]
    ) -> int:
        """End flows: the next packet of such a client opens a new one.

        Args:
            interface: One that the balancer sits on; None where there is only one.
            choose: Which of those that were found.

        Returns:
            How many.

        Raises:
            NotReadyError: There is no balancer, or no telling which.
        """
        with self.changing(interface) as running:
            saved = self._machine.save_flows(running, interface_names(self._machine, running.state))
            chosen = {item.name for item in choose(running.state.request, saved)}
            return self._machine.end_flows(running, chosen) if chosen else 0

    def trace(
        self, wanted: tracing.Wanted, interface: str | None = None
    ) -> AbstractContextManager[Tracer]:
        """Watch packets for as long as the ``with`` block lasts; see ``xdplb.tracing``.

        Args:
            wanted: Which.
            interface: One that the balancer sits on; None where there is only one balancer.
        """
        self._machine.require_privileges()
        return tracing.trace(self._machine, lambda: self._only(interface), wanted)

    def explain(
        self,
        client: Endpoint,
        service: str | None = None,
        protocol: Protocol | None = None,
        interface: str | None = None,
        came_by: str | None = None,
    ) -> Explanation:
        """What would become of a client's packet, and why; nothing changes.

        Args:
            client: Who sends it.
            service: What it is sent to: address or name, with a port; None for the only one.
            protocol: None for that of the service.
            interface: One that the balancer sits on; None where there is only one balancer.
            came_by: Where the packet comes in; None for that by which the client is reached.

        Raises:
            NotReadyError: There is no balancer, or no telling which.
            InvalidValueError: No telling what is meant.
        """
        self._machine.require_privileges()
        running = self._only(interface)
        endpoint, meant = dialled(running, client, service, protocol)
        return explain(self._machine, running, client, endpoint, meant, came_by)

    def restore(self, saved: Saved, interface: str | None = None) -> Restored:
        """Give saved flows to a balancer that runs; it keeps all that it has.

        Args:
            saved: The flows.
            interface: One that it sits on; None where there is only one balancer.

        Raises:
            NotReadyError: There is none, or no telling which.
            InvalidValueError: All flows are of an IP version that it does not balance.
        """
        with self.changing(interface) as running:
            saved.refuse_others(running.state.versions)
            return self._machine.restore_flows(
                running, interface_names(self._machine, running.state), saved
            )

    def follow(self, interval: float, interface: str | None = None) -> Iterator[tuple[Saved, bool]]:
        """All flows of a balancer, and then what changes; see ``streaming.follow``.

        Args:
            interval: Seconds from one set of changes to the next.
            interface: One that it sits on; None where there is only one balancer.

        Raises:
            NotReadyError: There is none, or no telling which.
        """
        self._machine.require_privileges()
        return streaming.follow(self._machine, self._only(interface), interval)

    def standby(self, interface: str | None = None) -> streaming.Standby:
        """A balancer that takes what another one tells it; see ``streaming.Standby``.

        Args:
            interface: One that it sits on; None where there is only one balancer.
        """
        return streaming.Standby(self._machine, lambda: self.changing(interface))

    def add_backend(
        self, backend: Backend, interface: str | None = None, service: str | None = None
    ) -> live.Change:
        """Give a running balancer another backend; see ``live.add``."""
        with self.changing(interface) as running:
            return live.add(self._machine, running, backend, service)

    def remove_backend(
        self, backend: Backend, interface: str | None = None, service: str | None = None
    ) -> live.Change:
        """Take a backend away; see ``live.remove``."""
        with self.changing(interface) as running:
            return live.remove(self._machine, running, backend, service)

    def edit_backend(
        self,
        backend: Backend,
        how: Callable[[Backend], Backend],
        interface: str | None = None,
        service: str | None = None,
    ) -> live.Change:
        """Change a backend's state or weight; see ``live.edit``."""
        with self.changing(interface) as running:
            return live.edit(self._machine, running, backend, how, service)

    def status(self) -> list[BalancerStatus]:
        """Everything that is known of every balancer here.

        Raises:
            BusyError: They were replaced again and again while they were read.
        """
        self._machine.require_privileges()
        for _ in range(_STATUS_ATTEMPTS):
            with suppress(BusyError):
                return self._statuses()
        return self._statuses()

    def _statuses(self) -> list[BalancerStatus]:
        return [read(self._machine, item) for item in self._machine.running()]

    def clients(self, limit: int) -> list[Clients]:
        """The clients of every balancer here, those with the most flows.

        Args:
            limit: How many to name, of each IP version.

        Raises:
            BusyError: A balancer was replaced meanwhile.
        """
        self._machine.require_privileges()
        return [self._machine.clients(item, limit) for item in self._machine.running()]
