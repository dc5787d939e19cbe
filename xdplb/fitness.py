"""Whether clients may be sent to a balancer: what a routing engine asks, again and again.

No flow and no packet is counted for that, so it costs a millisecond or two.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdplb.advice import of_passage, some
from xdplb.errors import BusyError, KernelError
from xdplb.machine import interface_names
from xdplb.wire import BackendCode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xdplb.facts import Running
    from xdplb.machine import Machine
    from xdplb.request import Service
    from xdplb.state import AttachedTo, Installed, Side


@dataclass(frozen=True, slots=True)
class ServiceFitness:
    """A service, and why no client should be sent to it; empty where nothing speaks against it."""

    service: Service
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Fitness:
    """What can be said of a balancer.

    Attributes:
        interfaces: Where it is up; empty where none is.
        services: Those that were asked for.
        troubles: What is wrong with the balancer, whatever the service.
        draining: It is to be taken down, which is one of them.
    """

    interfaces: tuple[str, ...] = ()
    services: tuple[ServiceFitness, ...] = ()
    troubles: tuple[str, ...] = ()
    draining: bool = False

    @property
    def is_healthy(self) -> bool:
        """Whether clients may be sent here: for one service is enough."""
        return not self.troubles and any(not item.reason for item in self.services)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not healthy, or which services are not where it is."""
        by_reason: dict[str, list[Service]] = {}
        for item in self.services:
            if item.reason:
                by_reason.setdefault(item.reason, []).append(item.service)
        return (*self.troubles, *(f"{some(of)}: {reason}" for reason, of in by_reason.items()))


def judge(
    machine: Machine,
    interface: str | None = None,
    service: str | None = None,
    known: Fitness | None = None,
) -> Fitness:
    """Look at a balancer; what somebody is changing just now is looked at when that is done.

    Args:
        machine: Where.
        interface: One that the balancer sits on; None where there is only one.
        service: Name or address of the services that matter; None for all.
        known: What was found before: the same again needs no second look.

    Raises:
        XdplbError: This process cannot look.
    """
    found = _look(machine, interface, service)
    if found.troubles and found != known:
        with suppress(BusyError), machine.lock():
            return _look(machine, interface, service)
    return found


def _look(machine: Machine, interface: str | None, service: str | None) -> Fitness:
    """Look at a balancer; what cannot be read is a trouble."""
    try:
        every = machine.running()
        found = every if interface is None else _on(machine, every, interface)
        if not found:
            on = f" on {interface}" if interface else ""
            return Fitness(troubles=(f"no balancer is up{on}",))
        if len(found) > 1:
            return Fitness(troubles=("several balancers are up: say which one with --iface NAME",))
        return _of(machine, found[0], service)
    except KernelError as error:
        return Fitness(troubles=(f"{error}",))


def _on(machine: Machine, every: Sequence[Running], interface: str) -> list[Running]:
    """The balancer on an interface; where that has lost it or is gone, those that were on it."""
    index = machine.interface_index(interface)
    there = None if index is None else machine.attached(index)
    carried = [item for item in every if there and item.program_id == there.program_id]
    return carried or [
        item
        for item in every
        if any(index == on.index or interface == on.name for on in item.state.interfaces)
    ]


def _of(machine: Machine, running: Running, service: str | None) -> Fitness:
    """What can be said of one balancer."""
    state = running.state
    services = tuple(
        ServiceFitness(item.service, _reason(machine, running, side, item))
        for side in state.sides
        for item in side.services
        if service is None or item.service.is_called(service)
    )
    troubles = [what for item in state.interfaces for what in _passage(machine, running, item)]
    if state.draining:
        troubles.append("it is draining: 'xdplb down --drain' is to take it down")
    if not services:
        troubles.append(f"there is no service {service}")
    return Fitness(interface_names(machine, state), services, tuple(troubles), state.draining)


def _passage(machine: Machine, running: Running, item: AttachedTo) -> Iterator[str]:
    """Why packets that come by an interface are not balanced, or cannot come."""
    presence = machine.presence(item.index)
    carried = None if presence is None else presence.program_id
    stranger = machine.describe(carried) if carried and carried != running.program_id else ""
    for one in of_passage(item, presence, running.program_id, stranger):
        yield one.what


def _reason(machine: Machine, running: Running, side: Side, item: Installed) -> str:
    """Why no client should be sent to a service; empty where nothing speaks against it."""
    able = [
        record
        for record in running.records[side.version]
        if record.service == item.number and record.state is BackendCode.UP and record.weight
    ]
    if not able:
        return "no backend takes new flows"
    if not any(record.mac for record in able):
        hops = list(dict.fromkeys(record.next_hop for record in able))
        return f"nobody answers for {some(hops)}, the way to its backends"
    return _astray(machine, item.service)


def _astray(machine: Machine, service: Service) -> str:
    """Why answers would not come back; empty where they do.

    A service address that the host has not got tells nothing: who asks may be about to give it the
    address, or let a router send packets here. Where it has, it needs those of the answers, too.
    """
    others = [item for item in service.own_addresses if item != service.dialled]
    if not others or not machine.has_address(service.dialled):
        return ""
    lost = [item for item in others if not machine.has_address(item)]
    return f"answers go to {some(lost)}, which this host has not got" if lost else ""
